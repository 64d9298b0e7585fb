//! Blocks of which nothing is left.
use process_task::process_object;

struct Private(u8);

#[process_object]
impl Private {
    fn new() -> Self {
        Self(0)
    }

    fn get(&self) -> u8 {
        self.0
    }
}

struct Empty;

#[process_object]
impl Empty {}

struct Local;

#[process_object]
impl Local {
    #[local]
    pub fn get(&self) -> u8 {
        0
    }
}

#[process_object]
impl Clone for Local {
    #[local]
    fn clone(&self) -> Self {
        Self
    }
}

fn main() {
    let _ = Private::new().get() + Local.clone().get();
}
