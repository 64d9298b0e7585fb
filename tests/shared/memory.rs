//! Shared memory itself: which process can write to it, how much of it can be had, and when it is gone.
//!
//! Runs in: the test process; the tasks in children. Never: trusts what a handle says of its memory where the kernel can be asked.
#![expect(unsafe_code, reason = "writing where the kernel must refuse it, and a copy made by fork()")]

use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;

use crate::support::{PATIENCE, eventually, processes, promise};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mprotect, munmap};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::uio::pwrite;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, ftruncate};
use process_task::sync::{Barrier, TryLockError};
use process_task::{ErrorKind, Pool, ProcessBuilder, Shared, SharedMut, SharedRanges, StartMethod, Task, process_task};

under_every_start_method! { within 120 seconds;
    what_is_frozen_is_refused_to_every_writer,
    a_write_to_frozen_memory_is_a_fault_in_its_author_alone,
    many_write_their_own_ranges_and_all_read_the_whole,
    one_range_has_one_writer_at_a_time,
    killed_writer_poisons_its_range_only,
    memory_is_frozen_when_the_last_writer_has_let_go,
    memory_is_gone_when_the_last_process_lets_go,
    memory_is_gone_when_its_last_process_is_killed,
    more_memory_than_limits_allow_is_an_error,
    memory_that_cannot_be_mapped_is_an_error_of_the_call,
}

fn run<T: Task>(method: StartMethod, task: T, args: T::Args<'_>) -> process_task::Result<T::Output> {
    ProcessBuilder::new().start_method(method).spawn(task, args)?.join()
}

fn pool(method: StartMethod, workers: usize) -> Pool {
    Pool::builder().start_method(method).workers(workers).build().expect("a pool")
}

/// Descriptors, for reading and writing, of all shared memory that this process has.
fn memory_of_this_process() -> Vec<OwnedFd> {
    let names = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().path());
    let ours = names.filter(|name| fs::read_link(name).is_ok_and(|file| is_shared_memory(&file.to_string_lossy())));
    ours.map(|name| fs::File::options().read(true).write(true).open(name).unwrap().into()).collect()
}

fn is_shared_memory(file: &str) -> bool {
    file.contains("memfd:process-task-shared")
}

/// What the kernel says to each way of writing to memory.
fn attempts(memory: &OwnedFd) -> Vec<Result<(), Errno>> {
    let len = std::num::NonZeroUsize::new(4096).unwrap();
    let both = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a new mapping, which nothing uses yet.
    let map = |protection| unsafe { mmap(None, len, protection, MapFlags::MAP_SHARED, memory.as_fd(), 0) };
    let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    vec![
        pwrite(memory, b"x", 300).map(drop),
        map(both).map(drop),
        map(ProtFlags::PROT_READ).and_then(|map| {
            // SAFETY: the mapping is that of the line before, and nothing uses it.
            let writable = unsafe { mprotect(map, 4096, both) };
            // SAFETY: as above.
            unsafe { munmap(map, 4096) }.and(writable)
        }),
        ftruncate(memory, 0),
        ftruncate(memory, 1 << 20),
        fallocate(memory, hole, 0, 4096),
        fcntl(memory, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK)).map(drop),
    ]
}

#[process_task]
fn attack(values: &Shared<[u64]>) -> (usize, usize, u64) {
    let memory = memory_of_this_process();
    let refused = memory.iter().flat_map(attempts).filter(Result::is_err).count();
    (memory.len(), refused, values.iter().sum())
}

fn what_is_frozen_is_refused_to_every_writer(method: StartMethod) {
    let values = Shared::<[u64]>::from_slice(&[1, 2, 3]).unwrap();
    let [memory] = &memory_of_this_process()[..] else { panic!("there is one memory") };
    // On some kernels not even reading can be shared, and then there is no third attempt.
    let refused = attempts(memory);
    assert!(refused.iter().all(|attempt| matches!(attempt, Err(Errno::EPERM | Errno::EACCES))), "{refused:?}");
    assert_eq!(run(method, attack, &values).unwrap(), (1, refused.len(), 6));
    assert_eq!(values[..], [1, 2, 3]);
}

#[process_task]
fn scribble(values: &Shared<[u64]>) -> u64 {
    let place = values.as_ptr().cast_mut();
    // SAFETY: none: this is what no safe code can do, and the kernel must stop.
    unsafe { place.write_volatile(7) };
    values[0]
}

fn a_write_to_frozen_memory_is_a_fault_in_its_author_alone(method: StartMethod) {
    let mut values = SharedMut::<[u64]>::from_slice(&[1, 2]).unwrap();
    values[0] = 5;
    let values = values.freeze().unwrap();
    let error = run(method, scribble, &values).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Killed { signal: libc::SIGSEGV, .. }), "{error}");
    assert_eq!(values[..], [5, 2]);
}

#[test]
fn mutable_memory_can_neither_be_resized_nor_frozen() {
    promise(|| {
        let counter = Shared::new(AtomicU64::new(1)).unwrap();
        let [memory] = &memory_of_this_process()[..] else { panic!("there is one memory") };
        for seal in [SealFlag::F_SEAL_WRITE, SealFlag::F_SEAL_FUTURE_WRITE, SealFlag::F_SEAL_GROW] {
            assert_eq!(fcntl(memory, FcntlArg::F_ADD_SEALS(seal)), Err(Errno::EPERM));
        }
        assert_eq!((ftruncate(memory, 0), ftruncate(memory, 1 << 20)), (Err(Errno::EPERM), Err(Errno::EPERM)));
        assert_eq!(counter.load(Relaxed), 1);
    });
}

#[test]
fn new_memory_is_zeroed_wherever_it_was_before() {
    promise(|| {
        for _ in 0..3 {
            let mut values = SharedMut::<[u8]>::zeroed(8 << 20).unwrap();
            assert!(values.iter().all(|byte| *byte == 0));
            values.fill(0xff);
            let values = values.freeze().unwrap();
            assert!(values.iter().all(|byte| *byte == 0xff));
        }
        let counters = Shared::<[AtomicU64]>::zeroed(1 << 20).unwrap();
        assert!(counters.iter().all(|counter| counter.load(Relaxed) == 0));
    });
}

#[test]
fn what_was_written_before_is_there_after() {
    promise(|| {
        let numbers = || (0..100_000_u32).map(|number| number.wrapping_mul(2_654_435_761));
        let collected: Vec<_> = numbers().collect();
        let of_slice = Shared::<[u32]>::from_slice(&collected).unwrap();
        let of_iterator = Shared::<[u32]>::from_iter(numbers().filter(|_| true)).unwrap();
        let mut written = SharedMut::<[u32]>::zeroed(collected.len()).unwrap();
        written.copy_from_slice(&collected);
        let taken_back = SharedMut::<[u32]>::from_iter(numbers()).unwrap().split(7).unwrap().freeze().unwrap();
        for shared in [of_slice, of_iterator, written.freeze().unwrap(), taken_back] {
            assert_eq!(shared[..], collected);
        }
    });
}

#[process_task]
fn fill(ranges: SharedRanges<u64>, index: usize) -> Option<u64> {
    let mut values = ranges.write(index).ok()?;
    for (value, at) in values.iter_mut().zip(ranges.range(index)) {
        *value += at as u64 * 3;
    }
    values.last().copied()
}

fn many_write_their_own_ranges_and_all_read_the_whole(method: StartMethod) {
    let pool = pool(method, 3);
    let ranges = SharedMut::<[u64]>::zeroed(10_007).unwrap().split(10).unwrap();
    assert_eq!((ranges.len(), ranges.range(1_000), ranges.range(2_000)), (1_001, 10_000..10_007, 10_007..10_007));
    let last = pool.map(fill, (0..ranges.len()).map(|index| (ranges.clone(), index))).unwrap();
    assert_eq!((last[0], last[1_000]), (Some(27), Some(30_018)));
    // Every handle but this one has gone, as soon as the results are there.
    let values = ranges.freeze().unwrap();
    assert!(values.iter().zip(0..).all(|(value, at)| *value == at * 3));
    assert_eq!(run(method, sum, &values).unwrap(), 10_006 * 10_007 / 2 * 3);
}

#[process_task]
fn sum(values: &Shared<[u64]>) -> u64 {
    values.iter().sum()
}

#[process_task]
fn add_to_each(ranges: &SharedRanges<u64>, start: &Shared<Barrier>, times: u64) {
    start.wait().expect("all are there");
    for _ in 0..times {
        for index in 0..ranges.len() {
            let mut values = ranges.write(index).unwrap();
            let before = values.to_vec();
            // Another writer has the time to get inside.
            thread::yield_now();
            values.iter_mut().zip(before).for_each(|(value, before)| *value = before + 1);
        }
    }
}

fn one_range_has_one_writer_at_a_time(method: StartMethod) {
    let ranges = SharedMut::<[u64]>::zeroed(30).unwrap().split(10).unwrap();
    let start = Shared::new(Barrier::new(4)).unwrap();
    let start_one = |_| ProcessBuilder::new().start_method(method).spawn(add_to_each, (&ranges, &start, 300)).unwrap();
    let all: Vec<_> = (0..4).map(start_one).collect();
    for process in all {
        process.join().unwrap();
    }
    assert!(ranges.freeze().unwrap().iter().all(|value| *value == 1_200));
}

#[process_task]
fn die_writing(ranges: &SharedRanges<u64>) {
    let mut values = ranges.write(1).unwrap();
    values[0] = 7;
    let _ = raise(Signal::SIGKILL);
    values[1] = 7;
}

fn killed_writer_poisons_its_range_only(method: StartMethod) {
    let ranges = SharedMut::<[u64]>::zeroed(12).unwrap().split(4).unwrap();
    run(method, die_writing, &ranges).unwrap_err();
    let half = ranges.write(1).unwrap_err().into_inner();
    assert_eq!(half[..], [7, 0, 0, 0]);
    drop(half);
    assert!(matches!(ranges.try_write(1), Err(TryLockError::Poisoned(_))));
    assert!(ranges.write(0).is_ok() && ranges.write(2).is_ok());
    assert_eq!(ranges.freeze().unwrap()[3..6], [0, 7, 0]);
}

#[process_task]
fn hold(ranges: SharedRanges<u64>, holds: &Shared<AtomicU64>) {
    holds.store(1, Relaxed);
    while holds.load(Relaxed) == 1 {
        thread::yield_now();
    }
    drop(ranges);
}

fn memory_is_frozen_when_the_last_writer_has_let_go(method: StartMethod) {
    let ranges = SharedMut::<[u64]>::from_slice(&[1, 2, 3]).unwrap().split(1).unwrap();
    let holds = Shared::new(AtomicU64::new(0)).unwrap();
    let process = ProcessBuilder::new().start_method(method).spawn(hold, (ranges.clone(), &holds)).unwrap();
    eventually("the task has the handle", PATIENCE, || holds.load(Relaxed) == 1);
    let error = ranges.freeze().unwrap_err();
    assert!(matches!(error.error().kind(), ErrorKind::CannotShare { errno: libc::EBUSY, .. }), "{error}");
    let ranges = error.into_inner();
    ranges.write(2).unwrap()[0] = 9;
    holds.store(2, Relaxed);
    process.join().unwrap();
    // A second handle, here.
    let other = ranges.clone();
    let ranges = ranges.freeze().unwrap_err().into_inner();
    drop(other);
    assert_eq!(ranges.freeze().unwrap()[..], [1, 2, 9]);
}

#[test]
fn a_copy_made_by_fork_keeps_memory_from_being_frozen() {
    promise(|| {
        let mut values = SharedMut::<[u64]>::from_slice(&[1, 2, 3]).unwrap();
        // SAFETY: the copy only sleeps and is killed.
        let copy = match unsafe { fork() }.unwrap() {
            ForkResult::Child => loop {
                nix::unistd::pause();
            },
            ForkResult::Parent { child } => child,
        };
        let error = values.freeze().unwrap_err();
        assert!(error.to_string().contains("others can still write"), "{error}");
        values = error.into_inner();
        values[1] = 8;
        kill(copy, Signal::SIGKILL).unwrap();
        waitpid(copy, None).unwrap();
        assert_eq!(values.freeze().unwrap()[..], [1, 8, 3]);
    });
}

/// The processes of this family, this one among them, that have shared memory: mapped, or as a descriptor.
fn holders() -> Vec<u32> {
    let mut family: Vec<_> = processes::descendants().into_keys().collect();
    family.push(std::process::id());
    family.retain(|pid| {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten();
        let mut files = descriptors.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
        is_shared_memory(&maps) || files.any(|file| is_shared_memory(&file.to_string_lossy()))
    });
    family
}

fn memory_is_gone_when_the_last_process_lets_go(method: StartMethod) {
    let pool = pool(method, 2);
    let values = Shared::<[u64]>::from_iter(0..1_000).unwrap();
    assert_eq!(holders(), [std::process::id()]);
    pool.map(sum, std::iter::repeat_n(&values, 100)).unwrap();
    let counters: Vec<_> = (0..20).map(|number| Shared::new(AtomicU64::new(number)).unwrap()).collect();
    let clones = counters.clone();
    drop((values, counters));
    assert_eq!(clones[7].load(Relaxed), 7);
    drop(clones);
    eventually("no process has it", PATIENCE, || holders().is_empty());
    assert_eq!(pool.call(made_and_dropped, 100), Ok(Some(4_950)));
    eventually("no process has it", PATIENCE, || holders().is_empty());
}

#[process_task]
fn made_and_dropped(count: u64) -> Option<u64> {
    Some(Shared::<[u64]>::from_iter(0..count).ok()?.iter().sum())
}

#[process_task]
fn keep_for_good(values: Shared<[u64]>, has: Shared<AtomicU64>) {
    let own = Shared::<[u64]>::from_slice(&values).expect("memory of its own");
    has.store(own.iter().sum(), Relaxed);
    loop {
        thread::park();
    }
}

fn memory_is_gone_when_its_last_process_is_killed(method: StartMethod) {
    let values = Shared::<[u64]>::from_slice(&[4, 5]).unwrap();
    let has = Shared::new(AtomicU64::new(0)).unwrap();
    let process = ProcessBuilder::new().start_method(method).spawn(keep_for_good, (values, has.clone())).unwrap();
    eventually("the task has it", PATIENCE, || has.load(Relaxed) == 9);
    drop(has);
    let pid = process.pid().unwrap();
    assert!(holders().contains(&pid));
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap();
    process.join().unwrap_err();
    eventually("no process has it", PATIENCE, || holders().is_empty());
}

#[test]
fn more_memory_than_there_is_is_an_error() {
    promise(|| {
        for count in [1 << 40, usize::MAX / 8, usize::MAX] {
            let error = Shared::<[f64]>::zeroed(count).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::CannotShare { errno: libc::ENOMEM, .. }), "{error}");
            assert!(error.to_string().contains("for `[f64]`: Out of memory"), "{error}");
            assert!(SharedMut::<[f64]>::zeroed(count).is_err());
        }
    });
}

/// Lowers a limit of this process, and tries to have memory. What was said of each way.
#[process_task]
fn squeeze(which: &str, limit: u64) -> Vec<String> {
    let resource = match which {
        "files" => Resource::RLIMIT_FSIZE,
        "descriptors" => Resource::RLIMIT_NOFILE,
        _ => Resource::RLIMIT_AS,
    };
    setrlimit(resource, limit, limit).expect("a lower limit");
    let lots = vec![1_u64; 1 << 17];
    let said = [
        Shared::<[u64]>::from_slice(&lots).map(drop),
        Shared::<[u64]>::from_iter(lots.iter().copied().chain(0..)).map(drop),
        Shared::<[u64]>::zeroed(1 << 27).map(drop),
        SharedMut::<[u64]>::zeroed(1 << 27).map(drop),
        Shared::new([7_u64; 100]).map(drop),
    ];
    said.map(|result| result.map_or_else(|error| error.to_string(), |()| "ok".to_owned())).to_vec()
}

fn more_memory_than_limits_allow_is_an_error(method: StartMethod) {
    let said = run(method, squeeze, ("files", 1 << 19)).unwrap();
    assert!(said[..4].iter().all(|text| text.ends_with("for `[u64]`: File too large")), "{said:#?}");
    assert_eq!(said[4], "ok");
    let said = run(method, squeeze, ("descriptors", 3)).unwrap();
    assert!(said.iter().all(|text| text.contains(": Too many open files, as RLIMIT_NOFILE")), "{said:#?}");
}

#[process_task]
fn first(values: &Shared<[u8]>) -> u8 {
    values[0]
}

fn memory_that_cannot_be_mapped_is_an_error_of_the_call(method: StartMethod) {
    let values = Shared::<[u8]>::zeroed(200 << 20).unwrap();
    let pool = pool(method, 1);
    let error = pool.call(first.memory_limit(190 << 20), &values).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::CannotDecode { .. }), "{error}");
    assert!(error.to_string().contains("cannot map 209715456 bytes of shared memory"), "{error}");
    assert_eq!(pool.call(first, &values), Ok(0));
}
