//! What is to be done later, and when.
//!
//! Owns: the list, in order of time. Runs in: the parent, under the hub's lock. Never: does any of it; the hub's thread does.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub(super) type Later = Box<dyn FnOnce() + Send>;

/// The list.
#[derive(Default)]
pub(super) struct Timers {
    last: u64,
    waiting: BTreeMap<Timer, Later>,
}

/// An entry: when it is due, and which of those that are due then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Timer(Instant, u64);

impl Timers {
    /// Enters `what`, to be done after `pause`; `None`, and nothing entered, if that is beyond the clock's end.
    pub(super) fn enter(&mut self, pause: Duration, what: Later) -> Option<Timer> {
        self.last += 1;
        let timer = Timer(Instant::now().checked_add(pause)?, self.last);
        self.waiting.insert(timer, what);
        Some(timer)
    }

    /// Whether nothing is due earlier.
    pub(super) fn is_next(&self, timer: Timer) -> bool {
        self.waiting.first_key_value().is_none_or(|(first, _)| *first >= timer)
    }

    pub(super) fn cancel(&mut self, timer: Timer) -> Option<Later> {
        self.waiting.remove(&timer)
    }

    /// Takes what is due by now, oldest first.
    pub(super) fn due(&mut self) -> Vec<Later> {
        let now = Timer(Instant::now(), u64::MAX);
        let later = self.waiting.split_off(&now);
        std::mem::replace(&mut self.waiting, later).into_values().collect()
    }

    /// When something is due next.
    pub(super) fn next(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|(timer, _)| timer.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[test]
    fn what_is_due_comes_in_order_and_what_was_cancelled_never() {
        let (mut timers, done) = (Timers::default(), Arc::new(Mutex::new(Vec::new())));
        let enter = |timers: &mut Timers, millis, name| {
            let done = Arc::clone(&done);
            timers.enter(Duration::from_millis(millis), Box::new(move || done.lock().unwrap().push(name)))
        };
        let last = enter(&mut timers, 2, "last").unwrap();
        let first = enter(&mut timers, 0, "first").unwrap();
        let cancelled = enter(&mut timers, 1, "cancelled").unwrap();
        let far = enter(&mut timers, 1 << 30, "far").unwrap();
        assert!(timers.is_next(first) && !timers.is_next(last));
        assert!(timers.cancel(cancelled).is_some() && timers.cancel(cancelled).is_none());
        assert!(timers.enter(Duration::MAX, Box::new(|| ())).is_none(), "for ever");
        while timers.next() != Some(far.0) {
            timers.due().into_iter().for_each(|what| what());
        }
        assert_eq!(*done.lock().unwrap(), ["first", "last"]);
    }
}
