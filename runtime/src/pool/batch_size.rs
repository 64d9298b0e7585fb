//! How many items a batch gets: learnt from how long those before took, and how long their results were.
//!
//! Runs in: the parent, on the thread that maps. Until it is known how long an item takes, a batch gets one.

use std::time::Duration;

use crate::link::batch;
use crate::link::frame::INLINE;

/// How long a batch is to take, in nanoseconds. Far more than what handing one over costs, and so little that a worker with
/// nothing to do for so long makes no difference.
const BATCH: u64 = 50_000;

/// How long it takes at least even if others then have less to do at the end.
const WORTH_IT: u64 = 5_000;

/// What is known of a task's items.
#[derive(Debug, Default)]
pub(super) struct BatchSizer {
    /// Nanoseconds for one item; 0 while nothing is known.
    nanos: u64,
    /// Bytes of an answer for one item.
    bytes: usize,
}

impl BatchSizer {
    pub(super) fn is_known(&self) -> bool {
        self.nanos > 0
    }

    /// Notes how long `items` items took, and how many bytes their results are.
    pub(super) fn learn(&mut self, items: u32, nanos: u32, bytes: usize) {
        let items = items.max(1);
        let one = u64::from(nanos / items).max(1);
        self.nanos = if self.is_known() { self.nanos.midpoint(one).max(1) } else { one };
        let one = bytes.div_ceil(items as usize);
        // Too few items in a frame cost little, too many send the answer in a shared buffer.
        self.bytes = one.max((7 * self.bytes + one) / 8);
    }

    /// How many items the next batch gets, if `left` of them are known to come, and `workers` workers share them.
    pub(super) fn items(&self, left: Option<usize>, workers: usize) -> usize {
        if !self.is_known() {
            return 1;
        }
        let so_many_in = |nanos: u64| usize::try_from(nanos / self.nanos).unwrap_or(usize::MAX);
        let fit = INLINE / self.bytes.max(batch::HEAD);
        let fair = left.map_or(usize::MAX, |left| (left / (2 * workers.max(1))).max(so_many_in(WORTH_IT)));
        so_many_in(BATCH).min(fit).min(fair).max(1)
    }

    /// How many batches of `items` items the workers make in this time.
    pub(super) fn batches_in(&self, time: Duration, items: usize, workers: usize) -> usize {
        let batch = u128::from(self.nanos.saturating_mul(items as u64).max(1));
        usize::try_from(time.as_nanos() / batch).unwrap_or(usize::MAX).saturating_mul(workers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_grow_with_what_is_known_of_the_items() {
        let mut pace = BatchSizer::default();
        assert_eq!(pace.items(None, 2), 1);
        pace.learn(1, 10_000, 16);
        assert_eq!(pace.items(None, 2), 5);
        (0..64).for_each(|_| pace.learn(100, 5_000, 1_600));
        assert_eq!(pace.items(None, 2), INLINE / 16);
        assert_eq!((pace.items(Some(400), 2), pace.items(Some(3), 2)), (100, 100));
        pace.learn(1, 4_000_000_000, 16);
        assert_eq!(pace.items(None, 2), 1);
        pace.learn(1, 1, 1 << 30);
        (0..64).for_each(|_| pace.learn(1, 1, 1 << 30));
        assert_eq!(pace.items(None, 2), 1);
    }
}
