//! Permits and read-write locks under every interleaving, with the death of a process at each of its steps.
//!
//! The files of `sync` are compiled here a second time, as they are, on top of processes that die ([`mortal`]). The
//! models check that no thread sleeps for good, that no more threads hold a lock than may, and that a dead process keeps nothing.
//! Runs in: one process, without children.
//!
//! Each rule is left out once, at every run (`the_checker_finds`). Beyond that, these mistakes were put into the files
//! themselves, one at a time, and each was found by a test here. In `semaphore.rs`: after a death under the lock, the free permits
//! are not counted again; dead holders are not looked for; a forgotten permit is taken from its holder and not from all. In
//! `raw_rwlock.rs`: a writer that gives up still keeps readers out, and so does a dead one; dead readers are not removed; the
//! last reader wakes no thread; readers enter beside a writer, or a writer beside readers; a dead writer is removed before
//! the lock is poisoned. In `event_count.rs`: a notification begins no new epoch; a thread that is about to sleep is not
//! counted; each thread that was woken counts as the last.

#[expect(dead_code, reason = "a part of the crate, of which a model needs some")]
#[path = "../../src/sync/deadline.rs"]
mod deadline;
#[expect(unreachable_pub, dead_code, reason = "a part of the crate, of which a model needs some")]
#[path = "../../src/error/elapsed.rs"]
mod elapsed;
#[expect(dead_code, reason = "queues have more use for it")]
#[path = "../../src/sync/event_count.rs"]
mod event_count;
#[expect(dead_code, reason = "a part of the crate, of which a model needs some")]
#[path = "../../src/sync/holders.rs"]
mod holders;
#[expect(dead_code, reason = "a part of the crate, of which a model needs some")]
#[path = "../../src/sync/lock.rs"]
mod lock;
#[expect(unreachable_pub, unused_imports, dead_code, reason = "a part of the crate, of which a model needs some")]
#[path = "../../src/sync/poison.rs"]
mod poison;
#[path = "../../src/sync/raw_rwlock.rs"]
mod raw_rwlock;
#[expect(unreachable_pub, dead_code, reason = "a part of the crate, of which a model needs some")]
#[path = "../../src/sync/semaphore.rs"]
mod semaphore;

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use loom::cell::UnsafeCell;
use loom::sync::Arc;

use crate::checker::{at_each_step, explore_fully, explore_with};
use crate::mortal::{FOR_EVER, Process, act_as, atomic, futex_wait, proc_table, the_checker_finds};
use deadline::Deadline;
use raw_rwlock::RawRwLock;
use semaphore::Semaphore;

/// As many as a model has.
const MAX_HOLDERS: usize = 3;

/// A semaphore, and what one at a time may touch.
struct Door {
    permits: Semaphore,
    inside: UnsafeCell<()>,
}

impl Door {
    fn new(permits: u32) -> Arc<Self> {
        let door = Self { permits: Semaphore::new(permits), inside: UnsafeCell::new(()) };
        // All words are to be there before there are other threads.
        door.permits.add_permit().unwrap();
        for number in 1..=3 {
            let permit = act_as(number, || door.permits.acquire());
            if number == 3 {
                act_as(number, || permit.forget());
            } else {
                act_as(number, || drop(permit));
            }
        }
        Arc::new(door)
    }

    fn pass(&self) {
        let permit = self.permits.acquire();
        self.inside.with_mut(|_| ());
        drop(permit);
    }
}

#[test]
fn permit_has_one_holder_and_leaves_no_thread_asleep() {
    explore_with(2, 1000, || {
        let door = Door::new(1);
        let others = [2, 3].map(|number| Process::start(number, FOR_EVER, &door, Door::pass));
        door.pass();
        for other in others {
            other.join().unwrap();
        }
        assert_eq!(door.permits.available(), 1);
    });
}

#[test]
fn every_permit_that_is_made_finds_its_taker() {
    explore_fully(2, 1000, || {
        let door = Door::new(0);
        let takers =
            [2, 3].map(|number| Process::start(number, FOR_EVER, &door, |door| door.permits.acquire().forget()));
        door.permits.add_permit().unwrap();
        door.permits.add_permit().unwrap();
        for taker in takers {
            taker.join().unwrap();
        }
        assert_eq!(door.permits.available(), 0);
    });
}

#[test]
fn timeout_loses_no_permit() {
    explore_with(2, 100, || {
        let door = Door::new(0);
        let patient = Process::start(2, FOR_EVER, &door, |door| door.permits.acquire().forget());
        let hasty = Process::start(3, FOR_EVER, &door, |door| door.permits.acquire_timeout(Duration::ZERO).is_ok());
        door.permits.add_permit().unwrap();
        hasty.join().unwrap();
        patient.join().unwrap();
        assert_eq!(door.permits.available(), 0);
    });
}

#[test]
fn the_permit_of_one_that_dies_at_any_step_comes_back() {
    at_each_step(1, |steps| {
        let door = Door::new(1);
        let victim = Process::start(2, steps, &door, Door::pass);
        let other = Process::start(3, FOR_EVER, &door, Door::pass);
        door.pass();
        other.join().unwrap();
        let killed = victim.join().is_none();
        assert_eq!(door.permits.available(), 1);
        assert!(door.permits.try_acquire().is_some());
        killed
    });
}

#[test]
fn death_during_recovery_leaves_it_to_the_next() {
    at_each_step(1, |steps| {
        let door = Door::new(1);
        let first = Process::start(2, FOR_EVER, &door, |door| {
            let _permit = door.permits.acquire();
            crate::mortal::die();
        });
        first.join();
        let second = Process::start(3, steps, &door, Door::pass);
        door.pass();
        let killed = second.join().is_none();
        assert_eq!(door.permits.available(), 1);
        killed
    });
}

#[test]
fn a_permit_is_forgotten_or_comes_back_and_nothing_in_between() {
    at_each_step(1, |steps| {
        let door = Door::new(2);
        let victim = Process::start(2, steps, &door, |door| {
            let permit = door.permits.acquire();
            door.inside.with_mut(|_| ());
            permit.forget();
        });
        door.permits.acquire().forget();
        let lived = victim.join().is_some();
        let left = door.permits.available();
        assert!(left == 0 || left == 1 && !lived, "{left} are left");
        door.permits.add_permit().unwrap();
        assert_eq!(door.permits.available(), left + 1);
        !lived
    });
}

#[test]
fn one_that_dies_while_it_makes_a_permit_has_made_one_or_none() {
    at_each_step(2, |steps| {
        let door = Door::new(0);
        let victim = Process::start(2, steps, &door, |door| door.permits.add_permit());
        let taker = Process::start(3, FOR_EVER, &door, |door| door.permits.acquire().forget());
        let killed = victim.join().is_none();
        door.permits.add_permit().unwrap();
        taker.join().unwrap();
        let left = door.permits.available();
        assert!(left == 1 || left == 0 && killed, "{left} are left");
        killed
    });
}

/// A read-write lock, and what one at a time may change or several look at.
struct Book {
    raw: RawRwLock,
    page: UnsafeCell<()>,
    /// Known to the model only.
    half_changed: AtomicBool,
}

impl Book {
    fn new() -> Arc<Self> {
        let book = Self { raw: RawRwLock::new(), page: UnsafeCell::new(()), half_changed: AtomicBool::new(false) };
        for number in 1..=3 {
            act_as(number, || book.read());
            act_as(number, || book.write());
        }
        assert!(!book.raw.poison().get());
        Arc::new(book)
    }

    fn read(&self) {
        let reader = self.raw.lock_shared(Deadline::Never).unwrap();
        self.page.with(|_| ());
        self.raw.unlock_shared(reader);
    }

    fn write(&self) {
        let writer = self.raw.lock_exclusive(Deadline::Never).unwrap();
        self.page.with_mut(|_| ());
        self.raw.unlock_exclusive(writer);
    }
}

#[test]
fn rwlock_excludes_and_leaves_no_thread_asleep() {
    for second in [Book::read, Book::write] {
        explore_with(2, 1000, move || {
            let book = Book::new();
            let reader = Process::start(2, FOR_EVER, &book, Book::read);
            let other = Process::start(3, FOR_EVER, &book, second);
            book.write();
            reader.join().unwrap();
            other.join().unwrap();
            assert!(!book.raw.poison().get());
        });
    }
}

#[test]
fn a_writer_that_times_out_lets_readers_in_again() {
    explore_with(2, 1000, || {
        let book = Book::new();
        let reader = Process::start(2, FOR_EVER, &book, Book::read);
        let hasty = Process::start(3, FOR_EVER, &book, |book| {
            if let Some(writer) = book.raw.lock_exclusive(Deadline::At(Instant::now())) {
                book.raw.downgrade(writer);
                book.raw.unlock_shared(writer);
            }
        });
        book.read();
        reader.join().unwrap();
        hasty.join().unwrap();
        book.read();
    });
}

#[test]
fn reader_death_at_any_step_blocks_and_poisons_nothing() {
    at_each_step(1, |steps| {
        let book = Book::new();
        let victim = Process::start(2, steps, &book, Book::read);
        let writer = Process::start(3, FOR_EVER, &book, Book::write);
        book.write();
        writer.join().unwrap();
        let killed = victim.join().is_none();
        assert!(book.raw.lock_exclusive(Deadline::Now).is_some() && !book.raw.poison().get());
        killed
    });
}

#[test]
fn writer_death_blocks_none_and_poisons_if_it_wrote() {
    at_each_step(1, |steps| {
        let book = Book::new();
        let victim = Process::start(2, steps, &book, |book| {
            let writer = book.raw.lock_exclusive(Deadline::Never).unwrap();
            book.half_changed.store(true, Relaxed);
            book.page.with_mut(|_| ());
            // A step, at which the writer can be killed.
            assert!(!book.raw.poison().get());
            book.half_changed.store(false, Relaxed);
            book.page.with_mut(|_| ());
            book.raw.unlock_exclusive(writer);
        });
        let reader = Process::start(3, FOR_EVER, &book, Book::read);
        book.write();
        reader.join().unwrap();
        let killed = victim.join().is_none();
        assert!(book.raw.lock_shared(Deadline::Now).is_some());
        let poisoned = book.raw.poison().get();
        assert!(killed || !poisoned);
        assert!(poisoned || !book.half_changed.load(Relaxed), "no process is told of it");
        killed
    });
}

#[test]
fn death_during_recovery_does_not_hide_a_dead_writer() {
    at_each_step(1, |steps| {
        let book = Book::new();
        let writer = Process::start(2, FOR_EVER, &book, |book| {
            book.raw.lock_exclusive(Deadline::Never).unwrap();
            crate::mortal::die();
        });
        writer.join();
        let second = Process::start(3, steps, &book, Book::read);
        book.read();
        let killed = second.join().is_none();
        assert!(book.raw.lock_exclusive(Deadline::Now).is_some());
        assert!(book.raw.poison().get(), "no process is told of it");
        killed
    });
}

the_checker_finds! {
    permit_given_back_without_a_wake: WakesAreLost,
        permit_has_one_holder_and_leaves_no_thread_asleep, "deadlock";
    turn_ended_without_a_wake: WakesAreLost,
        rwlock_excludes_and_leaves_no_thread_asleep, "deadlock";
    sleepers_miscounted: WakersMiscount,
        every_permit_that_is_made_finds_its_taker, "deadlock";
    permit_of_a_dead_process_awaited: NoDeathIsKnown,
        the_permit_of_one_that_dies_at_any_step_comes_back, "deadlock";
    dead_reader_awaited: NoDeathIsKnown,
        reader_death_at_any_step_blocks_and_poisons_nothing, "deadlock";
    permit_handed_over_with_too_little: ReleaseIsRelaxed,
        permit_has_one_holder_and_leaves_no_thread_asleep, "Causality violation";
    readers_let_in_before_the_write: ReleaseIsRelaxed,
        rwlock_excludes_and_leaves_no_thread_asleep, "Causality violation";
}
