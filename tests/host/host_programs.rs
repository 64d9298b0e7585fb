//! Host programs that reap every child, ignore SIGCHLD, close their streams, unshare, or call `fork()`: nothing is disturbed.
//!
//! Runs in: victims, which have these habits alone. Never: changes the test process.
#![expect(unsafe_code, reason = "a host program that calls fork(2)")]

use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use crate::support;
use crate::support::subprocess::{self, Victim, reached};
use nix::libc;
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Uid, fork};
use process_task::{ErrorKind, Pool, Process, ProcessBuilder, StartMethod, process_task};

under_every_start_method! {
    within 120 seconds;
    a_host_that_reaps_every_child_takes_nothing,
    a_host_that_ignores_sigchld_misses_nothing,
    a_host_without_streams_finds_nothing_of_ours_in_its_files,
    a_copy_of_the_host_starts_afresh,
    unshared_process_ids_are_refused_until_the_host_forks,
}

fn a_host_that_reaps_every_child_takes_nothing(method: StartMethod) {
    plays(None, "reaps", method);
}

fn a_host_that_ignores_sigchld_misses_nothing(method: StartMethod) {
    plays(Some("trap '' CHLD; exec \"$@\""), "ignores", method);
}

fn a_host_without_streams_finds_nothing_of_ours_in_its_files(method: StartMethod) {
    plays(None, "has no streams", method);
}

fn a_copy_of_the_host_starts_afresh(method: StartMethod) {
    plays(None, "forks", method);
}

fn unshared_process_ids_are_refused_until_the_host_forks(method: StartMethod) {
    if Uid::effective().is_root() {
        plays(None, "unshares", method);
    } else {
        println!("skipped: only root may unshare the namespace of process ids");
    }
}

fn plays(shell: Option<&str>, scene: &str, method: StartMethod) {
    Victim::start_by(shell, scene, method).plays_to_the_end();
}

/// Plays a scene, in a process that a test of this file has started.
#[test]
fn scene() {
    let Some((scene, method)) = subprocess::scene() else { return };
    subprocess::say_panics();
    match scene.as_str() {
        "reaps" => {
            let over = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    while !over.load(Relaxed) {
                        let _ = waitpid(None, Some(WaitPidFlag::WNOHANG));
                    }
                });
                let result = std::panic::catch_unwind(|| statuses_are_right(method));
                over.store(true, Relaxed);
                result.unwrap();
            });
        }
        "ignores" => statuses_are_right(method),
        "has no streams" => no_streams(method),
        "forks" => forks(method),
        "unshares" => unshares(method),
        other => unreachable!("no scene {other}"),
    }
    reached("played");
    // Not by way of the test harness, which would write its own words to whatever is descriptor 1.
    end();
}

#[expect(clippy::exit, reason = "the scene is over")]
fn end() {
    std::process::exit(0);
}

fn statuses_are_right(method: StartMethod) {
    for round in 0..20 {
        let mut process = ProcessBuilder::new().start_method(method).spawn(leave, round).unwrap();
        assert_eq!(process.wait().unwrap().code(), Some(round));
        let error = process.join().unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Exited { code, .. } if *code == round), "{error}");
        let mut killed = ProcessBuilder::new().start_method(method).spawn(sleep, ()).unwrap();
        killed.kill().unwrap();
        assert_eq!(killed.wait().unwrap().signal(), Some(9));
    }
    let mut process = ProcessBuilder::new().start_method(method).spawn(square, 7).unwrap();
    assert_eq!(process.wait().unwrap().code(), Some(0));
    assert_eq!(process.join(), Ok(49));
    let pool = Pool::builder().workers(2).start_method(method).build().unwrap();
    let error = pool.call(leave, 3).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Exited { code: 3, .. }), "{error}");
    assert_eq!(pool.map(square, 0..9).unwrap()[8], 64);
}

fn no_streams(method: StartMethod) {
    for stream in 0..3 {
        nix::unistd::close(stream).unwrap();
    }
    let mut process = ProcessBuilder::new().start_method(method).spawn(square, 7).unwrap();
    let pool = Pool::builder().workers(2).start_method(method).build().unwrap();
    // They get the numbers of the streams, unless something of ours is passing through; nothing of ours may stay.
    let names = ["zero", "one", "two"];
    let mut files = names.map(|name| std::fs::File::create_new(subprocess::stage().join(name)).unwrap());
    let numbers = files.each_ref().map(std::os::fd::AsRawFd::as_raw_fd);
    let strange = |number: &i32| {
        !numbers.contains(number) && std::fs::symlink_metadata(format!("/proc/self/fd/{number}")).is_ok()
    };
    support::eventually("nothing of the library's stays where the streams were", support::PATIENCE, || {
        !(0..3).any(|number| strange(&number))
    });
    assert_eq!(pool.map(square, 0..100).unwrap()[99], 9801);
    assert_eq!(pool.call(length, &vec![7; 1 << 20]).unwrap(), 1 << 20);
    assert_eq!(ProcessBuilder::new().start_method(method).spawn(square, 8).and_then(Process::join), Ok(64));
    assert_eq!(process.wait().unwrap().code(), Some(0));
    assert_eq!(process.join(), Ok(49));
    drop(pool);
    for (name, file) in names.iter().zip(&mut files) {
        std::io::Write::write_all(file, name.as_bytes()).unwrap();
        assert_eq!(std::fs::read_to_string(subprocess::stage().join(name)).unwrap(), *name);
    }
}

fn forks(method: StartMethod) {
    let pool = Pool::builder().workers(2).start_method(method).build().unwrap();
    let busy = pool.submit(nap, 300);
    let process = ProcessBuilder::new().start_method(method).spawn(nap, 300).unwrap();
    // SAFETY: the copy uses locks that the reactor's thread may hold only as the library promises that it may.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let good = std::panic::catch_unwind(|| {
                let error = pool.call(square, 3).unwrap_err();
                assert!(matches!(error.kind(), ErrorKind::Closed { .. }), "{error}");
                assert_eq!(ProcessBuilder::new().start_method(method).spawn(square, 5).and_then(Process::join), Ok(25));
                let own = Pool::builder().workers(2).start_method(method).build().unwrap();
                assert_eq!(own.map(square, 0..9).unwrap()[8], 64);
            });
            drop((pool, process));
            nix::sys::signal::raise(if good.is_ok() {
                nix::sys::signal::Signal::SIGKILL
            } else {
                nix::sys::signal::Signal::SIGABRT
            })
            .unwrap();
        }
        ForkResult::Parent { child } => {
            let ended = waitpid(child, None).unwrap();
            assert!(matches!(ended, WaitStatus::Signaled(_, nix::sys::signal::Signal::SIGKILL, _)), "{ended:?}");
            assert_eq!((busy.join(), process.join()), (Ok(300), Ok(300)));
            assert_eq!(pool.map(square, 0..9).unwrap()[8], 64);
            assert_eq!(ProcessBuilder::new().start_method(method).spawn(square, 5).and_then(Process::join), Ok(25));
        }
    }
}

/// A thread cannot start others once its children are to be in another namespace than itself. A copy is in that namespace.
fn unshares(method: StartMethod) {
    let start = move || ProcessBuilder::new().start_method(method).spawn(namespace, ()).and_then(Process::join);
    let pool = Pool::builder().workers(1).start_method(method).build().unwrap();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let other = std::thread::spawn(move || {
        wait.recv().unwrap();
        start()
    });
    let own = namespace();
    unshare(CloneFlags::CLONE_NEWPID).unwrap();
    for _ in 0..2 {
        let refused = Pool::builder().workers(1).start_method(method).build().unwrap_err();
        for error in [start().unwrap_err(), refused] {
            assert!(error.to_string().contains("unshared the namespace of process ids"), "{error}");
        }
    }
    assert_eq!(pool.call(namespace, ()), Ok(own.clone()), "a worker that was there");
    // SAFETY: the copy uses locks that the reactor's thread may hold only as the library promises that it may.
    match unsafe { fork() }.unwrap() {
        ForkResult::Child => {
            let good = std::panic::catch_unwind(|| {
                assert_ne!(namespace(), own);
                assert_eq!(start(), Ok(namespace()));
                let pool = Pool::builder().workers(2).start_method(method).build().unwrap();
                pool.call(leave, 3).unwrap_err();
                assert_eq!(pool.call(namespace, ()), Ok(namespace()));
            });
            // SAFETY: ends the process, and runs nothing of it. The first process of a namespace ends by no signal of its own.
            unsafe { libc::_exit(i32::from(good.is_err())) }
        }
        ForkResult::Parent { child } => {
            let ended = waitpid(child, None).unwrap();
            assert!(matches!(ended, WaitStatus::Exited(_, 0)), "{ended:?}");
        }
    }
    go.send(()).unwrap();
    assert_eq!(other.join().unwrap(), Ok(own), "a thread that has unshared nothing");
}

#[process_task]
fn namespace() -> PathBuf {
    std::fs::read_link("/proc/thread-self/ns/pid").unwrap()
}

#[process_task]
fn square(x: i64) -> i64 {
    x * x
}

#[process_task]
fn length(bytes: &[u8]) -> usize {
    bytes.len()
}

#[process_task]
#[expect(clippy::exit, reason = "the task is one that ends its process")]
fn leave(code: i32) {
    std::process::exit(code);
}

#[process_task]
fn sleep() {
    std::thread::sleep(Duration::from_secs(1000));
}

#[process_task]
fn nap(milliseconds: u64) -> u64 {
    std::thread::sleep(Duration::from_millis(milliseconds));
    milliseconds
}
