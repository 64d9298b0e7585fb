//! Waiting for descriptors: `poll(2)` for a few, `epoll(7)` for many.
//!
//! Owns: [`Set`], one epoll set. Runs in: any process. Never: gives up because a signal arrived.
#![expect(unsafe_code, reason = "dropping an epoll set, or not")]

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::fd::above_stdio;
use super::held;

/// `poll(2)`: which of `fds` can be read, or were hung up; none if `deadline` came first.
pub(crate) fn readable<const N: usize>(fds: [BorrowedFd<'_>; N], deadline: Option<Instant>) -> nix::Result<[bool; N]> {
    let mut polled = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    any(&mut polled, deadline)?;
    Ok(polled.each_ref().map(|fd| fd.any().unwrap_or(true)))
}

/// `poll(2)`: the places of those of `fds` that can be read, or were hung up; none if `deadline` came first.
pub(crate) fn readable_of(fds: &[BorrowedFd<'_>], deadline: Option<Instant>) -> nix::Result<Vec<usize>> {
    let mut polled: Vec<_> = fds.iter().map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
    any(&mut polled, deadline)?;
    Ok(polled.iter().enumerate().filter(|(_, fd)| fd.any().unwrap_or(true)).map(|(at, _)| at).collect())
}

/// `poll(2)`: whether `fd` can be written, or was hung up; false if `deadline` came first.
pub(crate) fn writable(fd: BorrowedFd<'_>, deadline: Option<Instant>) -> nix::Result<bool> {
    any(&mut [PollFd::new(fd, PollFlags::POLLOUT)], deadline)
}

/// `poll(2)`: returns when `fd` can be read or written, or was hung up, or when `deadline` comes.
#[cfg(feature = "tcp")]
pub(crate) fn readable_or_writable(fd: BorrowedFd<'_>, deadline: Option<Instant>) -> nix::Result<bool> {
    let mut polled = [PollFd::new(fd, PollFlags::POLLIN | PollFlags::POLLOUT)];
    any(&mut polled, deadline)
}

/// `poll(2)`: whether the other end of a TCP socket has said that it sends nothing more, or is gone; what came before that may
/// still be there to be read.
#[cfg(feature = "tcp")]
pub(crate) fn other_end_is_closed(fd: BorrowedFd<'_>) -> nix::Result<bool> {
    let only_that = PollFlags::from_bits_retain(nix::libc::POLLRDHUP);
    any(&mut [PollFd::new(fd, only_that)], Some(Instant::now()))
}

/// Waits until one of them has something to say; false if `deadline` came first.
fn any(polled: &mut [PollFd<'_>], deadline: Option<Instant>) -> nix::Result<bool> {
    loop {
        // Rounded up, or the last millisecond before a deadline is spent turning in circles.
        let timeout = deadline.map_or(PollTimeout::NONE, |at| {
            PollTimeout::try_from(left(at).as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX)
        });
        match poll(polled, timeout) {
            Err(Errno::EINTR) => {}
            Ok(0) if deadline.is_some_and(|at| Instant::now() < at) => {}
            Ok(count) => return Ok(count > 0),
            Err(errno) => return Err(errno),
        }
    }
}

/// Whether every descriptor of the other end of a socket pair is closed. Does not wait.
pub(crate) fn is_hung_up(socket: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::new(socket, PollFlags::empty())];
    let reported = super::retry(|| poll(&mut polled, PollTimeout::ZERO));
    reported.is_ok_and(|count| count > 0) && polled[0].revents().is_some_and(|flags| flags.contains(PollFlags::POLLHUP))
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// When a descriptor of a [`Set`] reports.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Report {
    /// As long as it is readable.
    Level,
    /// Each time it is written to. A bell reports so, and need never be read.
    Ring,
    /// As `Ring`, but to one sleeping set only, the one that was told of it first. A bell that two sets listen to.
    RingOne,
    /// Once, as soon as it is readable; then not before [`Set::again`].
    Once,
}

/// An epoll set with tokens for its members.
#[derive(Debug)]
pub(crate) struct Set {
    epoll: ManuallyDrop<Epoll>,
    /// Made after the program had closed what it did not open; see [`held`].
    late: bool,
}

impl Drop for Set {
    fn drop(&mut self) {
        if !self.is_gone() {
            // SAFETY: this is the only place where it is dropped, and it is not used after it.
            unsafe { ManuallyDrop::drop(&mut self.epoll) };
        }
    }
}

impl AsFd for Set {
    /// Readable while one of its members reports.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

impl Set {
    pub(crate) fn new() -> nix::Result<Self> {
        above_stdio(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?.0)
            .map(|fd| Self { epoll: ManuallyDrop::new(Epoll(fd)), late: held::is_lost() })
    }

    /// Whether its number, and those of its members, are no longer to be used.
    fn is_gone(&self) -> bool {
        !self.late && held::is_lost()
    }

    /// The set, if it may still be used.
    fn epoll(&self) -> nix::Result<&Epoll> {
        if self.is_gone() { Err(Errno::EBADF) } else { Ok(&self.epoll) }
    }

    /// `epoll_ctl(EPOLL_CTL_ADD)`.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>, token: u64, report: Report) -> nix::Result<()> {
        let flags = match report {
            Report::Level => EpollFlags::EPOLLIN,
            Report::Ring => EpollFlags::EPOLLIN | EpollFlags::EPOLLET,
            Report::RingOne => EpollFlags::EPOLLIN | EpollFlags::EPOLLET | EpollFlags::EPOLLEXCLUSIVE,
            Report::Once => EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT,
        };
        self.epoll()?.add(fd, EpollEvent::new(flags, token))
    }

    /// `epoll_ctl(EPOLL_CTL_MOD)`: reports, level by level, that `fd` can be read, and also, if asked, that it can be written.
    pub(crate) fn also_writable(&self, fd: BorrowedFd<'_>, token: u64, writable: bool) -> nix::Result<()> {
        let mut flags = EpollFlags::EPOLLIN;
        flags.set(EpollFlags::EPOLLOUT, writable);
        self.epoll()?.modify(fd, &mut EpollEvent::new(flags, token))
    }

    /// `epoll_ctl(EPOLL_CTL_MOD)`: one that reports [once](Report::Once) does so once more.
    pub(crate) fn again(&self, fd: BorrowedFd<'_>, token: u64) -> nix::Result<()> {
        self.epoll()?.modify(fd, &mut EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT, token))
    }

    /// `epoll_ctl(EPOLL_CTL_DEL)`.
    pub(crate) fn remove(&self, fd: BorrowedFd<'_>) {
        let _ = self.epoll().and_then(|epoll| epoll.delete(fd));
    }

    /// `epoll_wait(2)`: the tokens of those that report; none if `deadline` came first.
    pub(crate) fn wait(&self, tokens: &mut Vec<u64>, deadline: Option<Instant>) -> nix::Result<()> {
        tokens.clear();
        let mut events = [EpollEvent::empty(); 64];
        loop {
            let timeout = deadline.map_or(EpollTimeout::NONE, |at| {
                EpollTimeout::try_from(left(at).as_micros().div_ceil(1000)).unwrap_or(EpollTimeout::MAX)
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
