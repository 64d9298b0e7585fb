//! The table as a Markdown file.
//!
//! Runs in: the parent. Never: writes a part of the table, or leaves out what we missed.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::Outcome;
use crate::race::Peer;
use crate::table::{Line, Unit, aim, show_ratio};

/// Replaces the file.
pub(crate) fn write(path: &Path, machine: &str, lines: &[Line]) -> Outcome<()> {
    let mut text = String::new();
    writeln!(text, "# Speed\n\n{machine}.\n")?;
    writeln!(
        text,
        "Written by `cargo run --release -p process-task-bench -- --write`, which runs the sides of a row in turns.\n\
         A figure is the median of the rounds, with their middle half beside it. The ratio is our figure by the peer's:\n\
         below 1x we need less. The aim is the largest ratio that we want. All pools have two workers.\n"
    )?;
    writeln!(text, "| work | side | median | middle half | ratio | aim |\n|---|---|--:|---|--:|---|")?;
    for line in lines {
        let ours = &line.measured.ours;
        let (median, between) = (line.unit.show(ours.median), line.unit.between(ours));
        writeln!(text, "| **{}** | **process-task** | **{median}** | {between} | | |", line.name)?;
        line.measured.peers.iter().try_for_each(|peer| write_peer(&mut text, peer, line, line.unit))?;
    }
    Ok(fs::write(path, text)?)
}

fn write_peer(text: &mut String, peer: &Peer, line: &Line, unit: Unit) -> Outcome<()> {
    let ours = &line.measured.ours;
    match &peer.figure {
        Err(reason) => writeln!(text, "| | {} | - | {reason} | | |", peer.name)?,
        Ok(theirs) => {
            let (median, between) = (unit.show(theirs.median), unit.between(theirs));
            let ratio = show_ratio(peer.ratio(ours).unwrap_or(f64::NAN));
            writeln!(text, "| | {} | {median} | {between} | {ratio} | {} |", peer.name, aim(peer, ours))?;
        }
    }
    Ok(())
}
