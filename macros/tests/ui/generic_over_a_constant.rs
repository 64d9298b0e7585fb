//! A task with a constant parameter.
use process_task::process_task;

#[process_task]
fn sum<const N: usize>(items: [u8; N]) -> usize {
    items.len()
}

fn main() {
    sum([1]);
}
