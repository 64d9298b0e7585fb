//! A read-write lock without its data.
//!
//! Owns: [`RawRwLock`]. Runs in: any process.
//! Invariant: a dead process does not count as a reader or writer while a thread waits for it.
//!
//! # The words
//!
//! All are written under `lock`, a few instructions long. Each change of the readers or the writer is one store.
//!
//! | word          | meaning                                                                                      |
//! |---------------|----------------------------------------------------------------------------------------------|
//! | `writer`      | the process that holds the lock exclusively, or [`NONE`]                                     |
//! | `readers`     | how many threads of each process hold the lock shared                                        |
//! | `next_writer` | the process of one waiting writer: until it has had the lock, no thread begins to read       |
//! | `poison`      | a writer died, or panicked, while it held the lock                                           |
//!
//! One waiting writer, of however many, stands in `next_writer`, and knows that it does. It leaves when it has got the
//! lock, or gives up. So readers that come one after the other do not keep writers waiting. Writers may, for a while,
//! keep readers waiting.
//!
//! # Waking
//!
//! The last reader wakes one writer. A writer that unlocks, or gives up, wakes one writer. Only if none sleeps, it wakes all
//! readers.
//!
//! # Deaths
//!
//! - *A reader's*: it vanishes from `readers`. *The writer's*: it vanishes, and leaves `poison`. A thread that wants the
//!   lock repairs that before it reports that the lock is held, and before it sleeps.
//! - *Of the one in `next_writer`*: the next reader that looks takes it out, and so does a writer that would stand there.
//! - *Under `lock`*: the next holder of `lock` does all of the above, and wakes all.

use super::atomic::AtomicU32;
use super::atomic::Ordering::Relaxed;
use super::deadline::Deadline;
use super::event_count::EventCount;
use super::futex_wait;
use super::holders::Holders;
use super::lock::{Acquired, RobustLock};
use super::poison::Poison;
use super::proc_table::{self, ProcId};

/// The word of no process.
const NONE: u32 = 0;

/// See the [module](self).
#[derive(Debug)]
#[repr(C)]
pub(crate) struct RawRwLock {
    lock: RobustLock,
    writer: AtomicU32,
    next_writer: AtomicU32,
    poison: Poison,
    reader_waiters: EventCount,
    writer_waiters: EventCount,
    readers: Holders,
}

impl RawRwLock {
    pub(crate) const fn new() -> Self {
        Self {
            lock: RobustLock::new(),
            writer: AtomicU32::new(NONE),
            next_writer: AtomicU32::new(NONE),
            poison: Poison::new(),
            reader_waiters: EventCount::new(),
            writer_waiters: EventCount::new(),
            readers: Holders::new(),
        }
    }

    /// Returns the flag that a writer died, or panicked.
    pub(crate) fn poison(&self) -> &Poison {
        &self.poison
    }

    /// Takes the lock shared, and returns the process that holds it. `None`: the lock is held, and the waiting is over.
    pub(crate) fn lock_shared(&self, deadline: Deadline) -> Option<ProcId> {
        loop {
            let reader = self.inside().try_read();
            if reader.is_some() || deadline == Deadline::Now {
                return reader;
            }
            futex_wait::spin_until(|| self.writer.load(Relaxed) == NONE && self.next_writer.load(Relaxed) == NONE);
            let key = {
                let mut inside = self.inside();
                match inside.try_read() {
                    None => self.reader_waiters.prepare_wait(),
                    reader => return reader,
                }
            };
            if !self.reader_waiters.wait(key, deadline.instant()) {
                return None;
            }
        }
    }

    /// Takes the lock exclusively, and returns the process that holds it. `None`: the lock is held, and the waiting is over.
    pub(crate) fn lock_exclusive(&self, deadline: Deadline) -> Option<ProcId> {
        let mut is_next = false;
        loop {
            let writer = self.inside().try_write(is_next);
            if writer.is_some() || deadline == Deadline::Now {
                return writer;
            }
            futex_wait::spin_until(|| self.writer.load(Relaxed) == NONE && self.readers.total() == 0);
            let key = {
                let mut inside = self.inside();
                let writer = inside.try_write(is_next);
                if writer.is_some() {
                    return writer;
                }
                is_next = is_next || inside.become_next_writer();
                self.writer_waiters.prepare_wait()
            };
            if !self.writer_waiters.wait(key, deadline.instant()) {
                if is_next {
                    let mut inside = self.inside();
                    self.next_writer.store(NONE, Relaxed);
                    inside.wake = Wake::WriterElseReaders;
                }
                return None;
            }
        }
    }

    /// Releases what `reader` holds shared. Does nothing in a copy of that process.
    pub(crate) fn unlock_shared(&self, reader: ProcId) {
        if proc_table::is_current(reader) {
            let mut inside = self.inside();
            self.readers.remove(reader);
            if self.readers.total() == 0 {
                inside.wake = Wake::WriterElseReaders;
            }
        }
    }

    /// Releases what `writer` holds exclusively. Does nothing in a copy of that process.
    pub(crate) fn unlock_exclusive(&self, writer: ProcId) {
        if proc_table::is_current(writer) {
            let mut inside = self.inside();
            self.writer.store(NONE, Relaxed);
            inside.wake = Wake::WriterElseReaders;
        }
    }

    /// Turns an exclusive lock into a shared one, without another writer in between. Does nothing in a copy of the process of
    /// `writer`, which holds the lock in neither way.
    pub(crate) fn downgrade(&self, writer: ProcId) {
        if proc_table::is_current(writer) {
            let mut inside = self.inside();
            // There is room: there is no other reader.
            self.readers.add(writer);
            self.writer.store(NONE, Relaxed);
            inside.wake = Wake::All;
        }
    }

    /// Takes `lock`, and repairs what a process that died with it left behind.
    fn inside(&self) -> RwLockSection<'_> {
        loop {
            if let Some(taken) = self.lock.lock(None) {
                let mut inside = RwLockSection { raw: self, wake: Wake::None };
                if taken == Acquired::OwnerDied {
                    inside.forget_dead_readers();
                    inside.wake = Wake::All;
                }
                return inside;
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wake {
    None,
    /// One writer, or all readers if no writer sleeps.
    WriterElseReaders,
    All,
}

/// Holds `lock` until dropped, and says which threads are woken then.
struct RwLockSection<'a> {
    raw: &'a RawRwLock,
    wake: Wake,
}

impl RwLockSection<'_> {
    fn try_read(&mut self) -> Option<ProcId> {
        let RawRwLock { next_writer, readers, .. } = self.raw;
        self.forget_dead_writer();
        if self.has_writer() || is_alive(next_writer.load(Relaxed)) {
            return None;
        }
        next_writer.store(NONE, Relaxed);
        let reader = proc_table::current();
        if !readers.add(reader) {
            // There is no room for another process, unless some have died.
            self.forget_dead_readers();
            if !readers.add(reader) {
                return None;
            }
        }
        Some(reader)
    }

    fn try_write(&mut self, is_next: bool) -> Option<ProcId> {
        let RawRwLock { writer, next_writer, readers, .. } = self.raw;
        self.forget_dead_writer();
        if readers.total() != 0 {
            self.forget_dead_readers();
        }
        if self.has_writer() || readers.total() != 0 {
            return None;
        }
        let own = proc_table::current();
        writer.store(own.bits(), Relaxed);
        if is_next {
            next_writer.store(NONE, Relaxed);
        }
        Some(own)
    }

    /// Makes this process the next writer. Returns false if another living process is that already.
    fn become_next_writer(&mut self) -> bool {
        let next_writer = &self.raw.next_writer;
        let is_free = !is_alive(next_writer.load(Relaxed));
        if is_free {
            next_writer.store(proc_table::current().bits(), Relaxed);
        }
        is_free
    }

    fn has_writer(&self) -> bool {
        self.raw.writer.load(Relaxed) != NONE
    }

    fn forget_dead_writer(&mut self) {
        if self.has_writer() && !is_alive(self.raw.writer.load(Relaxed)) {
            // In this order: a process that dies in between leaves it to be done again.
            self.raw.poison.set();
            self.raw.writer.store(NONE, Relaxed);
            self.wake = Wake::All;
        }
    }

    fn forget_dead_readers(&mut self) {
        if self.raw.readers.release_dead(proc_table::is_alive) != 0 {
            self.wake = Wake::All;
        }
    }
}

/// Returns whether this word names a process that lives.
fn is_alive(word: u32) -> bool {
    ProcId::from_bits(word).is_some_and(proc_table::is_alive)
}

impl Drop for RwLockSection<'_> {
    fn drop(&mut self) {
        let RawRwLock { lock, reader_waiters, writer_waiters, .. } = self.raw;
        if self.wake == Wake::None {
            return lock.unlock();
        }
        let (notified_writers, notified_readers) = (writer_waiters.notify(), reader_waiters.notify());
        lock.unlock();
        let woken = writer_waiters.wake(&notified_writers, 1);
        if woken == 0 || self.wake == Wake::All {
            reader_waiters.wake_all(&notified_readers);
        }
    }
}
