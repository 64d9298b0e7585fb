//! Run functions of this program in other processes: typed, fast, and safe when a process dies.
//!
//! ```
//! use process_task::{Pool, process_task};
//!
//! #[process_task]
//! fn square(x: i64) -> i64 { x * x }
//!
//! fn main() -> process_task::Result<()> {
//!     assert_eq!(square(3), 9);                          // still an ordinary function
//!     assert_eq!(square.spawn(10).join()?, 100);         // in a process of its own
//!     let pool = Pool::new()?;                           // one worker per usable core
//!     assert_eq!(pool.map(square, 0..4)?, [0, 1, 4, 9]);
//!     let later = pool.submit(square, 12);               // a handle: join it, await it
//!     assert_eq!(later.join()?, 144);
//!     Ok(())
//! }
//! ```
//!
//! There is nothing to initialise: no call in `main`, no attribute on it, no wrapper around tests. A function with
//! [`#[process_task]`](macro@process_task) is a value that can be [spawned](Process) in a process of its own or handed to
//! a [`Pool`] of workers. Arguments and results travel by serde; strings, paths and numbers in bulk travel as they are.
//!
//! # When processes die
//!
//! A process that panics, crashes, exits or is killed costs exactly the call that it was running. That call's [`Error`]
//! says what happened and [whether the call may have run](Error::execution). When this program ends, by return, `exit` or
//! kill -9, every process that it started ends, and so do those that they have started.
//!
//! # Seeing what happens
//!
//! [`Pool::stats`] has counts and times, [`Pool::timeline`] records what each worker does, and a subscriber of `tracing`
//! hears of workers and calls under the target `process_task`. With `PROCESS_TASK_INLINE=1` (or `true`) in the environment
//! when the first pool is used, tasks of pools run in the calling process, on the thread that submits them, where a debugger
//! sees them: results, errors and their order are the same, but nothing survives a crash, time-outs do not act, and nothing
//! runs side by side.
//!
//! # What is trusted
//!
//! Children are trusted: they may crash, but are not malicious. They are this program's own code in another process, with
//! the same rights.
#![warn(clippy::print_stdout, clippy::print_stderr)]

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
compile_error!(
    "process-task runs on Linux on x86-64 only: it starts children before `main`, and shares memory as that kernel does"
);

extern crate self as process_task;

mod call; // encode, run, decode, outcome
pub mod channel;
mod child; // what runs only in processes that we started
mod codec; // values to bytes
mod error;
mod link; // what joins a parent and a child
pub mod managed; // collections, locks and pools in managers
mod manager; // objects in one process, used from many
mod pool;
mod process;
mod reactor; // epoll, timers and wake-ups of one thread
mod shared; // what may live in shared memory
mod supervisor; // what asks for processes
pub mod sync;
mod sys; // the kernel, and nearly all unsafe
mod task; // the Task trait and the registry

// Marking functions.
pub use self::codec::{Travels, check};
pub use self::task::Task;
pub use process_task_macros::{preload, process_object, process_task};

// One process for one call.
pub use self::link::StartMethod;
pub use self::process::{
    Output, Process, ProcessBuilder, ProcessInfo, Stdio, active_children, available_parallelism, current, parent,
    start_afresh,
};

// Many calls in processes that stay.
pub use self::pool::{
    AsCompleted, GlobalPool, Imap, ImapUnordered, JoinHandle, OnProgress, Pool, PoolBuilder, ShutdownMode,
    TrySubmitError, WaitFor, WaitOutcome, as_completed, wait, worker_state,
};

// Objects that live in one process and are used from many.
pub use self::manager::{CallHandle, Manager, ManagerBuilder, ManagerHandle, ManagerStats, Proxy};

// Memory that processes share.
pub use self::shared::{FreezeError, Shareable, Shared, SharedMut};
pub use self::sync::{RangeGuard, SharedRanges};
pub use process_task_macros::Shareable;

// What a pool does.
pub use self::pool::{Latency, PoolStats, Timeline, WorkerState, WorkerStats};

// What can go wrong.
pub use self::error::{Direction, Elapsed, Error, ErrorKind, Execution, Result};

/// What generated code names. Not for people: it changes without notice.
#[doc(hidden)]
pub mod __private {
    pub use crate::codec::choose::{
        ByReference, ByValue, ChooseBorrowed, ChooseElements, ChooseNothing, ChooseOwnedPlain, ChooseOwnedSerde,
        ChoosePlain, ChooseSerde, by_reference, by_value,
    };
    pub use crate::codec::{
        ALIGNMENT, Again, AsBorrowed, AsElements, AsNothing, AsOwned, AsPlain, Borrowable, Codec, CodecError, Encoded,
        Format, Lend, LendCodec, Log, Never, Number, Plain, Reader, Spill, Store, ViaSerde, Writer, codec, loan,
    };
    pub use crate::manager::scope::{created, exclusive_object, shared_object};
    pub use crate::manager::{CallHandle, ManagerHandle, Proxy};
    pub use crate::process::spawn;
    pub use crate::task::{
        Entry, Object, ObjectRefusal, ObjectType, Options, Preload, Registration, RegistrationKind, StubError, Task,
    };
    pub use inventory;
    pub use serde;
}

/// What the fuzzer calls; see `fuzz/`. Not in any program.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod __fuzz {
    pub use crate::link::fuzz::{parse, replay};
    pub use crate::manager::fuzz::{connected, shared};
}

/// The programs of the README and of `docs/`, compiled and run with the other examples of this documentation.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../README.md")]
    mod readme {}
    #[doc = include_str!("../docs/guide.md")]
    mod guide {}
    #[doc = include_str!("../docs/from-python.md")]
    mod from_python {}
    #[doc = include_str!("../docs/limits.md")]
    mod limits {}
}
