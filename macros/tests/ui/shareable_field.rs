//! Fields that cannot live in shared memory, each pointed at.
use process_task::Shareable;

#[derive(Shareable)]
struct Settings {
    name: String,
    size: u64,
    label: &'static str,
    last: Option<u32>,
    initial: char,
}

#[derive(Shareable)]
struct Row<T>(Vec<T>, T);

struct Plain;

#[derive(Shareable)]
struct Outer {
    inner: Plain,
}

fn main() {}
