//! A destructor.
use process_task::Shareable;

#[derive(Shareable)]
struct Noisy(u8);

impl Drop for Noisy {
    fn drop(&mut self) {}
}

fn main() {}
