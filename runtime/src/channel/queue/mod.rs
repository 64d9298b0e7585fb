//! Queues in shared memory: many producers, many consumers, in any processes of a tree.
//!
//! Owns: [`Queue`] and its halves, [`SimpleQueue`], [`JoinableQueue`]. Runs in: any process that has an end of one.
//! Never: starts a thread, or has a name in any file system.
//!
//! | file | what it owns |
//! |---|---|
//! | `layout` | how places, heads of items and states of chunks are packed into words |
//! | `words`, `memory` | the memory, which grows and shrinks with what is in it |
//! | `stock`, `sweep` | which chunks are free; those that the dead left behind |
//! | `store`, `take`, `lent` | putting, getting and lending: which side writes which word when, and what each death costs |
//! | `ends` | what is left at the other side, and handles beside items |
//! | `core`, `lending`, `travel` | a queue as one process has it |
//! | `handle`, `simple`, `joinable` | what users see, with the methods that several of them have in `methods` |
//! | `iter`, `future` | going through a queue, and awaiting an item |
//! | `patience` | when to look, to sleep, and to give up |

mod buffer;
mod core;
mod ends;
mod future;
mod handle;
mod iter;
mod joinable;
mod layout;
mod lending;
mod lent;
mod memory;
mod methods;
mod patience;
mod simple;
mod stock;
mod store;
mod sweep;
mod take;
#[cfg(test)]
mod tests;
mod travel;
mod words;

// What is modelled names these here; the model checker brings its own.
use crate::shared::proc_table;
use crate::sync::{atomic, event_count, futex_wait, lock};

pub use self::handle::{Queue, QueueReceiver, QueueSender};
pub use self::iter::QueueIter;
pub use self::joinable::{Item, JoinableQueue};
pub use self::simple::SimpleQueue;
