//! The first program: a function, called here, in a process of its own, and in a pool of workers.
//!
//! Run it with `cargo run --example square`. It prints:
//!
//! ```text
//! here:          square(3) = 9
//! in a process:  square(10) = 100
//! in a pool:     [0, 1, 4, 9]
//! later:         square(12) = 144
//! ```

use process_task::{Pool, process_task};

#[process_task]
fn square(x: i64) -> i64 {
    x * x
}

fn main() -> process_task::Result<()> {
    println!("here:          square(3) = {}", square(3));
    println!("in a process:  square(10) = {}", square.spawn(10).join()?);
    let pool = Pool::new()?;
    println!("in a pool:     {:?}", pool.map(square, 0..4)?);
    let later = pool.submit(square, 12);
    println!("later:         square(12) = {}", later.join()?);
    Ok(())
}
