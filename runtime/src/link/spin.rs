//! How long to look before sleeping: between half a microsecond and fifty, learnt from what looking brought.
//!
//! Owns: one number. Runs in: both ends of a link. Never: yields in a loop, which under load costs milliseconds.
//!
//! Sleeping and being woken costs about 25 us a side, so a short look is worth it when the answer is near; a long one
//! takes the processor from the one who is to answer. A hit doubles the next look, a miss halves it.

use std::hint::spin_loop;
use std::time::{Duration, Instant};

const SHORTEST: Duration = Duration::from_nanos(500);
const LONGEST: Duration = Duration::from_micros(50);

/// The present length of a look.
#[derive(Debug)]
pub(crate) struct Spin(Duration);

impl Spin {
    pub(crate) const fn new() -> Self {
        Self(Duration::from_micros(20))
    }

    /// Looks until `there` says yes, or the time is over; says which.
    pub(crate) fn until(&mut self, mut there: impl FnMut() -> bool) -> bool {
        let start = Instant::now();
        loop {
            for _ in 0..32 {
                if there() {
                    self.0 = (self.0 * 2).min(LONGEST);
                    return true;
                }
                spin_loop();
            }
            if start.elapsed() >= self.0 {
                self.0 = (self.0 / 2).max(SHORTEST);
                return false;
            }
        }
    }
}
