//! What means something in one process only, as a parameter: each message names the counterpart.
use std::sync::{Arc, Mutex};

use process_task::{Shared, process_task};

#[process_task]
fn add(total: Arc<Mutex<u32>>, bare: process_task::sync::Mutex<u32>) {
    let _ = (total, bare);
}

#[process_task]
fn print(text: Shared<String>, bytes: &Shared<Vec<u8>>) {
    let _ = (text, bytes);
}

fn main() {
    let _ = Shared::new(String::new());
    let _ = Shared::new(Mutex::new(1));
}
