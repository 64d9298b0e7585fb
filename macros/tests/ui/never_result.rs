//! A task that never returns.
use process_task::process_task;

#[process_task]
fn forever() -> ! {
    loop {}
}

fn main() {
    let _: fn() -> ! = forever;
}
