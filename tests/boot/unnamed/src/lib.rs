//! A dependency that `program` lists and never names, so the compiler does not link it.
//!
//! Owns: a task and a preload that are missing from `program`. Runs in: nothing. Never: is linked.

use process_task::{preload, process_task};

#[preload]
fn warm() {
    named::note("unnamed");
}

/// A task that nothing can call: to call it is to name the crate.
#[process_task]
pub fn lost() -> i64 {
    0
}
