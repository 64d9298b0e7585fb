//! The time was over before there was anything to give.
//!
//! Runs in: the parent. What is still on the way goes on.

use std::fmt;

/// The time given to `next_timeout` was over. Nothing is lost: the calls go on, and asking again goes on waiting.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use process_task::{Pool, process_task};
///
/// #[process_task]
/// fn for_ever() { loop { std::thread::sleep(Duration::from_secs(1)) } }
///
/// let pool = Pool::builder().workers(1).build()?;
/// let mut results = pool.imap(for_ever, [()]);
/// let elapsed = results.next_timeout(Duration::from_millis(5)).unwrap_err();
/// assert_eq!(elapsed.unfinished(), 1);
/// assert_eq!(elapsed.to_string(), "the time was over with 1 call unfinished");
/// pool.kill();
/// # process_task::Result::Ok(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed {
    unfinished: usize,
}

impl Elapsed {
    pub(super) fn new(unfinished: usize) -> Self {
        Self { unfinished }
    }

    /// How many of the calls that were submitted have not been given out.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.unfinished
    }
}

impl std::error::Error for Elapsed {}

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.unfinished == 1 { "" } else { "s" };
        write!(f, "the time was over with {} call{plural} unfinished", self.unfinished)
    }
}
