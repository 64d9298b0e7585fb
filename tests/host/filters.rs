//! Programs under a filter that refuses system calls: what does not need the call works as ever.
//!
//! Runs in: victims, which install the filter. Never: installs one in the test process.

use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support;
use crate::support::filter::{Answer, refuse};
use crate::support::subprocess::{self, reached};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use process_task::{Pool, ProcessBuilder, StartMethod, process_task};

under_every_start_method! {
    within 120 seconds;
    refused_close_range_leaks_nothing,
    refused_close_range_and_list_leak_nothing,
    program_that_starts_nothing_needs_no_membarrier,
    refused_membarrier_changes_no_result,
}

fn refused_close_range_leaks_nothing(method: StartMethod) {
    for scene in ["no close_range: EPERM", "no close_range: ENOSYS", "no close_range: EINVAL"] {
        plays(scene, method);
    }
}

fn refused_close_range_and_list_leak_nothing(method: StartMethod) {
    plays("no close_range, no list", method);
}

fn program_that_starts_nothing_needs_no_membarrier(method: StartMethod) {
    plays("executes where membarrier kills", method);
}

fn refused_membarrier_changes_no_result(method: StartMethod) {
    plays("no membarrier", method);
}

fn plays(scene: &str, method: StartMethod) {
    subprocess::plays(&scene.replace(':', ""), method);
}

/// Plays a scene, in a process that a test of this file has started.
#[test]
fn scene() {
    let Some((scene, method)) = subprocess::scene() else { return };
    subprocess::say_panics();
    let close_range = libc::SYS_close_range;
    match scene.as_str() {
        "no close_range EPERM" => refuse(&[close_range], Answer::Errno(Errno::EPERM)),
        "no close_range ENOSYS" => refuse(&[close_range], Answer::Errno(Errno::ENOSYS)),
        "no close_range EINVAL" => refuse(&[close_range], Answer::Errno(Errno::EINVAL)),
        "no close_range, no list" => refuse(&[close_range, libc::SYS_getdents64], Answer::Errno(Errno::EPERM)),
        "no membarrier" => refuse(&[libc::SYS_membarrier], Answer::Errno(Errno::EPERM)),
        "executes where membarrier kills" => {
            refuse(&[libc::SYS_membarrier], Answer::Kill);
            // This program once more, which has the library and makes no use of it.
            let status = Command::new(std::env::current_exe().unwrap()).arg("--list").stdout(Stdio::null()).status();
            assert_eq!(status.unwrap().code(), Some(0));
            return reached("played");
        }
        other => unreachable!("no scene {other}"),
    }
    leaks_nothing(method);
    reached("played");
}

/// A pipe that everything inherits which is executed, and what has just been started stays: its end must be seen.
fn leaks_nothing(method: StartMethod) {
    let (reader, writer) = std::io::pipe().unwrap();
    let (mut reader, writer) = (inherited(reader.into()), inherited(writer.into()));
    // Far behind all others.
    let far = fcntl(&writer, FcntlArg::F_DUPFD(777)).unwrap();
    let process = ProcessBuilder::new().start_method(method).spawn(square, 3).unwrap();
    assert_eq!(process.join(), Ok(9));
    let pool = Pool::builder().workers(2).start_method(method).build().unwrap();
    assert_eq!(pool.map(square, 0..9).unwrap()[8], 64);
    nix::unistd::close(far).unwrap();
    drop(writer);
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut polled = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
    while poll(&mut polled, PollTimeout::from(1000u16)).unwrap() == 0 {
        assert!(Instant::now() < deadline, "something still has the pipe: {}", support::processes::table());
    }
    assert_eq!(reader.read(&mut [0; 1]).unwrap(), 0);
}

fn inherited(end: OwnedFd) -> std::fs::File {
    fcntl(&end, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    end.into()
}

#[process_task]
fn square(x: i64) -> i64 {
    x * x
}
