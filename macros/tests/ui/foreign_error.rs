//! Errors of other crates in results: one message for each, which says that errors travel as text.
use process_task::process_task;

#[process_task]
fn read() -> std::io::Result<u32> {
    Ok(1)
}

#[process_task]
fn anything() -> Result<u32, Box<dyn std::error::Error + Send + Sync>> {
    Ok(1)
}

fn main() {
    read().unwrap();
    anything().unwrap();
}
