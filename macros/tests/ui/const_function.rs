//! A const task.
use process_task::process_task;

#[process_task]
const fn three() -> u8 {
    3
}

fn main() {
    const _: u8 = three();
}
