//! A result type that holds a `'static` reference: it could be written but never read.
use process_task::process_task;

#[derive(serde::Serialize, serde::Deserialize)]
struct Name(#[serde(borrow)] &'static str);

#[process_task]
fn name() -> Name {
    Name("x")
}

fn main() {
    name();
}
