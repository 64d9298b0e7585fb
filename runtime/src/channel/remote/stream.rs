//! A TCP socket that carries messages.
//!
//! Owns: [`EncryptedStream`]. Runs in: both sides of a connection between machines.
//! Never: blocks while it holds a lock, or uses a key in a copy of its process that `fork` made.
//!
//! # What each thread waits for
//!
//! | for | where |
//! |---|---|
//! | bytes to come | in `poll`, with nothing locked; [`FrameReader`] is locked while what has come is put together |
//! | its turn to send | for `EncryptedStream::turn`, in front of `EncryptedStream::sending`, out of which the sender has taken [`FrameWriter`] |
//! | room in the socket | in `poll`, with [`FrameWriter`] taken out |
//!
//! # The end is dropped
//!
//! What it sent still arrives. The drop says [`RecordKind::Close`](super::frames::RecordKind) behind it, for which it waits at most
//! [`LINGER`]. If the other side has by then not read enough to make room, or has not confirmed what was sent, a thread goes on
//! for at most [`MAX_LINGER`]: the kernel would throw away what is under way as soon as a byte comes for a socket that is
//! closed. A program that ends first is, for the other side, one that was cut off.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::frame_reader::FrameReader;
use super::frame_writer::{FrameWriter, WriteResult};
use super::frames::Cipher;
use super::handshake::Session;
use crate::channel::connection::transport::Remote;
use crate::channel::error::{NotSent, TryRecvError};
use crate::sync::deadline::Deadline;
use crate::sys::mutex::MutexExt as _;
use crate::sys::poll::{self, Epoll, Trigger};
use crate::sys::{self, Errno, fd, tcp};

/// The most bytes of a message.
const MAX_MESSAGE_BYTES: usize = 1 << 30;

/// How long a drop waits for room for its last words.
const LINGER: Duration = Duration::from_secs(1);

/// How long a thread waits for the other side to take what was sent before a drop.
const MAX_LINGER: Duration = Duration::from_mins(1);

/// How often it looks whether that has happened, of which nothing tells it.
const LINGER_CHECK_INTERVAL: Duration = Duration::from_millis(20);

const COPY: &str = "use a connection of the process that this one is a copy of (make one after the `fork()`)";

/// An end of a connection between machines.
pub(crate) struct EncryptedStream {
    line: Arc<StreamHalf>,
    receiving: Mutex<FrameReader>,
    /// The other end was dropped.
    parted: AtomicBool,
    /// Readable while the socket is, or `ready`.
    readable: Epoll,
    /// Rung while a message, or the end, was taken from the socket and is not given out.
    ready: OwnedFd,
    /// The most bytes of a message.
    longest: AtomicUsize,
    /// In which process the keys are used. In a copy of it, the same number would be used for another frame.
    process: u32,
}

/// What a thread that goes on for an end that was dropped needs of it.
#[derive(Debug)]
struct StreamHalf {
    socket: TcpStream,
    /// Number of bytes that have come, and that have left.
    come: AtomicU64,
    left: AtomicU64,
    cipher: Cipher,
    /// Taken out by the sender.
    sending: Mutex<Option<FrameWriter>>,
    turn: Condvar,
    /// The end was dropped: what comes is not read any more.
    dropped: AtomicBool,
}

impl EncryptedStream {
    /// A socket that does not block, over which a handshake was done.
    pub(crate) fn new(socket: TcpStream, agreed: Session) -> sys::Result<Self> {
        let (readable, ready) = (Epoll::new()?, fd::eventfd()?);
        readable.add(socket.as_fd(), 0, Trigger::Level)?;
        readable.add(ready.as_fd(), 1, Trigger::Level)?;
        let sending = Mutex::new(Some(FrameWriter::new(agreed.sealed)));
        Ok(Self {
            line: Arc::new(StreamHalf {
                socket,
                come: AtomicU64::new(0),
                left: AtomicU64::new(0),
                cipher: agreed.cipher,
                sending,
                turn: Condvar::new(),
                dropped: AtomicBool::new(false),
            }),
            receiving: Mutex::new(FrameReader::new(agreed.opened)),
            parted: AtomicBool::new(false),
            readable,
            ready,
            longest: AtomicUsize::new(MAX_MESSAGE_BYTES),
            process: std::process::id(),
        })
    }

    /// Puts together what has come, and leaves `ready` as it has to be then.
    fn receive(&self) -> MutexGuard<'_, FrameReader> {
        let mut receiving = self.receiving.lock_unpoisoned();
        if !receiving.is_ready() {
            receiving.go_on(&mut CountingSocket(&self.line), &self.line.cipher, self.longest());
            if receiving.is_ready() {
                fd::notify(self.ready.as_fd());
            }
            match receiving.end() {
                None => {}
                Some(TryRecvError::Disconnected) => self.parted.store(true, Relaxed),
                // Whichever side broke it, nothing more is said to a peer that may have done so. The other side sees that,
                // too.
                Some(_) => drop(self.line.socket.shutdown(Shutdown::Both)),
            }
        }
        receiving
    }

    /// Waits until a message, or the end, is there. `None`: that took too long.
    fn wait(&self, deadline: Deadline) -> sys::Result<Option<MutexGuard<'_, FrameReader>>> {
        loop {
            let receiving = self.receive();
            if receiving.is_ready() {
                return Ok(Some(receiving));
            }
            drop(receiving);
            // Asked first: a peer that never stops has always said something.
            if deadline.is_over() || poll::readable([self.readable.as_fd()], deadline.instant())? == [false] {
                return Ok(None);
            }
        }
    }

    fn is_of_this_process(&self) -> bool {
        self.process == std::process::id()
    }
}

impl Remote for EncryptedStream {
    fn longest(&self) -> usize {
        self.longest.load(Relaxed)
    }

    fn set_longest(&self, bytes: usize) {
        self.longest.store(bytes.min(MAX_MESSAGE_BYTES), Relaxed);
    }

    fn traffic(&self) -> (u64, u64) {
        (self.line.come.load(Relaxed), self.line.left.load(Relaxed))
    }

    fn shut_down(&self) {
        drop(self.line.socket.shutdown(Shutdown::Both));
    }

    fn send_bytes(&self, bytes: &[u8], deadline: Deadline) -> Result<(), NotSent> {
        if !self.is_of_this_process() {
            return Err(NotSent::failed(COPY, Errno::EPERM));
        }
        let line = &self.line;
        // The kernel would take what is not read any more.
        if self.parted.load(Relaxed) || poll::other_end_is_closed(line.socket.as_fd()) == Ok(true) {
            return Err(NotSent::Disconnected(()));
        }
        let sent = line.in_turn(deadline, |sending| {
            sending.message(bytes, &line.cipher, &mut CountingSocket(line), &mut || line.room(deadline))
        })?;
        if sent == WriteResult::AllButTheEnd {
            // A caller that waits only so long cannot be made to wait longer, so another thread does.
            let line = Arc::clone(line);
            beside(move || line.flush());
        }
        Ok(())
    }

    fn recv_bytes(&self, bytes: &mut Vec<u8>, deadline: Deadline) -> Result<(), TryRecvError> {
        if !self.is_of_this_process() {
            return Err(TryRecvError::failed(COPY, Errno::EPERM));
        }
        let waited = self.wait(deadline);
        let ready = waited.map_err(|errno| TryRecvError::failed("wait for a message", errno))?;
        let Some(mut receiving) = ready else { return Err(TryRecvError::Empty) };
        let taken = receiving.take(bytes);
        if !receiving.is_ready() {
            fd::drain(self.ready.as_fd());
        }
        taken
    }

    fn poll(&self, deadline: Deadline) -> sys::Result<bool> {
        if !self.is_of_this_process() {
            return Err(Errno::EPERM);
        }
        Ok(self.wait(deadline)?.is_some())
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        self.readable.as_fd()
    }
}

impl Drop for EncryptedStream {
    fn drop(&mut self) {
        if !self.is_of_this_process() {
            return;
        }
        self.line.dropped.store(true, Relaxed);
        if !self.line.part(LINGER) {
            let line = Arc::clone(&self.line);
            beside(move || line.linger());
        }
    }
}

/// The socket, where the bytes that go through it are counted.
struct CountingSocket<'s>(&'s StreamHalf);

impl Read for CountingSocket<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = (&self.0.socket).read(into)?;
        self.0.come.fetch_add(read as u64, Relaxed);
        Ok(read)
    }
}

impl Write for CountingSocket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = (&self.0.socket).write(bytes)?;
        self.0.left.fetch_add(written as u64, Relaxed);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl StreamHalf {
    /// Runs `send` when it is this thread's turn.
    fn in_turn<R>(
        &self,
        deadline: Deadline,
        send: impl FnOnce(&mut FrameWriter) -> Result<R, NotSent>,
    ) -> Result<R, NotSent> {
        let mut sending = self.sending.lock_unpoisoned();
        let mut taken = loop {
            if let Some(taken) = sending.take() {
                break taken;
            }
            let left = deadline.instant().map(|deadline| deadline.saturating_duration_since(Instant::now()));
            sending = match left {
                None => self.turn.wait(sending).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => return Err(NotSent::Full(())),
                Some(left) => self.turn.wait_timeout(sending, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        };
        drop(sending);
        let outcome = send(&mut taken);
        *self.sending.lock_unpoisoned() = Some(taken);
        self.turn.notify_one();
        outcome
    }

    /// Waits until the socket can be written to, as long as `deadline` lasts.
    fn room(&self, deadline: Deadline) -> Result<bool, Errno> {
        Ok(!deadline.is_over() && poll::writable(self.socket.as_fd(), deadline.instant())?)
    }

    /// Sends the end of a message that has begun to leave. A drop does so itself.
    ///
    /// Runs in: a thread of its own.
    fn flush(&self) {
        while !self.dropped.load(Relaxed) {
            let look = Deadline::after(LINGER_CHECK_INTERVAL);
            let flushed = self
                .in_turn(Deadline::Never, |sending| sending.flush(&mut CountingSocket(self), &mut || self.room(look)));
            if flushed != Err(NotSent::Full(())) {
                return;
            }
        }
    }

    /// Says that nothing follows. Whether the socket can be closed without harm to what was sent.
    fn part(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        let said = self.in_turn(Deadline::At(until), |sending| {
            sending.close(&self.cipher, &mut &self.socket, &mut || self.room_while_peer_may_wait(until))
        });
        match said {
            Err(NotSent::Full(())) => return false,
            Err(_) => return true,
            Ok(()) => {}
        }
        let _ = self.socket.shutdown(Shutdown::Write);
        self.is_taken()
    }

    /// As [`room`](Self::room), for an end that was dropped. The other side may be at that, too, and wait for us.
    fn room_while_peer_may_wait(&self, until: Instant) -> Result<bool, Errno> {
        // Once nothing more can come, the socket is always readable.
        let nothing_comes = self.throw_away();
        if Deadline::At(until).is_over() {
            return Ok(false);
        }
        if nothing_comes {
            return poll::writable(self.socket.as_fd(), Some(until));
        }
        poll::readable_or_writable(self.socket.as_fd(), Some(until))
    }

    /// Whether the other side's kernel has all that was sent, or there is none any more that could take it.
    fn is_taken(&self) -> bool {
        self.throw_away() || tcp::under_way(self.socket.as_fd()) == Ok(0)
    }

    /// What comes for an end that was dropped is thrown away: left where it is, it would have the kernel throw away what goes
    /// the other way, too. Whether nothing more can come.
    fn throw_away(&self) -> bool {
        let mut unread = [0; 4096];
        // As much as can have been there before; a peer that sends for ever does not keep us for ever.
        for _ in 0..4096 {
            match (&self.socket).read(&mut unread) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
            }
        }
        false
    }

    /// Goes on with what [`part`](Self::part) began.
    ///
    /// Runs in: a thread of its own.
    fn linger(&self) {
        let until = Instant::now() + MAX_LINGER;
        let mut done = self.part(MAX_LINGER);
        while !done && Instant::now() < until {
            let _ = poll::readable([self.socket.as_fd()], Some(Instant::now() + LINGER_CHECK_INTERVAL));
            done = self.is_taken();
        }
    }
}

/// Runs `what` beside this thread. Where no thread can be had, it is not run.
fn beside(what: impl FnOnce() + Send + 'static) {
    drop(thread::Builder::new().name("last-words".to_owned()).spawn(what));
}

impl fmt::Debug for EncryptedStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("socket", &self.line.socket).finish_non_exhaustive()
    }
}
