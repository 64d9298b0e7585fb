//! A local variable named like a task in scope: a task is a constant, and a constant in a pattern is compared, not bound.
use process_task::process_task;

#[process_task]
fn count(text: &str) -> usize {
    text.len()
}

fn main() {
    let count = count("x");
    println!("{count}");
}
