//! A trait's block without the type's own, and two blocks that name one method.
use process_task::process_object;

trait Store {
    fn get(&self) -> u8;
}

struct Disk;

#[process_object]
impl Store for Disk {
    fn get(&self) -> u8 {
        0
    }
}

struct Twice;

#[process_object]
impl Twice {
    pub fn get(&self) -> u8 {
        1
    }
}

#[process_object]
impl Store for Twice {
    fn get(&self) -> u8 {
        2
    }
}

fn main() {}
