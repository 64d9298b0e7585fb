//! What is costly to make is made once in each worker, and used by all calls there.
//!
//! Run it with `cargo run --example worker_state`. It prints:
//!
//! ```text
//! worker: a table of 78498 primes is made
//! worker: a table of 78498 primes is made
//! parent: 168 of the numbers to 1000 are primes
//! parent: 1000 calls were counted by the workers, with tables that were made 1 time each
//! ```
//!
//! The initializer makes the table before the pool is there, so no call waits for it; a worker that is started in the
//! place of a dead one makes its own. Without an initializer, `worker_state` makes the value by its `Default`, when a
//! worker's first call asks for it.

use std::collections::HashMap;

use process_task::{Pool, process_task, worker_state};

/// What a worker keeps from call to call.
#[derive(Default)]
struct Primes {
    /// Whether a number is a prime.
    table: Vec<bool>,
    made: u32,
    calls: u32,
}

/// The sieve of Eratosthenes.
#[process_task]
fn make_table(size: usize) {
    let mut table = vec![true; size];
    table[..2].fill(false);
    for number in (2..).take_while(|number| number * number < size) {
        if table[number] {
            table.iter_mut().skip(number * number).step_by(number).for_each(|multiple| *multiple = false);
        }
    }
    println!("worker: a table of {} primes is made", table.iter().filter(|yes| **yes).count());
    let mut primes = worker_state::<Primes>();
    primes.table = table;
    primes.made += 1;
}

/// Whether `number` is a prime; and which process says so, after how many calls, with the how manieth table.
#[process_task]
fn is_prime(number: usize) -> (bool, String, u32, u32) {
    let mut primes = worker_state::<Primes>();
    primes.calls += 1;
    (primes.table[number], process_task::current().name().to_owned(), primes.calls, primes.made)
}

fn main() -> process_task::Result<()> {
    let pool = Pool::builder().workers(2).initializer(make_table, 1_000_000).build()?;
    let (mut primes, mut calls, mut made) = (0, HashMap::new(), 0);
    for (yes, worker, call, table) in pool.map(is_prime, 1..=1000)? {
        primes += u32::from(yes);
        let last = calls.entry(worker).or_insert(call);
        *last = call.max(*last);
        made = made.max(table);
    }
    println!("parent: {primes} of the numbers to 1000 are primes");
    let calls: u32 = calls.values().sum();
    println!("parent: {calls} calls were counted by the workers, with tables that were made {made} time each");
    Ok(())
}
