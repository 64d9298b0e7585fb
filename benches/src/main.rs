//! Side-by-side runs of process-task and its peers, as one table: our figure, the yardstick's, and the ratio.
//!
//! Runs in: the parent. Never: runs the two sides of a row at different times; see [`measure`].
//!
//! ```text
//! cargo run --release -p process-task-benches                  # every row
//! cargo run --release -p process-task-benches -- spawn idle    # the rows whose name contains one of these words
//! ```
//!
//! Every side of every row computes something, and what it computes is checked. A ratio below 1 means that we are faster.

mod bytes;
mod calls;
mod idle;
mod maps;
mod measure;
mod spawns;
mod table;
mod threads;

use std::error::Error;

use self::table::Row;

/// A value, or what kept a row from being measured.
type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> Outcome<()> {
    let filters: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let wanted = |row: &&Row| filters.is_empty() || filters.iter().any(|word| row.name.contains(word.as_str()));
    let families = [spawns::ROWS, calls::ROWS, maps::ROWS, bytes::ROWS, idle::ROWS];
    table::print_head();
    families.into_iter().flatten().filter(wanted).try_for_each(Row::print)?;
    table::print_machine();
    Ok(())
}
