//! Objects that cannot be used by several threads, and values that cannot travel.
use process_task::process_object;
use std::rc::Rc;

struct Counter(Rc<u8>);

#[process_object]
impl Counter {
    pub fn get(&self) -> u8 {
        *self.0
    }
}

struct Opaque;

struct Store;

#[process_object]
impl Store {
    pub fn new() -> Self {
        Self
    }

    pub fn put(&mut self, _value: Opaque) {}

    pub fn get(&self) -> Opaque {
        Opaque
    }
}

fn main() {}
