//! Tasks that take and give `'static` references.
use process_task::process_task;

#[process_task]
fn greet(name: &'static str, more: Option<&'static [u8]>) -> &'static str {
    let _ = more;
    name
}

fn main() {
    greet("", None);
}
