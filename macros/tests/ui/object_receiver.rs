//! Receivers other than `&self` and `&mut self`.
use process_task::process_object;
use std::pin::Pin;
use std::sync::Arc;

struct Counter(u8);

#[process_object]
impl Counter {
    pub fn by_value(self) -> u8 {
        self.0
    }

    pub fn by_mutable_value(mut self) -> u8 {
        self.0 += 1;
        self.0
    }

    pub fn in_a_box(self: Box<Self>) -> u8 {
        self.0
    }

    pub fn in_an_arc(self: Arc<Self>) -> u8 {
        self.0
    }

    pub fn pinned(self: Pin<&mut Self>) -> u8 {
        self.0
    }

    pub fn without() -> u8 {
        0
    }

    pub fn perhaps() -> Option<Self> {
        None
    }
}

fn main() {}
