//! Python's processes as peers: one script does every work, and prints its rounds as JSON.
//!
//! Runs in: the parent, which waits for the interpreter. Never: counts the interpreter's start. Never: fails because there
//! is no Python, but a script that computes the wrong thing fails the row.

use std::io::ErrorKind;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use serde::Deserialize;

use crate::Outcome;
use crate::measure::{Figure, quantile};
use crate::race::Peer;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/python/peers.py");

/// Which part of the standard library.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Library {
    /// `multiprocessing.Pool`.
    Pool,
    /// `concurrent.futures.ProcessPoolExecutor`.
    Executor,
    /// None: `multiprocessing.Process`, one for each call; and what processes share.
    Process,
}

/// What the script prints: one of the two.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum Answer {
    /// Seconds (or bytes) for one unit, a round each.
    Rounds(Vec<f64>),
    /// Why the work cannot be done, or its end cannot be seen.
    Absent(String),
}

/// The median of the rounds that Python needed for this work.
pub(crate) fn peer(name: &'static str, library: Library, work: &str) -> Outcome<Peer> {
    Ok(Peer::new(name, rounds(library, work)?.map(|rounds| Figure::of(&rounds))))
}

/// As [`peer`], but the figure is that below which 99 of 100 rounds lie.
pub(crate) fn peer_p99(name: &'static str, library: Library, work: &str) -> Outcome<Peer> {
    Ok(Peer::new(name, rounds(library, work)?.map(|rounds| Figure::exactly(quantile(&rounds, 0.99)))))
}

/// The version, as the interpreter says it.
pub(crate) fn version() -> Option<String> {
    let output = Command::new("python3").arg("--version").output().ok()?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

fn rounds(library: Library, work: &str) -> Outcome<Result<Vec<f64>, String>> {
    let library = match library {
        Library::Pool => "pool",
        Library::Executor => "executor",
        Library::Process => "process",
    };
    // A group of its own, so that the script can end all of its processes when it takes too long.
    let output = match Command::new("python3").args([SCRIPT, library, work]).process_group(0).output() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Err("no python3".to_owned())),
        output => output?,
    };
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(format!("python3, {library} {work}: {}\n{}", output.status, stderr.trim()).into());
    }
    Ok(match serde_json::from_slice(&output.stdout)? {
        Answer::Rounds(rounds) => Ok(rounds),
        Answer::Absent(reason) => Err(reason),
    })
}
