//! How long calls take from their submission until they are settled: a sample of them.
//!
//! Runs in: the parent, under the scheduler's mutex; what is given out is a copy. The clock is read for one call in [`SPARSE`]
//! while calls are so short that more would be felt.
//!
//! The first calls are all measured, and slow ones are as long as there are few at a time. Otherwise one in [`SPARSE`] is,
//! and counts for as many: so the percentiles are those of all calls, not of those that were measured.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// One call in this many is measured.
const SPARSE: u64 = 32;

/// So many calls are all measured.
const FIRST: u64 = 256;

/// Calls that take longer can all be measured...
const SLOW: Duration = Duration::from_micros(100);

/// ...as long as there are not more at a time.
const FEW: usize = 64;

/// Digits that are kept of a measured time.
const DIGITS: u8 = 2;

/// When a call was submitted, if it is measured.
#[derive(Debug, Default)]
pub(super) struct Stamp(AtomicU64);

/// When what happened to a call, as far as an observer wants to know.
#[derive(Debug, Default)]
pub(in crate::pool) struct CallTimes {
    pub(super) submitted: Stamp,
    /// When a worker got it, in nanoseconds since the pool was made.
    pub(super) given: AtomicU64,
}

/// The histogram, and which calls go into it.
#[derive(Debug)]
pub(super) struct Sampling {
    epoch: Instant,
    /// Made with the first call that is settled, since many pools are never looked at for long.
    histogram: Option<Box<Histogram<u64>>>,
    measured: u64,
    /// How many calls to let pass before the next is measured.
    pass: u64,
    /// The last one that was measured was slow.
    slow: bool,
}

impl Sampling {
    /// Times are counted from `epoch`.
    pub(super) fn since(epoch: Instant) -> Self {
        Self { epoch, histogram: None, measured: 0, pass: 0, slow: false }
    }

    /// A call is submitted, with `outstanding` others: notes when, if it is one of those that are measured.
    #[inline]
    pub(super) fn submitted(&mut self, stamp: &Stamp, outstanding: usize) {
        if self.pass > 0 {
            self.pass -= 1;
        } else {
            self.stamp(stamp, outstanding);
        }
    }

    /// A call is settled.
    #[inline]
    pub(super) fn settled(&mut self, stamp: &Stamp) {
        if stamp.0.load(Relaxed) != 0 {
            self.enter(stamp);
        }
    }

    /// What is known by now.
    pub(super) fn latency(&self) -> Latency {
        Latency { histogram: self.histogram.clone(), measured: self.measured }
    }

    #[cold]
    fn stamp(&mut self, stamp: &Stamp, outstanding: usize) {
        let each = outstanding < FEW && (self.measured < FIRST || self.slow);
        let weight = if each { 1 } else { SPARSE };
        self.pass = weight - 1;
        stamp.0.store(nanoseconds(self.epoch.elapsed()) << 6 | weight, Relaxed);
    }

    #[cold]
    fn enter(&mut self, stamp: &Stamp) {
        let noted = stamp.0.swap(0, Relaxed);
        let (since, weight) = (noted >> 6, noted & 63);
        let took = nanoseconds(self.epoch.elapsed()).saturating_sub(since);
        self.slow = took >= nanoseconds(SLOW);
        self.measured += 1;
        if self.histogram.is_none() {
            self.histogram = Histogram::new(DIGITS).map(Box::new).ok();
        }
        if let Some(histogram) = &mut self.histogram {
            // It grows by itself; a number that it cannot hold would be one of centuries.
            let _ = histogram.record_n(took.max(1), weight);
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// How long calls of a pool took, from their submission until their result was there: part of
/// [`PoolStats`](crate::PoolStats).
///
/// While calls are short or many, only one in 32 is measured, so the longest of all may be missing. The times are exact to 1 %.
///
/// # Examples
/// ```
/// use process_task::{Pool, process_task};
///
/// #[process_task]
/// fn square(x: i64) -> i64 { x * x }
///
/// let pool = Pool::new()?;
/// pool.map(square, 0..100)?;
/// let latency = pool.stats().latency;
/// assert!(latency.count() > 0);
/// assert!(latency.p50() <= latency.p99() && latency.p99() <= latency.max());
/// # process_task::Result::Ok(())
/// ```
#[derive(Clone, Default, PartialEq)]
pub struct Latency {
    histogram: Option<Box<Histogram<u64>>>,
    measured: u64,
}

impl Latency {
    /// How many calls were measured.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.measured
    }

    /// The mean; zero if no call was measured, as all of these.
    #[must_use]
    pub fn mean(&self) -> Duration {
        // Nanoseconds that are more than a `Duration` holds would be some 500 years.
        Duration::try_from_secs_f64(self.of(Histogram::mean) / 1e9).unwrap_or(Duration::MAX)
    }

    /// Half of the calls took no longer.
    #[must_use]
    pub fn p50(&self) -> Duration {
        self.quantile(0.5)
    }

    /// Nine of ten calls took no longer.
    #[must_use]
    pub fn p90(&self) -> Duration {
        self.quantile(0.9)
    }

    /// Ninety-nine of a hundred calls took no longer.
    #[must_use]
    pub fn p99(&self) -> Duration {
        self.quantile(0.99)
    }

    /// The longest that was measured.
    #[must_use]
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.of(Histogram::max))
    }

    /// This fraction of the calls, from 0 to 1, took no longer.
    #[must_use]
    pub fn quantile(&self, fraction: f64) -> Duration {
        Duration::from_nanos(self.of(|histogram| histogram.value_at_quantile(fraction).min(histogram.max())))
    }

    /// How often which time was counted, and how many calls were measured.
    pub(crate) fn counts(&self) -> (Vec<(u64, u64)>, u64) {
        let counts = |histogram: &Histogram<u64>| {
            histogram.iter_recorded().map(|one| (one.value_iterated_to(), one.count_at_value())).collect()
        };
        (self.of(counts), self.measured)
    }

    /// What has these [counts](Self::counts).
    pub(crate) fn of_counts((counts, measured): (Vec<(u64, u64)>, u64)) -> Self {
        let mut histogram = Histogram::new(DIGITS).map(Box::new).ok().filter(|_| !counts.is_empty());
        if let Some(histogram) = &mut histogram {
            for (time, count) in counts {
                let _ = histogram.record_n(time, count);
            }
        }
        Self { histogram, measured }
    }

    fn of<R: Default>(&self, question: impl FnOnce(&Histogram<u64>) -> R) -> R {
        self.histogram.as_deref().map(question).unwrap_or_default()
    }
}

impl fmt::Debug for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = f.debug_struct("Latency");
        all.field("count", &self.count()).field("mean", &self.mean()).field("p50", &self.p50());
        all.field("p90", &self.p90()).field("p99", &self.p99()).field("max", &self.max()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settle(sampling: &mut Sampling, count: usize) {
        for _ in 0..count {
            let stamp = Stamp::default();
            sampling.submitted(&stamp, 0);
            sampling.settled(&stamp);
        }
    }

    #[test]
    fn a_fraction_is_measured_and_counts_for_all() {
        let mut sampling = Sampling::since(Instant::now());
        settle(&mut sampling, 1_000);
        sampling.slow = false;
        let before = sampling.measured;
        assert!(before >= FIRST, "the first are all measured");
        // A machine that stops for a moment makes a call look slow, and the next is then measured, too.
        settle(&mut sampling, 16_000);
        let (measured, counted) = (sampling.measured, sampling.histogram.as_ref().unwrap().len());
        assert!(measured < before + 8_000, "{measured}");
        assert!((16_900..17_100).contains(&counted), "{counted}");
        let (stamp, pause) = (Stamp::default(), Duration::from_millis(3));
        sampling.pass = 0;
        sampling.submitted(&stamp, 0);
        std::thread::sleep(pause);
        sampling.settled(&stamp);
        let latency = sampling.latency();
        assert!(latency.max() >= pause.mul_f64(0.98) && latency.p50() <= latency.max(), "{latency:?}");
    }

    #[test]
    fn counts_make_the_same_latency() {
        let mut sampling = Sampling::since(Instant::now());
        settle(&mut sampling, 500);
        let (latency, none) = (sampling.latency(), Latency::default());
        let copy = Latency::of_counts(latency.counts());
        let looks = |latency: &Latency| [latency.p50(), latency.p90(), latency.p99(), latency.max()];
        assert_eq!((looks(&copy), copy.count()), (looks(&latency), latency.count()));
        assert_eq!(Latency::of_counts(none.counts()), none);
    }

    #[test]
    fn nothing_is_known_of_no_call() {
        let latency = Sampling::since(Instant::now()).latency();
        assert_eq!((latency.count(), latency.mean(), latency.p99(), latency.max()), Default::default());
    }

    #[test]
    fn times_are_exact_to_a_hundredth() {
        let mut histogram = Histogram::new(DIGITS).unwrap();
        (1..=1000u64).for_each(|n| histogram.record(n * 1_000_000).unwrap());
        let latency = Latency { histogram: Some(Box::new(histogram)), measured: 1000 };
        let near = |time: Duration, expected: f64| (time.as_secs_f64() / expected - 1.0).abs() < 0.011;
        assert!(near(latency.p50(), 0.5) && near(latency.p90(), 0.9) && near(latency.p99(), 0.99), "{latency:?}");
        assert!(near(latency.max(), 1.0) && near(latency.mean(), 0.5005) && near(latency.quantile(0.1), 0.1));
    }
}
