//! A task that never ends, its neighbours, which do, and what decides how long is too long.
//!
//! Run it with `cargo run --example timeouts`. It prints:
//!
//! ```text
//! steps from 1: 0
//! steps from 2: 1
//! steps from 3: 5
//! steps from 4: 2
//! steps from 5: no end within 1s
//! steps from 6: 6
//! tried twice:  2 attempts, each given up after 500ms
//! on its own:   given up after 500ms
//! the pool:     goes on, steps from 8: 3
//! ```
//!
//! The time runs while the task does, not while the call waits for a worker. A task that is over its time is killed with
//! its worker; the worker is replaced, and no other call notices.

use std::time::Duration;

use process_task::{Error, ErrorKind, Pool, process_task};

/// How many steps it takes to 1: from an even number to its half, from an odd one to `5 * number + 1`. From 5 it goes
/// round and round for ever.
#[process_task(timeout = "1s")]
fn steps_to_one(mut number: u64) -> u32 {
    let mut steps = 0_u32;
    while number != 1 {
        number = if number.is_multiple_of(2) { number / 2 } else { 5 * number + 1 };
        steps = steps.wrapping_add(1);
    }
    steps
}

fn main() -> Result<(), Error> {
    let pool = Pool::builder().workers(2).build()?;
    for (number, outcome) in (1..).zip(pool.imap(steps_to_one, 1..=6)) {
        match outcome.map_err(|error| error.kind().clone()) {
            Ok(steps) => println!("steps from {number}: {steps}"),
            Err(ErrorKind::TimedOut { limit, .. }) => println!("steps from {number}: no end within {limit:?}"),
            Err(other) => println!("steps from {number}: {other:?}"),
        }
    }

    // One call may have its own limit. A call is made again only if it asks for that.
    let impatient = steps_to_one.timeout(Duration::from_millis(500));
    if let Err(error) = pool.call(impatient.retries(1), 5) {
        let attempts = 1 + error.attempts().len();
        println!("tried twice:  {attempts} attempts, each given up after {}", limit_of(&error));
    }
    if let Err(error) = impatient.spawn(5).join() {
        println!("on its own:   given up after {}", limit_of(&error));
    }
    println!("the pool:     goes on, steps from 8: {}", pool.call(steps_to_one, 8)?);
    Ok(())
}

fn limit_of(error: &Error) -> String {
    match error.kind() {
        ErrorKind::TimedOut { limit, .. } => format!("{limit:?}"),
        other => format!("{other:?}"),
    }
}
