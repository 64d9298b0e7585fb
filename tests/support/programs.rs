//! Programs of `examples/`, run and watched: each leaves no process behind, whatever happens.
//!
//! Runs in: the test process. Never: ends a process that it did not mark, nor waits without end.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Marks every process that a test here started, directly or not.
const MARK: &str = "EXAMPLES_TEST_MARK";

/// Longer than any of these tests takes on a slow machine.
const LIMIT: Duration = Duration::from_mins(2);

/// Runs `test` with a mark for the processes that it starts; fails if it takes too long, or leaves one of them.
pub(crate) fn watched(name: &str, test: impl FnOnce(&str) + Send + 'static) {
    let mark = format!("{}-{name}", std::process::id());
    let (done, finished) = mpsc::channel();
    let for_test = mark.clone();
    let running = thread::spawn(move || {
        // Sent when the test is over, also by a panic.
        let _done = done;
        test(&for_test);
    });
    let outcome: Result<(), _> = finished.recv_timeout(LIMIT);
    let late = outcome == Err(mpsc::RecvTimeoutError::Timeout);
    if late {
        // Without its processes, a test that hangs comes to an end.
        kill_all(&mark);
    }
    let ended = running.join();
    if ended.is_err() {
        kill_all(&mark);
    }
    assert!(!late, "{name} took too long");
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
    wait_for("every process to end", || marked(&mark).is_empty().then_some(()));
}

/// One of the programs that `cargo test` puts beside the tests.
pub(crate) fn example(name: &str, mark: &str) -> Command {
    let own = std::env::current_exe().unwrap();
    let profile = own.ancestors().nth(2).unwrap();
    let program = profile.join("examples").join(name);
    assert!(program.exists(), "{} is missing: `cargo build --examples` makes it", program.display());
    let mut command = Command::new(program);
    command.current_dir(env!("CARGO_MANIFEST_DIR")).env(MARK, mark).env_remove("RUST_BACKTRACE").stdin(Stdio::null());
    command
}

/// The living processes that carry the mark.
pub(crate) fn marked(mark: &str) -> Vec<u32> {
    let entry = format!("{MARK}={mark}").into_bytes();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let ids = processes.filter_map(|process| process.file_name().to_str()?.parse().ok());
    ids.filter(|id: &u32| {
        let environment = fs::read(format!("/proc/{id}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == entry)
    })
    .collect()
}

fn kill_all(mark: &str) {
    for left in marked(mark) {
        let _ = kill(pid(left), Signal::SIGKILL);
    }
}

pub(crate) fn wait_for<T>(what: &str, mut there: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT / 2;
    loop {
        if let Some(found) = there() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

pub(crate) fn pid(id: u32) -> Pid {
    Pid::from_raw(i32::try_from(id).unwrap())
}
