//! The types of [`managed`](crate::managed): a typed proxy each, and the untyped object that a manager keeps.
//!
//! Runs in: clients, and managers.

mod array;
#[cfg(test)]
mod crowd_tests;
mod dict;
mod entries;
mod event;
mod kept_handle;
mod key;
mod list;
mod lock;
mod namespace;
mod page;
mod queue;
mod raw_dict;
mod raw_event;
mod raw_list;
mod raw_lock;
mod raw_queue;
mod raw_semaphore;
mod raw_value;
pub(crate) mod registrations;
mod semaphore;
mod set;
pub(crate) mod stored;
pub(crate) mod typed;
mod update;
mod value;

pub use self::array::Array;
pub use self::dict::{Dict, DictIter};
pub use self::event::{Barrier, Event};
pub use self::key::AsKey;
pub use self::list::{List, ListIter};
pub use self::lock::{Condition, Lock, LockGuard, ReentrantLock};
pub use self::namespace::Namespace;
pub use self::queue::{JoinableQueue, LentItem, Queue};
pub use self::semaphore::{ManagedPermit, Semaphore};
pub use self::set::{Set, SetIter};
pub use self::value::Value;
