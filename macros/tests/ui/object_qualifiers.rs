//! Functions that no other process can call.
use process_task::process_object;

struct Counter(u8);

#[process_object]
impl Counter {
    pub async fn asynchronous(&self) -> u8 {
        self.0
    }

    pub unsafe fn dangerous(&self) -> u8 {
        self.0
    }

    pub extern "C" fn foreign(&self) -> u8 {
        self.0
    }
}

fn main() {}
