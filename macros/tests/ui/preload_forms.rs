//! Preload functions that nothing could call.
use process_task::process_task;

#[process_task::preload]
fn takes(x: u8) {
    let _ = x;
}

#[process_task::preload]
fn gives() -> u8 {
    3
}

#[process_task::preload(timeout = "2s")]
async unsafe fn waits<T>() {}

#[process_task::preload]
struct Table;

#[process_task]
fn fine() {}

fn main() {
    takes(gives());
    fine();
    let _ = Table;
}
