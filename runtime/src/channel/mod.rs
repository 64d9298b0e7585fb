//! Pipes and queues: how processes talk while they run.
//!
//! | here | in Python's `multiprocessing` | what it is |
//! |---|---|---|
//! | [`Queue`] | `Queue` | many producers, many consumers |

mod connection;
mod error;
mod queue;

pub use self::connection::{Connection, Messages, Nothing, Receiver, Sender, one_way, pipe, wait};
pub use self::error::{GetError, PutError, PutErrorKind, RecvError, SendError, SendErrorKind};
pub use self::queue::{Consumer, Item, Iter, JoinableQueue, Producer, Queue, SimpleQueue};
pub use crate::codec::Message;
