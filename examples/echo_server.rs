//! A server that says back what it hears, and its clients: processes without a common ancestor, over a path and over TCP.
//!
//! Run it with `cargo run --example echo_server`. It starts itself as a server and as a client, each way, and prints:
//!
//! ```text
//! over a path: hello hello again
//! over TCP:    hello hello again
//! a stranger:  not let in
//! ```
//!
//! By hand, with `--` before it: `key FILE`; then `serve --key FILE 0.0.0.0:4000` on one machine, and, with the same file,
//! `connect --key FILE HOST:4000 WORDS…` on another. Without a key, a path in a directory of one's own takes the address's place.

use std::fs::{self, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, process, thread};

use clap::Parser;
use process_task::channel::{Connection, Key, Listener, connect_tcp, connect_unix};
use process_task::{ErrorKind, Result};

#[derive(Parser)]
enum Role {
    /// Writes a new key into a file that only its owner can read.
    Key { file: PathBuf },
    /// Listens at a path, or with a key at an address, and serves so many clients: all, if nothing is said.
    Serve {
        at: String,
        #[arg(long)]
        key: Option<PathBuf>,
        #[arg(long, default_value_t = usize::MAX)]
        clients: usize,
    },
    /// Says words, and prints what comes back.
    Connect {
        at: String,
        #[arg(long)]
        key: Option<PathBuf>,
        words: Vec<String>,
    },
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    if env::args_os().len() == 1 {
        let folder = env::temp_dir().join(format!("echo-server-{}", process::id()));
        let shown = show(&folder);
        fs::remove_dir_all(&folder)?;
        return Ok(shown?);
    }
    let read = |file: PathBuf| -> io::Result<Key> { Key::new(fs::read(file)?).map_err(io::Error::other) };
    match Role::parse() {
        Role::Key { file } => {
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(file)?
                .write_all(Key::random()?.secret())?;
        }
        Role::Serve { at, key, clients } => match key.map(read).transpose()? {
            Some(key) => serve(&Listener::tcp(at, key)?, clients)?,
            None => serve(&Listener::unix(at)?, clients)?,
        },
        Role::Connect { at, key, words } => match key.map(read).transpose()? {
            Some(key) => say(&connect_tcp(at, &key)?, words)?,
            None => say(&connect_unix(at)?, words)?,
        },
    }
    Ok(())
}

/// Serves each client on a thread of its own.
fn serve(listener: &Listener, clients: usize) -> Result<()> {
    println!("{listener}");
    thread::scope(|scope| {
        for _ in 0..clients {
            let client: Connection<String, String> = match listener.accept() {
                Err(error) if matches!(error.kind(), ErrorKind::PeerRefused { .. }) => continue,
                client => client?,
            };
            // A client that is cut off ends its loop, as one that has heard enough does.
            scope.spawn(move || client.iter().map_while(|word| client.send(word.ok()?).ok()).count());
        }
        Ok(())
    })
}

fn say(server: &Connection<String, String>, words: Vec<String>) -> Result<()> {
    for word in words {
        server.send(word)?;
        print!(" {}", server.recv()?);
    }
    println!();
    Ok(())
}

/// This program as a server, and as clients, each a process that knows nothing but where the other is.
fn show(folder: &Path) -> io::Result<()> {
    let echo = |args: &[&str]| {
        let mut program = Command::new(env::current_exe().expect("this program has a name"));
        program.args(args).stdin(Stdio::null()).stderr(Stdio::null());
        program
    };
    let at = |name: &str| folder.join(name).into_os_string().into_string().expect("a path of plain characters");
    let (socket, key, other) = (at("private/socket"), at("key"), at("other"));
    fs::create_dir(folder)?;
    for file in [&key, &other] {
        echo(&["key", file]).status()?;
    }
    for (what, place, keys) in [
        ("over a path:", vec![&*socket], vec![vec![]]),
        ("over TCP:   ", vec!["127.0.0.1:0", "--key", &key], vec![vec!["--key", &key], vec!["--key", &other]]),
    ] {
        let count = keys.len().to_string();
        let mut server =
            echo(&[&["serve", "--clients", &count], &place[..]].concat()).stdout(Stdio::piped()).spawn()?;
        let mut address = String::new();
        BufReader::new(server.stdout.take().expect("it is piped")).read_line(&mut address)?;
        for (key, what) in keys.iter().zip([what, "a stranger: "]) {
            let client =
                echo(&[&["connect", address.trim_end()], &key[..], &["hello", "hello again"]].concat()).output()?;
            let said = String::from_utf8_lossy(&client.stdout).into_owned();
            println!("{what}{}", if client.status.success() { said.trim_end() } else { " not let in" });
        }
        server.wait()?;
    }
    Ok(())
}
