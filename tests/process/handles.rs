//! What a process of its own promises, from its start to its end.
//!
//! Runs in: the test process; the tasks in children. Never: relies on how fast anything is.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::thread::sleep;
use std::time::Duration;

use crate::support::process_builder as builder;
use crate::support::processes::alive;
use crate::support::scratch::Scratch;
use crate::support::{PATIENCE, eventually};
use process_task::{Pool, Process, ProcessInfo, StartMethod, Stdio, active_children, current, process_task};

under_every_start_method! {
    the_result_of_a_task_is_what_it_returned,
    a_process_is_listed_from_its_start_to_its_end,
    arguments_are_the_childs_own_once_it_is_started,
    join_returns_at_the_reply_and_not_at_the_end,
    what_a_task_printed_is_there_when_join_returns,
    what_a_worker_printed_is_there_with_its_result,
    destructors_of_the_task_have_run_when_join_returns,
    exit_handlers_run_before_the_end,
    a_detached_process_goes_on,
    a_dropped_process_goes_on,
    waiting_for_the_end_leaves_the_result,
    a_process_ends_with_code_0_after_a_panic_too,
    untaken_pipe_to_stdin_is_closed_by_join_and_wait,
    a_hundred_short_processes_all_give_their_results,
    children_started_in_a_row_hold_equally_many_descriptors,
    processes_may_be_joined_in_any_order_and_from_any_thread,
}

#[process_task]
fn square(x: i64) -> i64 {
    x * x
}

/// Returns once its stdin is closed.
#[process_task]
fn until_told() -> String {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).unwrap();
    text
}

/// A process that runs until the second value is dropped.
fn waiting(method: StartMethod, name: &str) -> (Process<String>, std::io::PipeWriter) {
    let mut process = builder(method).name(name).stdin(Stdio::piped()).spawn(until_told, ()).unwrap();
    let stdin = process.take_stdin().unwrap();
    assert!(process.take_stdin().is_none(), "there is one end of a pipe to take");
    (process, stdin)
}

fn the_result_of_a_task_is_what_it_returned(method: StartMethod) {
    assert_eq!(builder(method).spawn(square, 10).unwrap().join().unwrap(), 100);
    assert_eq!(square.spawn(-3).join().unwrap(), 9);
}

fn a_process_is_listed_from_its_start_to_its_end(method: StartMethod) {
    assert_eq!(active_children(), []);
    let (mut process, stdin) = waiting(method, "listed");
    let id = process.pid().unwrap();
    assert_eq!(process.name(), "listed");
    assert_ne!(id, std::process::id());
    assert!(alive(id));
    assert!(!process.is_finished());
    assert_eq!(process.try_wait().unwrap(), None);
    assert!(process.wait_timeout(Duration::ZERO).is_err());
    assert!(process.wait_timeout(Duration::from_millis(20)).is_err());
    let listed: Vec<_> = active_children().iter().map(|child| (child.name().to_owned(), child.pid())).collect();
    assert_eq!(listed, [("listed".to_owned(), id)]);

    drop(stdin);
    assert_eq!(process.wait().unwrap().code(), Some(0));
    assert!(process.is_finished());
    assert_eq!(process.try_wait().unwrap().unwrap().code(), Some(0));
    assert_eq!(process.wait_timeout(Duration::MAX).unwrap().unwrap().code(), Some(0));
    assert_eq!(active_children(), []);
    assert!(!alive(id));
    assert_eq!(process.pid(), Some(id), "it keeps its number in what we say of it");
    assert_eq!(process.join().unwrap(), "");
}

#[process_task]
fn describe_oneself(prefix: &str, numbers: &[f64]) -> (String, ProcessInfoParts) {
    (format!("{prefix} {numbers:?}"), parts(&current()))
}

type ProcessInfoParts = (String, u32);

fn parts(info: &ProcessInfo) -> ProcessInfoParts {
    (info.name().to_owned(), info.pid())
}

fn arguments_are_the_childs_own_once_it_is_started(method: StartMethod) {
    let process = {
        let (prefix, numbers) = (String::from("a"), vec![1.5, -0.0]);
        builder(method).name("own").spawn(describe_oneself, (&prefix, &numbers)).unwrap()
        // Both are gone here.
    };
    let id = process.pid().unwrap();
    assert_eq!(process.join().unwrap(), ("a [1.5, -0.0]".to_owned(), ("own".to_owned(), id)));
}

thread_local! {
    static AT_EXIT: RefCell<Option<AtExit>> = const { RefCell::new(None) };
}

/// What a thread keeps to its end, the exit of its process: there it reads its stdin up, then writes a file.
struct AtExit(String);

impl Drop for AtExit {
    fn drop(&mut self) {
        let _ = std::io::stdin().read_to_string(&mut String::new());
        fs::write(&self.0, "exit").unwrap();
    }
}

#[process_task]
fn leave_an_exit_handler(path: &str) -> u32 {
    AT_EXIT.with_borrow_mut(|at_exit| *at_exit = Some(AtExit(path.to_owned())));
    std::process::id()
}

fn join_returns_at_the_reply_and_not_at_the_end(method: StartMethod) {
    let scratch = Scratch::new();
    let path = scratch.file("end");
    let mut process = builder(method).stdin(Stdio::piped()).spawn(leave_an_exit_handler, &path).unwrap();
    let stdin = process.take_stdin().unwrap();
    let id = process.join().unwrap();
    assert!(alive(id), "its exit handler waits for us");
    assert_eq!(active_children().iter().map(ProcessInfo::pid).collect::<Vec<_>>(), [id]);
    assert!(!fs::exists(&path).unwrap());
    drop(stdin);
    eventually("the process ends", PATIENCE, || !alive(id));
    assert_eq!(fs::read_to_string(&path).unwrap(), "exit");
}

fn exit_handlers_run_before_the_end(method: StartMethod) {
    let scratch = Scratch::new();
    let path = scratch.file("end");
    let mut process = builder(method).spawn(leave_an_exit_handler, &path).unwrap();
    assert_eq!(process.wait().unwrap().code(), Some(0));
    assert_eq!(fs::read_to_string(&path).unwrap(), "exit");
}

#[process_task]
fn print_without_a_newline(text: &str) {
    print!("{text}");
}

fn what_a_task_printed_is_there_when_join_returns(method: StartMethod) {
    let scratch = Scratch::new();
    for round in 0..10 {
        let path = scratch.file(&format!("output-{round}"));
        let text = "x".repeat(round * 1_000);
        let process = builder(method).stdout(File::create(&path).unwrap()).spawn(print_without_a_newline, &text);
        process.unwrap().join().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}

/// Has a worker print, and returns what is in the file of our common stdout while the worker lives on.
#[process_task]
fn have_a_worker_print(exec: bool, path: &str) -> String {
    let method = if exec { StartMethod::Exec } else { StartMethod::ForkServer };
    let pool = Pool::builder().workers(1).start_method(method).build().unwrap();
    pool.call(print_without_a_newline, "from a worker").unwrap();
    fs::read_to_string(path).unwrap()
}

fn what_a_worker_printed_is_there_with_its_result(method: StartMethod) {
    let scratch = Scratch::new();
    let path = scratch.file("output");
    let file = File::create(&path).unwrap();
    let process =
        builder(method).stdout(file).spawn(have_a_worker_print, (method == StartMethod::Exec, &path)).unwrap();
    assert_eq!(process.join().unwrap(), "from a worker");
}

/// Writes its file when it is dropped, and takes its time.
struct Slow(String);

impl Drop for Slow {
    fn drop(&mut self) {
        sleep(Duration::from_millis(30));
        fs::write(&self.0, "dropped").unwrap();
    }
}

#[process_task]
fn hold_something(path: &str) -> usize {
    let slow = Slow(path.to_owned());
    slow.0.len()
}

fn destructors_of_the_task_have_run_when_join_returns(method: StartMethod) {
    let scratch = Scratch::new();
    let path = scratch.file("destructor");
    assert_eq!(builder(method).spawn(hold_something, &path).unwrap().join().unwrap(), path.len());
    assert_eq!(fs::read_to_string(&path).unwrap(), "dropped");
}

#[process_task]
fn write_when_told(path: &str) {
    std::io::stdin().read_to_string(&mut String::new()).unwrap();
    fs::write(path, "done").unwrap();
}

fn goes_on_after(method: StartMethod, let_go: fn(Process<()>)) {
    let scratch = Scratch::new();
    let path = scratch.file("proof");
    let mut process = builder(method).stdin(Stdio::piped()).spawn(write_when_told, &path).unwrap();
    let (id, stdin) = (process.pid().unwrap(), process.take_stdin().unwrap());
    let_go(process);
    assert!(alive(id));
    assert_eq!(active_children().len(), 1);
    drop(stdin);
    eventually("the process ends", PATIENCE, || !alive(id));
    assert_eq!(fs::read_to_string(&path).unwrap(), "done");
    eventually("it is not listed any more", PATIENCE, || active_children().is_empty());
}

fn a_detached_process_goes_on(method: StartMethod) {
    goes_on_after(method, Process::detach);
}

fn a_dropped_process_goes_on(method: StartMethod) {
    goes_on_after(method, drop);
}

fn waiting_for_the_end_leaves_the_result(method: StartMethod) {
    let mut process = builder(method).spawn(square, 5).unwrap();
    for _ in 0..3 {
        assert_eq!(process.wait().unwrap().code(), Some(0));
    }
    assert_eq!(process.join().unwrap(), 25);
}

#[process_task]
fn give_up() {
    panic!("given up");
}

fn a_process_ends_with_code_0_after_a_panic_too(method: StartMethod) {
    let mut process = builder(method).stderr(Stdio::null()).spawn(give_up, ()).unwrap();
    assert_eq!(process.wait().unwrap().code(), Some(0));
    assert!(process.join().is_err());
}

fn untaken_pipe_to_stdin_is_closed_by_join_and_wait(method: StartMethod) {
    let process = builder(method).stdin(Stdio::piped()).spawn(until_told, ()).unwrap();
    assert_eq!(process.join().unwrap(), "");
    let mut process = builder(method).stdin(Stdio::piped()).spawn(until_told, ()).unwrap();
    assert_eq!(process.wait().unwrap().code(), Some(0));
    let (process, mut stdin) = waiting(method, "told");
    stdin.write_all(b"some words").unwrap();
    drop(stdin);
    assert_eq!(process.join().unwrap(), "some words");
}

fn a_hundred_short_processes_all_give_their_results(method: StartMethod) {
    let mut processes: Vec<_> = (0..100).map(|x| builder(method).spawn(square, x).unwrap()).collect();
    for process in &mut processes {
        assert_eq!(process.wait().unwrap().code(), Some(0));
    }
    for (x, process) in (0..).zip(processes) {
        assert_eq!(process.join().unwrap(), x * x);
    }
}

#[process_task]
fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

fn children_started_in_a_row_hold_equally_many_descriptors(method: StartMethod) {
    let running: Vec<_> = (0..5).map(|_| builder(method).spawn(open_descriptors, ()).unwrap()).collect();
    let counts: Vec<_> = running.into_iter().map(|process| process.join().unwrap()).collect();
    assert!(counts.iter().all(|count| *count == counts[0]), "{counts:?}");
    // The three streams, the link (socket, two halves, bells), the image, and the listing itself.
    assert!(counts[0] <= 16, "{counts:?}");
}

fn processes_may_be_joined_in_any_order_and_from_any_thread(method: StartMethod) {
    let processes: Vec<_> = (0..8).map(|x| (x, builder(method).spawn(square, x).unwrap())).collect();
    std::thread::scope(|scope| {
        for (x, process) in processes.into_iter().rev() {
            scope.spawn(move || assert_eq!(process.join().unwrap(), x * x));
        }
    });
}
