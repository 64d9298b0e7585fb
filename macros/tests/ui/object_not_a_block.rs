//! Not an `impl` block.
use process_task::process_object;

#[process_object]
struct Counter(u8);

#[process_object]
fn count() -> u8 {
    0
}

fn main() {
    let _ = (Counter(count()).0, count());
}
