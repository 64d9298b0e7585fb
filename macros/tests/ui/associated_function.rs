//! A function of an impl block, without `self`: the macro cannot see where it stands.
use process_task::process_task;

struct Counter;

impl Counter {
    #[process_task]
    fn count(x: u8) -> u8 {
        x
    }
}

fn main() {
    Counter::count(3);
}
