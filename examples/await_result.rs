//! Results awaited in tokio: of several processes and calls at once, beside timers, on one thread that is never blocked.
//!
//! Run it with `cargo run --example await_result`. It prints:
//!
//! ```text
//! together:  144 and 100
//! a hundred: 328350
//! a timer:   no answer yet, and the thread is free to give one
//! later:     the task has heard "better late than never"
//! too late:  ended by signal 9
//! ```
//!
//! Handles are futures of std's: any executor does, and nothing has to be told which it is.

use std::io::{self, Write as _};
use std::time::Duration;

use process_task::{ErrorKind, Pool, ProcessBuilder, Stdio, process_task};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

#[process_task]
fn square(x: i64) -> i64 {
    x * x
}

/// Returns what is said to it, once it is said.
#[process_task]
fn listen() -> String {
    io::stdin().lines().next().and_then(Result::ok).unwrap_or_default()
}

#[process_task]
fn endless() {
    loop {
        std::thread::sleep(Duration::from_hours(1));
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = Pool::new()?;
    let (twelve, ten) = tokio::join!(pool.submit(square, 12), square.spawn(10));
    println!("together:  {} and {}", twelve?, ten?);

    // A handle borrows nothing, so it may go into a task of tokio's.
    let mut squares: JoinSet<_> = (0..100).map(|x| pool.submit(square, x)).collect();
    let mut sum = 0;
    while let Some(result) = squares.join_next().await {
        sum += result??;
    }
    println!("a hundred: {sum}");

    // What this task waits for is said by the very thread that awaits it, later.
    let mut listener = ProcessBuilder::new().stdin(Stdio::piped()).spawn(listen, ())?;
    let mut ear = listener.take_stdin().ok_or("no pipe")?;
    tokio::select! {
        heard = &mut listener => println!("a timer:   is slower than {heard:?}"),
        () = sleep(Duration::from_millis(50)) => println!("a timer:   no answer yet, and the thread is free to give one"),
    }
    let (heard, said) = tokio::join!(listener, async { writeln!(ear, "better late than never") });
    said?;
    println!("later:     the task has heard {:?}", heard?);

    let mut sloth = ProcessBuilder::new().name("sloth").spawn(endless, ())?;
    if timeout(Duration::from_millis(200), &mut sloth).await.is_err() {
        sloth.kill()?;
    }
    match sloth.await.map_err(|error| error.kind().clone()) {
        Err(ErrorKind::Killed { signal, .. }) => println!("too late:  ended by signal {signal}"),
        other => println!("too late:  {other:?}"),
    }
    Ok(())
}
