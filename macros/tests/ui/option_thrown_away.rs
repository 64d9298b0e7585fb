//! An option set on a copy that is not used.
#![deny(unused_must_use)]

use std::time::Duration;

use process_task::process_task;

#[process_task]
fn slow() {}

fn main() {
    slow.timeout(Duration::from_secs(1));
    slow.retries(1);
    slow.memory_limit(1 << 20);
    slow();
}
