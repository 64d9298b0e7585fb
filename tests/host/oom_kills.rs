//! What the kernel's OOM killer does to a process is told as such, where the kernel counts it, and nothing else is.
//!
//! Runs in: victims, in a control group of their own. Never: makes the machine short of memory.

use std::fs;
use std::hint::black_box;
use std::path::PathBuf;

use crate::support;
use crate::support::subprocess::{self, Victim, reached};
use process_task::{ErrorKind, Pool, StartMethod, process_task};

under_every_start_method! {
    oom_kill_is_told_and_another_kill_is_not,
}

#[process_task]
fn fill_memory(bytes: usize) -> u8 {
    let filled = black_box(vec![1_u8; bytes]);
    filled[bytes / 2]
}

#[process_task]
fn kill_self() {
    let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
}

/// Moves this process into a group that may use 256 MiB; false where it may not make one.
fn limit_own_group() -> bool {
    let group = PathBuf::from(format!("/sys/fs/cgroup/memory/process-task-oom-{}", std::process::id()));
    let made = fs::create_dir(&group)
        .and_then(|()| fs::write(group.join("memory.limit_in_bytes"), (256 << 20).to_string()))
        .and_then(|()| fs::write(group.join("cgroup.procs"), std::process::id().to_string()));
    made.is_ok()
}

fn oom_kill_is_told_and_another_kill_is_not(method: StartMethod) {
    let mut victim = Victim::start("is short of memory", method);
    let pid = victim.child.id();
    let status = victim.finish();
    let said = victim.said();
    let group = format!("/sys/fs/cgroup/memory/process-task-oom-{pid}");
    victim.leaves_no_process();
    support::eventually("the group is gone", support::PATIENCE, || {
        fs::remove_dir(&group).is_ok() || !std::path::Path::new(&group).exists()
    });
    assert!(status.success() && victim.on_stage("played").exists(), "{status}\n{said}");
}

/// Plays a scene, in a process that a test of this file has started.
#[test]
fn scene() {
    let Some((_, method)) = subprocess::scene() else { return };
    subprocess::say_panics();
    if limit_own_group() {
        is_short_of_memory(method);
    }
    reached("played");
}

fn is_short_of_memory(method: StartMethod) {
    let words = "; the kernel's OOM killer has ended 1 process of this control group since this one was started";
    let pool = Pool::builder().workers(1).start_method(method).build().unwrap();
    let killed = |error: process_task::Error, told: bool| {
        assert!(matches!(error.kind(), ErrorKind::Killed { signal: 9, .. }), "{error}");
        assert_eq!(error.to_string().ends_with(words), told, "{error}");
    };
    killed(pool.call(kill_self, ()).unwrap_err(), false);
    killed(pool.call(fill_memory, 1 << 30).unwrap_err(), true);
    // The next worker knows of nothing.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let pool = Pool::builder().workers(1).start_method(method).build().unwrap();
    killed(pool.call(kill_self, ()).unwrap_err(), false);
    let process = process_task::ProcessBuilder::new().start_method(method).spawn(fill_memory, 1 << 30).unwrap();
    killed(process.join().unwrap_err(), true);
}
