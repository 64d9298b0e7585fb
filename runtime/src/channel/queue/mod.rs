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
//! | `store` | putting and getting: who writes which word when, and what each death costs |
//! | `ends` | who is left at the other side, and handles beside items |
//! | `core` | when to look, to sleep, and to give up |

mod core;
mod ends;
mod joinable;
mod layout;
mod memory;
mod queue;
mod simple;
mod stock;
mod store;
mod sweep;
mod words;

// What is modelled names these here; the model checker brings its own.
use crate::shared::members;
use crate::sync::{atomic, lock, sleepers, waiting};

pub use self::joinable::{Item, JoinableQueue};
pub use self::queue::{Consumer, Iter, Producer, Queue};
pub use self::simple::SimpleQueue;
