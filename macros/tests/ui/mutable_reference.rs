//! A task that takes `&mut`.
use process_task::process_task;

#[process_task]
fn push(list: &mut Vec<u8>, nested: Option<&mut u8>) {
    list.extend(nested.map(|it| *it));
}

fn main() {
    push(&mut vec![], None);
}
