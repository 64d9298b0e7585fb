//! A function of a trait, without a body.
use process_task::process_task;

trait Work {
    #[process_task]
    fn work(x: u8);
}

fn main() {}
