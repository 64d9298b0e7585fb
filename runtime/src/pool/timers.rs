//! Which timers of a pool are set.
//!
//! Runs in: the parent, under the scheduler's mutex. The timers themselves are the reactor's; a timer that is set is an effect.

use std::time::Instant;

/// The timers that are set.
#[derive(Debug, Default)]
pub(super) struct PoolTimers {
    /// When the deadlines are checked next.
    alarm: Option<Instant>,
    /// Idle workers are checked after some time.
    idle: bool,
}

impl PoolTimers {
    /// Sees to it that deadlines are checked by `due`. Returns the timer that has to be set for this, if one has.
    pub(super) fn set(&mut self, due: Option<Instant>) -> Option<Instant> {
        let earlier = due.filter(|due| self.alarm.is_none_or(|alarm| *due < alarm))?;
        self.alarm = Some(earlier);
        Some(earlier)
    }

    /// The deadlines are being checked, so later ones need a new timer.
    pub(super) fn fired(&mut self) {
        self.alarm = None;
    }

    /// Sees to it that idle workers are checked. True if a timer has to be set for this.
    pub(super) fn set_idle(&mut self) -> bool {
        !std::mem::replace(&mut self.idle, true)
    }

    /// Idle workers are being checked.
    pub(super) fn idle_fired(&mut self) {
        self.idle = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn only_an_earlier_deadline_needs_a_timer() {
        let mut timers = PoolTimers::default();
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        assert_eq!(timers.set(None), None);
        assert_eq!(timers.set(Some(later)), Some(later));
        assert_eq!(timers.set(Some(later)), None);
        assert_eq!(timers.set(Some(now)), Some(now));
        assert_eq!(timers.set(Some(later)), None);
        timers.fired();
        assert_eq!(timers.set(Some(later)), Some(later));
    }

    #[test]
    fn one_timer_serves_all_idle_workers() {
        let mut timers = PoolTimers::default();
        assert!(timers.set_idle());
        assert!(!timers.set_idle());
        timers.idle_fired();
        assert!(timers.set_idle());
    }
}
