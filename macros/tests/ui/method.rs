//! A method.
use process_task::process_task;

struct Counter(u8);

impl Counter {
    #[process_task]
    fn count(&self) -> u8 {
        self.0
    }
}

fn main() {
    Counter(1).count();
}
