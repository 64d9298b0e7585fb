//! What a slot counts of its workers.
//!
//! Runs in: the parent, under the scheduler's mutex.

use std::time::Duration;

/// What a slot remembers of its workers.
#[derive(Debug, Default)]
pub(in crate::pool) struct SlotStats {
    /// Calls that were answered here.
    pub(in crate::pool) calls: u64,
    /// How long the earlier workers worked, and how long they were there.
    busy: Duration,
    there: Duration,
    /// Since when the present one is there, in nanoseconds since the pool was made.
    since: Option<u64>,
    /// When the last reply was taken.
    pub(super) last_reply: u64,
    /// How many workers have been here.
    workers: u64,
}

impl SlotStats {
    pub(super) fn arrived(&mut self, now: u64) {
        self.since = Some(now);
        self.workers += 1;
    }

    /// The worker is gone, and was busy for `busy`, if it can be believed.
    pub(super) fn left(&mut self, busy: Duration, now: u64) {
        let there = self.present(now);
        self.busy += busy.min(there);
        self.there += there;
        self.since = None;
    }

    /// How many workers were here before the present one, or the last.
    pub(super) fn restarts(&self) -> u64 {
        self.workers.saturating_sub(1)
    }

    fn present(&self, now: u64) -> Duration {
        Duration::from_nanos(self.since.map_or(0, |since| now.saturating_sub(since)))
    }

    /// How long workers were busy here, and how long idle; the present one was busy for `busy`.
    pub(super) fn times(&self, busy: Duration, now: u64) -> (Duration, Duration) {
        let present = self.present(now);
        let busy = self.busy + busy.min(present);
        (busy, (self.there + present).saturating_sub(busy))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_sums_up_its_workers() {
        let (mut stats, ms) = (SlotStats::default(), Duration::from_millis);
        assert_eq!(stats.times(ms(0), 5_000_000), (ms(0), ms(0)));
        stats.arrived(10_000_000);
        assert_eq!(stats.times(ms(3), 20_000_000), (ms(3), ms(7)));
        stats.left(ms(4), 30_000_000);
        assert_eq!(stats.times(ms(0), 99_000_000), (ms(4), ms(16)));
        stats.arrived(100_000_000);
        assert_eq!(stats.times(ms(70), 150_000_000), (ms(54), ms(16)), "it was busy for longer than it was there");
    }
}
