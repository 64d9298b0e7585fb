//! Waiting for descriptors: `poll(2)` for a few, `epoll(7)` for many.
//!
//! Owns: [`Epoll`], one epoll set. Runs in: any process. Invariant: a signal does not end a wait.
#![expect(unsafe_code, reason = "dropping an epoll set, or not")]

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll as NixEpoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::fd::above_stdio;
use super::held;

/// `poll(2)`: returns which of `fds` can be read, or were hung up; none if `deadline` came first.
pub(crate) fn readable<const N: usize>(fds: [BorrowedFd<'_>; N], deadline: Option<Instant>) -> nix::Result<[bool; N]> {
    let mut polled = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    wait_any(&mut polled, deadline)?;
    Ok(polled.each_ref().map(|fd| fd.any().unwrap_or(true)))
}

/// `poll(2)`: returns the indices of those of `fds` that can be read, or were hung up; none if `deadline` came first.
pub(crate) fn readable_indices(fds: &[BorrowedFd<'_>], deadline: Option<Instant>) -> nix::Result<Vec<usize>> {
    let mut polled: Vec<_> = fds.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    wait_any(&mut polled, deadline)?;
    Ok(polled.iter().enumerate().filter(|(_, fd)| fd.any().unwrap_or(true)).map(|(at, _)| at).collect())
}

/// `poll(2)`: returns whether `fd` can be written, or was hung up; false if `deadline` came first.
pub(crate) fn writable(fd: BorrowedFd<'_>, deadline: Option<Instant>) -> nix::Result<bool> {
    wait_any(&mut [PollFd::new(fd, PollFlags::POLLOUT)], deadline)
}

/// `poll(2)`: returns when `fd` can be read or written, or was hung up, or when `deadline` comes.
#[cfg(feature = "tcp")]
pub(crate) fn readable_or_writable(fd: BorrowedFd<'_>, deadline: Option<Instant>) -> nix::Result<bool> {
    let mut polled = [PollFd::new(fd, PollFlags::POLLIN | PollFlags::POLLOUT)];
    wait_any(&mut polled, deadline)
}

/// `poll(2)`: returns whether the peer of a TCP socket has shut down its writing side, or is gone. Earlier data may still
/// wait to be read.
#[cfg(feature = "tcp")]
pub(crate) fn other_end_is_closed(fd: BorrowedFd<'_>) -> nix::Result<bool> {
    let only_that = PollFlags::from_bits_retain(nix::libc::POLLRDHUP);
    wait_any(&mut [PollFd::new(fd, only_that)], Some(Instant::now()))
}

/// Waits until one of them reports an event; returns false if `deadline` came first.
fn wait_any(polled: &mut [PollFd<'_>], deadline: Option<Instant>) -> nix::Result<bool> {
    loop {
        // Rounded up, or this loop would spin in the last millisecond before a deadline.
        let timeout = deadline.map_or(PollTimeout::NONE, |at| {
            PollTimeout::try_from(remaining(at).as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX)
        });
        match poll(polled, timeout) {
            Err(Errno::EINTR) => {}
            Ok(0) if deadline.is_some_and(|at| Instant::now() < at) => {}
            Ok(count) => return Ok(count > 0),
            Err(errno) => return Err(errno),
        }
    }
}

/// Returns whether every descriptor of the other end of a socket pair is closed. Does not wait.
pub(crate) fn is_hung_up(socket: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::new(socket, PollFlags::empty())];
    let reported = super::retry(|| poll(&mut polled, PollTimeout::ZERO));
    reported.is_ok_and(|count| count > 0) && polled[0].revents().is_some_and(|flags| flags.contains(PollFlags::POLLHUP))
}

fn remaining(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// When a descriptor of an [`Epoll`] reports.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Trigger {
    /// As long as it is readable.
    Level,
    /// Each time it is written to. For an eventfd that is never read.
    Edge,
    /// As `Edge`, but to one sleeping set only, the first that it was added to. For an eventfd in two sets.
    EdgeExclusive,
    /// Once, as soon as it is readable; then not before [`Epoll::rearm`].
    OneShot,
}

/// An epoll set with tokens for its descriptors.
#[derive(Debug)]
pub(crate) struct Epoll {
    epoll: ManuallyDrop<NixEpoll>,
    /// Made after the program had closed what it did not open; see [`held`].
    made_after_loss: bool,
}

impl Drop for Epoll {
    fn drop(&mut self) {
        if !self.is_gone() {
            // SAFETY: this is the only place where it is dropped, and it is not used after it.
            unsafe { ManuallyDrop::drop(&mut self.epoll) };
        }
    }
}

impl AsFd for Epoll {
    /// Readable while one of its descriptors reports.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

impl Epoll {
    pub(crate) fn new() -> nix::Result<Self> {
        above_stdio(NixEpoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?.0)
            .map(|fd| Self { epoll: ManuallyDrop::new(NixEpoll(fd)), made_after_loss: held::is_lost() })
    }

    /// Returns whether its number, and those of its descriptors, must not be used any more.
    fn is_gone(&self) -> bool {
        !self.made_after_loss && held::is_lost()
    }

    /// Returns the set, if it may still be used.
    fn epoll(&self) -> nix::Result<&NixEpoll> {
        if self.is_gone() { Err(Errno::EBADF) } else { Ok(&self.epoll) }
    }

    /// `epoll_ctl(EPOLL_CTL_ADD)`.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>, token: u64, trigger: Trigger) -> nix::Result<()> {
        let flags = match trigger {
            Trigger::Level => EpollFlags::EPOLLIN,
            Trigger::Edge => EpollFlags::EPOLLIN | EpollFlags::EPOLLET,
            Trigger::EdgeExclusive => EpollFlags::EPOLLIN | EpollFlags::EPOLLET | EpollFlags::EPOLLEXCLUSIVE,
            Trigger::OneShot => EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT,
        };
        self.epoll()?.add(fd, EpollEvent::new(flags, token))
    }

    /// `epoll_ctl(EPOLL_CTL_MOD)`: reports, by level, that `fd` can be read, and, if `writable`, also that it can be written.
    pub(crate) fn set_writable(&self, fd: BorrowedFd<'_>, token: u64, writable: bool) -> nix::Result<()> {
        let mut flags = EpollFlags::EPOLLIN;
        flags.set(EpollFlags::EPOLLOUT, writable);
        self.epoll()?.modify(fd, &mut EpollEvent::new(flags, token))
    }

    /// `epoll_ctl(EPOLL_CTL_MOD)`: arms a descriptor that reports [once](Trigger::OneShot) again.
    pub(crate) fn rearm(&self, fd: BorrowedFd<'_>, token: u64) -> nix::Result<()> {
        self.epoll()?.modify(fd, &mut EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT, token))
    }

    /// `epoll_ctl(EPOLL_CTL_DEL)`.
    pub(crate) fn remove(&self, fd: BorrowedFd<'_>) {
        let _ = self.epoll().and_then(|epoll| epoll.delete(fd));
    }

    /// `epoll_wait(2)`: stores the tokens of those that report; none if `deadline` came first.
    pub(crate) fn wait(&self, tokens: &mut Vec<u64>, deadline: Option<Instant>) -> nix::Result<()> {
        tokens.clear();
        let mut events = [EpollEvent::empty(); 64];
        loop {
            let timeout = deadline.map_or(EpollTimeout::NONE, |at| {
                EpollTimeout::try_from(remaining(at).as_micros().div_ceil(1000)).unwrap_or(EpollTimeout::MAX)
            });
            match self.epoll()?.wait(&mut events, timeout) {
                Err(Errno::EINTR) => {}
                Ok(0) if deadline.is_some_and(|at| Instant::now() < at) => {}
                Ok(count) => {
                    tokens.extend(events[..count].iter().map(EpollEvent::data));
                    return Ok(());
                }
                Err(errno) => return Err(errno),
            }
        }
    }
}
