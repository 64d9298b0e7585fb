//! One number, counted up by every worker: a `Mutex` in memory that all processes map. Then a worker dies with the lock.
//!
//! Run it with `cargo run --example shared_counter`. It prints (the process id differs from run to run):
//!
//! ```text
//! counted:  100000 by 100 calls on 4 workers
//! the last: process `worker-0` (pid 4127) was killed by SIGKILL while running `shared_counter::count_and_die`; Unknown
//! the lock: free again, and poisoned, with 100001 in it
//! repaired: 100002
//! ```
//!
//! It reads as with threads, with `Shared` in the place of `Arc`. A holder that is killed poisons the mutex, as one that
//! panics does in the standard library: no process waits for it, and the next locker is told that the data may be half changed.

use nix::sys::signal::{Signal, raise};
use process_task::sync::Mutex;
use process_task::{Pool, Shared, process_task};

const CALLS: u64 = 100;
const TIMES: u64 = 1_000;

#[process_task]
fn count(counter: Shared<Mutex<u64>>, times: u64) {
    for _ in 0..times {
        *counter.lock().expect("no process has died yet") += 1;
    }
}

#[process_task]
fn count_and_die(counter: Shared<Mutex<u64>>) {
    let mut number = counter.lock().expect("no process has died yet");
    *number += 1;
    raise(Signal::SIGKILL).expect("a process may signal itself");
}

fn main() -> process_task::Result<()> {
    let counter = Shared::new(Mutex::new(0))?;
    let pool = Pool::builder().workers(4).build()?;
    pool.map(count, (0..CALLS).map(|_| (counter.clone(), TIMES)))?;
    let total = *counter.lock().expect("no process has died yet");
    assert_eq!(total, CALLS * TIMES);
    println!("counted:  {total} by {CALLS} calls on 4 workers");

    // One worker, so that its name is known.
    let pool = Pool::builder().workers(1).build()?;
    if let Err(error) = pool.call(count_and_die, counter.clone()) {
        println!("the last: {error}; {:?}", error.execution());
    }
    if let Err(poisoned) = counter.lock() {
        println!("the lock: free again, and poisoned, with {} in it", **poisoned.get_ref());
    }
    // A number is never half changed, so it may be used as it is.
    counter.clear_poison();
    pool.call(count, (counter.clone(), 1))?;
    println!("repaired: {}", *counter.lock().expect("the poison is cleared"));
    Ok(())
}
