//! Items that are no functions.
use process_task::process_task;

#[process_task]
#[derive(Clone)]
pub struct Point {
    x: u8,
}

#[process_task]
impl Point {
    fn x(&self) -> u8 {
        self.x
    }
}

#[process_task]
mod tasks {}

#[process_task]
const THREE: u8 = 3;

#[process_task]
trait Work {}

#[process_task]
use std::fmt;

fn main() {
    Point { x: THREE }.clone().x();
}
