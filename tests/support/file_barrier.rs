//! A gate that tasks wait at: a file in a test's own directory.
//!
//! Runs in: the test process, which opens it, and children, which wait. Never: lets a task wait for ever.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::scratch::Scratch;

/// Waits, in a task, until a process has made the file `gate`.
pub(crate) fn wait_for(gate: &str) {
    let end = Instant::now() + Duration::from_secs(50);
    while !Path::new(gate).exists() {
        assert!(Instant::now() < end, "the gate stays shut");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Makes the file `gate`.
pub(crate) fn open_gate(scratch: &Scratch) {
    std::fs::write(scratch.file("gate"), "").expect("a gate that can be opened");
}

/// The path of the directory, as tasks take it.
pub(crate) fn directory(scratch: &Scratch) -> &str {
    scratch.path().to_str().expect("a path in UTF-8")
}
