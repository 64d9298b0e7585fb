//! The turns to read and to write: a read-write lock without its data.
//!
//! Owns: [`Turns`]. Runs in: any process.
//! Never: counts a dead process among those that read or write while a thread waits for them.
//!
//! # The words
//!
//! All are written under `lock`, a few instructions long. Each change of the readers or the writer is one store.
//!
//! | word      | meaning                                                                                       |
//! |-----------|-----------------------------------------------------------------------------------------------|
//! | `writer`  | the process that writes, 0 if none does                                                       |
//! | `reading` | in how many threads each process reads                                                        |
//! | `next`    | the process of a writer that waits: until it has had its turn, no thread begins to read       |
//! | `poison`  | a writer died, or panicked, while it wrote                                                    |
//!
//! One waiting writer, of however many, stands in `next`, and knows that it does; it leaves when it has got its turn, or gives up.
//! So readers that come one after the other do not keep writers waiting. Writers may, for a while, keep readers waiting.
//!
//! # Waking
//!
//! The last reader wakes one writer. A writer that has written, or gave up, wakes one writer; only if none sleeps, all readers.
//!
//! # Deaths
//!
//! - *A reader's*: it vanishes from `reading`. *The writer's*: it vanishes, and leaves `poison`. A thread that wants the
//!   turn that it had sees to that, before it says no and before it sleeps.
//! - *Of the one in `next`*: the next reader that looks takes it out, and so does a writer that would stand there.
//! - *Under `lock`*: the next one there sees to all of the above, and wakes all.

use std::time::Instant;

use super::atomic::AtomicU32;
use super::atomic::Ordering::Relaxed;
use super::holders::Holders;
use super::lock::{Lock, Taken};
use super::members::{self, Member};
use super::poison::Poison;
use super::sleepers::Sleepers;
use super::waiting;

const NOBODY: u32 = 0;

/// How long a thread waits for its turn.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wait {
    /// Not at all.
    Not,
    /// Until then, or as long as it takes.
    Until(Option<Instant>),
}

/// See the [module](self).
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Turns {
    lock: Lock,
    writer: AtomicU32,
    next: AtomicU32,
    poison: Poison,
    readers: Sleepers,
    writers: Sleepers,
    reading: Holders,
}

impl Turns {
    pub(crate) const fn new() -> Self {
        Self {
            lock: Lock::new(),
            writer: AtomicU32::new(NOBODY),
            next: AtomicU32::new(NOBODY),
            poison: Poison::new(),
            readers: Sleepers::new(),
            writers: Sleepers::new(),
            reading: Holders::new(),
        }
    }

    /// The note that a writer died, or panicked.
    pub(crate) fn poison(&self) -> &Poison {
        &self.poison
    }

    /// Takes a turn to read, and returns the member that has it. None: the waiting is over.
    pub(crate) fn read(&self, wait: Wait) -> Option<Member> {
        loop {
            let reader = self.inside().begin_to_read();
            let (None, Wait::Until(deadline)) = (reader, wait) else { return reader };
            waiting::look_shortly(|| self.writer.load(Relaxed) == NOBODY && self.next.load(Relaxed) == NOBODY);
            let turn = {
                let mut inside = self.inside();
                match inside.begin_to_read() {
                    None => self.readers.enlist(),
                    reader => return reader,
                }
            };
            if !self.readers.sleep(turn, deadline) {
                return None;
            }
        }
    }

    /// Takes a turn to write, and returns the member that has it. None: the waiting is over.
    pub(crate) fn write(&self, wait: Wait) -> Option<Member> {
        let mut is_next = false;
        loop {
            let writer = self.inside().begin_to_write(is_next);
            let (None, Wait::Until(deadline)) = (writer, wait) else { return writer };
            waiting::look_shortly(|| self.writer.load(Relaxed) == NOBODY && self.reading.total() == 0);
            let turn = {
                let mut inside = self.inside();
                let writer = inside.begin_to_write(is_next);
                if writer.is_some() {
                    return writer;
                }
                is_next = is_next || inside.be_next();
                self.writers.enlist()
            };
            if !self.writers.sleep(turn, deadline) {
                if is_next {
                    let mut inside = self.inside();
                    self.next.store(NOBODY, Relaxed);
                    inside.wake = Wake::OneWriterOrReaders;
                }
                return None;
            }
        }
    }

    /// The reader has had its turn. A copy of the process that had it cannot say so.
    pub(crate) fn has_read(&self, reader: Member) {
        if members::is_own(reader) {
            let mut inside = self.inside();
            self.reading.take(reader);
            if self.reading.total() == 0 {
                inside.wake = Wake::OneWriterOrReaders;
            }
        }
    }

    /// The writer has had its turn. A copy of the process that had it cannot say so.
    pub(crate) fn has_written(&self, writer: Member) {
        if members::is_own(writer) {
            let mut inside = self.inside();
            self.writer.store(NOBODY, Relaxed);
            inside.wake = Wake::OneWriterOrReaders;
        }
    }

    /// The writer goes on as a reader, without another writer in between. In a copy of its process it has no turn of any
    /// kind.
    pub(crate) fn reads_on(&self, writer: Member) {
        if members::is_own(writer) {
            let mut inside = self.inside();
            // There is room: there is no other reader.
            self.reading.add(writer);
            self.writer.store(NOBODY, Relaxed);
            inside.wake = Wake::Everybody;
        }
    }

    /// Takes the lock, and sees to what one that died there left behind.
    fn inside(&self) -> Inside<'_> {
        loop {
            if let Some(taken) = self.lock.lock(None) {
                let mut inside = Inside { turns: self, wake: Wake::Nobody };
                if taken == Taken::FromDead {
                    inside.forget_dead_readers();
                    inside.wake = Wake::Everybody;
                }
                return inside;
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wake {
    Nobody,
    OneWriterOrReaders,
    Everybody,
}

/// The lock, until this is dropped, and which threads are to be woken then.
struct Inside<'a> {
    turns: &'a Turns,
    wake: Wake,
}

impl Inside<'_> {
    fn begin_to_read(&mut self) -> Option<Member> {
        let Turns { next, reading, .. } = self.turns;
        self.forget_dead_writer();
        if self.is_written() || is_alive(next.load(Relaxed)) {
            return None;
        }
        next.store(NOBODY, Relaxed);
        let reader = members::own();
        if !reading.add(reader) {
            // There is no room for one process more, unless some have died.
            self.forget_dead_readers();
            if !reading.add(reader) {
                return None;
            }
        }
        Some(reader)
    }

    fn begin_to_write(&mut self, is_next: bool) -> Option<Member> {
        let Turns { writer, next, reading, .. } = self.turns;
        self.forget_dead_writer();
        if reading.total() != 0 {
            self.forget_dead_readers();
        }
        if self.is_written() || reading.total() != 0 {
            return None;
        }
        let own = members::own();
        writer.store(own.bits(), Relaxed);
        if is_next {
            next.store(NOBODY, Relaxed);
        }
        Some(own)
    }

    /// False: another one that lives stands there.
    fn be_next(&mut self) -> bool {
        let next = &self.turns.next;
        let is_free = !is_alive(next.load(Relaxed));
        if is_free {
            next.store(members::own().bits(), Relaxed);
        }
        is_free
    }

    fn is_written(&self) -> bool {
        self.turns.writer.load(Relaxed) != NOBODY
    }

    fn forget_dead_writer(&mut self) {
        if self.is_written() && !is_alive(self.turns.writer.load(Relaxed)) {
            // In this order: one that dies in between leaves it to be done again.
            self.turns.poison.set();
            self.turns.writer.store(NOBODY, Relaxed);
            self.wake = Wake::Everybody;
        }
    }

    fn forget_dead_readers(&mut self) {
        if self.turns.reading.take_from_dead(members::lives) != 0 {
            self.wake = Wake::Everybody;
        }
    }
}

/// Whether this word names a member, and it lives.
fn is_alive(word: u32) -> bool {
    Member::of_bits(word).is_some_and(members::lives)
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let Turns { lock, readers, writers, .. } = self.turns;
        if self.wake == Wake::Nobody {
            return lock.unlock();
        }
        let (called_writers, called_readers) = (writers.call(), readers.call());
        lock.unlock();
        let woken = writers.wake(&called_writers, 1);
        if woken == 0 || self.wake == Wake::Everybody {
            readers.wake_all(&called_readers);
        }
    }
}
