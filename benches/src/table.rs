//! The table: what a row is, and how it is printed.
//!
//! Runs in: the parent. Never: measures anything itself.

use std::fs;
use std::io::{self, Write as _};
use std::thread::available_parallelism;

use crate::Outcome;
use crate::measure::{Comparison, Figure};

/// Two things that are measured side by side.
#[derive(Debug)]
pub(crate) struct Row {
    /// What we do.
    pub(crate) name: &'static str,
    /// What the yardstick does.
    pub(crate) yardstick: &'static str,
    /// The ratio that we want at the most.
    pub(crate) aim: Option<f64>,
    pub(crate) run: fn() -> Outcome<Comparison>,
}

impl Row {
    /// Measures, and prints the line.
    pub(crate) fn print(&self) -> Outcome<()> {
        let Comparison { ours, theirs } = (self.run)().map_err(|error| format!("{}: {error}", self.name))?;
        let ratio = ours.median / theirs.median;
        let aim = self.aim.map_or(String::new(), |aim| {
            let verdict = if ratio <= aim { "reached" } else { "missed" };
            format!("{aim:.1}x {verdict}")
        });
        let (ours, theirs) = (cell(&ours), cell(&theirs));
        println!("{:<46} {ours} {:<30} {theirs} {ratio:>8.2}x  {aim}", self.name, self.yardstick);
        Ok(io::stdout().flush()?)
    }
}

/// The machine, and the table's head.
pub(crate) fn print_head() {
    print_machine();
    let of = format!("{:>10}  {:<26}", "median", "middle half");
    println!("{:<46} {of} {:<30} {of} {:>9}  aim", "process-task", "yardstick", "ratio");
}

/// How many cores there are, and how busy they have been.
pub(crate) fn print_machine() {
    let cores = available_parallelism().map_or(0, usize::from);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: Vec<&str> = load.split_whitespace().take(3).collect();
    println!("{cores} cores, load average {} (over 1, 5 and 15 minutes)", load.join(" "));
}

fn cell(figure: &Figure) -> String {
    let between = format!("{} .. {}", time(figure.low), time(figure.high));
    format!("{:>10}  {between:<26}", time(figure.median))
}

/// Seconds, in the unit that suits them.
fn time(seconds: f64) -> String {
    let units = [(1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns")];
    let (size, unit) = units.into_iter().find(|(size, _)| seconds >= *size).unwrap_or((1e-9, "ns"));
    format!("{:.3} {unit}", seconds / size)
}
