//! A task with a type parameter.
use process_task::process_task;

#[process_task]
fn first<T>(items: Vec<T>) -> usize {
    items.len()
}

fn main() {
    first(vec![1]);
}
