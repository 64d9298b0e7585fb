//! Methods called as what every proxy has, and types without a name.
use process_task::process_object;

struct Queue(u8);

#[process_object]
impl Queue {
    pub fn later(&self) -> u8 {
        self.0
    }

    pub fn with_timeout(&mut self, seconds: u64) -> u64 {
        seconds
    }

    pub fn manager(&self) {}

    pub fn is_poisoned(&self) {}

    pub fn clear_poison() -> Self {
        Queue(0)
    }
}

trait Wait {
    fn later(&self);
}

#[process_object]
impl Wait for Queue {
    fn later(&self) {}
}

#[process_object]
impl Wait for [u8] {
    fn later(&self) {}
}

struct View<'a>(&'a str);

#[process_object]
impl View<'_> {
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

fn main() {}
