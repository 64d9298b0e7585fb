//! The messages of a connection, one after the other.
//!
//! Owns: [`ConnectionIter`]. Runs in: any process. Never: ends in silence, but at the end of the connection.

use std::iter::FusedIterator;

use super::Connection;
use crate::channel::RecvError;
use crate::codec::Message;
use crate::error::ErrorKind;

/// The messages of a connection, until the other end is gone: see [`Connection::iter`]. `C` is the connection, or a
/// reference to it.
#[derive(Debug)]
#[must_use = "it receives nothing until it is used"]
pub struct ConnectionIter<C> {
    connection: C,
    ended: bool,
}

impl<C> ConnectionIter<C> {
    fn of(connection: C) -> Self {
        Self { connection, ended: false }
    }

    fn take<B>(&mut self, recv: impl FnOnce(&C) -> Result<B, RecvError>) -> Option<Result<B, RecvError>> {
        if self.ended {
            return None;
        }
        match recv(&self.connection) {
            Err(RecvError::Disconnected) => {
                self.ended = true;
                None
            }
            // What the kernel refuses once, it may refuse for ever.
            Err(RecvError::Failed(error)) if !matches!(error.kind(), ErrorKind::CannotDecode { .. }) => {
                self.ended = true;
                Some(Err(RecvError::Failed(error)))
            }
            received => Some(received),
        }
    }
}

impl<A, B: Message> Connection<A, B> {
    /// The messages as they come, until the other end is gone and all that it sent was read.
    ///
    /// A message that cannot be decoded is an error among the others. What the kernel refuses is one, too, and the last.
    ///
    /// # Examples
    /// ```
    /// use process_task::channel::{Sender, one_way};
    /// use process_task::process_task;
    ///
    /// #[process_task]
    /// fn count_to(last: u32, numbers: Sender<u32>) {
    ///     (1..=last).for_each(|number| numbers.send(number).unwrap());
    /// }
    ///
    /// let (sender, numbers) = one_way()?;
    /// let process = count_to.spawn(3, sender);
    /// let mut sum = 0;
    /// for number in &numbers {
    ///     sum += number?;
    /// }
    /// assert_eq!(sum, 6);
    /// process.join()?;
    /// # process_task::Result::Ok(())
    /// ```
    ///
    /// # If the other process dies
    /// What it sent comes, and then the end.
    pub fn iter(&self) -> ConnectionIter<&Self> {
        self.into_iter()
    }
}

impl<A, B: Message> IntoIterator for &Connection<A, B> {
    type Item = Result<B, RecvError>;
    type IntoIter = ConnectionIter<Self>;

    fn into_iter(self) -> ConnectionIter<Self> {
        ConnectionIter::of(self)
    }
}

impl<A, B: Message> IntoIterator for Connection<A, B> {
    type Item = Result<B, RecvError>;
    type IntoIter = ConnectionIter<Self>;

    fn into_iter(self) -> ConnectionIter<Self> {
        ConnectionIter::of(self)
    }
}

impl<A, B: Message> Iterator for ConnectionIter<&Connection<A, B>> {
    type Item = Result<B, RecvError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.take(|connection| connection.recv())
    }
}

impl<A, B: Message> Iterator for ConnectionIter<Connection<A, B>> {
    type Item = Result<B, RecvError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.take(Connection::recv)
    }
}

impl<A, B: Message> FusedIterator for ConnectionIter<&Connection<A, B>> {}
impl<A, B: Message> FusedIterator for ConnectionIter<Connection<A, B>> {}
