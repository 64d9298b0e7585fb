//! Where a program may not write long files (`RLIMIT_FSIZE`), what does not fit is an error, and no signal ends anything.
//!
//! Runs in: victims, whose limits and dispositions are theirs alone. Never: changes the test process.
#![expect(unsafe_code, reason = "a host with the default disposition of SIGPIPE")]

use std::sync::atomic::AtomicU64;

use crate::support::subprocess::{self, plays, reached};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::stat::Mode;
use process_task::channel::{Queue, pipe};
use process_task::{Error, ErrorKind, Pool, Process, ProcessBuilder, Shared, SharedMut, StartMethod, process_task};

under_every_start_method! {
    within 120 seconds;
    timeline_beyond_the_limit_is_an_error_of_its_end,
    timeline_that_is_dropped_beyond_the_limit_ends_nothing,
    timeline_that_cannot_begin_is_an_error,
    timeline_whose_reader_is_gone_is_an_error,
    memory_beyond_the_limit_is_an_error,
    program_without_any_file_is_told_so,
}

fn timeline_beyond_the_limit_is_an_error_of_its_end(method: StartMethod) {
    plays("timeline", method);
}

fn timeline_that_is_dropped_beyond_the_limit_ends_nothing(method: StartMethod) {
    plays("dropped", method);
}

fn timeline_that_cannot_begin_is_an_error(method: StartMethod) {
    plays("begin", method);
}

fn timeline_whose_reader_is_gone_is_an_error(method: StartMethod) {
    plays("fifo", method);
}

fn memory_beyond_the_limit_is_an_error(method: StartMethod) {
    plays("memory", method);
}

fn program_without_any_file_is_told_so(method: StartMethod) {
    plays("none", method);
}

#[process_task]
fn square(x: u64) -> u64 {
    x * x
}

#[process_task]
fn reversed(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().rev().copied().collect()
}

#[process_task]
fn zeros(len: usize) -> Vec<u8> {
    vec![0; len]
}

/// How long files may be from now on.
fn limit_files(bytes: u64) {
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, bytes, hard).unwrap();
}

fn cannot_write(error: &Error, reason: &str) {
    let ErrorKind::CannotWrite { path, .. } = error.kind() else { panic!("{error}") };
    assert!(path.ends_with("timeline") && error.to_string().contains(reason), "{error}");
}

/// Plays a scene, in a process that a test of this file has started.
#[test]
fn scene() {
    let Some((scene, method)) = subprocess::scene() else { return };
    let (stage, path) = (subprocess::stage(), subprocess::stage().join("timeline"));
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    std::panic::set_hook(Box::new(move |info| {
        let _ = setrlimit(Resource::RLIMIT_FSIZE, hard, hard);
        drop(std::fs::write(stage.join("said"), info.to_string()));
    }));
    let pool = || Pool::builder().workers(2).start_method(method).build();
    let all_are_right = |pool: &Pool| {
        // One event for each of them, and several buffers full of events.
        let handles: Vec<_> = (0..3000).map(|x| pool.submit(square, x)).collect();
        assert!((0..).zip(handles).all(|(x, handle)| handle.join() == Ok(x * x)));
    };
    match scene.as_str() {
        "timeline" => {
            let pool = pool().unwrap();
            for bytes in [100_000, 65_536, 70_001] {
                let timeline = pool.timeline(&path).unwrap();
                limit_files(bytes);
                all_are_right(&pool);
                cannot_write(&timeline.finish().unwrap_err(), "File too large");
                assert_eq!(std::fs::metadata(&path).unwrap().len(), bytes, "it is written as far as it may be");
                limit_files(hard);
            }
            let timeline = pool.timeline(&path).unwrap();
            all_are_right(&pool);
            timeline.finish().unwrap();
        }
        "dropped" => {
            let pool = pool().unwrap();
            let timeline = pool.timeline(&path).unwrap();
            limit_files(1000);
            assert_eq!(pool.map(square, 0..100).unwrap()[99], 9801);
            drop(timeline);
            assert_eq!(pool.call(square, 3), Ok(9));
        }
        "begin" => {
            let pool = pool().unwrap();
            for bytes in [0, 10] {
                limit_files(bytes);
                cannot_write(&pool.timeline(&path).map(drop).unwrap_err(), "File too large");
            }
            assert_eq!(pool.call(square, 3), Ok(9));
        }
        "fifo" => {
            // SAFETY: the default disposition runs no code.
            unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }.unwrap();
            nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
            let pool = pool().unwrap();
            let reader = std::thread::spawn({
                let path = path.clone();
                move || std::fs::File::open(path).unwrap()
            });
            let timeline = pool.timeline(&path).unwrap();
            drop(reader.join().unwrap());
            all_are_right(&pool);
            cannot_write(&timeline.finish().unwrap_err(), "Broken pipe");
        }
        "memory" => memory(method),
        "none" => {
            limit_files(0);
            for error in [ProcessBuilder::new().start_method(method).spawn(square, 3).unwrap_err(), pool().unwrap_err()]
            {
                assert!(error.to_string().contains("File too large"), "{error}");
            }
        }
        other => unreachable!("no scene {other}"),
    }
    limit_files(hard);
    reached("played");
}

/// Room for links and the process table, and for nothing that is longer.
fn memory(method: StartMethod) {
    limit_files(2 << 20);
    let pool = Pool::builder().workers(1).start_method(method).build().unwrap();
    let long = vec![1; 1 << 22];
    let too_large = |error: &Error| assert!(error.to_string().contains("File too large"), "{error}");
    for _ in 0..3 {
        assert_eq!(pool.call(square, 3), Ok(9));
        too_large(&pool.call(reversed, &long).unwrap_err());
        too_large(&pool.call(zeros, 1 << 22).unwrap_err());
        assert_eq!(pool.call(reversed, &long[..100_000]).map(|bytes| bytes.len()), Ok(100_000));
        let process = ProcessBuilder::new().start_method(method).spawn(reversed, &long);
        too_large(&process.and_then(Process::join).unwrap_err());
        let process = ProcessBuilder::new().start_method(method).spawn(zeros, 1 << 22);
        too_large(&process.and_then(Process::join).unwrap_err());
    }
    too_large(&Shared::<[u8]>::from_slice(&long).unwrap_err());
    too_large(&Shared::<[u8]>::zeroed(1 << 22).unwrap_err());
    too_large(&SharedMut::<[u8]>::zeroed(1 << 22).unwrap_err());
    assert!(Shared::new(AtomicU64::new(3)).is_ok());
    too_large(&Queue::<u8>::unbounded().map(drop).unwrap_err());
    let (left, right) = pipe::<Vec<u8>, Vec<u8>>().unwrap();
    assert!(left.send(long.clone()).unwrap_err().to_string().contains("File too large"));
    left.send(vec![7; 100]).unwrap();
    assert_eq!(right.recv().map(|bytes| bytes.len()), Ok(100));
}
