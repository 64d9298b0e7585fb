//! What a task finds in its process and what it leaves there: nothing of what `main` made, and nothing for others.
//!
//! Runs in: the test process, which plays the part of `main`; the tasks in children.
#![expect(unsafe_code, reason = "the environment, and the C library's random numbers")]

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::hint::black_box;
use std::panic;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::process_builder as builder;
use crate::support::restore;
use crate::support::scratch::Scratch;
use crate::support::{self, PATIENCE, eventually};
use nix::libc;
use nix::sys::resource::Resource;
use nix::sys::stat::{Mode, umask};
use process_task::{ErrorKind, Pool, StartMethod, process_task};

under_every_start_method! {
    within 120 seconds;
    what_main_made_is_not_in_a_task,
    initializer_makes_what_main_made_for_each_worker,
    what_a_task_changes_stays_in_its_worker,
    worker_sees_all_processors_unless_pinned,
    threads_of_a_task_have_stacks_of_their_own_size,
    raised_stack_limit_reaches_children,
    timeout_with_retries_costs_the_limit_each_time,
    dropped_iterator_takes_back_what_has_not_begun,
    dropped_future_leaves_its_call_running,
    call_that_tokio_gave_up_waiting_for_can_be_ended,
    values_of_std_lose_what_serde_leaves_out,
}

fn pool(method: StartMethod, workers: usize) -> Pool {
    Pool::builder().workers(workers).start_method(method).build().unwrap()
}

static LOGGER: OnceLock<&str> = OnceLock::new();
static HOOKED: AtomicU32 = AtomicU32::new(0);
static CALLS: AtomicU32 = AtomicU32::new(0);

/// Sets the logger and a panic hook, as programs do at the start of `main`.
fn set_up() {
    LOGGER.get_or_init(|| "a logger");
    panic::set_hook(Box::new(|_| {
        HOOKED.fetch_add(1, Relaxed);
    }));
}

/// Whether there is a logger, and how often the hook was called for one panic.
#[process_task]
fn look() -> (bool, u32) {
    let before = HOOKED.load(Relaxed);
    let _ = panic::catch_unwind(|| panic!("as it was told"));
    (LOGGER.get().is_some(), HOOKED.load(Relaxed) - before)
}

fn what_main_made_is_not_in_a_task(method: StartMethod) {
    let hook = restore::kept_panic_hook();
    set_up();
    let (here, there) = (look(), builder(method).spawn(look, ()).unwrap().join());
    drop(hook);
    assert_eq!(here, (true, 1));
    assert_eq!(there, Ok((false, 0)));
}

#[process_task]
fn set_up_worker() {
    set_up();
}

fn initializer_makes_what_main_made_for_each_worker(method: StartMethod) {
    let pool = Pool::builder().workers(2).start_method(method).initializer(set_up_worker, ()).build().unwrap();
    assert_eq!(pool.map(look, [(); 20]).unwrap(), [(true, 1); 20]);
}

/// What the calls before left in this process: how many there were, a variable, the directory, the mask of new files.
#[process_task]
fn leave_traces() -> (u32, Option<String>, PathBuf, u32) {
    let mask = umask(Mode::S_IRWXO);
    let found = (CALLS.fetch_add(1, Relaxed), env::var("A_TRACE").ok(), env::current_dir().unwrap(), mask.bits());
    // SAFETY: a worker has no other thread that looks at the environment.
    unsafe { env::set_var("A_TRACE", "left") };
    env::set_current_dir("/").unwrap();
    found
}

fn what_a_task_changes_stays_in_its_worker(method: StartMethod) {
    let own = umask(Mode::empty());
    umask(own);
    let directory = env::current_dir().unwrap();
    let untouched = (0, None, directory.clone(), own.bits());
    let one = pool(method, 1);
    assert_eq!(one.call(leave_traces, ()).unwrap(), untouched);
    let left = (1, Some("left".to_owned()), PathBuf::from("/"), Mode::S_IRWXO.bits());
    assert_eq!(one.call(leave_traces, ()).unwrap(), left);
    assert_eq!(pool(method, 1).call(leave_traces, ()).unwrap(), untouched);
    assert_eq!(builder(method).spawn(leave_traces, ()).unwrap().join().unwrap(), untouched);
    assert_eq!((CALLS.load(Relaxed), env::var_os("A_TRACE")), (0, None));
    assert_eq!(env::current_dir().unwrap(), directory);
}

#[process_task]
fn processors() -> usize {
    thread::available_parallelism().unwrap().get()
}

fn worker_sees_all_processors_unless_pinned(method: StartMethod) {
    assert_eq!(pool(method, 8).map(processors, [(); 16]).unwrap(), [processors(); 16]);
    let pinned = Pool::builder().workers(2).start_method(method).pin().build().unwrap();
    assert_eq!(pinned.map(processors, [(); 16]).unwrap(), [1; 16]);
}

/// Uses about `bytes` of stack.
fn descend(bytes: usize) -> usize {
    let frame = black_box([1_u8; 16 << 10]);
    if bytes <= frame.len() { 1 } else { descend(bytes - frame.len()) + usize::from(frame[0]) }
}

#[process_task]
fn deep(bytes: usize) -> usize {
    descend(bytes)
}

#[process_task]
fn deep_on_a_thread(bytes: usize) -> usize {
    let larger = thread::Builder::new().stack_size(4 * bytes);
    larger.spawn(move || descend(bytes)).unwrap().join().unwrap()
}

/// More than the 8 MiB that a stack commonly has.
const DEEP: usize = 20 << 20;

fn threads_of_a_task_have_stacks_of_their_own_size(method: StartMethod) {
    assert!(builder(method).spawn(deep_on_a_thread, DEEP).unwrap().join().unwrap() > 1000);
}

fn raised_stack_limit_reaches_children(method: StartMethod) {
    let back = restore::soft_limit(Resource::RLIMIT_STACK, 1 << 20);
    let low = builder(method).stderr(process_task::Stdio::null()).spawn(deep, DEEP).unwrap().join();
    drop(back);
    let back = restore::soft_limit(Resource::RLIMIT_STACK, 4 * DEEP as u64);
    let spawned = builder(method).spawn(deep, DEEP).unwrap().join();
    let pooled = pool(method, 1).call(deep, DEEP);
    drop(back);
    let error = low.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::StackOverflow);
    assert!(error.to_string().contains("RLIMIT_STACK"), "{error}");
    assert!(spawned.unwrap() > 1000 && pooled.unwrap() > 1000);
}

#[process_task]
fn nap(seconds: u64) {
    thread::sleep(Duration::from_secs(seconds));
}

fn timeout_with_retries_costs_the_limit_each_time(method: StartMethod) {
    let pool = pool(method, 1);
    let limit = Duration::from_millis(50);
    let begun = Instant::now();
    let error = pool.call(nap.timeout(limit).retries(2), 600).unwrap_err();
    assert!(begun.elapsed() >= 3 * limit);
    assert_eq!(error.attempts().len(), 2);
    for attempt in error.attempts().iter().chain([&error]) {
        assert!(matches!(attempt.kind(), ErrorKind::TimedOut { elapsed, .. } if *elapsed >= limit), "{attempt}");
    }
}

/// Leaves a file of the name `item` in `directory`, waits until there is one called `go`, and then leaves one more.
#[process_task]
fn begin_and_end(directory: &Path, item: u32) {
    fs::write(directory.join(format!("begun-{item}")), "").unwrap();
    while !directory.join("go").exists() {
        thread::sleep(Duration::from_millis(1));
    }
    fs::write(directory.join(format!("ended-{item}")), "").unwrap();
}

fn names(directory: &Path, prefix: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter_map(|name| name.strip_prefix(prefix).map(str::to_owned)).collect()
}

fn dropped_iterator_takes_back_what_has_not_begun(method: StartMethod) {
    let scratch = Scratch::new();
    let directory = PathBuf::from(scratch.file("calls"));
    fs::create_dir(&directory).unwrap();
    let pool = pool(method, 2);
    let mut results = pool.imap(begin_and_end, (0..10).map(|item| (&*directory, item)));
    assert!(results.next_timeout(Duration::ZERO).is_err(), "nothing ends yet");
    eventually("two calls begin", PATIENCE, || names(&directory, "begun-").len() == 2);
    drop(results);
    fs::write(directory.join("go"), "").unwrap();
    drop(pool);
    assert_eq!(names(&directory, "begun-").len(), 2, "what had not begun was taken back");
    assert_eq!(names(&directory, "ended-"), names(&directory, "begun-"), "what ran went on to its end");
}

fn dropped_future_leaves_its_call_running(method: StartMethod) {
    let scratch = Scratch::new();
    let directory = PathBuf::from(scratch.file("calls"));
    fs::create_dir(&directory).unwrap();
    let pool = pool(method, 1);
    let future = pool.submit(begin_and_end, (&*directory, 0));
    eventually("the call begins", PATIENCE, || future.is_running());
    drop(future);
    let next = pool.submit(nap, 0);
    assert!(next.wait_timeout(Duration::from_millis(100)).is_err(), "its worker is still busy with the first call");
    fs::write(directory.join("go"), "").unwrap();
    assert!(next.wait_timeout(PATIENCE).is_ok());
    assert_eq!(names(&directory, "ended-").len(), 1);
    let future = pool.submit(nap, 600);
    eventually("the call begins", PATIENCE, || future.is_running());
    assert!(future.cancel_running());
    assert!(pool.submit(nap, 0).wait_timeout(PATIENCE).is_ok(), "the worker was killed, and replaced");
}

fn call_that_tokio_gave_up_waiting_for_can_be_ended(method: StartMethod) {
    let pool = pool(method, 1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let mut handle = pool.submit(nap, 600);
        let waited = tokio::time::timeout(Duration::from_millis(50), &mut handle).await;
        assert!(waited.is_err() && handle.cancel_running());
        assert_eq!(pool.submit(nap, 0).await, Ok(()), "a worker is free again");
        let late = pool.submit(nap.timeout(Duration::from_millis(50)), 600).await.unwrap_err();
        assert!(matches!(late.kind(), ErrorKind::TimedOut { .. }), "{late}");
        assert_eq!(pool.submit(nap, 0).await, Ok(()));
        let mut process = builder(method).spawn(nap, 600).unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(50), &mut process).await.is_err());
        process.kill().unwrap();
        assert!(matches!(process.await.unwrap_err().kind(), ErrorKind::Killed { signal: libc::SIGKILL, .. }));
    });
}

#[process_task]
fn same_address(address: std::net::SocketAddrV6) -> std::net::SocketAddrV6 {
    address
}

#[process_task]
fn add_one(number: &Mutex<u32>) -> u32 {
    let mut number = number.lock().unwrap();
    *number += 1;
    *number
}

fn values_of_std_lose_what_serde_leaves_out(method: StartMethod) {
    let address = std::net::SocketAddrV6::new(std::net::Ipv6Addr::LOCALHOST, 80, 7, 3);
    let seen = builder(method).spawn(same_address, address).unwrap().join().unwrap();
    assert_eq!(seen, std::net::SocketAddrV6::new(std::net::Ipv6Addr::LOCALHOST, 80, 0, 0));
    let number = Mutex::new(1);
    assert_eq!(builder(method).spawn(add_one, &number).unwrap().join(), Ok(2));
    assert_eq!(*number.lock().unwrap(), 1, "the task had a copy");
}

/// Seeds the hash keys of the thread that forks.
#[process_task::preload]
fn seed() {
    black_box(RandomState::new());
}

#[process_task]
fn hash() -> u64 {
    RandomState::new().hash_one(1)
}

#[process_task]
fn c_random() -> i32 {
    // SAFETY: takes nothing, and no other thread asks for random numbers.
    unsafe { libc::rand() }
}

#[test]
fn hash_keys_seeded_before_the_fork_are_equal_in_children() {
    support::promise_within(support::LIMIT, || {
        let of = |method| (0..4).map(|_| builder(method).spawn(hash, ()).unwrap().join().unwrap()).collect();
        let (forked, executed): (BTreeSet<u64>, BTreeSet<u64>) = (of(StartMethod::ForkServer), of(StartMethod::Exec));
        assert_eq!(forked.len(), 1, "a preload made a `RandomState` before");
        assert_eq!(executed.len(), 4, "and does not run in these");
        let numbers = [StartMethod::ForkServer, StartMethod::Exec];
        let numbers = numbers.map(|method| builder(method).spawn(c_random, ()).unwrap().join().unwrap());
        assert_eq!(numbers[0], numbers[1], "as at the start of every C program");
    });
}
