//! What a read-write lock promises when those that read, write or wait end in any way.
//!
//! Runs in: the test process; the tasks in children. Never: relies on how fast anything is, but for the one promise that is about
//! time, which is tried several times.

use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::chaos::{self, Herd, start};
use crate::support::fork_copy::in_a_copy;
use crate::support::shared_counter::{Stage, reach, stage as new_stage, until, until_asleep, until_killed};
use crate::support::{PATIENCE, eventually};
use process_task::sync::{RwLock, RwLockWriteGuard, TryLockError};
use process_task::{Process, Shared, StartMethod, process_task};

under_every_start_method! {
    within 120 seconds;
    many_read_and_one_writes,
    a_killed_writer_poisons_within_a_tenth_of_a_second,
    a_killed_reader_vanishes_within_a_tenth_of_a_second,
    writer_that_returns_with_its_guard_poisons_a_reader_does_not,
    a_killed_waiter_costs_nothing,
    stream_of_readers_does_not_starve_a_writer,
    a_time_out_is_neither_early_nor_without_end,
    a_guard_dropped_in_a_panic_poisons_if_it_was_for_writing,
    a_copy_made_by_fork_gives_nothing_back,
    a_writer_goes_on_as_a_reader,
    a_thousand_locks_work_side_by_side,
    kills_show_half_a_change_only_as_poison,
}

/// Two numbers that are equal, unless a process is changing them.
type Book = Shared<RwLock<[u64; 2]>>;

fn book() -> Book {
    Shared::new(RwLock::new([1, 1])).unwrap()
}

/// Reads, says so, and goes on reading until it is told to stop.
#[process_task]
fn read_until(book: &Book, stage: &Stage, end: u32) -> u64 {
    let guard = book.read().unwrap();
    reach(stage);
    until(stage, end);
    guard[0]
}

#[process_task]
fn read_until_killed(book: &Book, stage: &Stage) {
    let _guards = [(); 3].map(|()| book.read().unwrap());
    reach(stage);
    until_killed();
}

/// Changes one half.
#[process_task]
fn write_until_killed(book: &Book, stage: &Stage) {
    let mut guard = book.write().unwrap();
    guard[0] += 1;
    reach(stage);
    until_killed();
}

#[process_task]
fn add(book: &Book, stage: &Stage) {
    reach(stage);
    let mut guard = book.write().unwrap();
    guard[0] += 1;
    guard[1] += 1;
}

fn many_read_and_one_writes(method: StartMethod) {
    let (book, stage) = (book(), new_stage());
    let readers = [(); 3].map(|()| start(method, read_until, (&book, &stage, 5)));
    until(&stage, 3);
    let own = book.read().unwrap();
    assert!(matches!(book.try_write(), Err(TryLockError::WouldBlock)));
    let writer = start(method, add, (&book, &stage));
    until(&stage, 4);
    until_asleep(writer.pid().unwrap());
    assert_eq!(*own, [1, 1]);
    drop(own);
    reach(&stage);
    for reader in readers {
        assert_eq!(reader.join().unwrap(), 1);
    }
    writer.join().unwrap();
    assert_eq!(*book.read().unwrap(), [2, 2]);
    let guard = book.write().unwrap();
    assert!(matches!(book.try_read(), Err(TryLockError::WouldBlock)));
    assert!(matches!(book.try_write(), Err(TryLockError::WouldBlock)));
    assert_eq!(format!("{book:?}"), "RwLock { data: <locked>, poisoned: false, .. }");
    drop(guard);
    assert_eq!(format!("{book:?}"), "RwLock { data: [2, 2], poisoned: false, .. }");
}

fn a_killed_writer_poisons_within_a_tenth_of_a_second(method: StartMethod) {
    let mut times = vec![];
    while times.iter().all(|time| *time >= Duration::from_millis(100)) {
        assert!(times.len() < 20, "it takes too long: {times:?}");
        let (book, stage) = (book(), new_stage());
        let writer = start(method, write_until_killed, (&book, &stage));
        until(&stage, 1);
        assert!(matches!(book.try_read(), Err(TryLockError::WouldBlock)));
        assert!(!book.is_poisoned());
        writer.kill().unwrap();
        let since = Instant::now();
        let seen = **book.read().unwrap_err().get_ref();
        times.push(since.elapsed());
        assert_eq!(seen, [2, 1]);
        writer.join().unwrap_err();
        // It stays so until a process says otherwise.
        assert!(matches!(book.try_read(), Err(TryLockError::Poisoned(_))));
        assert!(matches!(book.write_timeout(PATIENCE), Err(TryLockError::Poisoned(_))));
        *book.write().unwrap_err().into_inner() = [1, 1];
        book.clear_poison();
        assert!(book.read().is_ok() && book.write().is_ok());
    }
}

fn a_killed_reader_vanishes_within_a_tenth_of_a_second(method: StartMethod) {
    let mut times = vec![];
    while times.iter().all(|time| *time >= Duration::from_millis(100)) {
        assert!(times.len() < 20, "it takes too long: {times:?}");
        let (book, stage) = (book(), new_stage());
        let reader = start(method, read_until_killed, (&book, &stage));
        until(&stage, 1);
        assert!(matches!(book.write_timeout(Duration::from_millis(120)), Err(TryLockError::WouldBlock)));
        reader.kill().unwrap();
        let since = Instant::now();
        book.write().unwrap()[0] = 5;
        times.push(since.elapsed());
        reader.join().unwrap_err();
        assert!(!book.is_poisoned());
        // And once more, with none that waits.
        let reader = start(method, read_until_killed, (&book, &stage));
        until(&stage, 2);
        reader.kill().unwrap();
        reader.join().unwrap_err();
        eventually("a look finds no reader", PATIENCE, || book.try_write().is_ok());
    }
}

#[process_task]
fn return_with_a_guard(book: &Book, write: bool) {
    let _forgotten = (
        write.then(|| ManuallyDrop::new(book.write().unwrap())),
        (!write).then(|| ManuallyDrop::new(book.read().unwrap())),
    );
}

fn writer_that_returns_with_its_guard_poisons_a_reader_does_not(method: StartMethod) {
    let book = book();
    start(method, return_with_a_guard, (&book, false)).join().unwrap();
    assert!(book.write().is_ok());
    start(method, return_with_a_guard, (&book, true)).join().unwrap();
    assert!(book.read().is_err());
}

fn a_killed_waiter_costs_nothing(method: StartMethod) {
    let (book, stage) = (book(), new_stage());
    let guard = book.read().unwrap();
    // The first of them keeps readers out, until it is dead.
    let waiters = [(); 3].map(|()| start(method, add, (&book, &stage)));
    until(&stage, 3);
    for waiter in &waiters {
        until_asleep(waiter.pid().unwrap());
    }
    assert!(matches!(book.try_read(), Err(TryLockError::WouldBlock)));
    let [first, second, third] = waiters;
    for waiter in [first, second] {
        waiter.kill().unwrap();
        waiter.join().unwrap_err();
    }
    // One of these it was, or it is the third that keeps them out now.
    third.kill().unwrap();
    third.join().unwrap_err();
    eventually("readers come in again", PATIENCE, || book.try_read().is_ok());
    let last = start(method, add, (&book, &stage));
    until(&stage, 4);
    drop(guard);
    last.join().unwrap();
    assert_eq!(*book.read().unwrap(), [2, 2]);
}

/// Reads all the time, so that with three of them one always does.
#[process_task]
fn keep_reading(book: &Book, stage: &Stage, end: u32) {
    let mut is_first = true;
    while stage.load(SeqCst) < end {
        let guard = book.read().unwrap();
        if is_first {
            reach(stage);
            is_first = false;
        }
        thread::sleep(Duration::from_millis(2));
        assert_eq!(guard[0], guard[1]);
    }
}

fn stream_of_readers_does_not_starve_a_writer(method: StartMethod) {
    let (book, stage) = (book(), new_stage());
    let readers = [(); 4].map(|()| start(method, keep_reading, (&book, &stage, 5)));
    until(&stage, 4);
    for round in 1..=20 {
        let mut guard = book.write_timeout(PATIENCE).unwrap();
        guard[0] += 1;
        guard[1] += 1;
        assert_eq!(guard[0], 1 + round);
    }
    reach(&stage);
    for reader in readers {
        reader.join().unwrap();
    }
}

fn a_time_out_is_neither_early_nor_without_end(method: StartMethod) {
    let (book, stage) = (book(), new_stage());
    let reader = start(method, read_until, (&book, &stage, 2));
    until(&stage, 1);
    for time in [0, 1, 20, 120].map(Duration::from_millis) {
        let since = Instant::now();
        assert!(matches!(book.write_timeout(time), Err(TryLockError::WouldBlock)));
        assert!(since.elapsed() >= time);
        // It does not keep readers out any more.
        assert!(book.try_read().is_ok());
    }
    reach(&stage);
    let guard = book.write_timeout(Duration::MAX).unwrap();
    for time in [0, 1, 120].map(Duration::from_millis) {
        let since = Instant::now();
        assert!(matches!(book.read_timeout(time), Err(TryLockError::WouldBlock)));
        assert!(since.elapsed() >= time);
    }
    drop(guard);
    assert!(book.read_timeout(Duration::MAX).is_ok());
    reader.join().unwrap();
}

#[process_task]
fn panic_with_a_guard(book: &Book, write: bool) {
    let _guards = (write.then(|| book.write().unwrap()), (!write).then(|| book.read().unwrap()));
    panic!("with a guard");
}

fn a_guard_dropped_in_a_panic_poisons_if_it_was_for_writing(method: StartMethod) {
    let book = book();
    start(method, panic_with_a_guard, (&book, false)).join().unwrap_err();
    assert!(!book.is_poisoned() && book.write().is_ok());
    start(method, panic_with_a_guard, (&book, true)).join().unwrap_err();
    assert!(book.is_poisoned() && book.read().is_err());
}

#[process_task]
fn make_copies(book: &Book) {
    let mut reading = Some(book.read().unwrap());
    in_a_copy(|| drop(reading.take()));
    assert!(matches!(book.try_write(), Err(TryLockError::WouldBlock)), "the original reads");
    drop(reading);
    let mut writing = Some(book.write().unwrap());
    in_a_copy(|| drop(writing.take()));
    in_a_copy(|| drop(RwLockWriteGuard::downgrade(writing.take().unwrap())));
    assert!(matches!(book.try_read(), Err(TryLockError::WouldBlock)), "the original writes");
    drop(writing);
    in_a_copy(|| book.write().unwrap()[0] = 7);
    assert_eq!(*book.read().unwrap(), [7, 1]);
    in_a_copy(|| {
        let _held_to_the_end = ManuallyDrop::new(book.write());
    });
    assert!(book.read().is_err());
}

fn a_copy_made_by_fork_gives_nothing_back(method: StartMethod) {
    start(method, make_copies, &book()).join().unwrap();
}

fn a_writer_goes_on_as_a_reader(method: StartMethod) {
    let (book, stage) = (book(), new_stage());
    let mut guard = book.write().unwrap();
    let writer = start(method, add, (&book, &stage));
    until(&stage, 1);
    *guard = [3, 3];
    let guard = RwLockWriteGuard::downgrade(guard);
    // The other one may not write yet, and a reader that comes now may have to let it go first.
    assert!(matches!(book.try_write(), Err(TryLockError::WouldBlock)));
    assert_eq!(*guard, [3, 3]);
    drop(guard);
    writer.join().unwrap();
    assert_eq!(*book.read().unwrap(), [4, 4]);
}

#[process_task]
fn add_everywhere(books: &Shared<[RwLock<[u64; 2]>]>) {
    for book in books.iter() {
        book.write().unwrap()[0] += 1;
        let _reading = book.read().unwrap();
    }
}

fn a_thousand_locks_work_side_by_side(method: StartMethod) {
    let books = Shared::<[RwLock<[u64; 2]>]>::from_iter((0..1000).map(|_| RwLock::new([0, 0]))).unwrap();
    let both = [(); 2].map(|()| start(method, add_everywhere, &books));
    for process in both {
        process.join().unwrap();
    }
    assert!(books.iter().all(|book| book.read().unwrap()[0] == 2));
}

const HERD: usize = 4;

/// The two numbers; which process has begun to write, and which has finished, by its own word; whether it is over; how
/// often any had a turn.
type Ground = Shared<(RwLock<[u64; 2]>, AtomicU32, AtomicBool, AtomicU64)>;

#[process_task]
fn read_and_write(number: usize, ground: &Ground) {
    let (book, writing, over, turns) = &**ground;
    let mut random = chaos::Random::new(number as u64 + 1);
    while !over.load(SeqCst) {
        if random.below(3) == 0 {
            let time = if random.below(2) == 0 { Duration::from_millis(1) } else { PATIENCE };
            let taken = book.write_timeout(time);
            let mut guard = match taken {
                Ok(guard) => guard,
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Poisoned(poisoned)) => {
                    let mut guard = poisoned.into_inner();
                    // The first half is as far as the last writer came.
                    guard[1] = guard[0];
                    writing.store(0, SeqCst);
                    book.clear_poison();
                    guard
                }
            };
            assert_eq!(writing.fetch_add(1, SeqCst), 0, "another process writes");
            assert_eq!(guard[0], guard[1]);
            guard[0] += 1;
            if random.below(4) == 0 {
                thread::sleep(Duration::from_micros(200));
            }
            guard[1] += 1;
            assert_eq!(writing.fetch_sub(1, SeqCst), 1);
        } else if let Ok(guard) = book.read() {
            let first = guard[0];
            assert_eq!(writing.load(SeqCst), 0, "a process writes while this one reads");
            if random.below(4) == 0 {
                thread::sleep(Duration::from_micros(200));
            }
            assert_eq!(*guard, [first; 2], "half a change");
        }
        turns.fetch_add(1, SeqCst);
    }
}

fn kills_show_half_a_change_only_as_poison(method: StartMethod) {
    let ground: Ground =
        Shared::new((RwLock::new([0; 2]), AtomicU32::new(0), AtomicBool::new(false), AtomicU64::new(0))).unwrap();
    let (book, _, over, turns) = &*ground;
    let mut all = Herd::new(HERD, |number| -> Process<()> { start(method, read_and_write, (number, &ground)) });
    let kills = all.hunt(
        |_| (),
        |_| {
            let before = turns.load(SeqCst);
            eventually("the others go on", PATIENCE, || turns.load(SeqCst) > before + 4);
        },
    );
    over.store(true, SeqCst);
    all.go_home();
    println!("{method:?}: {kills} killed, {} turns", turns.load(SeqCst));
    assert!(kills > 10);
    let guard = book.write().unwrap_or_else(|poisoned| {
        book.clear_poison();
        poisoned.into_inner()
    });
    assert!(guard[0] - guard[1] <= 1);
}
