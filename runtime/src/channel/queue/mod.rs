//! Queues in shared memory: many producers, many consumers, in any processes of a tree.
//!
//! Owns: [`Queue`] and its halves, [`SimpleQueue`], [`JoinableQueue`]. Runs in: any process that has an end of one.
//! Invariant: it starts no thread, and has no name in any file system.
//!
//! | file | what it owns |
//! |---|---|
//! | `layout` | how cursors, item headers and states of chunks are packed into words |
//! | `header`, `memory` | the memory, which grows and shrinks with its content |
//! | `chunk_alloc`, `recovery` | which chunks are free; those that dead processes left behind |
//! | `enqueue`, `dequeue`, `leases` | which side writes which word when, and what each death costs |
//! | `endpoint` | whether the other side has endpoints left, and handles beside items |
//! | `core`, `lease_wait`, `transfer` | a queue as one process has it |
//! | `limits` | how much a queue may hold |
//! | `handle`, `simple`, `joinable` | what users see, with the methods that several of them have in `methods` |
//! | `iter`, `future` | going through a queue, and awaiting an item |
//! | `wait` | when to spin, to sleep, and to give up |

mod buffer;
mod chunk_alloc;
mod core;
mod dequeue;
mod endpoint;
mod enqueue;
mod future;
mod handle;
mod header;
mod iter;
mod joinable;
mod layout;
mod lease_wait;
mod leases;
mod limits;
mod memory;
mod methods;
mod recovery;
mod simple;
#[cfg(test)]
mod tests;
mod transfer;
mod wait;

// The files that are model-checked import these from here. The model checker has its own.
use crate::shared::proc_table;
use crate::sync::{atomic, event_count, futex_wait, lock};

pub use self::handle::{Queue, QueueReceiver, QueueSender};
pub use self::iter::QueueIter;
pub use self::joinable::{Item, JoinableQueue};
pub use self::limits::QueueLimits;
pub use self::simple::SimpleQueue;
pub(crate) use self::transfer::Travelling;
