//! A worker that writes what it likes into its own link harms itself: no caller gets a wrong result, and the pool goes on.
//!
//! Runs in: the test process; the attacks are tasks, and run in workers. Never: lets the parent's memory be written.
//!
//! The oracle: the parent neither ends nor hangs; every call that succeeds has exactly its own result; every call that
//! fails names one and the same process, the hostile one, and a cause that fits; afterwards the pool works.
#![expect(unsafe_code, reason = "a store to memory that is for reading")]

use std::mem;
use std::os::unix::fs::FileExt as _;
use std::ptr::NonNull;
use std::time::Duration;

use crate::support::file_barrier::{directory, open_gate};
use crate::support::hostile_worker::{Act, Lie, Random, TRUTH, attack, scribble};
use crate::support::link_memory::frame::FrameKind;
use crate::support::link_memory::{self, Half, RING, WORDS, descriptors, look_around};
use crate::support::scratch::Scratch;
use crate::support::{PATIENCE, eventually, rounds};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::sys::mman::{ProtFlags, mprotect};
use nix::unistd::ftruncate;
use process_task::{Direction, Error, ErrorKind, Execution, JoinHandle, Pool, StartMethod, WorkerState, process_task};

under_every_start_method! {
    within 600 seconds;
    an_honest_worker_is_as_these_attacks_think,
    a_tail_out_of_bounds_is_a_violation,
    forged_replies_are_violations,
    a_window_that_was_written_over_harms_its_worker_only,
    a_call_that_says_it_never_began_is_not_made_for_ever,
    random_garbage_harms_its_worker_only,
    garbage_that_never_ends_harms_its_worker_only,
    garbage_from_within_a_batch_fails_its_map_only,
    the_request_half_cannot_be_written,
    the_halves_cannot_change_their_size,
    a_flooded_control_socket_harms_its_worker_only,
    what_is_said_to_lie_in_a_parcel_has_to_be_there,
}

/// Answers what only this number has.
#[process_task]
fn honest(number: u64, padding: &[u8]) -> (u64, Vec<u8>) {
    (answer(number), padding.iter().rev().copied().collect())
}

fn answer(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5555
}

/// Now and then too long for the ring.
fn padding(number: u64) -> Vec<u8> {
    let len = if number.is_multiple_of(16) { 20_000 } else { number };
    (0..len).map(|at| (number.wrapping_add(at) & 0xff) as u8).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    /// The attack fails for this reason.
    Violation(&'static str),
    /// Nothing notices.
    Nothing,
    /// Either, or the worker ends by itself.
    Contained,
    /// The attack has a result that cannot be had, and its worker goes on.
    NoResult,
}

fn pool(method: StartMethod, workers: usize) -> Pool {
    Pool::builder().workers(workers).name("hostile").start_method(method).build().expect("a pool")
}

fn goes_on(pool: &Pool) {
    for number in 0..17 {
        let expected = (answer(number), padding(number).into_iter().rev().collect());
        assert_eq!(pool.call(honest, (number, &padding(number))), Ok(expected));
    }
}

fn joined<R>(handle: JoinHandle<R>, act: &Act) -> process_task::Result<R> {
    let Ok(outcome) = handle.join_timeout(Duration::from_secs(20)) else { panic!("{act:?} makes its parent hang") };
    outcome
}

/// Waits until an answer of each worker was taken: what an attack says is compared with something.
fn settle_in(pool: &Pool) {
    goes_on(pool);
    eventually("each worker has set itself up", PATIENCE, || {
        pool.stats().workers.iter().all(|worker| worker.state == WorkerState::Idle)
    });
}

/// Makes one attack among honest calls, and looks at what came of all of them. Says whether its worker was replaced.
fn trial(pool: &Pool, act: &Act, expected: Expected, scratch: &Scratch) -> bool {
    let gate = format!("{}/gate", directory(scratch));
    // What the runtime writes after the task would cover a reply up that was not read yet.
    let covers_up = matches!(expected, Expected::Violation(_) | Expected::NoResult);
    let gate = if covers_up { gate } else { String::new() };
    let submit = |number| (number, pool.submit(honest, (number, &padding(number))));
    let mut calls: Vec<_> = (0..8).map(submit).collect();
    let attacked = pool.submit(attack, (act.clone(), &gate, b"lent"));
    calls.extend((8..24).map(submit));
    let outcome = joined(attacked, act);
    open_gate(scratch);
    match (expected, &outcome) {
        (Expected::Violation(reason), Err(error)) => {
            assert!(matches!(error.kind(), ErrorKind::ProtocolViolation { .. }), "{act:?}: {error}");
            assert!(error.to_string().contains(reason), "{act:?}: {error}");
            assert_eq!(error.execution(), Execution::Unknown, "{act:?}: {error}");
        }
        (Expected::Violation(_), Ok(())) => panic!("{act:?} was not noticed"),
        (Expected::Nothing, outcome) => assert_eq!(outcome, &Ok(()), "{act:?}"),
        (Expected::NoResult, outcome) => {
            let kind = outcome.as_ref().map_err(Error::kind);
            assert!(matches!(kind, Err(ErrorKind::CannotDecode { .. })), "{act:?}: {kind:?}");
        }
        (Expected::Contained, Ok(())) => {}
        (Expected::Contained, Err(error)) => assert_fits(error, act),
    }
    let mut guilty = outcome.err().filter(|_| expected != Expected::NoResult).map(|error| guilty(&error, act));
    for (number, call) in calls {
        match joined(call, act) {
            Ok((answered, back)) => {
                assert_eq!(answered, answer(number), "{act:?} gave call {number} a wrong result");
                assert!(back.iter().rev().eq(&padding(number)), "{act:?} gave call {number} a wrong result");
            }
            Err(error) => {
                assert_ne!(expected, Expected::Nothing, "{act:?}: {error}");
                assert_fits(&error, act);
                let process = self::guilty(&error, act);
                assert_eq!(*guilty.get_or_insert(process), process, "{act:?} harmed a neighbour: {error}");
            }
        }
    }
    guilty.is_some()
}

fn guilty(error: &Error, act: &Act) -> u32 {
    error.process().unwrap_or_else(|| panic!("{act:?}: {error} names no process")).1
}

/// What may be said of a call that a hostile worker had.
fn assert_fits(error: &Error, act: &Act) {
    let unknown = error.execution() == Execution::Unknown;
    let fits = match error.kind() {
        ErrorKind::Killed { signal, .. } => [6, 7, 9, 11].contains(signal) && unknown,
        // It has found out itself.
        ErrorKind::ProtocolViolation { .. } | ErrorKind::StackOverflow | ErrorKind::Exited { code: 1, .. } => unknown,
        // There is no way for a parcel through a socket that the worker has filled up.
        ErrorKind::CannotEncode { direction: Direction::Result, .. } => matches!(act, Act::Flood { .. }),
        _ => false,
    };
    assert!(fits, "{act:?}: {error} ({:?})", error.execution());
}

/// Both with a neighbour and alone, when every other call waits behind the attack.
fn trials(method: StartMethod, acts: impl IntoIterator<Item = (Act, Expected)>) {
    // They stay until no attacker can look for its gate any more.
    let mut scratches = Vec::new();
    let sizes: &[usize] = if method == StartMethod::Exec { &[2] } else { &[1, 2] };
    let mut pools: Vec<_> = sizes.iter().map(|workers| pool(method, *workers)).collect();
    for (act, expected) in acts {
        for one in &mut pools {
            settle_in(one);
            let scratch = Scratch::new();
            let replaced = trial(one, &act, expected, &scratch);
            scratches.push(scratch);
            // What a worker bears may still do harm later, which must not be said of the next attack; nor is one replaced
            // because it could not hand a result over.
            if expected == Expected::Contained && (!replaced || matches!(act, Act::Flood { .. })) {
                let next = pool(method, one.workers());
                drop(mem::replace(one, next));
            }
        }
    }
    pools.iter().for_each(goes_on);
}

fn a_tail_out_of_bounds_is_a_violation(method: StartMethod) {
    let cap = RING;
    let absolute = [0, 1, cap - 1, cap + 1, 1 << 31, u64::from(u32::MAX), 1 << 32, 1 << 63, u64::MAX - 31, u64::MAX];
    let relative = [-1, -32, -4096, 1, 31, 33, 32 << 10, 128 << 10, (128 << 10) + 32, i64::MIN, i64::MAX];
    let absolute = absolute.into_iter().map(Act::Tail);
    let acts = absolute.chain(relative.into_iter().map(Act::TailBy));
    let acts = acts.map(|act| (act, Expected::Violation(""))).chain([(Act::TailBy(0), Expected::Nothing)]);
    trials(method, acts);
}

fn forged_replies_are_violations(method: StartMethod) {
    const NOT_ASKED: &str = "not asked";
    let acts = [
        // Replayed, another's, a number that never was.
        (vec![Lie { serial: -1, ..TRUTH }], NOT_ASKED),
        (vec![Lie { serial: 1, ..TRUTH }], NOT_ASKED),
        (vec![Lie { serial: 1 << 40, ..TRUTH }], NOT_ASKED),
        (vec![Lie { serial: i64::MIN, ..TRUTH }], NOT_ASKED),
        // Kinds that only the parent writes, and such that no process does.
        (vec![Lie { kind: FrameKind::Call as u8, ..TRUTH }], "request"),
        (vec![Lie { kind: FrameKind::Batch as u8, ..TRUTH }], "request"),
        (vec![Lie { kind: FrameKind::Results as u8, ..TRUTH }], "many results"),
        (vec![Lie { kind: 0, ..TRUTH }], "no known kind"),
        (vec![Lie { kind: 255, ..TRUTH }], "no known kind"),
        // Lengths.
        (vec![Lie { len: 4097, payload: 4096, ..TRUTH }], "longer"),
        (vec![Lie { len: u64::MAX, ..TRUTH }], "longer"),
        (vec![Lie { len: 1, payload: 0, ..TRUTH }], "beyond"),
        (vec![Lie { len: 4000, payload: 32, ..TRUTH }], "beyond"),
        // A skip to where nothing was written.
        (vec![Lie { kind: FrameKind::Skip as u8, ..TRUTH }, Lie { kind: FrameKind::Skip as u8, ..TRUTH }], ""),
    ];
    trials(method, acts.map(|(lies, reason)| (Act::Reply(lies), Expected::Violation(reason))));
}

fn a_window_that_was_written_over_harms_its_worker_only(method: StartMethod) {
    let values = [0, 1, 16, 1 << 31, u32::MAX];
    let pairs = values.into_iter().flat_map(|limit| values.map(|claimed| (limit, claimed)));
    let absolute = pairs.clone().map(|(limit, claimed)| Act::Window { limit, claimed });
    let relative = pairs.map(|(limit, claimed)| Act::WindowBy { limit, claimed });
    trials(method, absolute.chain(relative).map(|act| (act, Expected::Contained)));
}

fn a_call_that_says_it_never_began_is_not_made_for_ever(method: StartMethod) {
    trials(method, [(Act::UnclaimAndDie, Expected::Contained)]);
}

fn random_garbage_harms_its_worker_only(method: StartMethod) {
    let seed = std::env::var("PROCESS_TASK_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0x5eed);
    let mut random = Random(seed + method as u64);
    let acts = (0..rounds(12)).map(|round| {
        let seed = random.next();
        let (at, len) = match round % 4 {
            0 => (0, WORDS + RING),
            1 => (WORDS, RING),
            2 => (0, 192),
            _ => (random.below(WORDS + RING), 1 + random.below(200)),
        };
        (Act::Garbage { seed, at, len: len.min(WORDS + RING - at) }, Expected::Contained)
    });
    trials(method, acts.collect::<Vec<_>>());
}

fn garbage_that_never_ends_harms_its_worker_only(method: StartMethod) {
    let mut random = Random(0xbad + method as u64);
    let acts = (0..rounds(12).div_ceil(6)).map(|_| (Act::GarbageForEver(random.next()), Expected::Contained));
    trials(method, acts.collect::<Vec<_>>());
}

fn a_flooded_control_socket_harms_its_worker_only(method: StartMethod) {
    let parcel = announcement(255, 9);
    let acts = [(b"garbage".to_vec(), false), (Vec::new(), false), (parcel.clone(), false), (parcel, true)];
    let act =
        |for_ever| move |(message, with_memory)| (Act::Flood { message, with_memory, for_ever }, Expected::Contained);
    trials(method, acts.clone().map(act(false)).into_iter().chain(acts.map(act(true))));
}

/// `FromChild::Parcel`, as it travels.
fn announcement(slot: u8, id: u8) -> Vec<u8> {
    vec![2, slot, id]
}

fn what_is_said_to_lie_in_a_parcel_has_to_be_there(method: StartMethod) {
    const MISSING: Expected = Expected::Violation("did not come");
    let parcel = |message: Vec<u8>, memory, sealed, len| {
        let lie = Lie { slot: 255, parcel: 9, len, ..TRUTH };
        Act::Parcel { message, memory, sealed, lie }
    };
    let good = announcement(255, 9);
    let no_slot = Lie { slot: 77, parcel: 9, len: 8, ..TRUTH };
    let no_slot = Act::Parcel { message: announcement(77, 9), memory: Some(4096), sealed: true, lie: no_slot };
    let acts = [
        (no_slot, Expected::Violation("a slot that is none")),
        // What was announced well is looked into, and is no result of this task.
        (parcel(good.clone(), Some(4096), true, 8), Expected::NoResult),
        (parcel(good.clone(), Some(4096), true, 4096), Expected::NoResult),
        // Memory that could shrink below a reader is not mapped.
        (parcel(good.clone(), Some(4096), false, 8), Expected::NoResult),
        (parcel(good.clone(), Some(0), true, 0), Expected::NoResult),
        (parcel(good.clone(), Some(4096), true, 4097), MISSING),
        (parcel(good.clone(), Some(4096), true, u64::MAX), MISSING),
        (parcel(good, None, false, 8), MISSING),
        (parcel(announcement(255, 10), Some(4096), true, 8), MISSING),
        (parcel(announcement(0, 9), Some(4096), true, 8), MISSING),
        (parcel(vec![9, 9, 9], Some(4096), true, 8), MISSING),
        (parcel(vec![], None, false, 8), MISSING),
    ];
    trials(method, acts);
}

/// As [`honest`], but one of the numbers attacks.
#[process_task]
fn meddle(number: u64, seed: u64, at: u64, len: u64) -> u64 {
    if number == 777 {
        scribble(seed, at, len);
    }
    answer(number)
}

fn garbage_from_within_a_batch_fails_its_map_only(method: StartMethod) {
    let mut random = Random(0xba7c + method as u64);
    let mut pool = self::pool(method, 2);
    for round in 0..rounds(12).div_ceil(2) {
        let seed = random.next();
        let (at, len) = match round % 3 {
            0 => (0, WORDS + RING),
            1 => (WORDS, RING),
            _ => (random.below(512), 1 + random.below(500)),
        };
        let act = Act::Garbage { seed, at, len };
        match pool.map(meddle, (0..2000).map(|number| (number, seed, at, len))) {
            Ok(results) => {
                assert!(results.into_iter().eq((0..2000).map(answer)), "{act:?} gave a wrong result");
                // What its worker bears may still do harm later.
                pool = self::pool(method, 2);
            }
            Err(error) => assert_fits(&error, &act),
        }
        goes_on(&pool);
        let all = pool.map(meddle, (1000..3000).map(|number| (number, 0, 0, 0)));
        assert!(all.is_ok_and(|results| results.into_iter().eq((1000..3000).map(answer))), "after {act:?}");
    }
}

fn an_honest_worker_is_as_these_attacks_think(method: StartMethod) {
    let pool = pool(method, 1);
    for number in 0..100 {
        assert!(pool.call(honest, (number, &[])).is_ok());
        assert_eq!(pool.call(look, b"lent"), Ok(()));
    }
}

#[process_task]
fn look(lent: &[u8]) {
    look_around(lent);
    assert!(!descriptors("anon_inode:[eventfd]").is_empty());
}

/// Writes to the half that belongs to the parent, and says what came of it.
#[process_task]
fn write_request(how: u32, at: u64) -> i32 {
    let half = Half::request();
    let address = std::ptr::with_exposed_provenance_mut::<u8>(usize::try_from(half.start + at).expect("an address"));
    match how {
        0 => half.write(at, &[1; 8]).map_or_else(|error| error.raw_os_error().unwrap_or(0), |()| 0),
        1 => {
            let page = NonNull::new(address).expect("an address").cast();
            // SAFETY: more rights do not change what the memory holds.
            unsafe { mprotect(page, 4096, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE) }
                .map_or_else(|e| e as i32, |()| 0)
        }
        _ => {
            // SAFETY: the address is mapped; that it cannot be written is what is tested.
            unsafe { address.write_volatile(1) };
            0
        }
    }
}

fn the_request_half_cannot_be_written(method: StartMethod) {
    let pools = [pool(method, 1), pool(method, 2)];
    for (pool, at) in pools.iter().flat_map(|pool| [0, 64, 128, WORDS, WORDS + RING - 8].map(|at| (pool, at))) {
        let calls: Vec<_> = (0..20).map(|number| (number, pool.submit(honest, (number, &padding(number))))).collect();
        assert!(pool.call(write_request, (0, at)).is_ok_and(|errno| errno != 0), "the kernel wrote there");
        assert_eq!(pool.call(write_request, (1, at / 4096 * 4096)), Ok(Errno::EACCES as i32));
        let error = pool.call(write_request, (2, at)).expect_err("it was written");
        assert!(matches!(error.kind(), ErrorKind::Killed { signal: 11, .. }), "{error}");
        assert!(calls.into_iter().all(|(number, call)| call.join().is_ok_and(|(back, _)| back == answer(number))));
        goes_on(pool);
    }
}

/// Tries every change of size on a half's file, if this process may open it at all; says what each came to.
#[process_task]
fn resize(request: bool) -> Option<Vec<i32>> {
    let half = if request { Half::request() } else { Half::reply() };
    let file = link_memory::file(&half).ok()?;
    let size = (WORDS + RING).cast_signed();
    let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    let seal = |seals| fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).map(drop);
    let mut tried = vec![
        ftruncate(&file, 0),
        ftruncate(&file, size / 2),
        ftruncate(&file, 2 * size),
        fallocate(&file, FallocateFlags::empty(), 0, 2 * size),
        seal(SealFlag::F_SEAL_WRITE),
    ];
    if request {
        tried.extend([fallocate(&file, punch, 0, size), seal(SealFlag::F_SEAL_FUTURE_WRITE)]);
        tried.push(file.write_all_at(&[1; 8], 0).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0))));
    }
    Some(tried.into_iter().map(|result| result.map_or_else(|errno| errno as i32, |()| 0)).collect())
}

fn the_halves_cannot_change_their_size(method: StartMethod) {
    let pool = pool(method, 1);
    for request in [true, false] {
        // Without the right to open what is mapped, there is nothing to try.
        let tried = pool.call(resize, request).expect("it is harmless").unwrap_or_default();
        assert!(tried.iter().all(|errno| [Errno::EPERM as i32, Errno::EBUSY as i32].contains(errno)), "{tried:?}");
        goes_on(&pool);
    }
    drop(pool);
    // The contents can be removed, which reads as zeros.
    trials(method, (0..5).map(|_| (Act::Remove, Expected::Contained)));
}
