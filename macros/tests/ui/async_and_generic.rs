//! Two mistakes in one item; its callers have no errors.
use process_task::process_task;

#[process_task]
async fn fetch<T>(address: T) -> T {
    address
}

fn main() {
    let _later = fetch(3);
}
