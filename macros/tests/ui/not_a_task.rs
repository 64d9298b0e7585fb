//! Something that is no task where one is needed.
use process_task::process_task;

use process_task::Task;

#[process_task]
fn task() {}

fn function() {}

fn run<T: Task>(_task: T) {}

fn main() {
    run(task);
    run(function);
    run(|| ());
    run(*task);
}
