//! Connections that were accepted but not authenticated yet.
//!
//! Owns: [`Door`], a listening socket and the strangers before it. Runs in: the process that listens.
//! Never: waits for one of them, or lets one keep another waiting.
//!
//! # A stranger
//!
//! | comes | says | is let in | or is refused |
//! |---|---|---|---|
//! | from this machine | [`GREETING`], one packet | once it has said so | if it says anything else, or its process runs for another user |
//! | from another | its part of the handshake | once it has shown that it has the key | if it has not |
//!
//! and in both cases if it takes longer than [`Limits::patience`], or if it has waited longest when there are more than
//! [`Limits::strangers`]: a peer with the key needs moments, so a crowd of silent ones can make room.
//!
//! The one set of descriptors, which is readable when something is to be done, also has the time at which the next has
//! taken too long. So a caller that waits for the set alone waits for everything.
//!
//! # A copy of the process
//!
//! A host may call `fork()`, and let the copy listen, too. Both would look at one set, which has what only one of them
//! knows. So a copy makes a [`View`] of its own when it first looks; a peer that came to the process before stays with that
//! one.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use super::place::check_user;
use super::{GREETING, refused};
use crate::channel::error::channel_failed;
#[cfg(feature = "tcp")]
use crate::channel::remote::{Agreed, Handshake, Key};
use crate::error::{Error, Result};
use crate::sys::poll::{Epoll, Trigger};
use crate::sys::stranger::{self, Timer};
use crate::sys::{self, Errno, atfork, socket};

/// How patient a door is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// How long a stranger may take.
    pub(super) patience: Duration,
    /// How many there may be at once.
    pub(super) strangers: usize,
}

/// Which peers may come in.
#[derive(Debug)]
pub(super) enum Guard {
    /// Processes of the same user.
    User,
    /// Peers that have the key.
    #[cfg(feature = "tcp")]
    Key(Key),
}

/// A peer that was let in.
#[derive(Debug)]
pub(super) enum Guest {
    Local(OwnedFd),
    #[cfg(feature = "tcp")]
    Far(std::net::TcpStream, Agreed),
}

#[derive(Debug)]
pub(super) struct Door {
    listening: OwnedFd,
    guard: Guard,
    pub(super) limits: Limits,
    view: View,
}

/// What one process sees of a door.
#[derive(Debug)]
struct View {
    /// In which process, where the host calls `fork()`.
    generation: u64,
    /// The listening socket, the timer, and every stranger.
    set: Epoll,
    timer: Timer,
    strangers: Mutex<Strangers>,
    /// That of a copy of the process.
    of_a_copy: OnceLock<Box<Self>>,
}

/// By number, which is also the order in which they came, and in which their time is over.
#[derive(Debug, Default)]
struct Strangers {
    came: u64,
    waiting: BTreeMap<u64, Stranger>,
}

#[derive(Debug)]
struct Stranger {
    until: Instant,
    saying: Saying,
}

#[derive(Debug)]
enum Saying {
    Greeting(OwnedFd),
    #[cfg(feature = "tcp")]
    Handshake(std::net::TcpStream, Box<Handshake>),
}

/// Longer than that is for ever, and less than the clock has left.
const LONGEST: Duration = Duration::from_hours(24 * 365);

/// Tokens of the set; a stranger's is its number.
const LISTENING: u64 = u64::MAX;
const TIMER: u64 = u64::MAX - 1;

impl Door {
    /// # Errors
    /// No descriptors can be had.
    pub(super) fn new(listening: OwnedFd, guard: Guard, limits: Limits) -> Result<Self> {
        let view = View::new(listening.as_fd()).map_err(cannot_wait)?;
        Ok(Self { listening, guard, limits, view })
    }

    /// What this process sees.
    fn view(&self) -> sys::Result<&View> {
        let mut view = &self.view;
        while view.generation != atfork::generation() {
            view = if let Some(own) = view.of_a_copy.get() {
                own
            } else {
                let own = Box::new(View::new(self.listening.as_fd())?);
                // If another thread of the original was just at it, they stay open.
                if let Ok(mut others) = view.strangers.try_lock() {
                    others.waiting.clear();
                }
                view.of_a_copy.get_or_init(|| own)
            };
        }
        Ok(view)
    }

    /// Does what can be done without waiting, until a peer is let in or refused. `None`: that may take a while.
    pub(super) fn look(&self) -> Option<Result<Guest>> {
        let view = match self.view() {
            Ok(view) => view,
            Err(errno) => return Some(Err(cannot_wait(errno))),
        };
        let mut strangers = view.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        let decided = self.go_on(view, &mut strangers);
        let next = strangers.waiting.first_key_value().map(|(_, first)| first.until);
        match (decided, view.timer.set(next)) {
            (None, Err(errno)) => Some(Err(channel_failed("set a timer", errno))),
            (decided, _) => decided,
        }
    }

    fn go_on(&self, view: &View, strangers: &mut Strangers) -> Option<Result<Guest>> {
        let mut tokens = Vec::new();
        // Ends: a stranger says little before it is let in or refused, and there are only so many.
        loop {
            if let Err(errno) = view.set.wait(&mut tokens, Some(Instant::now())) {
                return Some(Err(cannot_wait(errno)));
            }
            if tokens.is_empty() {
                return None;
            }
            for token in &tokens {
                let decided = match *token {
                    LISTENING => self.somebody_comes(view, strangers),
                    TIMER => view.somebody_is_late(strangers),
                    number => view.hear(strangers, number),
                };
                // The others report again.
                if decided.is_some() {
                    return decided;
                }
            }
        }
    }

    fn somebody_comes(&self, view: &View, strangers: &mut Strangers) -> Option<Result<Guest>> {
        let came = match stranger::accept(self.listening.as_fd()) {
            Err(Errno::EAGAIN) => return None,
            came => {
                came.map_err(|errno| channel_failed("accept a connection", errno)).and_then(|came| self.greet(came))
            }
        };
        let saying = match came {
            Ok(saying) => saying,
            Err(error) => return Some(Err(error)),
        };
        let number = strangers.came;
        strangers.came += 1;
        if let Err(errno) = view.set.add(saying.as_fd(), number, Trigger::Level) {
            return Some(Err(cannot_wait(errno)));
        }
        strangers
            .waiting
            .insert(number, Stranger { until: Instant::now() + self.limits.patience.min(LONGEST), saying });
        if strangers.waiting.len() <= self.limits.strangers.max(1) {
            return None;
        }
        view.refuse_first(strangers, "it had said nothing for so long that others took its place")
    }

    fn greet(&self, socket: OwnedFd) -> Result<Saying> {
        match &self.guard {
            Guard::User => check_user(&socket).map(|()| Saying::Greeting(socket)),
            #[cfg(feature = "tcp")]
            Guard::Key(key) => {
                let socket = super::far(socket)?;
                let handshake = Handshake::listen(key).map_err(|refusal| refused(refusal.reason()))?;
                Ok(Saying::Handshake(socket, Box::new(handshake)))
            }
        }
    }
}

impl View {
    fn new(listening: BorrowedFd<'_>) -> sys::Result<Self> {
        let (set, timer) = (Epoll::new()?, Timer::new()?);
        set.add(listening, LISTENING, Trigger::Level)?;
        set.add(timer.as_fd(), TIMER, Trigger::Level)?;
        let (strangers, of_a_copy) = (Mutex::default(), OnceLock::new());
        Ok(Self { generation: atfork::generation(), set, timer, strangers, of_a_copy })
    }

    fn somebody_is_late(&self, strangers: &mut Strangers) -> Option<Result<Guest>> {
        let first = strangers.waiting.first_key_value().map(|(_, first)| first.until);
        if first.is_some_and(|until| until <= Instant::now()) {
            return self.refuse_first(strangers, "it took too long to show who it is");
        }
        // The one that was late is gone, or a clock was rounded.
        let set = self.timer.set(first);
        set.err().map(|errno| Err(channel_failed("set a timer", errno)))
    }

    fn refuse_first(&self, strangers: &mut Strangers, reason: &str) -> Option<Result<Guest>> {
        let number = *strangers.waiting.first_key_value()?.0;
        drop(self.leave(strangers, number));
        Some(Err(refused(reason)))
    }

    /// Takes what a stranger has said.
    fn hear(&self, strangers: &mut Strangers, number: u64) -> Option<Result<Guest>> {
        let refusal = match &mut strangers.waiting.get_mut(&number)?.saying {
            Saying::Greeting(from) => match socket::receive(from.as_fd()) {
                Err(Errno::EAGAIN) => return None,
                Ok((said, _)) if said == GREETING => None,
                // A peer that only looked whether a process listens, or has died: nothing is lost, and nothing was tried.
                Ok((said, _)) if said.is_empty() => {
                    drop(self.leave(strangers, number));
                    return None;
                }
                Ok((said, _)) if said.starts_with(super::NAME) => Some("it speaks another version of the protocol"),
                Ok(_) | Err(_) => Some("it speaks another protocol"),
            },
            #[cfg(feature = "tcp")]
            Saying::Handshake(socket, handshake) => match handshake.go_on(&mut &*socket) {
                Ok(None) => return None,
                Ok(Some(agreed)) => {
                    return match self.leave(strangers, number)?.saying {
                        Saying::Handshake(socket, _) => Some(Ok(Guest::Far(socket, agreed))),
                        Saying::Greeting(_) => None,
                    };
                }
                Err(refusal) => Some(refusal.reason()),
            },
        };
        let stranger = self.leave(strangers, number)?;
        match (refusal, stranger.saying) {
            (Some(reason), _) => Some(Err(refused(reason))),
            (None, Saying::Greeting(socket)) => Some(Ok(Guest::Local(socket))),
            #[cfg(feature = "tcp")]
            (None, Saying::Handshake(..)) => None,
        }
    }

    /// A stranger is none any more.
    fn leave(&self, strangers: &mut Strangers, number: u64) -> Option<Stranger> {
        let stranger = strangers.waiting.remove(&number)?;
        // Closing alone would not do: a copy of this process may have the socket, too, and then the set goes on to report.
        self.set.remove(stranger.saying.as_fd());
        Some(stranger)
    }
}

impl AsFd for Door {
    /// Readable when something is to be done. In a copy that has no descriptors for a view: when a peer comes, which then
    /// hears of that.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.view().map_or(self.listening.as_fd(), |view| view.set.as_fd())
    }
}

#[cold]
fn cannot_wait(errno: Errno) -> Error {
    channel_failed("wait for those who connect", errno)
}

impl AsFd for Saying {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Greeting(socket) => socket.as_fd(),
            #[cfg(feature = "tcp")]
            Self::Handshake(socket, _) => socket.as_fd(),
        }
    }
}
