//! Ways to lose a worker, and a pool that goes on.
//!
//! Run it with `cargo run --example crash`. On stderr, the panicking worker says what every panic says. On stdout there
//! is (the process ids differ from run to run, and where core dumps are written, `(core dumped)` is added):
//!
//! ```text
//! segfault: process `worker-0` (pid 4127) was killed by SIGSEGV while running `crash::segfault`; Unknown
//! abort:    process `worker-0` (pid 4128) was killed by SIGABRT while running `crash::abort`; Unknown
//! panic:    process `worker-0` (pid 4129) panicked while running `crash::panic` at examples/crash.rs:33:5: on purpose; Finished
//! exit:     process `worker-0` (pid 4129) exited with code 3 before `crash::exit` returned; Unknown
//! the pool: [0, 1, 4, 9]
//! ```
//!
//! The last word is what a program needs to know before it tries again: whether the task may have run. A task that
//! panics does not even cost its worker.

use nix::sys::signal::{Signal, raise};
use process_task::{Error, Pool, process_task};

#[process_task]
fn segfault() {
    // As a stray pointer in a C library would do it.
    raise(Signal::SIGSEGV).expect("a process may signal itself");
}

#[process_task]
fn abort() {
    std::process::abort();
}

#[process_task]
fn panic() {
    panic!("on purpose");
}

#[process_task]
#[expect(clippy::exit, reason = "what this task is about")]
fn exit() {
    std::process::exit(3);
}

#[process_task]
fn square(x: i64) -> i64 {
    x * x
}

fn main() -> process_task::Result<()> {
    let pool = Pool::builder().workers(1).build()?;
    show("segfault:", pool.call(segfault, ()));
    show("abort:", pool.call(abort, ()));
    show("panic:", pool.call(panic, ()));
    show("exit:", pool.call(exit, ()));
    println!("the pool: {:?}", pool.map(square, 0..4)?);
    Ok(())
}

fn show(what: &str, outcome: Result<(), Error>) {
    match outcome {
        Ok(()) => println!("{what:<9} nothing happened"),
        Err(error) => println!("{what:<9} {error}; {:?}", error.execution()),
    }
}
