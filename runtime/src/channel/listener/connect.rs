//! Connecting to a [`Listener`](super::Listener).
//!
//! Owns: nothing. Runs in: the process that connects. Never: says a word of a message before it knows the peer.

use std::path::Path;

use super::GREETING;
use super::socket_path::SocketPath;
use crate::channel::Connection;
use crate::channel::error::channel_failed;
use crate::error::Result;
use crate::sys::socket;
use std::os::fd::AsFd as _;

/// Connects to the [`Listener`](super::Listener) at this path: sends `A`, receives `B`.
///
/// It need not have accepted yet: what is sent waits for it. It has to be a process of the same user, or of root.
///
/// # Examples
/// ```
/// use process_task::channel::{Listener, connect_unix};
///
/// let path = std::env::temp_dir().join(format!("greetings-{}", std::process::id())).join("socket");
/// let listener = Listener::unix(&path)?;
/// let client = connect_unix::<String, String>(&path)?;
/// client.send("hello".to_owned())?;
/// let server = listener.accept::<String, String>()?;
/// server.send(server.recv()? + ", too")?;
/// assert_eq!(client.recv()?, "hello, too");
/// # process_task::Result::Ok(())
/// ```
///
/// # Errors
/// [`ErrorKind::ChannelFailed`](crate::ErrorKind::ChannelFailed): no process listens there.
/// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput): others than this user can use the directory.
/// [`ErrorKind::PeerRefused`](crate::ErrorKind::PeerRefused): the listening process is another user's.
///
/// # If the other process dies
/// Before, no process listens there. While this waits because too many others connect, it ends with an error. After, the
/// connection is [`Disconnected`](crate::channel::RecvError::Disconnected).
#[doc(alias = "Client")]
pub fn connect_unix<A, B>(path: impl AsRef<Path>) -> Result<Connection<A, B>> {
    let socket = SocketPath::at(path.as_ref())?.connect()?;
    // The first packet of a new socket: there is room.
    socket::send(socket.as_fd(), GREETING, &[]).map_err(|errno| channel_failed("say who connects", errno))?;
    Connection::local(socket).map_err(|errno| channel_failed("ask a socket for its size", errno))
}

#[cfg(feature = "tcp")]
pub use self::tcp::{connect_tcp, connect_tcp_timeout};

#[cfg(feature = "tcp")]
mod tcp {
    use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
    use std::os::fd::AsFd as _;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use crate::channel::Connection;
    use crate::channel::error::channel_failed;
    use crate::channel::listener::{HANDSHAKE_TIMEOUT, addresses, failed, far, refused};
    use crate::channel::remote::{EncryptedStream, Handshake, Key};
    use crate::error::{Error, Result};
    use crate::sys::{Errno, errno_of, poll};

    /// Connects to the [`Listener`](crate::channel::Listener) at this address, which has the same key: sends `A`, receives `B`.
    ///
    /// It has to accept meanwhile: both show each other that they have the key before this returns, within 5 s. What goes
    /// over the network is encrypted; what an attacker there can do all the same is told at
    /// [`Listener`](crate::channel::Listener#what-each-peer-may-do).
    ///
    /// # Examples
    /// ```
    /// use process_task::channel::{Key, Listener, connect_tcp};
    ///
    /// let key = Key::random()?;
    /// let listener = Listener::tcp("127.0.0.1:0", key.clone())?;
    /// let address = listener.local_addr().unwrap();
    /// let client = std::thread::spawn(move || {
    ///     let client = connect_tcp::<String, String>(address, &key)?;
    ///     client.send("hello".to_owned())?;
    ///     Ok::<_, process_task::Error>(client.recv()?)
    /// });
    /// let server = listener.accept::<String, String>()?;
    /// server.send(server.recv()? + ", too")?;
    /// assert_eq!(client.join().unwrap()?, "hello, too");
    /// # process_task::Result::Ok(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::ChannelFailed`](crate::ErrorKind::ChannelFailed): no process listens there, or the network does not
    /// lead there.
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput): that is no address.
    /// [`ErrorKind::PeerRefused`](crate::ErrorKind::PeerRefused): the listening side has another key, speaks something else, or
    /// took too long.
    ///
    /// # If the other process dies
    /// Before the handshake is done, `PeerRefused`; after, see [`Listener`](crate::channel::Listener#how-it-ends).
    #[doc(alias = "Client")]
    pub fn connect_tcp<A, B>(address: impl ToSocketAddrs, key: &Key) -> Result<Connection<A, B>> {
        connect_tcp_timeout(address, key, HANDSHAKE_TIMEOUT)
    }

    /// As [`connect_tcp`], but all of it may take so long, except for looking a name up, which takes as long as the system says. Of
    /// several addresses, each gets its share of the time, in the order in which they were found.
    ///
    /// # Errors
    /// As [`connect_tcp`].
    ///
    /// # If the other process dies
    /// As with [`connect_tcp`].
    pub fn connect_tcp_timeout<A, B>(
        address: impl ToSocketAddrs,
        key: &Key,
        timeout: Duration,
    ) -> Result<Connection<A, B>> {
        let until = Instant::now().checked_add(timeout);
        let addresses = addresses(address)?;
        let mut last = None;
        for (address, left) in addresses.iter().zip((1..=addresses.len()).rev()) {
            match reach(*address, share(until, left)) {
                Ok(socket) => return shake_hands(socket, key, until),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::invalid("the address leads nowhere: no socket address belongs to it")))
    }

    /// Until when one of so many addresses that are left may be tried: a name often has some that lead nowhere from here.
    fn share(until: Option<Instant>, left: usize) -> Option<Instant> {
        let now = Instant::now();
        until.map(|until| now + until.saturating_duration_since(now) / u32::try_from(left).unwrap_or(u32::MAX))
    }

    fn reach(address: SocketAddr, until: Option<Instant>) -> Result<TcpStream> {
        let connected = match until.map(|until| until.saturating_duration_since(Instant::now())) {
            None => TcpStream::connect(address),
            Some(Duration::ZERO) => Err(Errno::ETIMEDOUT.into()),
            Some(left) => TcpStream::connect_timeout(&address, left),
        };
        let of = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::TimedOut => Errno::ETIMEDOUT,
            _ => errno_of(&error),
        };
        far(connected.map_err(|error| failed(format!("connect to {address}"), of(error)))?.into())
    }

    fn shake_hands<A, B>(socket: TcpStream, key: &Key, until: Option<Instant>) -> Result<Connection<A, B>> {
        let handshake = Handshake::connect(key, &mut &socket);
        let mut handshake = handshake.map_err(|refusal| refused(refusal.reason()))?;
        let agreed = loop {
            if let Some(agreed) = handshake.go_on(&mut &socket).map_err(|refusal| refused(refusal.reason()))? {
                break agreed;
            }
            let came = poll::readable([socket.as_fd()], until);
            if came.map_err(|errno| channel_failed("wait for an answer", errno))? == [false] {
                return Err(refused(
                    "the peer did not authenticate in time; `handshake_timeout` and `connect_tcp_timeout` allow more",
                ));
            }
        };
        let wire = EncryptedStream::new(socket, agreed).map_err(|errno| channel_failed("wait for messages", errno))?;
        Ok(Connection::remote(Arc::new(wire)))
    }
}
