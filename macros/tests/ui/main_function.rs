//! The program's main function.
use process_task::process_task;

#[process_task]
fn main() {}
