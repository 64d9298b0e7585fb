//! A test in a process of its own: this test binary, started again for that test alone.
//!
//! Runs in: the harness's process, which starts the others, and in these, which ask where they are.
//! Never: leaves such a process behind, nor waits for one without end.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

/// The variable that only the process of a test, and what that starts, has: the id of the harness's process.
const APART: &str = "PROCESS_TASK_APART";

/// How much longer than its limit a test's process may take, which has a watchdog of its own, to start and to end.
const GRACE: Duration = Duration::from_secs(30);

/// Whether this is the process of a test, or one that a test has started.
pub(crate) fn is_here() -> bool {
    std::env::var_os(APART).is_some()
}

/// In the process of a test: ends it with the harness.
pub(crate) fn end_with_the_harness() {
    let harness = std::env::var(APART).ok().and_then(|id| id.parse().ok());
    let has_harness = || harness == Some(nix::unistd::getppid().as_raw());
    if has_harness() {
        set_pdeathsig(Signal::SIGKILL).expect("a signal that there is");
        // It may have ended before it was asked for.
        assert!(has_harness(), "the harness has ended");
    }
}

/// Runs the test of this thread in another process, which has these variables, and panics with what it says if it fails.
pub(crate) fn run(limit: Duration, variables: &[(&str, &str)]) {
    let test = thread::current().name().expect("the harness names the thread after the test").to_owned();
    let mut said = file_without_a_name();
    let mut command = Command::new(std::env::current_exe().expect("the test binary has a path"));
    command.args(["--exact", &test, "--nocapture", "--test-threads=1"]).env(APART, std::process::id().to_string());
    command.envs(variables.iter().copied()).stdin(Stdio::null()).stdout(said.try_clone().expect("a descriptor"));
    command.stderr(said.try_clone().expect("a descriptor"));
    let status = end_within(limit + GRACE, &mut command.spawn().expect("the test binary starts"));
    let mut output = Vec::new();
    said.rewind().and_then(|()| said.read_to_end(&mut output)).expect("a file that can be read");
    let output = String::from_utf8_lossy(&output);
    assert!(status.success() && output.contains("test result: ok. 1 passed"), "{status}\n{output}");
    println!("{output}");
}

/// Not a pipe, which what a test leaves behind by mistake would keep open.
fn file_without_a_name() -> File {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("process-task-apart-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
    let path = std::env::temp_dir().join(name);
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
    let file = file.expect("a place for what the test says");
    fs::remove_file(path).expect("a file of one's own");
    file
}

/// Waits for the end of a process, and kills it if it takes longer.
fn end_within(time: Duration, child: &mut Child) -> ExitStatus {
    let end = Instant::now() + time;
    loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            return status;
        }
        if Instant::now() > end {
            child.kill().expect("it is our child");
        }
        thread::sleep(Duration::from_millis(2));
    }
}
