//! A type whose lifetime is not shown.
use process_task::process_task;

#[derive(serde::Serialize, serde::Deserialize)]
struct Name<'a>(&'a str);

#[process_task]
fn length(name: Name) -> usize {
    name.0.len()
}

fn main() {
    length(Name(""));
}
