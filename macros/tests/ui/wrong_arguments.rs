//! A task called and spawned with the wrong arguments.
use process_task::process_task;

#[process_task]
fn add(x: i64, y: i64) -> i64 {
    x + y
}

fn main() {
    add(1, "2");
    add.spawn(1, "2");
    add.spawn(1);
}
