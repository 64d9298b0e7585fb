//! A server that says back what it hears, and clients that share no ancestor with it: over a path, and over TCP.
//!
//! Run it with `cargo run --example echo_server`. It starts a server and a client of each kind, each a program of its own,
//! and prints:
//!
//! ```text
//! over a path: hello, hello again, goodbye
//! over TCP:    hello, hello again, goodbye
//! ```
//!
//! The two sides can also be run by hand, here or on two machines:
//!
//! ```sh
//! cargo run --example echo_server -- key                         > key
//! cargo run --example echo_server -- serve   127.0.0.1:4000 key    # or a path instead of both
//! cargo run --example echo_server -- connect 127.0.0.1:4000 key hello "hello again"
//! ```

use std::error::Error;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::{env, fs, process};

use clap::{Parser, Subcommand};
use process_task::ErrorKind;
use process_task::channel::{Connection, Key, Listener, connect_tcp, connect_unix};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Subcommand)]
enum Role {
    /// Prints a new key, in hexadecimal digits.
    Key,
    /// Says back what it hears, for ever, or for so many clients.
    Serve {
        /// A path, or an address with a port.
        at: String,
        /// The file with the key, for an address.
        key: Option<String>,
        #[arg(long, default_value_t = u32::MAX)]
        clients: u32,
    },
    /// Says some words, and prints what comes back.
    Connect {
        /// A path, or an address with a port and the file with the key.
        at: Vec<String>,
        #[arg(last = true)]
        words: Vec<String>,
    },
}

fn main() -> Result<()> {
    match Args::parse().role {
        None => everything(),
        Some(Role::Key) => Ok(println!("{}", to_hex(Key::random()?.secret()))),
        Some(Role::Serve { at, key, clients }) => serve(&at, key.as_deref(), clients),
        Some(Role::Connect { at, words }) => connect(&at, &words),
    }
}
