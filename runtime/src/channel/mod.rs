//! Pipes and queues: how processes talk while they run.
//!
//! | here | in Python's `multiprocessing` | what it is |
//! |---|---|---|
//! | [`pipe`], [`one_way`] | `Pipe` | two typed ends of a socket |
//! | [`Connection`] | `Connection` | one of these ends |
//! | [`wait`] | `connection.wait` | waiting for several connections, processes, or other descriptors |
//! | [`Descriptor`] | `reduction.send_handle` | an open file, socket or pipe that travels |
//! | [`Queue`], [`Producer`], [`Consumer`] | `Queue` | many producers, many consumers, in shared memory |
//! | [`SimpleQueue`] | `SimpleQueue` | the same, with the smallest interface |
//! | [`JoinableQueue`] | `JoinableQueue` | a queue that knows which of its items are done |
//! | [`Listener`], [`connect_unix`], `connect_tcp` | `Listener`, `Client` | connections between processes that share no ancestor |
//!
//! All ends are arguments and results of tasks, and go through one another; but for connections between machines.

mod connection;
mod descriptor;
mod error;
mod listener;
mod queue;
#[cfg(feature = "tcp")]
mod remote;

pub use self::connection::{Connection, Messages, Nothing, Receiver, Sender, one_way, pipe, wait};
pub use self::descriptor::Descriptor;
pub use self::error::{GetError, PutError, PutErrorKind, RecvError, SendError, SendErrorKind};
pub use self::listener::{Listener, connect_unix};
#[cfg(feature = "tcp")]
pub use self::listener::{connect_tcp, connect_tcp_timeout};
pub use self::queue::{Consumer, Item, Iter, JoinableQueue, Producer, Queue, SimpleQueue};
#[cfg(feature = "tcp")]
pub use self::remote::Key;
pub use crate::codec::Message;
