//! A task with another calling convention.
use process_task::process_task;

#[process_task]
extern "C" fn callback(x: i32) -> i32 {
    x
}

fn main() {
    callback(1);
}
