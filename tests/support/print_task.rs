//! A task that prints into a file of its worker's own.
//!
//! Runs in: workers. Never: ends what it prints with a line's end, at which it would be flushed anyway.

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use process_task::{current, process_task};

/// Prints its item, and returns it.
#[process_task]
#[expect(clippy::print_stdout, reason = "what is tested is what becomes of it")]
pub(crate) fn print(directory: &str, item: u32) -> u32 {
    print_to(directory);
    print!("{item} ");
    item
}

/// Has standard output written to a file from now on, whose name is the worker's.
fn print_to(directory: &str) {
    static PRINTS: AtomicBool = AtomicBool::new(false);
    if !PRINTS.swap(true, Relaxed) {
        let file = File::create(format!("{directory}/{}", current().name())).expect("a file that can be written to");
        nix::unistd::dup2_stdout(file).expect("a place for it");
    }
}
