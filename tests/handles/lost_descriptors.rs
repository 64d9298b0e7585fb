//! Programs that close everything that they did not open, as daemons do: errors where processes are lost, and no file that is harmed.
//!
//! Runs in: victims, which close all from 3 up. Never: closes anything of the test process.
#![expect(unsafe_code, reason = "closing descriptors that are others' is the point")]

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use crate::support;
use crate::support::subprocess::{self, plays, reached, stage};
use nix::libc;
use process_task::{ErrorKind, Pool, Process, StartMethod, process_task};

under_every_start_method! {
    within 180 seconds;
    closing_all_before_first_use_changes_nothing,
    calls_under_way_fail_when_all_is_closed,
    idle_pool_fails_when_all_is_closed,
    uses_in_the_moment_of_closing_all_end,
}

fn closing_all_before_first_use_changes_nothing(method: StartMethod) {
    plays("before", method);
}

fn calls_under_way_fail_when_all_is_closed(method: StartMethod) {
    plays("under way", method);
}

fn idle_pool_fails_when_all_is_closed(method: StartMethod) {
    plays("idle", method);
}

fn uses_in_the_moment_of_closing_all_end(method: StartMethod) {
    for _ in 0..support::rounds(2) {
        plays("at once", method);
    }
}

/// Plays a scene, in a process that a test of this file has started.
#[test]
fn scene() {
    let Some((scene, method)) = subprocess::scene() else { return };
    // The first that panics says why.
    std::panic::set_hook(Box::new(|info| {
        let said = File::create_new(stage().join("said"));
        drop(said.and_then(|mut said| said.write_all(info.to_string().as_bytes())));
    }));
    let (done, is_done) = std::sync::mpsc::channel::<()>();
    let playing = std::thread::spawn(move || {
        play(&scene, method);
        drop(done);
    });
    // What hangs says so, and is not waited for.
    let late = is_done.recv_timeout(Duration::from_secs(100)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout);
    assert!(!late, "the scene hangs");
    playing.join().unwrap();
    reached("played");
    // SAFETY: takes a number and does not return.
    unsafe { libc::_exit(0) };
}

fn play(scene: &str, method: StartMethod) {
    let builder = || support::process_builder(method);
    let make_pool = || Pool::builder().workers(2).start_method(method).build();
    if scene == "before" {
        close_all();
        let files = own_files();
        assert_eq!(builder().spawn(square, 3).and_then(Process::join), Ok(9));
        assert_eq!(make_pool().unwrap().map(square, 0..100).unwrap()[99], 9801);
        return are_whole(files);
    }
    let pool = make_pool().unwrap();
    assert_eq!(pool.map(square, 0..100).unwrap()[99], 9801);
    assert_eq!(pool.call(length, &vec![7; 1 << 20]).unwrap(), 1 << 20);
    let files = if scene == "under way" {
        std::thread::scope(|scope| {
            let call = scope.spawn(|| pool.call(sleep, ()));
            let submitted = pool.submit(sleep, ());
            let process = builder().spawn(sleep, ()).unwrap();
            let joined = scope.spawn(|| process.join());
            eventually_busy();
            close_all();
            let files = own_files();
            for error in [call.join().unwrap(), submitted.join(), joined.join().unwrap()] {
                let error = error.unwrap_err();
                assert!(matches!(error.kind(), ErrorKind::Killed { .. }), "{error}");
            }
            files
        })
    } else {
        close_all();
        own_files()
    };
    if scene != "at once" {
        std::thread::sleep(Duration::from_millis(50));
    }
    // What comes of it comes: perhaps a result, as long as the processes live. From some moment on it is the one error.
    let deadline = Instant::now() + Duration::from_secs(20);
    let closed = loop {
        match pool.call(square, 3) {
            Ok(squared) => assert_eq!(squared, 9),
            Err(error) if matches!(error.kind(), ErrorKind::Closed { .. }) => break error,
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::Killed { .. } | ErrorKind::Cancelled), "{error}");
            }
        }
        assert!(Instant::now() < deadline, "the pool goes on");
    };
    assert!(closed.to_string().contains("closed descriptors that it did not open"), "{closed}");
    let error = builder().spawn(square, 3).and_then(Process::join).unwrap_err();
    assert!(error.to_string().contains("closed descriptors that it did not open"), "{error}");
    assert!(make_pool().is_err());
    drop(pool);
    are_whole(files);
}

/// Waits until three tasks run.
fn eventually_busy() {
    let running = || {
        fs::read_dir(stage())
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("asleep"))
            .count()
    };
    support::eventually("three tasks run", support::PATIENCE, || running() == 3);
}

fn close_all() {
    // SAFETY: that it is not safe is what this file is about.
    assert_eq!(unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0) }, 0);
}

/// Files that get the numbers which were the library's.
fn own_files() -> Vec<(File, usize)> {
    let own = |number: usize| {
        let path = stage().join(format!("own-{number}"));
        (File::options().read(true).write(true).create_new(true).open(path).unwrap(), number)
    };
    let files: Vec<_> = (0..60).map(own).collect();
    assert!(files.iter().any(|(file, _)| file.as_raw_fd() == 5), "the numbers are used again");
    files
}

/// They are open, and hold nothing but what is written now.
fn are_whole(files: Vec<(File, usize)>) {
    for (mut file, number) in files {
        let text = format!("this is file {number}");
        file.write_all(text.as_bytes()).unwrap();
        file.rewind().unwrap();
        let mut read = String::new();
        file.read_to_string(&mut read).unwrap();
        assert_eq!(read, text);
    }
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
fn sleep() {
    reached(&format!("asleep-{}", std::process::id()));
    std::thread::sleep(Duration::from_secs(1000));
}
