//! The process table: which processes live, in memory that a whole tree of processes maps.
//!
//! Owns: the ids of processes, and the answer to whether one has died. Whatever processes share (the holder of a lock, a
//! permit, a party) is stored under its [`ProcId`], so that one look here tells whether the process can still act.
//! Runs in: any process. Invariant: no answer is guessed from a pid, which the kernel gives to another process later.
//!
//! # Which process registers which, and which one reports its exit
//!
//! | process | registered by, before it runs | its exit is reported by |
//! |---|---|---|
//! | made by a fork server | the fork server | the fork server, when it reaps it |
//! | the same, its fork server dead | | its parent, when the pidfd that it holds says so |
//! | the same, its parent without that pidfd | | its parent, a second after the fork server's exit |
//! | the same, its parent dead too | | any process that looks, a second after both exits ([`entry::DEATH_GRACE`]) |
//! | fork server | its parent, which starts it | its parent, when its pidfd says so; itself, before it exits; any process that looks and finds its record lock gone |
//! | the program itself, or a copy made by `fork()` | itself, at first use | any process that looks and finds its record lock gone |
//!
//! A child of a dead fork server still runs for some milliseconds, as a child of a dead parent does. A lock must not be taken
//! from a holder that still runs, so neither death says anything about the child. A fork server may be late because the
//! machine is busy or because it was stopped. Then processes wait for it: its record lock shows that it lives, as the
//! program's does.
//!
//! # An entry
//!
//! | state | meaning | written next by |
//! |---|---|---|
//! | free, exited, killed | of no living process; the last two still say how the last one ended | the process that registers another one |
//! | alive | another process will report its exit | the reporters above |
//! | locked | lives as long as the kernel says that it holds the record lock on the byte of this number | itself, as it begins to exit; any process that sees the lock gone |
//! | exiting | the same, but its end does not count as killed | any process that sees the lock gone |
//!
//! Every change is one compare-and-swap of the whole word, which contains the generation of the entry. So a late report about
//! an earlier process of this entry changes nothing. The time of a death is written before the word that reports it.
//!
//! # Which process may write
//!
//! The table is mapped for writing in processes that make processes, and for reading in all others. A task that writes to
//! memory that is not its own faults, and no lock of another process is lost with it. A process maps the table for writing
//! when it starts processes itself, when it is copied by `fork()`, or when it finds a death that no other process can have
//! seen.
//!
//! # What a death in the middle costs
//!
//! - *Between choosing an entry and writing it*: nothing.
//! - *Between registering a child and making it*: an entry that is alive and has no process, until the parent or a search for a
//!   free entry checks the entries of dead makers.
//! - *Between the time of death and the word*: the word, which the next process in the list above writes.

#![expect(unsafe_code, reason = "a static that points to a leaked table")]

pub(crate) mod atomic {
    pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
}
mod entry;
mod table;
#[cfg(test)]
mod tests;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::{Acquire, Release};

pub(crate) use self::entry::{DEATH_GRACE, ProcId};
use self::table::ProcTable;
use crate::sys::atfork::{ForkSafeLock, ProcessLocal};
use crate::sys::{self, Errno, membarrier};

/// Set once, and never freed: copies made by `fork()` use it further.
static TABLE: AtomicPtr<ProcTable> = AtomicPtr::new(ptr::null_mut());
static CURRENT: ProcessLocal = ProcessLocal::new();
/// Held while this process gets its table and its id.
static REGISTRATION: ForkSafeLock = ForkSafeLock::new();

/// Returns the id of this process. Registers it at first use; from then on costs two loads.
///
/// Where no table can be made it returns a fixed id that always lives. That is good for a lock that one process uses alone.
/// [`prepare`] is the call that reports the failure.
#[inline]
pub(crate) fn current() -> ProcId {
    match registered() {
        Some(current) => current,
        None => register_this_process(),
    }
}

/// Returns the id of this process, if it is registered.
#[inline]
fn registered() -> Option<ProcId> {
    CURRENT.get().map(ProcId::from_number)
}

/// Returns whether `id` is one of this process's: its own, or the one that it used before it had a table.
pub(crate) fn is_current(id: ProcId) -> bool {
    id == current() || id == ProcId::UNTABLED
}

/// Makes sure that this process has an entry in a table, as it must before it shares memory.
///
/// # Errors
/// There is no memory or no descriptor for a table; or the table is full, or the program has closed its descriptor.
pub(crate) fn prepare() -> sys::Result<()> {
    if current() != ProcId::UNTABLED {
        return Ok(());
    }
    let _guard = REGISTRATION.lock();
    if current() == ProcId::UNTABLED {
        CURRENT.set(table_or_new()?.register_self()?.number());
    }
    Ok(())
}

/// Returns whether process `id` has not ended, as far as can be known.
pub(crate) fn is_alive(id: ProcId) -> bool {
    registered() == Some(id) || id == ProcId::UNTABLED || table().is_none_or(|table| table.is_alive(id))
}

/// Returns whether process `id` is dead, and neither returned nor exited with 0. False once its entry has been used again.
pub(crate) fn was_killed(id: ProcId) -> bool {
    !is_alive(id) && table().is_some_and(|table| table.was_killed(id))
}

/// Registers a process that this one is about to make, for `parent`.
///
/// # Errors
/// `EAGAIN` if 16,384 processes of this tree live.
pub(crate) fn register(parent: ProcId) -> sys::Result<ProcId> {
    let maker = current();
    table().ok_or(Errno::ENXIO)?.register(parent, maker)
}

/// Reports that process `id` has ended; `killed`: not by returning or exiting with 0. Only the first report counts.
pub(crate) fn report_exit(id: ProcId, killed: bool) {
    if let Some(table) = table().filter(|_| id != ProcId::UNTABLED) {
        table.report_exit(id, killed);
    }
}

/// Returns how many exits of this tree's processes were reported so far. A change of this number is a reason to ask which
/// processes live.
#[inline]
pub(crate) fn deaths() -> u64 {
    table().map_or(0, ProcTable::deaths)
}

/// Returns the living processes that `maker` has made.
pub(crate) fn children_of(maker: ProcId) -> Vec<ProcId> {
    table().map_or_else(Vec::new, |table| table.children_of(maker))
}

/// Returns the table's descriptor, which a process that this one starts must have.
///
/// # Errors
/// As [`prepare`].
pub(crate) fn descriptor() -> sys::Result<BorrowedFd<'static>> {
    prepare()?;
    table().ok_or(Errno::ENXIO)?.descriptor()
}

/// Takes over the table of the process that made this one, and the id under which it is registered.
///
/// Runs in: the fork server and executed children, before anything calls [`current`].
///
/// # Errors
/// The memory is no table, or could not be mapped.
pub(crate) fn adopt(descriptor: OwnedFd, current: ProcId) -> sys::Result<()> {
    let _guard = REGISTRATION.lock();
    set_table(ProcTable::of(descriptor)?);
    CURRENT.set(current.number());
    Ok(())
}

/// Takes a record lock that lets any process see the end of this one, even if none is left that would report it.
///
/// Runs in: the fork server, before it makes a process.
///
/// # Errors
/// The kernel refuses a record lock.
pub(crate) fn hold_liveness_lock() -> sys::Result<()> {
    table().ok_or(Errno::ENXIO)?.hold_liveness_lock(current())
}

/// Sets the id of this process, which is a copy of its maker and has the table already.
///
/// Runs in: a child, right after the fork.
pub(crate) fn set_current(current: ProcId) {
    CURRENT.set(current.number());
    if let Some(table) = table() {
        table.make_read_only();
    }
}

/// Notes in the table that this process begins to exit.
extern "C" fn begin_exit() {
    if let (Some(table), Some(current)) = (table(), registered().filter(|id| *id != ProcId::UNTABLED)) {
        table.begin_exit(current);
    }
}

#[inline]
fn table() -> Option<&'static ProcTable> {
    let table = TABLE.load(Acquire);
    // SAFETY: null, or a box that was leaked whole before it was stored here.
    unsafe { table.as_ref() }
}

fn set_table(table: ProcTable) -> &'static ProcTable {
    let table = Box::leak(Box::new(table));
    TABLE.store(table, Release);
    table
}

/// Returns the table, and makes it if there is none. The caller holds [`REGISTRATION`].
fn table_or_new() -> sys::Result<&'static ProcTable> {
    if let Some(table) = table() {
        return Ok(table);
    }
    // A process without a table is about to share its first memory.
    membarrier::register_if_alone();
    ProcTable::create().map(set_table)
}

#[cold]
fn register_this_process() -> ProcId {
    let _guard = REGISTRATION.lock();
    if let Some(current) = registered() {
        return current;
    }
    let current = table_or_new().and_then(ProcTable::register_self).unwrap_or(ProcId::UNTABLED);
    CURRENT.set(current.number());
    current
}
