//! Parameters named like their task, also inside a pattern.
use process_task::process_task;

#[process_task]
fn count(count: usize) -> usize {
    count
}

#[process_task]
fn sum((sum, more): (u8, u8), mut rest: Vec<u8>) -> u8 {
    rest.clear();
    sum + more
}

#[process_task]
fn kept(mut kept: Vec<u8>) -> Vec<u8> {
    kept.clear();
    kept
}

fn main() {
    count(3);
    sum((1, 2), Vec::new());
    kept(Vec::new());
}
