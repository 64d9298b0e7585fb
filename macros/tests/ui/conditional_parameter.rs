//! A task with a parameter that is not always there.
use process_task::process_task;

#[process_task]
fn log(text: String, #[cfg(all())] level: u8) {
    println!("{level} {text}");
}

fn main() {
    log(String::new(), 1);
}
