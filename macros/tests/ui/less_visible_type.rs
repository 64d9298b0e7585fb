//! A task that is more visible than the type of its parameter.
use process_task::process_task;

#[derive(serde::Serialize, serde::Deserialize)]
struct Inner(u8);

#[process_task]
pub fn open(inner: Inner) -> u8 {
    inner.0
}

fn main() {
    open(Inner(3));
}
