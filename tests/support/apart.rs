//! A test in a process of its own: this test binary, started again for that test alone.
//!
//! Runs in: the test process. Its other tests go on meanwhile, and count no process of a test that runs apart.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::{LIMIT, within};

/// The variable that only the process of such a test has.
const APART: &str = "PROCESS_TASK_APART";

/// The processes in which tests run apart.
static RUNNING: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// Whether this is the process of a test that runs apart.
pub(crate) fn is_here() -> bool {
    std::env::var_os(APART).is_some()
}

/// Runs the test of this thread in another process, and panics with what it says if it fails.
pub(crate) fn run() {
    let test = thread::current().name().expect("the harness names the thread after the test").to_owned();
    let said =
        std::env::temp_dir().join(format!("process-task-apart-{}-{}", std::process::id(), test.replace(':', "-")));
    // No census is taken meanwhile, which would count the file.
    let mut child = within(LIMIT, || {
        let file = File::create(&said).expect("a file for what it says");
        let mut command = Command::new(std::env::current_exe().expect("the test binary has a path"));
        command.args(["--exact", &test, "--nocapture", "--test-threads=1"]).env(APART, "1").stdin(Stdio::null());
        command.stdout(file.try_clone().expect("a descriptor")).stderr(file);
        let child = command.spawn().expect("the test binary starts");
        running().insert(child.id());
        child
    });
    let status = child.wait().expect("it is our child");
    let said = within(LIMIT, || {
        running().remove(&child.id());
        let output = fs::read_to_string(&said).unwrap_or_default();
        let _ = fs::remove_file(&said);
        output
    });
    assert!(status.success() && said.contains("test result: ok. 1 passed"), "{status}\n{said}");
    println!("{said}");
}

/// The processes that run such tests now.
pub(crate) fn running() -> std::sync::MutexGuard<'static, BTreeSet<u32>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}
