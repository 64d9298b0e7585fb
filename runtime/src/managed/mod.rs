//! Collections, locks and pools that live in a manager: typed where they are used, encoded where they are.
//!
//! Each is a proxy. It is made by `new`, takes the manager first, and can be cloned, passed to tasks, and kept in another
//! collection. Each method is one call, and takes effect as a whole. What changes a value by what it was is one call, too:
//! `update` runs a task in the manager, so that no other change comes between.
//!
//! ```
//! use process_task::managed::Dict;
//! use process_task::{Manager, Pool, process_task};
//!
//! #[process_task]
//! fn plus(old: Option<u64>, more: u64) -> Option<u64> { Some(old.unwrap_or(0) + more) }
//!
//! #[process_task]
//! fn count(text: &str, counts: &Dict<String, u64>) {
//!     for word in text.split_whitespace() {
//!         counts.update(word, plus, 1).expect("the manager is there");
//!     }
//! }
//!
//! let manager = Manager::start()?;
//! let counts = Dict::new(&manager)?;
//! let pool = Pool::new()?;
//! let lines = ["a b a", "b a"];
//! let calls: Vec<_> = lines.iter().map(|line| pool.submit(count, (line, &counts))).collect();
//! calls.into_iter().try_for_each(|call| call.join())?;
//! assert_eq!(counts.get("a")?, Some(3));
//! # process_task::Result::Ok(())
//! ```
//!
//! A client that has connected from elsewhere cannot name tasks: its `update` fails with
//! [`ErrorKind::UnknownTask`](crate::ErrorKind::UnknownTask).
//!
//! Values are encoded by the process that has them. The manager keeps the bytes, and never looks into them. So values
//! are equal if their bytes are: a float is equal to itself, also if it is not a number, and `0.0` is not equal to `-0.0`.
//! Types whose order is another each time, such as `HashMap`, are refused as keys.
//!
//! A [`Pool`] is no collection: its workers run tasks for all processes that have a proxy of it.
//!
//! # If the manager dies
//! Each call fails within a tenth of a second with [`ErrorKind::ManagerGone`](crate::ErrorKind::ManagerGone).

mod encoded_task;
mod pool;
mod raw_pool;
mod sent_stats;

pub use self::pool::{Pool, PoolCall};
pub use crate::manager::managed::{
    Array, AsKey, Barrier, Condition, Dict, DictIter, Event, JoinableQueue, LentItem, List, ListIter, Lock, LockGuard,
    ManagedPermit, Namespace, Queue, ReentrantLock, Semaphore, Set, SetIter, Value,
};
