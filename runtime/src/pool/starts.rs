//! Starts that fail: which are tried again, how soon, for how long, and when the pool closes because of them.
//!
//! Owns: [`Starts`]. Runs in: the parent, under the mutex. Never: closes a pool for a want that may pass, as long as it has a
//! worker or [`START_PATIENCE`] is not over.
//!
//! | a start fails | then |
//! |---|---|
//! | for want of descriptors, memory or processes, or the fork server was killed | it is tried again, after longer and longer pauses, and calls wait; the pool closes if it has had no worker for [`START_PATIENCE`] |
//! | because it was refused for good: another binary, an option, a file that is not there | the pool closes |
//! | because the worker died before its first call | it is tried again, three times for each place; then the pool closes |
//! | because the initializer panicked or could not be run | the pool closes |
//! | because the initializer took too long | as many times as it has `retries`, it is tried again; then the pool closes |
//! | because the worker died in its initializer | likewise; without `retries` as in any other death |

use std::time::{Duration, Instant};

use super::scheduler::{Phase, Scheduler};
use super::slot::SlotState;
use crate::error::{Error, ErrorKind, Execution};
use crate::sys::Errno;

/// How long a place stays empty after a start that failed; twice as long after each further round.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// The longest pause is so many times the first one: 2.56 seconds.
const MOST_DOUBLINGS: usize = 8;

/// How long a pool without any worker goes on trying to start one.
pub(super) const START_PATIENCE: Duration = Duration::from_mins(1);

/// Starts that failed since the last that worked.
#[derive(Debug, Default)]
pub(super) struct Starts {
    /// All of them.
    pub(super) failed: usize,
    /// Those where the worker died.
    died: usize,
    since: Option<Instant>,
    /// Why the last one failed.
    pub(super) last: Option<Error>,
    /// How the initializer failed that is to be tried again.
    initializers: Vec<Error>,
}

impl Starts {
    /// A worker is there, set up and initialized.
    pub(super) fn worked(&mut self) {
        *self = Self::default();
    }
}

/// What is to be expected after a start that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outlook {
    /// What was wanting may be there soon.
    Passing,
    /// The worker died, which the next one need not.
    Death,
    /// The next one would fail in the same way.
    Lasting,
}

fn outlook(error: &Error) -> Outlook {
    match error.kind() {
        ErrorKind::CouldNotStart { errno, .. } => match Errno::from_raw(*errno) {
            Errno::EAGAIN
            | Errno::EMFILE
            | Errno::ENFILE
            | Errno::ENOMEM
            | Errno::ENOBUFS
            | Errno::ENOSPC
            | Errno::EINTR
            | Errno::EBUSY
            | Errno::ETXTBSY
            | Errno::EIO
            | Errno::ETIMEDOUT
            | Errno::ECONNRESET
            | Errno::EPIPE
            | Errno::ETOOMANYREFS => Outlook::Passing,
            _ => Outlook::Lasting,
        },
        ErrorKind::Killed { .. }
        | ErrorKind::Exited { .. }
        | ErrorKind::StackOverflow
        | ErrorKind::NeedsTerminal { .. } => Outlook::Death,
        _ => Outlook::Lasting,
    }
}

impl Scheduler {
    /// How long the next start is to wait, if it is to wait.
    pub(super) fn pause_before_start(&self) -> Option<Duration> {
        // In a pool of many, each place fails once in a round.
        let rounds = self.starts.failed.div_ceil(self.slots.len().max(1));
        let doublings = rounds.checked_sub(1)?.min(MOST_DOUBLINGS);
        Some(FIRST_PAUSE * 2u32.pow(u32::try_from(doublings).unwrap_or(0)))
    }

    /// A worker could not be started, or did not come to its first call.
    pub(super) fn count_failed_start(&mut self, number: usize, error: &Error) {
        if matches!(self.phase, Phase::Ended(_)) {
            return;
        }
        let outlook = outlook(error);
        let since = *self.starts.since.get_or_insert_with(Instant::now);
        self.starts.failed += 1;
        self.starts.died += usize::from(outlook == Outlook::Death);
        self.starts.last = Some(error.clone());
        let times = self.starts.failed;
        let reason = match outlook {
            Outlook::Lasting => format!("its workers cannot be started: {error}"),
            Outlook::Death if self.starts.died > 3 * self.slots.len() => {
                format!("its workers could not be started {times} times in a row; the last time: {error}")
            }
            Outlook::Passing if since.elapsed() >= START_PATIENCE && !self.has_a_worker() => {
                let waited = since.elapsed().as_secs();
                format!(
                    "no worker could be started for {waited} seconds, {times} times in a row; the last time: {error}"
                )
            }
            Outlook::Death | Outlook::Passing => {
                return self.tell_of_failed_start(number, error);
            }
        };
        self.fail_pool(Error::closed(reason));
    }

    /// The initializer has answered that it failed: the next one would fail in the same way.
    pub(super) fn fail_initializer(&mut self, error: &Error) {
        let error = self.of_initializer(error);
        self.fail_pool(Error::closed(format!("the initializer of its workers failed: {error}")));
    }

    /// A worker died in its initializer.
    pub(super) fn initializer_died(&mut self, number: usize, error: &Error) {
        let error = self.of_initializer(error);
        if self.initializer_retries() == 0 {
            return self.count_failed_start(number, &error);
        }
        self.try_initializer_again(number, error);
    }

    /// An alarm went off: ends the worker in this place if its initializer has taken too long.
    pub(super) fn check_initializer(&mut self, number: usize) {
        let Some(limit) = self.config.initializer.as_ref().and_then(|initializer| initializer.options().timeout) else {
            return;
        };
        let Some(worker) = self.slots[number].worker_mut().filter(|worker| worker.initializing) else { return };
        if !worker.is_in_initializer() {
            return;
        }
        let now = Instant::now();
        let since = *worker.since.get_or_insert(now);
        if since.checked_add(limit).is_none_or(|due| now < due) {
            return;
        }
        let kind = ErrorKind::TimedOut { limit, elapsed: since.elapsed() };
        let error = self.in_place(number, Error::new(kind, Execution::Unknown));
        let error = self.of_initializer(&error);
        // Counted first: the worker's end is no further news.
        self.try_initializer_again(number, error.clone());
        self.kill_worker(number, &error, self.config.grace);
    }

    fn try_initializer_again(&mut self, number: usize, error: Error) {
        if matches!(self.phase, Phase::Ended(_)) {
            return;
        }
        self.starts.failed += 1;
        self.starts.last = Some(error.clone());
        if self.starts.initializers.len() < self.initializer_retries() {
            self.starts.initializers.push(error.clone());
            return self.tell_of_failed_start(number, &error);
        }
        let error = error.after(std::mem::take(&mut self.starts.initializers));
        self.fail_pool(Error::closed(format!("the initializer of its workers failed: {error}")));
    }

    fn initializer_retries(&self) -> usize {
        self.config.initializer.as_ref().map_or(0, |initializer| initializer.options().retries as usize)
    }

    fn of_initializer(&self, error: &Error) -> Error {
        match &self.config.initializer {
            Some(initializer) => error.clone().in_task(initializer.task().name()),
            None => error.clone(),
        }
    }

    /// Tells of a start that failed; in a pool of many, once in a round.
    fn tell_of_failed_start(&mut self, number: usize, error: &Error) {
        if (self.starts.failed - 1).is_multiple_of(self.slots.len().max(1)) {
            let pause = self.pause_before_start().unwrap_or_default();
            self.see_failed_start(number, error, pause);
        }
    }

    fn has_a_worker(&self) -> bool {
        self.slots.iter().any(|slot| matches!(&slot.state, SlotState::Ready(worker) if worker.setup_pending == 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_told_from_what_may_not() {
        let refused = |errno| outlook(&Error::could_not_start("fork in the fork server", errno));
        assert_eq!([Errno::EAGAIN, Errno::EMFILE, Errno::ENOMEM].map(refused), [Outlook::Passing; 3]);
        assert_eq!([Errno::ENOEXEC, Errno::EPERM, Errno::EINVAL].map(refused), [Outlook::Lasting; 3]);
        let mismatch = Error::new(ErrorKind::BinaryMismatch, Execution::NotStarted);
        let died = Error::new(ErrorKind::Exited { code: 3 }, Execution::NotStarted);
        assert_eq!([mismatch, died].map(|error| outlook(&error)), [Outlook::Lasting, Outlook::Death]);
    }
}
