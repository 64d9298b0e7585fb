//! Values without a size, and types that are left open: the compiler's own message, once for each.
use process_task::process_task;

#[process_task]
fn lengths(text: str, bytes: [u8], shown: dyn std::fmt::Debug) -> usize {
    unreachable!()
}

#[process_task]
fn open(many: Vec<u8>) -> _ {
    many.len()
}

fn main() {}
