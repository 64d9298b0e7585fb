//! A task that takes and gives `impl Trait`.
use process_task::process_task;

#[process_task]
fn numbers(count: impl Into<u8>) -> impl Iterator<Item = u8> {
    0..count.into()
}

fn main() {
    numbers(3).count();
}
