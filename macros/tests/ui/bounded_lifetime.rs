//! A task whose lifetimes have bounds.
use process_task::process_task;

#[process_task]
fn longer<'a, 'b: 'a>(x: &'a str, y: &'b str) -> usize {
    x.len() + y.len()
}

fn main() {
    longer("", "");
}
