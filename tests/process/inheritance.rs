//! A child's surroundings are those of its parent at the moment it asks, also in a process that was made before.
//!
//! Runs in: the test process, which changes what is its own and restores it; the tasks in children.
//! Never: shares its process with tests that mind.
#![expect(unsafe_code, reason = "changing the environment and the niceness of a thread")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::processes::{alive, descendants, tagged};
use crate::support::restore;
use crate::support::scratch::Scratch;
use crate::support::{self, PATIENCE, eventually};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::{Pid, close, dup2_stderr};
use process_task::{Pool, ProcessBuilder, StartMethod, process_task};

under_every_start_method! {
    the_environment_is_that_of_the_asking_moment,
    the_working_directory_is_that_of_the_asking_moment,
    a_directory_that_was_removed_is_still_the_childs,
    the_signal_mask_is_that_of_the_asking_thread,
    limits_are_those_of_the_asking_moment,
    niceness_is_that_of_the_asking_thread,
    stderr_is_that_of_the_asking_moment,
    descriptors_not_handed_over_are_closed,
    programs_of_tasks_inherit_streams_alone,
    arguments_of_the_program_are_the_parents,
    boot_mark_is_not_inherited_below_a_child,
    workers_of_a_pool_inherit_as_others_do,
}

fn run<T: process_task::Task<Args<'static> = ()>>(method: StartMethod, task: T) -> T::Output {
    ProcessBuilder::new().start_method(method).spawn(task, ()).unwrap().join().unwrap()
}

#[process_task]
fn environment() -> BTreeMap<OsString, OsString> {
    std::env::vars_os().collect()
}

fn set_variable(key: &str, value: Option<&str>) {
    match value {
        // SAFETY: tests of this file run one at a time, and nothing else here reads the environment meanwhile.
        Some(value) => unsafe { std::env::set_var(key, value) },
        // SAFETY: as above.
        None => unsafe { std::env::remove_var(key) },
    }
}

fn the_environment_is_that_of_the_asking_moment(method: StartMethod) {
    let before = run(method, environment);
    set_variable("ASKED_THEN", Some("first"));
    assert_eq!(run(method, environment).get::<OsString>(&"ASKED_THEN".into()), Some(&"first".into()));
    set_variable("ASKED_THEN", Some("second"));
    let path = std::env::var("PATH").unwrap();
    set_variable("PATH", None);
    let during = run(method, environment);
    assert_eq!(during.get::<OsString>(&"ASKED_THEN".into()), Some(&"second".into()));
    assert!(!during.contains_key::<OsString>(&"PATH".into()));
    assert_eq!(during, std::env::vars_os().collect());
    set_variable("ASKED_THEN", None);
    set_variable("PATH", Some(&path));
    assert_eq!(run(method, environment), before);
}

#[process_task]
fn directory() -> Option<PathBuf> {
    fs::read_link("/proc/self/cwd").ok()
}

fn the_working_directory_is_that_of_the_asking_moment(method: StartMethod) {
    let before = std::env::current_dir().unwrap();
    let scratch = Scratch::new();
    for path in [scratch.path(), Path::new("/"), &before] {
        let back = restore::current_dir(path);
        let seen = run(method, directory);
        drop(back);
        assert_eq!(seen.as_deref(), Some(path));
    }
}

fn a_directory_that_was_removed_is_still_the_childs(method: StartMethod) {
    let scratch = Scratch::new();
    let _back = restore::current_dir(scratch.path());
    fs::remove_dir(scratch.path()).unwrap();
    let seen = ProcessBuilder::new().start_method(method).spawn(directory, ()).and_then(process_task::Process::join);
    assert_eq!(seen.unwrap(), Some(format!("{} (deleted)", scratch.path().display()).into()));
}

/// The line of `/proc/thread-self/status` that starts so.
fn status(field: &str) -> String {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    status.lines().find(|line| line.starts_with(field)).unwrap().to_owned()
}

#[process_task]
fn blocked_signals() -> String {
    status("SigBlk")
}

fn the_signal_mask_is_that_of_the_asking_thread(method: StartMethod) {
    let before = status("SigBlk");
    assert_eq!(run(method, blocked_signals), before);
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGUSR2);
    mask.add(Signal::SIGTERM);
    mask.thread_block().unwrap();
    let (own, seen) = (status("SigBlk"), run(method, blocked_signals));
    mask.thread_unblock().unwrap();
    assert_ne!(own, before);
    assert_eq!(seen, own);
    assert_eq!(run(method, blocked_signals), before);
}

#[process_task]
fn own_limits() -> [(u64, u64); 3] {
    [Resource::RLIMIT_NOFILE, Resource::RLIMIT_FSIZE, Resource::RLIMIT_STACK].map(|which| getrlimit(which).unwrap())
}

fn limits_are_those_of_the_asking_moment(method: StartMethod) {
    let before = own_limits();
    let soft = before[0].0;
    assert_eq!(run(method, own_limits), before);
    let files = restore::soft_limit(Resource::RLIMIT_NOFILE, soft - 7);
    let sizes = restore::soft_limit(Resource::RLIMIT_FSIZE, 1 << 40);
    let (own, seen) = (own_limits(), run(method, own_limits));
    drop((files, sizes));
    assert_eq!(seen, own);
    assert_eq!((seen[0].0, seen[1].0), (soft - 7, 1 << 40));
    assert_eq!(run(method, own_limits), before);
}

#[process_task]
fn niceness() -> i32 {
    // SAFETY: takes two numbers and touches no memory.
    unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
}

fn niceness_is_that_of_the_asking_thread(method: StartMethod) {
    let before = niceness();
    let nicer = before + 3;
    let (own, seen) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            // SAFETY: takes three numbers and touches no memory. On Linux it is for this thread alone.
            unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nicer) };
            (niceness(), run(method, niceness))
        });
        asking.join().unwrap()
    });
    assert_eq!((own, seen), (nicer, nicer));
    assert_eq!(run(method, niceness), before);
}

#[process_task]
fn complain() {
    eprint!("a complaint");
}

fn stderr_is_that_of_the_asking_moment(method: StartMethod) {
    let scratch = Scratch::new();
    let before = std::io::stderr().as_fd().try_clone_to_owned().unwrap();
    std::io::stderr().flush().unwrap();
    dup2_stderr(File::create(scratch.file("stderr")).unwrap()).unwrap();
    let process = ProcessBuilder::new().start_method(method).spawn(complain, ()).and_then(process_task::Process::join);
    dup2_stderr(before).unwrap();
    process.unwrap();
    assert_eq!(fs::read_to_string(scratch.file("stderr")).unwrap(), "a complaint");
}

#[process_task]
fn open_files() -> Vec<PathBuf> {
    let entries = fs::read_dir("/proc/self/fd").unwrap();
    entries.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok()).collect()
}

/// Kills the fork server, so that the next one is started from this very moment.
fn forget_the_fork_server() {
    let own = std::process::id();
    let (server, _) = descendants().into_iter().find(|(_, entry)| entry.parent == own).expect("a fork server");
    kill(Pid::from_raw(server.cast_signed()), Signal::SIGKILL).unwrap();
    eventually("the fork server is gone", PATIENCE, || !alive(server));
}

fn descriptors_not_handed_over_are_closed(method: StartMethod) {
    let scratch = Scratch::new();
    let path = PathBuf::from(scratch.file("private"));
    // Not closed on exec, far beyond those that the library uses, and there before the fork server is.
    let private = fcntl(File::create(&path).unwrap(), FcntlArg::F_DUPFD(777)).unwrap();
    assert!(open_files().contains(&path));
    forget_the_fork_server();
    let (first, second) = (run(method, open_files), run(method, open_files));
    close(private).unwrap();
    assert!(!first.contains(&path) && !second.contains(&path), "{first:?} {second:?}");
    support::warm_up();
}

#[process_task]
fn open_in_a_program() -> String {
    let listed = Command::new("ls").arg("/proc/self/fd").stdin(std::process::Stdio::null()).output().unwrap();
    String::from_utf8(listed.stdout).unwrap()
}

fn programs_of_tasks_inherit_streams_alone(method: StartMethod) {
    assert_eq!(run(method, open_in_a_program), "0\n1\n2\n3\n", "three streams, and the directory that is listed");
}

#[process_task]
fn arguments() -> Vec<OsString> {
    std::env::args_os().collect()
}

fn arguments_of_the_program_are_the_parents(method: StartMethod) {
    assert_eq!(run(method, arguments), arguments());
}

#[process_task]
fn environment_of_a_program() -> String {
    String::from_utf8(Command::new("/usr/bin/env").output().unwrap().stdout).unwrap()
}

fn boot_mark_is_not_inherited_below_a_child(method: StartMethod) {
    for text in [run(method, environment_of_a_program), format!("{:?}", run(method, environment))] {
        assert!(!text.contains("PROCESS_TASK_BOOT"), "{text}");
    }
}

fn workers_of_a_pool_inherit_as_others_do(method: StartMethod) {
    let tag = format!("INHERITED-{}", std::process::id());
    set_variable("ASKED_THEN", Some(&tag));
    let pool = Pool::builder().workers(2).start_method(method).build().unwrap();
    let seen = pool.call(environment, ()).unwrap();
    set_variable("ASKED_THEN", None);
    let later = pool.call(environment, ()).unwrap();
    assert_eq!(seen.get::<OsString>(&"ASKED_THEN".into()), Some(&tag.clone().into()));
    assert_eq!(later, seen, "a worker's environment is that of its own start");
    drop(pool);
    eventually("no process with that environment is left", Duration::from_secs(10), || tagged(&tag).is_empty());
}
