//! Options, and `#[local]` with words behind it.
use process_task::process_object;

struct Counter(u8);

#[process_object(timeout = "1s", retries = 2, crate)]
impl Counter {
    pub fn get(&self) -> u8 {
        self.0
    }

    #[local(always)]
    pub fn local(self) -> u8 {
        self.0
    }
}

macro_rules! more {
    () => {
        pub fn more(&self) -> u8 {
            1
        }
    };
}

struct Other;

#[process_object]
impl Other {
    more!();
}

fn main() {
    let _ = Counter(1).get() + Counter(1).local() + Other.more();
}
