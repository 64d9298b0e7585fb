//! Busy neighbours: processes that compute for ever, as many as there are cores.
//!
//! Runs in: the parent, which starts and kills them; [`spin`] in a process each. Never: leaves one behind.

use std::hint::black_box;
use std::time::{Duration, Instant};

use process_task::{Process, process_task};

use crate::Outcome;
use crate::machine;

/// Ends by itself, in case that nothing kills it: no row takes as long.
const AT_THE_LONGEST: Duration = Duration::from_mins(1);

#[process_task]
fn spin() -> u64 {
    let start = Instant::now();
    let mut state = 1u64;
    while start.elapsed() < AT_THE_LONGEST {
        for _ in 0..1_000_000 {
            state = black_box(state.wrapping_mul(3).wrapping_add(1));
        }
    }
    state
}

/// While this lives, every core has a process that wants all of it.
#[derive(Debug)]
pub(crate) struct Hogs {
    processes: Vec<Process<u64>>,
}

impl Hogs {
    pub(crate) fn new() -> Outcome<Self> {
        let processes: Vec<_> = (0..machine::cores()).map(|_| spin.spawn()).collect();
        // They are there; what they need to begin is over long before the round that is not counted.
        std::thread::sleep(Duration::from_millis(100));
        if processes.iter().any(Process::is_finished) {
            return Err("a hog ended, or could not be started".into());
        }
        Ok(Self { processes })
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        for process in self.processes.drain(..) {
            // It may have ended by itself.
            let _ = process.kill();
            let _ = process.join();
        }
    }
}
