//! Which processes live: one table for a whole tree of processes, in memory that all of them map.
//!
//! Owns: the ids of processes, and the answer to whether one has died. Whatever several processes share, a lock's holder,
//! a permit, a party, is entered under its [`Member`], so that one look here tells whether it is still coming back.
//! Runs in: any process. Never: guesses from a process id, which the kernel gives to the next one.
//!
//! # Which process enters which, and which says that it has ended
//!
//! | process | entered by, before it runs | said to have ended by |
//! |---|---|---|
//! | made by a fork server | the fork server | the fork server, when it reaps it |
//! | the same, its fork server dead | | its parent, when the pidfd that it holds says so |
//! | the same, its parent without that pidfd | | its parent, a second after the fork server's end |
//! | the same, its parent dead too | | any process that looks, a second after both ends ([`entry::GRACE`]) |
//! | fork server | its parent, which starts it | its parent, when its pidfd says so; itself, before it exits; any process that looks and finds its record lock gone |
//! | the program itself, or a copy made by `fork()` | itself, at first use | any process that looks and finds its record lock gone |
//!
//! A child of a dead fork server still runs for some milliseconds, as a child of a dead parent does: a lock must not be
//! taken from a holder that still runs, so neither death says anything about the child. A fork server that is late, because
//! the machine is busy or it was stopped, is waited for: it shows that it lives by a record lock, as the program does.
//!
//! # An entry
//!
//! | state | meaning | written next by |
//! |---|---|---|
//! | free, ended, killed | no member's; the last two still say how it was | the process that enters another one |
//! | alive | another process will say when it has ended | the ones above |
//! | alone | lives as long as the kernel says that it has the record lock on the byte of this number | itself, as it begins to exit; any process that sees the lock gone |
//! | leaving | the same, but its end is no killing | any process that sees the lock gone |
//!
//! Every change is one compare-and-swap of the whole word, in which the number of lives of the entry stands: a late word
//! about a process that stood there before changes nothing. The time of a death is written before the word that tells it.
//!
//! # Which process may write
//!
//! The table is mapped for writing in those that make processes, and for reading in all others: a task that writes to
//! memory that is not its own faults, and no lock of another process is lost with it. A process is given the right to write
//! when it starts processes itself, when it is copied by `fork()`, or when it finds a death that no other process can have
//! seen.
//!
//! # What a death in the middle costs
//!
//! Between choosing an entry and writing it: nothing. Between entering a child and making it: an entry that is alive and
//! has no process, until the parent or a search for a free entry goes through those that have a dead maker. Between the
//! time of death and the word: the word, which the next in the list above writes.

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

pub(crate) use self::entry::{GRACE, Member};
use self::table::Table;
use crate::sys::forked::{Gate, Own};
use crate::sys::{self, Errno, membarrier};

/// Set once, and never freed: copies made by `fork()` go on with it.
static TABLE: AtomicPtr<Table> = AtomicPtr::new(ptr::null_mut());
static OWN: Own = Own::new();
/// Before this process has a table and an id.
static GATE: Gate = Gate::new();

/// This process. Enters it at first use, and from then on costs two loads.
///
/// Where no table can be had it is a fixed member that always lives: good for a lock that one process uses alone, and
/// [`prepare`] is the call that fails.
#[inline]
pub(crate) fn own() -> Member {
    match known() {
        Some(own) => own,
        None => enter_this_process(),
    }
}

/// This process, if it has been entered.
#[inline]
fn known() -> Option<Member> {
    OWN.get().map(Member::numbered)
}

/// Whether this process was the one that entered `member` somewhere. It answers for two: for what it is, and for what it was
/// called as long as it had no table.
pub(crate) fn is_own(member: Member) -> bool {
    member == own() || member == Member::UNTABLED
}

/// Makes sure that this process stands in a table, as it must before it shares memory.
///
/// # Errors
/// There is no memory or no descriptor for one; or the table is full, or the program has closed its descriptor.
pub(crate) fn prepare() -> sys::Result<()> {
    if own() != Member::UNTABLED {
        return Ok(());
    }
    let _inside = GATE.enter();
    if own() == Member::UNTABLED {
        OWN.set(made_table()?.enter_alone()?.number());
    }
    Ok(())
}

/// Whether `member` has not ended, as far as can be known.
pub(crate) fn lives(member: Member) -> bool {
    known() == Some(member) || member == Member::UNTABLED || table().is_none_or(|table| table.lives(member))
}

/// Whether `member` is dead, and neither returned nor exited with 0. False once its entry has been used again.
pub(crate) fn was_killed(member: Member) -> bool {
    !lives(member) && table().is_some_and(|table| table.was_killed(member))
}

/// Enters a process that this one is about to make, for `parent`.
///
/// # Errors
/// `EAGAIN` if 16,384 processes of this tree live.
pub(crate) fn enter(parent: Member) -> sys::Result<Member> {
    let maker = own();
    table().ok_or(Errno::ENXIO)?.enter(parent, maker)
}

/// Says that `member` has ended; `killed`: in another way than by returning or exiting with 0. A second word is ignored.
pub(crate) fn end(member: Member, killed: bool) {
    if let Some(table) = table().filter(|_| member != Member::UNTABLED) {
        table.end(member, killed);
    }
}

/// How many ends of processes of this tree were told so far: another number than before is a reason to look which processes
/// live.
#[inline]
pub(crate) fn ended() -> u64 {
    table().map_or(0, Table::ended)
}

/// The living that `maker` has made.
pub(crate) fn made_by(maker: Member) -> Vec<Member> {
    table().map_or_else(Vec::new, |table| table.made_by(maker))
}

/// The table's descriptor, which a process that this one starts must have.
///
/// # Errors
/// As [`prepare`].
pub(crate) fn descriptor() -> sys::Result<BorrowedFd<'static>> {
    prepare()?;
    table().ok_or(Errno::ENXIO)?.descriptor()
}

/// Takes over the table of the process that made this one, and the id that it was entered under.
///
/// Runs in: the fork server and executed children, before anything asks for [`own`].
///
/// # Errors
/// The memory is no table, or could not be mapped.
pub(crate) fn adopt(descriptor: OwnedFd, own: Member) -> sys::Result<()> {
    let _inside = GATE.enter();
    put(Table::of(descriptor)?);
    OWN.set(own.number());
    Ok(())
}

/// Lets any process that asks see the end of this one, even if none is left that would say it.
///
/// Runs in: the fork server, before it makes a process.
///
/// # Errors
/// The kernel refuses a record lock.
pub(crate) fn show() -> sys::Result<()> {
    table().ok_or(Errno::ENXIO)?.show(own())
}

/// Says what this process is: a copy of its maker, which has the table already.
///
/// Runs in: a child, right after the fork.
pub(crate) fn become_member(own: Member) {
    OWN.set(own.number());
    if let Some(table) = table() {
        table.only_read();
    }
}

/// This process begins to exit.
extern "C" fn leaves() {
    if let (Some(table), Some(own)) = (table(), known().filter(|own| *own != Member::UNTABLED)) {
        table.leave(own);
    }
}

#[inline]
fn table() -> Option<&'static Table> {
    let table = TABLE.load(Acquire);
    // SAFETY: null, or a box that was leaked whole before it was stored here.
    unsafe { table.as_ref() }
}

fn put(table: Table) -> &'static Table {
    let table = Box::leak(Box::new(table));
    TABLE.store(table, Release);
    table
}

/// The table, made if there is none. Called inside the gate.
fn made_table() -> sys::Result<&'static Table> {
    if let Some(table) = table() {
        return Ok(table);
    }
    // A process without a table is about to share its first memory.
    membarrier::register_if_alone();
    Table::create().map(put)
}

#[cold]
fn enter_this_process() -> Member {
    let _inside = GATE.enter();
    if let Some(own) = known() {
        return own;
    }
    let own = made_table().and_then(Table::enter_alone).unwrap_or(Member::UNTABLED);
    OWN.set(own.number());
    own
}
