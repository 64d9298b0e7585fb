//! Two programs: one is nothing but a manager, the other connects to it over the network and uses its objects. Then the
//! manager is killed, on purpose, and the other one hears of it.
//!
//! Run it with `cargo run --example remote_manager`. It starts itself a second time for the manager, and prints:
//!
//! ```text
//! connected to manager `counters`
//! the counter is at 3
//! the next call failed: manager `counters` (pid ID), in which the object lived, has ended
//! ```

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use process_task::channel::Key;
use process_task::{ErrorKind, Manager, process_object};

struct Counter(u64);

#[process_object]
impl Counter {
    pub(crate) fn new(start: u64) -> Self {
        Self(start)
    }

    pub(crate) fn increment(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

/// The key, which both programs have to have. Another way is a file that only this user can read.
const KEY: &str = "REMOTE_MANAGER_EXAMPLE_KEY";

/// The first program: serves until it is asked to end.
fn serve(key: &Key) -> process_task::Result<()> {
    let manager = Manager::builder().name("counters").listen_tcp("127.0.0.1:0", key).start()?;
    manager.publish("counter", &CounterProxy::new(&manager, 1)?)?;
    println!("{}", manager.addresses()?[0]);
    manager.serve_forever()?;
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if let Ok(secret) = std::env::var(KEY) {
        return Ok(serve(&Key::new(secret)?)?);
    }
    let secret = Key::random()?.secret().iter().fold(String::new(), |secret, byte| secret + &format!("{byte:02x}"));
    let program = std::env::current_exe()?;
    let mut server = Command::new(program).env(KEY, &secret).stdout(Stdio::piped()).spawn()?;
    let mut address = String::new();
    BufReader::new(server.stdout.take().ok_or("its output is a pipe")?).read_line(&mut address)?;

    let manager = Manager::connect_tcp(address.trim(), &Key::new(secret)?)?;
    println!("connected to manager `{}`", manager.name());
    let counter: CounterProxy = manager.find("counter")?.ok_or("it was published")?;
    counter.increment()?;
    println!("the counter is at {}", counter.increment()?);

    // Kills the program, and the kernel the manager that it has started.
    server.kill()?;
    server.wait()?;
    let error = loop {
        if let Err(error) = counter.increment() {
            break error;
        }
    };
    assert!(matches!(error.kind(), ErrorKind::ManagerGone { .. }));
    let error = error.to_string();
    println!("the next call failed: {}", error.split_once(';').map_or(&*error, |(first, _)| first));
    Ok(())
}
