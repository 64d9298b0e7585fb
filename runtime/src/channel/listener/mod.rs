//! Connections between processes that are no relatives: one listens, others connect.
//!
//! Owns: [`Listener`]. Runs in: any process. Never: hands out a connection before its peer is known.

mod acceptor;
mod connect;
mod socket_path;

use std::fmt;
#[cfg(feature = "tcp")]
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
#[cfg(feature = "tcp")]
use std::os::fd::OwnedFd;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use self::acceptor::{AcceptLimits, Accepted, Acceptor, AuthPolicy};
use self::socket_path::{BoundPath, SocketPath};
use super::error::channel_failed;
#[cfg(feature = "tcp")]
use super::remote::{EncryptedStream, Key};
use crate::channel::Connection;
use crate::error::{Elapsed, Error, ErrorKind, Execution, Result};
use crate::sync::deadline::Deadline;
use crate::sys::{Errno, poll};
#[cfg(feature = "tcp")]
use crate::sys::{errno_of, fd};

pub use self::connect::connect_unix;
#[cfg(feature = "tcp")]
pub use self::connect::{connect_tcp, connect_tcp_timeout};

/// The first packet of a process of this machine that connects.
const GREETING: &[u8] = b"process-task 1 local";

/// How much of it has nothing to do with the version.
const NAME: &[u8] = b"process-task ";

/// How long a handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// How many may be at it at once.
const MAX_PENDING_PEERS: usize = 64;

/// A place where processes that do not know each other meet: a path on this machine, or a TCP port.
///
/// What it accepts are [`Connection`]s like those that [`pipe`](super::pipe) makes, but for what only relatives share: regions,
/// queues, files and ends of other connections do not go through them, and are refused when they are sent. Both sides have to
/// agree on what is sent: what arrives is taken for nothing but bytes, and an error if it is no value of its type.
///
/// | | [`Listener::unix`] | `Listener::tcp` (feature `tcp`) |
/// |---|---|---|
/// | which peers can connect | processes of the same user, and root's, on this machine | those with the key |
/// | the connection | the same as a pipe's | encrypted frames; messages of at most 1 GiB |
/// | can go to another process | yes | no |
/// | readable means | a message or the end is there | something came, perhaps not all of it: use `try_recv` or `recv_timeout` |
///
/// # Examples
/// ```
/// # #[cfg(not(feature = "tcp"))] fn main() {}
/// # #[cfg(feature = "tcp")] fn main() -> process_task::Result<()> {
/// use process_task::ErrorKind;
/// use process_task::channel::{Key, Listener, connect_tcp};
///
/// let listener = Listener::tcp("127.0.0.1:0", Key::random()?)?;
/// let address = listener.local_addr().unwrap();
/// let stranger = std::thread::spawn(move || connect_tcp::<u32, u32>(address, &Key::random()?));
/// loop {
///     match listener.accept::<u32, u32>() {
///         Ok(_connection) => unreachable!("it has another key"),
///         // A peer was not let in, which says nothing about the next.
///         Err(error) if matches!(error.kind(), ErrorKind::PeerRefused { .. }) => break,
///         Err(error) => return Err(error),
///     }
/// }
/// assert!(matches!(stranger.join().unwrap().unwrap_err().kind(), ErrorKind::PeerRefused { .. }));
/// # Ok(())
/// # }
/// ```
///
/// # What each peer may do
/// *On this machine* the directory of the socket decides. It belongs to the user of this process, no other user can use it
/// (mode 700), and it is no link; this is checked when listening and when connecting, or there is an error. Each side also
/// asks the kernel for the user at the other end. A process that can act as that user, or as root, is trusted as a child
/// is.
///
/// *On the network* (the trust level *remote*) a peer is trusted with what its messages say once it has shown that it has
/// the key, and with nothing else: what it sends can be nonsense, and costs no more memory than it has sent. An attacker on
/// the wire, without the key,
///
/// | can | cannot |
/// |---|---|
/// | see which machines talk, when, and how much | read a message, also not later, with a key that was lost meanwhile |
/// | end a connection, or hold it up: the other side's `recv` then fails and says that it was cut off | change, leave out, repeat or exchange messages, or have the end of a stream taken for its end |
/// | connect, up to [`max_handshakes`](Self::max_handshakes) at once, each for [`handshake_timeout`](Self::handshake_timeout) | get in, by saying again what others said, or by handing it on, turned around or not; try out keys of 32 random bytes |
/// | knock so often that others hardly get through | keep a peer with the key out by saying nothing |
///
/// A peer with the key can be either side, and is not told from others that have it: give each pair of machines one of its
/// own if that matters. The protocol is Noise's `NNpsk0` with Curve25519, ChaCha20-Poly1305 and BLAKE2s.
///
/// # How it ends
/// | what happens | the other side's `recv`, after all that came before | its `send` |
/// |---|---|---|
/// | an end is dropped | [`Disconnected`](super::RecvError::Disconnected) | `Disconnected`, over TCP perhaps not at once |
/// | its process dies | `Disconnected`; over TCP, [`Failed`](super::RecvError::Failed), with words that say that it was cut off | the same |
/// | the network is cut, or its machine dies | `Failed`, after about a minute of silence | `Disconnected`, after about 15 minutes if it is not answered |
/// | an attacker changes a byte on the wire | `Failed`, with `EBADMSG` | `Disconnected` |
///
/// A TCP connection that failed has no more to say: messages are not given out when it is unknown whether they are all.
#[derive(Debug)]
pub struct Listener {
    acceptor: Acceptor,
    at: At,
}

#[derive(Debug)]
enum At {
    BoundPath(BoundPath),
    #[cfg(feature = "tcp")]
    Port(SocketAddr),
}

impl Listener {
    /// Listens at a path of this machine.
    ///
    /// Its directory has to be this user's alone (mode 700), so not `/tmp`, but one below it: if there is none, it is made, and
    /// removed again if it is empty in the end. What a process that was killed left at this path is replaced. The name goes when the listener is dropped.
    ///
    /// # Examples
    /// See [`connect_unix`].
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`]: others can use the directory, a process listens there already, or the name is taken by
    /// something else. [`ErrorKind::ChannelFailed`]: the kernel refuses.
    pub fn unix(path: impl AsRef<Path>) -> Result<Self> {
        let (socket, name) = SocketPath::listen(path.as_ref())?;
        Ok(Self { acceptor: Acceptor::new(socket, AuthPolicy::User, AcceptLimits::DEFAULT)?, at: At::BoundPath(name) })
    }

    /// Listens at a port, for peers that have the same key. Port 0 takes any that is free: see
    /// [`local_addr`](Self::local_addr).
    ///
    /// # Examples
    /// See [`connect_tcp`].
    ///
    /// # Errors
    /// [`ErrorKind::ChannelFailed`]: another process has the port, or this process may not use it.
    /// [`ErrorKind::InvalidInput`]: that is no address.
    #[cfg(feature = "tcp")]
    pub fn tcp(address: impl ToSocketAddrs, key: Key) -> Result<Self> {
        let addresses = addresses(address)?;
        let listen = || {
            let socket = TcpListener::bind(&addresses[..])?;
            socket.set_nonblocking(true)?;
            Ok((socket.local_addr()?, fd::above_stdio(socket.into())?))
        };
        let (address, socket) =
            listen().map_err(|error: std::io::Error| failed("listen at a port", errno_of(&error)))?;
        Ok(Self {
            acceptor: Acceptor::new(socket, AuthPolicy::Key(key), AcceptLimits::DEFAULT)?,
            at: At::Port(address),
        })
    }

    /// How long a connecting peer may take to authenticate; 5 s by default.
    #[must_use]
    pub fn handshake_timeout(mut self, limit: Duration) -> Self {
        self.acceptor.limits.timeout = limit;
        self
    }

    /// The most peers that may be authenticating at once, at least 1; 64 by default. For one more, the one that has taken
    /// longest is refused. With 0, [`accept`](Self::accept) is an error.
    #[must_use]
    pub fn max_handshakes(mut self, most: usize) -> Self {
        self.acceptor.limits.pending = most;
        self
    }

    /// Waits for the next peer that connects and authenticates: sends `A`, receives `B`.
    ///
    /// Several threads may accept at once. Handshakes go on while one of them does, all side by side, so that a slow peer
    /// does not keep others waiting.
    ///
    /// # Examples
    /// See [`connect_unix`] and `connect_tcp`.
    ///
    /// # Errors
    /// [`ErrorKind::PeerRefused`]: a peer was not let in, once for each of them; accept again for the next.
    /// [`ErrorKind::ChannelFailed`]: the kernel refuses, for example because too many files are open.
    /// [`ErrorKind::InvalidInput`]: [`max_handshakes`](Self::max_handshakes) is 0.
    ///
    /// # If the other process dies
    /// Before it is authenticated, it is refused, or was never there. After, it is accepted: what it sent is still to be
    /// received.
    pub fn accept<A, B>(&self) -> Result<Connection<A, B>> {
        self.accept_within(Deadline::Never).unwrap_or_else(|| Err(Error::new(ErrorKind::Empty, Execution::NotStarted)))
    }

    /// As [`accept`](Self::accept), but waits no longer than `timeout`.
    ///
    /// # Errors
    /// [`Elapsed`]: no peer came in time. Inside, as [`accept`](Self::accept).
    ///
    /// # If the other process dies
    /// As with [`accept`](Self::accept).
    pub fn accept_timeout<A, B>(&self, timeout: Duration) -> std::result::Result<Result<Connection<A, B>>, Elapsed> {
        self.accept_within(Deadline::after(timeout)).ok_or_else(Elapsed::new)
    }

    /// As [`accept`](Self::accept), but does not wait.
    ///
    /// # Errors
    /// As [`accept`](Self::accept); [`ErrorKind::Empty`] if no peer is there.
    ///
    /// # If the other process dies
    /// As with [`accept`](Self::accept).
    pub fn try_accept<A, B>(&self) -> Result<Connection<A, B>> {
        self.accept_within(Deadline::Now).unwrap_or_else(|| Err(Error::new(ErrorKind::Empty, Execution::NotStarted)))
    }

    /// `None`: no peer came as long as `deadline` allows.
    fn accept_within<A, B>(&self, deadline: Deadline) -> Option<Result<Connection<A, B>>> {
        loop {
            if let Some(guest) = self.acceptor.look() {
                return Some(guest.and_then(seat));
            }
            match poll::readable([self.acceptor.as_fd()], deadline.instant()) {
                Ok([false]) => return None,
                Ok([true]) => {}
                Err(errno) => return Some(Err(channel_failed("wait for a peer to connect", errno))),
            }
        }
    }

    /// The path, as it was given; `None` for a port.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match &self.at {
            At::BoundPath(name) => Some(name.path()),
            #[cfg(feature = "tcp")]
            At::Port(_) => None,
        }
    }

    /// The address, with the port that was taken; `None` for a path.
    #[cfg(feature = "tcp")]
    #[must_use]
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.at {
            At::BoundPath(_) => None,
            At::Port(address) => Some(*address),
        }
    }
}

impl AsFd for Listener {
    /// Readable when [`try_accept`](Listener::try_accept) has something to do, if only to go on with a handshake.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.acceptor.as_fd()
    }
}

impl AcceptLimits {
    const DEFAULT: Self = Self { timeout: HANDSHAKE_TIMEOUT, pending: MAX_PENDING_PEERS };
}

impl fmt::Display for Listener {
    /// Where it listens.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.at {
            At::BoundPath(name) => name.path().display().fmt(f),
            #[cfg(feature = "tcp")]
            At::Port(address) => address.fmt(f),
        }
    }
}

/// A connection to a peer that was let in.
fn seat<A, B>(guest: Accepted) -> Result<Connection<A, B>> {
    match guest {
        Accepted::Local(socket) => {
            Connection::local(socket).map_err(|errno| channel_failed("ask a socket for its size", errno))
        }
        #[cfg(feature = "tcp")]
        Accepted::Far(socket, agreed) => {
            let wire =
                EncryptedStream::new(socket, agreed).map_err(|errno| channel_failed("wait for messages", errno))?;
            Ok(Connection::remote(std::sync::Arc::new(wire)))
        }
    }
}

/// What an address leads to: one place, or several.
#[cfg(feature = "tcp")]
fn addresses(address: impl ToSocketAddrs) -> Result<Vec<SocketAddr>> {
    let nowhere =
        |why: &dyn fmt::Display| Error::invalid(format!("the address leads nowhere: {why}; check its host and port"));
    let found: Vec<_> = address.to_socket_addrs().map_err(|error| nowhere(&error))?.collect();
    if found.is_empty() { Err(nowhere(&"no socket address belongs to it")) } else { Ok(found) }
}

/// Makes a TCP socket what both sides want it to be: one that never blocks, sends at once, and notices a dead machine.
#[cfg(feature = "tcp")]
fn far(socket: OwnedFd) -> Result<TcpStream> {
    let prepare = || {
        let socket = TcpStream::from(fd::above_stdio(socket)?);
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        crate::sys::tcp::keep_alive(socket.as_fd())?;
        Ok(socket)
    };
    prepare().map_err(|error: std::io::Error| failed("prepare a socket", errno_of(&error)))
}

fn failed(step: impl Into<String>, errno: Errno) -> Error {
    Error::new(ErrorKind::ChannelFailed { step: step.into(), errno: errno as i32 }, Execution::NotStarted)
}

fn refused(reason: impl Into<String>) -> Error {
    Error::new(ErrorKind::PeerRefused { reason: reason.into() }, Execution::NotStarted)
}
