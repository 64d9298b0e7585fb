//! Starts that fail: which are tried again, how soon, for how long, and when the pool closes because of them.
//!
//! Runs in: the parent, under the scheduler's mutex. A pool is not closed for a want that may pass as long as it has a worker,
//! or [`START_PATIENCE`] is not over.
//!
//! | a start fails | then |
//! |---|---|
//! | for want of descriptors, memory or processes, or the fork server was killed | it is tried again, after longer and longer pauses, and calls wait; the pool closes if it has had no worker for [`START_PATIENCE`] |
//! | because it was refused for good: another binary, an option, a file that is not there | the pool closes |
//! | because the worker died before its first call | it is tried again, three times for each slot; then the pool closes |
//! | because the initializer panicked or could not be run | the pool closes |
//! | because the initializer took too long | as many times as it has `retries`, it is tried again; then the pool closes |
//! | because the worker died in its initializer | as when it took too long; without `retries` as in any other death |

use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind};
use crate::sys::Errno;

/// How long a slot stays vacant after a start that failed; twice as long after each further round.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// The longest pause is 2 to this power times the first one: 2.56 seconds.
const MOST_DOUBLINGS: usize = 8;

/// How long a pool without any worker goes on trying to start one.
pub(super) const START_PATIENCE: Duration = Duration::from_mins(1);

/// Starts that failed since the last that worked.
#[derive(Debug, Default)]
pub(super) struct Starts {
    /// All of them.
    failed: usize,
    /// Those where the worker died.
    died: usize,
    since: Option<Instant>,
    /// Why the last one failed.
    last: Option<Error>,
    /// How the initializer failed that is to be tried again.
    initializers: Vec<Error>,
}

/// What follows from a start that failed.
#[derive(Debug)]
pub(super) enum AfterFailure {
    /// It is tried again. In a pool of many, observers are told once in a round: then with how many failed, and the pause.
    Retry(Option<(usize, Duration)>),
    /// The pool cannot go on, for this reason.
    Close(String),
}

impl Starts {
    /// A worker is there, set up and initialized.
    pub(super) fn worked(&mut self) {
        *self = Self::default();
    }

    /// Why the last start failed, if none has worked since.
    pub(super) fn last(&self) -> Option<&Error> {
        self.last.as_ref()
    }

    /// How long the next start is to wait in a pool of `slots`, if it is to wait.
    pub(super) fn pause(&self, slots: usize) -> Option<Duration> {
        // In a pool of many, each slot fails once in a round.
        let rounds = self.failed.div_ceil(slots.max(1));
        let doublings = rounds.checked_sub(1)?.min(MOST_DOUBLINGS);
        Some(FIRST_PAUSE * 2u32.pow(u32::try_from(doublings).unwrap_or(0)))
    }

    /// A worker could not be started, or did not come to its first call.
    pub(super) fn count(&mut self, error: &Error, slots: usize, has_worker: bool) -> AfterFailure {
        let outlook = outlook(error);
        let since = *self.since.get_or_insert_with(Instant::now);
        self.failed += 1;
        self.died += usize::from(outlook == Outlook::Death);
        self.last = Some(error.clone());
        let times = self.failed;
        AfterFailure::Close(match outlook {
            Outlook::Lasting => format!("its workers cannot be started: {error}"),
            Outlook::Death if self.died > 3 * slots => {
                format!("its workers could not be started {times} times in a row; the last time: {error}")
            }
            Outlook::Passing if since.elapsed() >= START_PATIENCE && !has_worker => {
                let waited = since.elapsed().as_secs();
                format!(
                    "no worker could be started for {waited} seconds, {times} times in a row; the last time: {error}"
                )
            }
            Outlook::Death | Outlook::Passing => return self.retry(slots),
        })
    }

    /// The initializer took too long, or its worker died in it. It is tried again `retries` times.
    pub(super) fn count_initializer(&mut self, error: Error, retries: usize, slots: usize) -> AfterFailure {
        self.failed += 1;
        self.last = Some(error.clone());
        if self.initializers.len() < retries {
            self.initializers.push(error);
            return self.retry(slots);
        }
        let error = error.after(std::mem::take(&mut self.initializers));
        AfterFailure::Close(format!("the initializer of its workers failed: {error}"))
    }

    fn retry(&self, slots: usize) -> AfterFailure {
        let told = (self.failed - 1).is_multiple_of(slots.max(1));
        AfterFailure::Retry(told.then(|| (self.failed, self.pause(slots).unwrap_or_default())))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Execution;

    #[test]
    fn what_may_pass_is_told_from_what_may_not() {
        let refused = |errno| outlook(&Error::could_not_start("fork in the fork server", errno));
        assert_eq!([Errno::EAGAIN, Errno::EMFILE, Errno::ENOMEM].map(refused), [Outlook::Passing; 3]);
        assert_eq!([Errno::ENOEXEC, Errno::EPERM, Errno::EINVAL].map(refused), [Outlook::Lasting; 3]);
        let mismatch = Error::new(ErrorKind::BinaryMismatch, Execution::NotStarted);
        let died = Error::new(ErrorKind::Exited { code: 3 }, Execution::NotStarted);
        assert_eq!([mismatch, died].map(|error| outlook(&error)), [Outlook::Lasting, Outlook::Death]);
    }

    #[test]
    fn pauses_double_once_a_round() {
        let mut starts = Starts::default();
        assert_eq!(starts.pause(2), None);
        let died = Error::new(ErrorKind::Exited { code: 3 }, Execution::NotStarted);
        let told = |after| matches!(after, AfterFailure::Retry(Some(_)));
        assert!(told(starts.count(&died, 2, false)));
        assert_eq!(starts.pause(2), Some(FIRST_PAUSE));
        assert!(!told(starts.count(&died, 2, false)));
        assert!(told(starts.count(&died, 2, false)));
        assert_eq!(starts.pause(2), Some(2 * FIRST_PAUSE));
        starts.worked();
        assert_eq!(starts.pause(2), None);
    }

    #[test]
    fn fourth_death_of_each_slot_closes_the_pool() {
        let mut starts = Starts::default();
        let died = Error::new(ErrorKind::Exited { code: 3 }, Execution::NotStarted);
        for _ in 0..3 {
            assert!(matches!(starts.count(&died, 1, false), AfterFailure::Retry(_)));
        }
        assert!(matches!(starts.count(&died, 1, true), AfterFailure::Close(_)));
    }

    #[test]
    fn initializer_is_tried_as_often_as_it_has_retries() {
        let mut starts = Starts::default();
        let died = Error::new(ErrorKind::Exited { code: 3 }, Execution::Unknown);
        assert!(matches!(starts.count_initializer(died.clone(), 1, 1), AfterFailure::Retry(_)));
        assert!(matches!(starts.count_initializer(died, 1, 1), AfterFailure::Close(_)));
    }
}
