//! An unsafe task.
use process_task::process_task;

#[process_task]
unsafe fn read() {}

fn main() {
    unsafe { read() }
}
