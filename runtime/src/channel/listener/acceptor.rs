//! Connections that were accepted but not authenticated yet.
//!
//! Owns: [`Acceptor`], a listening socket and its pending peers. Runs in: the process that listens.
//! Never: waits for one of them, or lets one keep another waiting.
//!
//! # A pending peer
//!
//! | comes | says | is let in | or is refused |
//! |---|---|---|---|
//! | from this machine | [`GREETING`], one packet | once it has said so | if it says anything else, or its process runs for another user |
//! | from another | its part of the handshake | once it has shown that it has the key | if it has not |
//!
//! and in both cases if it takes longer than [`AcceptLimits::timeout`], or if it has waited longest when there are more than
//! [`AcceptLimits::pending`]: a peer with the key needs moments, so a crowd of silent ones can make room.
//!
//! The one set of descriptors, which is readable when something is to be done, also has the time at which the next has
//! taken too long. So a caller that waits for the set alone waits for everything.
//!
//! # A copy of the process
//!
//! A host may call `fork()`, and let the copy listen, too. Both would look at one set, which has what only one of them
//! knows. So a copy makes a [`AcceptorOfProcess`] of its own when it first looks; a peer that came to the process before stays with that
//! one.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use super::socket_path::check_user;
use super::{GREETING, refused};
use crate::channel::error::channel_failed;
#[cfg(feature = "tcp")]
use crate::channel::remote::{Handshake, Key, Session};
use crate::error::{Error, Result};
use crate::sys::mutex::MutexExt as _;
use crate::sys::poll::{Epoll, Trigger};
use crate::sys::timer_fd::MonotonicTimer;
use crate::sys::unix_listener;
use crate::sys::{self, Errno, atfork, socket};

/// Limits on connections that are not authenticated yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct AcceptLimits {
    /// How long a handshake may take.
    pub(super) timeout: Duration,
    /// Number of such connections at once.
    pub(super) pending: usize,
}

/// Which peers are accepted.
#[derive(Debug)]
pub(super) enum AuthPolicy {
    /// Processes of the same user.
    User,
    /// Peers that have the key.
    #[cfg(feature = "tcp")]
    Key(Key),
}

/// A peer that was authenticated.
#[derive(Debug)]
pub(super) enum Accepted {
    Local(OwnedFd),
    #[cfg(feature = "tcp")]
    Far(std::net::TcpStream, Session),
}

#[derive(Debug)]
pub(super) struct Acceptor {
    listening: OwnedFd,
    auth: AuthPolicy,
    pub(super) limits: AcceptLimits,
    view: AcceptorOfProcess,
}

/// The state of an acceptor in one process.
#[derive(Debug)]
struct AcceptorOfProcess {
    /// The process, where the host calls `fork()`: see [`atfork::generation`].
    generation: u64,
    /// The listening socket, the timer, and the socket of every pending peer.
    set: Epoll,
    timer: MonotonicTimer,
    peers: Mutex<PendingPeers>,
    /// The state in a copy of the process.
    of_copy: OnceLock<Box<Self>>,
}

/// Pending peers by number: the order in which they came, and in which they time out.
#[derive(Debug, Default)]
struct PendingPeers {
    came: u64,
    waiting: BTreeMap<u64, PendingPeer>,
}

#[derive(Debug)]
struct PendingPeer {
    until: Instant,
    handshake: HandshakeState,
}

#[derive(Debug)]
enum HandshakeState {
    Greeting(OwnedFd),
    #[cfg(feature = "tcp")]
    Handshake(std::net::TcpStream, Box<Handshake>),
}

/// The longest time of a timer. The clock can show it.
const MAX_TIMER: Duration = Duration::from_hours(24 * 365);

/// Tokens of the set. The token of a pending peer is its number.
const LISTENING: u64 = u64::MAX;
const TIMER: u64 = u64::MAX - 1;

impl Acceptor {
    /// # Errors
    /// No descriptors can be had.
    pub(super) fn new(listening: OwnedFd, auth: AuthPolicy, limits: AcceptLimits) -> Result<Self> {
        let view = AcceptorOfProcess::new(listening.as_fd()).map_err(cannot_wait)?;
        Ok(Self { listening, auth, limits, view })
    }

    /// Returns the state of this process.
    fn view(&self) -> sys::Result<&AcceptorOfProcess> {
        let mut view = &self.view;
        while view.generation != atfork::generation() {
            view = if let Some(own) = view.of_copy.get() {
                own
            } else {
                let own = Box::new(AcceptorOfProcess::new(self.listening.as_fd())?);
                // If another thread of the original holds the lock, they stay open.
                if let Ok(mut others) = view.peers.try_lock() {
                    others.waiting.clear();
                }
                view.of_copy.get_or_init(|| own)
            };
        }
        Ok(view)
    }

    /// Does what needs no waiting, until a peer is accepted or refused. `None`: no peer is yet.
    pub(super) fn look(&self) -> Option<Result<Accepted>> {
        if self.limits.pending == 0 {
            return Some(Err(Error::invalid(format!(
                "`max_handshakes` must be at least 1, not 0; leave it out for {}",
                super::MAX_PENDING_PEERS
            ))));
        }
        let view = match self.view() {
            Ok(view) => view,
            Err(errno) => return Some(Err(cannot_wait(errno))),
        };
        let mut peers = view.peers.lock_unpoisoned();
        let decided = self.go_on(view, &mut peers);
        let next = peers.waiting.first_key_value().map(|(_, first)| first.until);
        match (decided, view.timer.set(next)) {
            (None, Err(errno)) => Some(Err(channel_failed("set a timer", errno))),
            (decided, _) => decided,
        }
    }

    fn go_on(&self, view: &AcceptorOfProcess, peers: &mut PendingPeers) -> Option<Result<Accepted>> {
        let mut tokens = Vec::new();
        // Ends: a peer sends little before it is accepted or refused, and the number of peers is bounded.
        loop {
            if let Err(errno) = view.set.wait(&mut tokens, Some(Instant::now())) {
                return Some(Err(cannot_wait(errno)));
            }
            if tokens.is_empty() {
                return None;
            }
            for token in &tokens {
                let decided = match *token {
                    LISTENING => self.accept_next(view, peers),
                    TIMER => view.on_timer(peers),
                    number => view.read_peer(peers, number),
                };
                // The others report again.
                if decided.is_some() {
                    return decided;
                }
            }
        }
    }

    fn accept_next(&self, view: &AcceptorOfProcess, peers: &mut PendingPeers) -> Option<Result<Accepted>> {
        let came = match unix_listener::accept(self.listening.as_fd()) {
            Err(Errno::EAGAIN) => return None,
            came => {
                came.map_err(|errno| channel_failed("accept a connection", errno)).and_then(|came| self.greet(came))
            }
        };
        let handshake = match came {
            Ok(handshake) => handshake,
            Err(error) => return Some(Err(error)),
        };
        let number = peers.came;
        peers.came += 1;
        if let Err(errno) = view.set.add(handshake.as_fd(), number, Trigger::Level) {
            return Some(Err(cannot_wait(errno)));
        }
        peers
            .waiting
            .insert(number, PendingPeer { until: Instant::now() + self.limits.timeout.min(MAX_TIMER), handshake });
        if peers.waiting.len() <= self.limits.pending {
            return None;
        }
        view.refuse_first(
            peers,
            "the peer said nothing until others took its place; `max_handshakes` of the listener allows more",
        )
    }

    fn greet(&self, socket: OwnedFd) -> Result<HandshakeState> {
        match &self.auth {
            AuthPolicy::User => check_user(&socket).map(|()| HandshakeState::Greeting(socket)),
            #[cfg(feature = "tcp")]
            AuthPolicy::Key(key) => {
                let socket = super::far(socket)?;
                let handshake = Handshake::listen(key).map_err(|refusal| refused(refusal.reason()))?;
                Ok(HandshakeState::Handshake(socket, Box::new(handshake)))
            }
        }
    }
}

impl AcceptorOfProcess {
    fn new(listening: BorrowedFd<'_>) -> sys::Result<Self> {
        let (set, timer) = (Epoll::new()?, MonotonicTimer::new()?);
        set.add(listening, LISTENING, Trigger::Level)?;
        set.add(timer.as_fd(), TIMER, Trigger::Level)?;
        let (peers, of_copy) = (Mutex::default(), OnceLock::new());
        Ok(Self { generation: atfork::generation(), set, timer, peers, of_copy })
    }

    fn on_timer(&self, peers: &mut PendingPeers) -> Option<Result<Accepted>> {
        let first = peers.waiting.first_key_value().map(|(_, first)| first.until);
        if first.is_some_and(|until| until <= Instant::now()) {
            return self.refuse_first(
                peers,
                "the peer did not authenticate in time; `handshake_timeout` and `connect_tcp_timeout` allow more",
            );
        }
        // The one that was late is gone, or a clock was rounded.
        let set = self.timer.set(first);
        set.err().map(|errno| Err(channel_failed("set a timer", errno)))
    }

    fn refuse_first(&self, peers: &mut PendingPeers, reason: &str) -> Option<Result<Accepted>> {
        let number = *peers.waiting.first_key_value()?.0;
        drop(self.remove(peers, number));
        Some(Err(refused(reason)))
    }

    /// Reads what a pending peer has sent.
    fn read_peer(&self, peers: &mut PendingPeers, number: u64) -> Option<Result<Accepted>> {
        let refusal = match &mut peers.waiting.get_mut(&number)?.handshake {
            HandshakeState::Greeting(from) => match socket::receive(from.as_fd()) {
                Err(Errno::EAGAIN) => return None,
                Ok((said, _)) if said == GREETING => None,
                // A peer that only looked whether a process listens, or has died: nothing is lost, and nothing was tried.
                Ok((said, _)) if said.is_empty() => {
                    drop(self.remove(peers, number));
                    return None;
                }
                Ok((said, _)) if said.starts_with(super::NAME) => Some(
                    "the peer speaks another version of the protocol; use the same version of this crate on both sides",
                ),
                Ok(_) | Err(_) => Some("the peer speaks another protocol; is it a program with this crate?"),
            },
            #[cfg(feature = "tcp")]
            HandshakeState::Handshake(socket, state) => match state.go_on(&mut &*socket) {
                Ok(None) => return None,
                Ok(Some(agreed)) => {
                    return match self.remove(peers, number)?.handshake {
                        HandshakeState::Handshake(socket, _) => Some(Ok(Accepted::Far(socket, agreed))),
                        HandshakeState::Greeting(_) => None,
                    };
                }
                Err(refusal) => Some(refusal.reason()),
            },
        };
        let peer = self.remove(peers, number)?;
        match (refusal, peer.handshake) {
            (Some(reason), _) => Some(Err(refused(reason))),
            (None, HandshakeState::Greeting(socket)) => Some(Ok(Accepted::Local(socket))),
            #[cfg(feature = "tcp")]
            (None, HandshakeState::Handshake(..)) => None,
        }
    }

    /// Removes a pending peer.
    fn remove(&self, peers: &mut PendingPeers, number: u64) -> Option<PendingPeer> {
        let peer = peers.waiting.remove(&number)?;
        // Closing alone is not enough: a copy of this process may have the socket, too, and then the set still reports it.
        self.set.remove(peer.handshake.as_fd());
        Some(peer)
    }
}

impl AsFd for Acceptor {
    /// Readable when there is something to do. In a copy without descriptors for its state: when a peer comes.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.view().map_or(self.listening.as_fd(), |view| view.set.as_fd())
    }
}

#[cold]
fn cannot_wait(errno: Errno) -> Error {
    channel_failed("wait for those who connect", errno)
}

impl AsFd for HandshakeState {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Greeting(socket) => socket.as_fd(),
            #[cfg(feature = "tcp")]
            Self::Handshake(socket, _) => socket.as_fd(),
        }
    }
}
