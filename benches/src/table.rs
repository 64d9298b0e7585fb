//! The table on the terminal: what a row is, and how it is printed.
//!
//! Runs in: the parent. Never: measures anything itself.

use std::io::{self, Write as _};

use crate::Outcome;
use crate::machine;
use crate::measure::Figure;
use crate::race::{Measured, Peer};

/// Work that we do, and others beside us.
#[derive(Debug)]
pub(crate) struct Row {
    /// What is done.
    pub(crate) name: &'static str,
    pub(crate) unit: Unit,
    pub(crate) run: fn() -> Outcome<Measured>,
}

/// What the figures of a row count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Seconds,
    Bytes,
}

/// A row, and what came out.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) name: &'static str,
    pub(crate) unit: Unit,
    pub(crate) measured: Measured,
}

impl Row {
    /// Measures, and prints our line and the peers'.
    pub(crate) fn print(&self) -> Outcome<Line> {
        let measured = (self.run)().map_err(|error| format!("{}: {error}", self.name))?;
        println!("{:<48} {}", self.name, cells(&measured.ours, self.unit));
        for peer in &measured.peers {
            print_peer(peer, &measured.ours, self.unit);
        }
        io::stdout().flush()?;
        Ok(Line { name: self.name, unit: self.unit, measured })
    }
}

pub(crate) fn print_head() {
    print_load();
    println!("{:<48} {:>10}  {:<26} {:>8}  aim", "process-task, and its peers", "median", "middle half", "ratio");
}

/// How many cores there are, and how busy they have been.
pub(crate) fn print_load() {
    println!("{} cores, load average {} (over 1, 5 and 15 minutes)", machine::cores(), machine::load());
}

fn print_peer(peer: &Peer, ours: &Figure, unit: Unit) {
    let name = format!("    {}", peer.name);
    match &peer.figure {
        Err(reason) => println!("{name:<48} {:>10}  {reason}", "-"),
        Ok(theirs) => {
            let ratio = show_ratio(peer.ratio(ours).unwrap_or(f64::NAN));
            println!("{name:<48} {} {ratio:>8}  {}", cells(theirs, unit), aim(peer, ours));
        }
    }
}

/// The aim and whether it is reached; nothing if there is no aim.
pub(crate) fn aim(peer: &Peer, ours: &Figure) -> String {
    let Some(aim) = peer.aim else { return String::new() };
    let verdict = match peer.verdict(ours) {
        Some(true) => "reached",
        Some(false) => "missed",
        None => "not measured",
    };
    format!("{} {verdict}", show_ratio(aim))
}

/// Two digits or more, however small or large it is.
pub(crate) fn show_ratio(ratio: f64) -> String {
    if ratio >= 10.0 {
        format!("{ratio:.0}x")
    } else if ratio >= 0.1 {
        format!("{ratio:.2}x")
    } else {
        format!("{ratio:.4}x")
    }
}

fn cells(figure: &Figure, unit: Unit) -> String {
    format!("{:>10}  {:<26}", unit.show(figure.median), unit.between(figure))
}

impl Unit {
    /// The middle half; nothing for a figure that has no spread.
    pub(crate) fn between(self, figure: &Figure) -> String {
        if figure.low < figure.high {
            format!("{} .. {}", self.show(figure.low), self.show(figure.high))
        } else {
            String::new()
        }
    }

    /// The value in the unit that suits it.
    pub(crate) fn show(self, value: f64) -> String {
        let units = match self {
            Self::Seconds => [(1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns")],
            Self::Bytes => [(1_073_741_824.0, "GiB"), (1_048_576.0, "MiB"), (1024.0, "KiB"), (1.0, "B")],
        };
        let [.., smallest] = units;
        let (size, unit) = units.into_iter().find(|(size, _)| value >= *size).unwrap_or(smallest);
        format!("{:.3} {unit}", value / size)
    }
}
