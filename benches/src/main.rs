//! Side-by-side runs of process-task and its peers, as one table: our figure, the others', and the ratio.
//!
//! Runs in: the parent. Never: runs the sides of a row at different times; see [`race`].
//!
//! ```text
//! cargo run --release -p process-task-bench                  # every row
//! cargo run --release -p process-task-bench -- spawn idle    # the rows whose name contains one of these words
//! cargo run --release -p process-task-bench -- --write       # every row, into benches/RESULTS.md and benches/results.svg
//! ```
//!
//! Every side of every row computes something, and what it computes is checked. A ratio below 1 means that we need less
//! than the peer does. Peers are rayon, threads behind crossbeam channels, procspawn, and Python's two process pools; of locks,
//! those of the standard library, `parking_lot` and Python; of queues and pipes, crossbeam's channels, ipc-channel, and Python's.

mod burn;
mod bytes;
mod calls;
mod chart;
mod deaths;
mod hogs;
mod idle;
mod ipc;
mod locks;
mod machine;
mod managers;
mod maps;
mod markdown;
mod measure;
mod pipes;
mod python;
mod queues;
mod race;
mod recycle;
mod regions;
mod spawns;
mod table;
mod threads;
mod turns;
mod values;

use std::error::Error;
use std::path::Path;

use clap::Parser;

use self::table::Row;

/// A value, or what kept a row from being measured.
type Outcome<T> = Result<T, Box<dyn Error>>;

/// Workers of every pool, ours and the peers'.
const WORKERS: usize = 2;

/// Measures process-task beside its peers.
#[derive(Debug, Parser)]
struct Options {
    /// Only rows whose name contains one of these words
    words: Vec<String>,
    /// Write the table and the chart into the benches folder
    #[arg(long, conflicts_with = "words")]
    write: bool,
}

fn main() -> Outcome<()> {
    // Needed by that peer: its children come through here, and stay inside.
    procspawn::init();
    let Options { words, write } = Options::parse();
    let wanted = |row: &&Row| words.is_empty() || words.iter().any(|word| row.name.contains(word.as_str()));
    let families = [
        spawns::ROWS,
        calls::ROWS,
        values::ROWS,
        maps::ROWS,
        burn::ROWS,
        recycle::ROWS,
        bytes::ROWS,
        locks::ROWS,
        turns::ROWS,
        regions::ROWS,
        queues::ROWS,
        pipes::ROWS,
        managers::ROWS,
        idle::ROWS,
        deaths::ROWS,
    ];
    table::print_head();
    let lines = families.into_iter().flatten().filter(wanted).map(Row::print).collect::<Outcome<Vec<_>>>()?;
    table::print_load();
    if write {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
        let machine = machine::describe();
        markdown::write(&folder.join("RESULTS.md"), &machine, &lines)?;
        chart::write(&folder.join("results.svg"), &machine, &lines)?;
    }
    Ok(())
}
