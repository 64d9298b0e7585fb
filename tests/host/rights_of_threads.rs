//! Threads that have restricted themselves alone, and their pools beside those of the others.
//!
//! Runs in: victims, whose threads give rights up for good; the tasks in their children. Never: changes the test process.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

use crate::support;
use crate::support::restrict::{self, give_up_capabilities};
use crate::support::subprocess::{self, plays, reached};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::unistd::{Uid, chroot};
use process_task::{Pool, Process, ProcessBuilder, StartMethod, process_task};

under_every_start_method! {
    within 120 seconds;
    namespaces_are_those_of_the_asking_thread,
    threads_side_by_side_start_without_errors,
    pool_of_an_ended_thread_has_the_programs_rights,
    workers_of_a_jailed_thread_stay_in_its_root,
    workers_of_a_thread_get_none_of_the_programs_capabilities,
}

fn namespaces_are_those_of_the_asking_thread(method: StartMethod) {
    if Uid::effective().is_root() {
        plays("threads", method);
    }
}

fn threads_side_by_side_start_without_errors(method: StartMethod) {
    plays("side by side", method);
}

fn pool_of_an_ended_thread_has_the_programs_rights(method: StartMethod) {
    plays("ended", method);
}

fn workers_of_a_jailed_thread_stay_in_its_root(method: StartMethod) {
    if Uid::effective().is_root() {
        plays("jail", method);
    }
}

fn workers_of_a_thread_get_none_of_the_programs_capabilities(method: StartMethod) {
    if Uid::effective().is_root() {
        plays("capabilities", method);
    }
}

/// Plays a scene, in a process that a test of this file has started.
#[test]
fn scene() {
    let Some((scene, method)) = subprocess::scene() else { return };
    subprocess::say_panics();
    match scene.as_str() {
        "side by side" => side_by_side(method),
        "ended" => ended(method),
        "jail" => {
            let root = restrict::other_root();
            fs::write(root.join("jailed"), "").unwrap();
            beside(method, jail);
        }
        "capabilities" => beside(method, || give_up_capabilities(1 << 21)),
        "threads" => threads(method),
        other => unreachable!("no scene {other}"),
    }
    reached("played");
}

/// What a thread may do: capabilities, `no_new_privs`, a namespace, whether the mark of the jail is at its root, and its directory.
#[process_task]
fn facts() -> (Vec<String>, bool, PathBuf) {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let is_right = |line: &&str| ["CapPrm:", "CapEff:", "NoNewPrivs:"].iter().any(|start| line.starts_with(start));
    let host = fs::read_link("/proc/thread-self/ns/uts").unwrap().display().to_string();
    let rights = status.lines().filter(is_right).map(str::to_owned).chain([host]).collect();
    (rights, Path::new("/jailed").exists(), fs::read_link("/proc/thread-self/cwd").unwrap())
}

#[process_task]
#[expect(clippy::exit, reason = "the task is one that ends its process")]
fn leave() {
    std::process::exit(3);
}

fn start(method: StartMethod) -> (Vec<String>, bool, PathBuf) {
    ProcessBuilder::new().start_method(method).spawn(facts, ()).and_then(Process::join).unwrap()
}

fn pool(method: StartMethod) -> Pool {
    Pool::builder().workers(1).start_method(method).build().unwrap()
}

/// What the next worker may do.
fn replaced(pool: &Pool) -> (Vec<String>, bool, PathBuf) {
    pool.call(leave, ()).unwrap_err();
    pool.call(facts, ()).unwrap()
}

/// Each lets go of the other's fork server, all the time.
fn side_by_side(method: StartMethod) {
    let rounds = support::rounds(40);
    let starts = move || (0..rounds).for_each(|_| assert_eq!(start(method), facts()));
    let other = std::thread::spawn(move || {
        prctl::set_no_new_privs().unwrap();
        starts();
    });
    starts();
    other.join().unwrap();
}

fn ended(method: StartMethod) {
    let pool = std::thread::spawn(move || pool(method)).join().unwrap();
    assert_eq!(pool.call(facts, ()), Ok(facts()));
    let restricted = std::thread::spawn(move || {
        prctl::set_no_new_privs().unwrap();
        assert_eq!(start(method), facts());
    });
    restricted.join().unwrap();
    for _ in 0..3 {
        assert_eq!(replaced(&pool), facts());
    }
}

/// A thread restricts itself, and has a pool. The program's other thread starts processes in between.
fn beside(method: StartMethod, restrict: fn()) {
    let outer = pool(method);
    let (send, built) = mpsc::channel();
    let (done, until) = mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        restrict();
        send.send((pool(method), facts())).unwrap();
        let _ = until.recv();
    });
    let (inner, own) = built.recv().unwrap();
    assert_ne!(own, facts());
    for _ in 0..3 {
        assert_eq!(inner.call(facts, ()).as_ref(), Ok(&own));
        assert_eq!(start(method), facts());
        assert_eq!(replaced(&inner), own);
        assert_eq!(replaced(&outer), facts());
    }
    drop(done);
    thread.join().unwrap();
    let (rights, is_jailed, _) = replaced(&inner);
    assert_eq!((&rights, is_jailed), (&own.0, own.1), "the thread has ended");
}

/// Gives this thread a root of its own, in the namespaces of the others.
fn jail() {
    unshare(CloneFlags::CLONE_FS).unwrap();
    chroot(&subprocess::stage().join("root")).unwrap();
    std::env::set_current_dir("/tmp").unwrap();
}

/// Two threads that may do the same, neither of which can change its namespaces any more, and these are others.
fn threads(method: StartMethod) {
    let starts = move |count: u32| (0..count).for_each(|_| assert_eq!(start(method), facts()));
    let (start_now, told) = mpsc::channel();
    let (ready, is_ready) = mpsc::channel::<()>();
    let apart = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWUTS).unwrap();
        give_up_capabilities(1 << 21);
        ready.send(()).unwrap();
        for count in told {
            starts(count);
            ready.send(()).unwrap();
        }
    });
    is_ready.recv().unwrap();
    give_up_capabilities(1 << 21);
    // A thread that asks for the third time looks for less than before, also if others have asked once in between.
    for (here, apart) in [(4, 1), (4, 4), (1, 1)] {
        starts(here);
        start_now.send(apart).unwrap();
        is_ready.recv().unwrap();
    }
    drop(start_now);
    apart.join().unwrap();
}
