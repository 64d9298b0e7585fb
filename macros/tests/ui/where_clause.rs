//! A task with a where clause.
use process_task::process_task;

#[process_task]
fn length(text: String) -> usize
where
    String: Clone,
{
    text.len()
}

fn main() {
    length(String::new());
}
