//! Functions to run later, sorted by the time at which they are due.
//!
//! Runs in: any process, under a lock of the reactor. Invariant: nothing runs here; the reactor's thread takes what is due.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub(super) type Function = Box<dyn FnOnce() + Send>;

/// See the top of this file.
#[derive(Default)]
pub(super) struct Timers {
    last: u64,
    waiting: BTreeMap<TimerKey, Function>,
}

/// When a function is due, and its number, which tells it from others that are due then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TimerKey(Instant, u64);

impl Timers {
    /// Adds a function that is due after `delay`; `None`, and nothing added, if that is beyond the clock's end.
    pub(super) fn insert(&mut self, delay: Duration, function: Function) -> Option<TimerKey> {
        self.last += 1;
        let timer = TimerKey(Instant::now().checked_add(delay)?, self.last);
        self.waiting.insert(timer, function);
        Some(timer)
    }

    /// Whether nothing is due earlier.
    pub(super) fn is_next(&self, timer: TimerKey) -> bool {
        self.waiting.first_key_value().is_none_or(|(first, _)| *first >= timer)
    }

    pub(super) fn cancel(&mut self, timer: TimerKey) -> Option<Function> {
        self.waiting.remove(&timer)
    }

    /// Takes what is due by now, the earliest first.
    pub(super) fn take_due(&mut self) -> Vec<Function> {
        let now = TimerKey(Instant::now(), u64::MAX);
        let later = self.waiting.split_off(&now);
        std::mem::replace(&mut self.waiting, later).into_values().collect()
    }

    /// When the next function is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|(timer, _)| timer.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[test]
    fn due_functions_run_in_order_and_cancelled_ones_never() {
        let (mut timers, done) = (Timers::default(), Arc::new(Mutex::new(Vec::new())));
        let insert = |timers: &mut Timers, millis, name| {
            let done = Arc::clone(&done);
            timers.insert(Duration::from_millis(millis), Box::new(move || done.lock().unwrap().push(name)))
        };
        let last = insert(&mut timers, 2, "last").unwrap();
        let first = insert(&mut timers, 0, "first").unwrap();
        let cancelled = insert(&mut timers, 1, "cancelled").unwrap();
        let far = insert(&mut timers, 1 << 30, "far").unwrap();
        assert!(timers.is_next(first) && !timers.is_next(last));
        assert!(timers.cancel(cancelled).is_some() && timers.cancel(cancelled).is_none());
        assert!(timers.insert(Duration::MAX, Box::new(|| ())).is_none(), "for ever");
        while timers.next() != Some(far.0) {
            timers.take_due().into_iter().for_each(|function| function());
        }
        assert_eq!(*done.lock().unwrap(), ["first", "last"]);
    }
}
