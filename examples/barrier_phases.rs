//! Heat that spreads over a plate, computed by four processes in step: a `Barrier` separates the phases.
//!
//! Run it with `cargo run --example barrier_phases`. It prints:
//!
//! ```text
//! @@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
//!  #%%@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@%%#
//!  +*#%%%%%%%%%%%@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@%%%%%%%%%%%#*+
//!  =+*###%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%###*+=
//!  -++**################################################**++-
//!  -=++****##########################################****++=-
//!  :-=+++**********************************************+++=-:
//!  :-===+++++++++++++**********************+++++++++++++===-:
//!  ::--======++++++++++++++++++++++++++++++++++++++======--::
//!  .::------========================================------::.
//!  ...::::::::::::::::--------------------::::::::::::::::...
//!
//! 500 phases by 4 processes; the same by one process: true
//! ```
//!
//! The plate is two grids of cells in shared memory. In each phase every process reads one grid and writes its rows of the
//! other, so none may begin a phase before all have ended the last. A process that is killed breaks the barrier: the
//! others have an error within a tenth of a second, where they would otherwise wait for ever.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use process_task::sync::Barrier;
use process_task::{Process, Shared, process_task};

const WIDTH: usize = 60;
const HEIGHT: usize = 12;
const PHASES: usize = 500;
const PARTIES: usize = 4;

/// The bits of an `f64` each. What one process stores before the barrier, all others see behind it.
type Grid = [AtomicU64];

/// Computes some rows for all phases, and says how often this process was the one that the barrier chose.
#[process_task]
fn compute(grids: [Shared<Grid>; 2], barrier: Shared<Barrier>, rows: Range<usize>) -> usize {
    let mut chosen = 0;
    for phase in 0..PHASES {
        spread(&grids[phase % 2], &grids[(phase + 1) % 2], rows.clone());
        chosen += usize::from(barrier.wait().expect("no process was killed").is_leader());
    }
    chosen
}

/// One phase: a cell inside becomes the mean of its neighbours; those at the edges stay as they are.
fn spread(from: &Grid, to: &Grid, rows: Range<usize>) {
    let at = |x: usize, y: usize| f64::from_bits(from[y * WIDTH + x].load(Relaxed));
    for y in rows.start.max(1)..rows.end.min(HEIGHT - 1) {
        for x in 1..WIDTH - 1 {
            let mean = (at(x - 1, y) + at(x + 1, y) + at(x, y - 1) + at(x, y + 1)) / 4.0;
            to[y * WIDTH + x].store(mean.to_bits(), Relaxed);
        }
    }
}

/// The plate before the first phase: its upper edge is hot.
fn plate() -> impl ExactSizeIterator<Item = AtomicU64> {
    (0..WIDTH * HEIGHT).map(|cell| AtomicU64::new(f64::to_bits(if cell < WIDTH { 100.0 } else { 0.0 })))
}

fn main() -> process_task::Result<()> {
    let grids = [Shared::from_iter(plate())?, Shared::from_iter(plate())?];
    let barrier = Shared::new(Barrier::new(PARTIES))?;
    let rows = |party| party * HEIGHT / PARTIES..(party + 1) * HEIGHT / PARTIES;
    let processes: Vec<_> =
        (0..PARTIES).map(|party| compute.spawn(grids.clone(), barrier.clone(), rows(party))).collect();
    let chosen = processes.into_iter().map(Process::join).sum::<Result<usize, _>>()?;

    // The same by one process: every cell must have the same bits.
    let alone: [Vec<AtomicU64>; 2] = [plate().collect(), plate().collect()];
    (0..PHASES).for_each(|phase| spread(&alone[phase % 2], &alone[(phase + 1) % 2], 0..HEIGHT));
    let bits = |grid: &Grid| grid.iter().map(|cell| cell.load(Relaxed)).collect::<Vec<_>>();
    let (together, alone) = (bits(&grids[PHASES % 2]), bits(&alone[PHASES % 2]));

    for row in together.chunks(WIDTH) {
        println!("{}", row.iter().map(|bits| shade(f64::from_bits(*bits))).collect::<String>().trim_end());
    }
    println!("{chosen} phases by {PARTIES} processes; the same by one process: {}", together == alone);
    Ok(())
}

/// A character for a temperature.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 100 degrees")]
fn shade(degrees: f64) -> char {
    [' ', '.', ':', '-', '=', '+', '*', '#', '%', '@'][(degrees.sqrt() * 0.999) as usize]
}
