//! A function in a process of its own: what the process is called, which number it has, what it returns, how it ends.
//!
//! Run it with `cargo run --example spawn`. It prints (the numbers differ from run to run):
//!
//! ```text
//! child:  I am `introduce`, process 4127
//! child:  I was started by `main`, process 4126
//! parent: process 4127 ended with exit status: 0
//! parent: it said: a pleasure
//! parent: `sleeper` is told to end
//! parent: it ended with signal: 15 (SIGTERM)
//! ```

use std::time::Duration;

use process_task::{ProcessBuilder, process_task};

#[process_task]
fn introduce(greeting: &str) -> String {
    let own = process_task::current();
    println!("child:  I am `{}`, process {}", own.name(), own.pid());
    if let Some(parent) = process_task::parent() {
        println!("child:  I was started by `{}`, process {}", parent.name(), parent.pid());
    }
    greeting.to_owned()
}

#[process_task]
fn sleep(time: Duration) {
    std::thread::sleep(time);
}

fn main() -> process_task::Result<()> {
    // `wait` waits for the process's end, `join` for the task's result, which is kept until it is asked for.
    let mut child = introduce.spawn("a pleasure");
    let id = child.pid().unwrap_or_default();
    println!("parent: process {id} ended with {}", child.wait()?);
    println!("parent: it said: {}", child.join()?);

    let mut sleeper = ProcessBuilder::new().name("sleeper").spawn(sleep, Duration::from_hours(1))?;
    println!("parent: `{}` is told to end", sleeper.name());
    sleeper.terminate()?;
    println!("parent: it ended with {}", sleeper.wait()?);
    Ok(())
}
