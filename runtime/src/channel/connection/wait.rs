//! Waiting for several connections at once, and for whatever else has a descriptor.
//!
//! Owns: [`wait_readable`]. Runs in: any process. Never: takes a message. The caller does that.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use crate::channel::error::channel_failed;
use crate::error::{Error, Result};
use crate::sys::poll;

/// Waits until at least one of `these` is ready, and says which are, by their places.
///
/// Anything that has a descriptor can be waited for: a [`Connection`](crate::channel::Connection) is ready when a message
/// or the end is there, a [`Process`](crate::Process) when it has ended, a socket or a pipe of the standard library when it
/// can be read. Nothing is taken: `try_recv` says what there is, and that it is [`Empty`](crate::channel::TryRecvError::Empty)
/// if another thread was faster.
///
/// Queues have no descriptor and cannot be among them: `recv_timeout` waits for one, and `recv_async` for several, with what an
/// executor has for that.
///
/// None is the answer when `timeout` is over before any is ready. With no time-out it waits as long as it takes.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use process_task::channel::{one_way, wait_readable};
///
/// let (one, ones) = one_way::<u32>()?;
/// let (_two, twos) = one_way::<u32>()?;
/// one.send(1)?;
/// assert_eq!(wait_readable(&[&ones, &twos], None)?, [0]);
/// assert_eq!(wait_readable(&[&twos], Some(Duration::ZERO))?, [] as [usize; 0]);
/// # process_task::Result::Ok(())
/// ```
///
/// # Errors
/// - [`InvalidInput`](crate::ErrorKind::InvalidInput): there is nothing to wait for, and no time-out.
/// - [`ChannelFailed`](crate::ErrorKind::ChannelFailed): the kernel refuses, such as for more descriptors than a process may
///   have open.
///
/// # If the other process dies
/// Its end of a connection is closed with it, and its descriptor as a process becomes readable: both are ready.
#[doc(alias("wait", "select", "poll"))]
pub fn wait_readable(these: &[&dyn AsFd], timeout: Option<Duration>) -> Result<Vec<usize>> {
    if these.is_empty() && timeout.is_none() {
        return Err(Error::invalid("there is nothing to wait for, and no time-out: this would wait for ever"));
    }
    let descriptors: Vec<_> = these.iter().map(|one| one.as_fd()).collect();
    // A time beyond the clock's end is for ever.
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    poll::readable_indices(&descriptors, deadline).map_err(|errno| channel_failed("wait for several", errno))
}
