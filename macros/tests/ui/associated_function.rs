//! Functions of an impl block and of a trait, without `self`, and a good task of the same name beside them.
use process_task::process_task;

struct Counter;

impl Counter {
    #[process_task]
    fn count(x: u8) -> u8 {
        x
    }

    #[process_task(timeout = "1s")]
    pub fn long(text: &str, more: Vec<u8>) -> usize {
        text.len() + more.len()
    }
}

trait Counts {
    #[process_task]
    fn in_a_trait(x: u8) -> u8 {
        x
    }
}

mod inner {
    #[process_task::process_task]
    pub fn count(x: u8) -> u16 {
        x.into()
    }
}

fn main() {
    Counter::count(3);
    Counter::long("", Vec::new());
    inner::count(3);
}
