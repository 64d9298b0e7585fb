//! An async task.
use process_task::process_task;

#[process_task]
async fn fetch() {}

fn main() {
    let _later = fetch();
}
