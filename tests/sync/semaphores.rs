//! What a semaphore promises when those that hold its permits, or wait for one, end in any way.
//!
//! Runs in: the test process; the tasks in children. Never: relies on how fast anything is, but for the one promise that is about
//! time, which is tried several times.

use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::support::chaos::{self, Herd, start};
use crate::support::fork_copy::in_a_copy;
use crate::support::shared_counter::{Stage, reach, stage as new_stage, until, until_asleep, until_killed};
use crate::support::{self, PATIENCE, eventually};
use process_task::sync::{Semaphore, TooManyPermits};
use process_task::{Process, Shared, StartMethod, process_task};

under_every_start_method! {
    within 120 seconds;
    permits_are_counted_over_processes,
    killed_holders_permits_come_back_within_a_tenth_of_a_second,
    permit_of_a_process_known_dead_is_found_without_waiting,
    a_holder_that_returns_or_exits_with_a_permit_loses_it,
    a_holder_that_lives_keeps_its_permit,
    a_killed_waiter_costs_nothing,
    forgotten_permit_comes_back_by_a_release_alone,
    a_time_out_is_neither_early_nor_without_end,
    a_copy_made_by_fork_gives_nothing_back,
    three_hundred_processes_in_a_row_leave_room_for_the_next,
    a_thousand_semaphores_work_side_by_side,
    kills_lose_and_double_no_permit,
}

type Permits = Shared<Semaphore>;

fn permits(count: u32) -> Permits {
    Shared::new(Semaphore::new(count)).unwrap()
}

/// Takes so many permits, says so, and keeps them.
#[process_task]
fn keep(permits: &Permits, count: u32, stage: &Stage) {
    let _held: Vec<_> = (0..count).map(|_| permits.acquire()).collect();
    reach(stage);
    until_killed();
}

/// Takes a permit, says so, and gives it back when it is told to.
#[process_task]
fn borrow(permits: &Permits, stage: &Stage, until_stage: u32) {
    let _permit = permits.acquire();
    reach(stage);
    until(stage, until_stage);
}

#[process_task]
fn try_to_take(permits: &Permits) -> bool {
    permits.try_acquire().is_some()
}

fn permits_are_counted_over_processes(method: StartMethod) {
    let (permits, stage) = (permits(2), new_stage());
    let first = permits.acquire();
    assert_eq!(permits.available(), 1);
    let second = start(method, borrow, (&permits, &stage, 2));
    until(&stage, 1);
    assert_eq!(permits.available(), 0);
    assert!(permits.try_acquire().is_none());
    assert!(!start(method, try_to_take, &permits).join().unwrap());
    drop(first);
    assert_eq!(permits.available(), 1);
    assert!(start(method, try_to_take, &permits).join().unwrap());
    reach(&stage);
    second.join().unwrap();
    assert_eq!(permits.available(), 2);
    permits.add_permit().unwrap();
    permits.add_permit().unwrap();
    assert_eq!(permits.available(), 4);
    assert_eq!(format!("{:?}", *permits), "Semaphore { available: 4, .. }");
}

fn killed_holders_permits_come_back_within_a_tenth_of_a_second(method: StartMethod) {
    let mut times = vec![];
    while times.iter().all(|time| *time >= Duration::from_millis(100)) {
        assert!(times.len() < 20, "it takes too long: {times:?}");
        let (permits, stage) = (permits(3), new_stage());
        let holder = start(method, keep, (&permits, 3, &stage));
        until(&stage, 1);
        assert!(permits.acquire_timeout(Duration::from_millis(120)).is_err());
        holder.kill().unwrap();
        let since = Instant::now();
        let _all = [(); 3].map(|()| permits.acquire());
        times.push(since.elapsed());
        assert!(permits.try_acquire().is_none());
        holder.join().unwrap_err();
    }
}

fn permit_of_a_process_known_dead_is_found_without_waiting(method: StartMethod) {
    let (permits, stage) = (permits(2), new_stage());
    let holder = start(method, keep, (&permits, 2, &stage));
    until(&stage, 1);
    holder.kill().unwrap();
    holder.join().unwrap_err();
    eventually("a look finds a permit", PATIENCE, || permits.try_acquire().is_some());
    assert_eq!(permits.available(), 2);
    // No process looked in between.
    let holder = start(method, keep, (&permits, 2, &stage));
    until(&stage, 2);
    holder.kill().unwrap();
    holder.join().unwrap_err();
    eventually("they are counted", PATIENCE, || permits.available() == 2);
}

#[process_task]
fn leave_with_a_permit(permits: &Permits, exit: bool) {
    let _forgotten = ManuallyDrop::new(permits.acquire());
    if exit {
        #[expect(clippy::exit, reason = "that is what is tried")]
        std::process::exit(0);
    }
}

fn a_holder_that_returns_or_exits_with_a_permit_loses_it(method: StartMethod) {
    let permits = permits(1);
    for exit in [false, true] {
        assert_eq!(start(method, leave_with_a_permit, (&permits, exit)).join().is_ok(), !exit);
        assert!(permits.acquire_timeout(PATIENCE).is_ok());
    }
}

fn a_holder_that_lives_keeps_its_permit(method: StartMethod) {
    let (permits, stage) = (permits(1), new_stage());
    let holder = start(method, borrow, (&permits, &stage, 2));
    until(&stage, 1);
    let pid = nix::unistd::Pid::from_raw(holder.pid().unwrap().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    assert!(permits.acquire_timeout(Duration::from_millis(300)).is_err(), "a process that is stopped is not dead");
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).unwrap();
    reach(&stage);
    drop(permits.acquire());
    holder.join().unwrap();
}

#[process_task]
fn take_one(permits: &Permits, stage: &Stage) {
    reach(stage);
    permits.acquire().forget();
}

#[process_task]
fn have_one(permits: &Permits, stage: &Stage) {
    reach(stage);
    drop(permits.acquire());
}

fn a_killed_waiter_costs_nothing(method: StartMethod) {
    let (permits, stage) = (permits(0), new_stage());
    let waiters = [(); 3].map(|()| start(method, have_one, (&permits, &stage)));
    until(&stage, 3);
    for waiter in &waiters {
        until_asleep(waiter.pid().unwrap());
    }
    let [first, second, third] = waiters;
    first.kill().unwrap();
    permits.add_permit().unwrap();
    // This one may have been woken, and may have the permit.
    second.kill().unwrap();
    third.join().unwrap();
    first.join().unwrap_err();
    drop(second.join());
    eventually("the permit comes back from its holder", PATIENCE, || permits.available() == 1);
}

fn forgotten_permit_comes_back_by_a_release_alone(method: StartMethod) {
    let permits = Shared::new(Semaphore::bounded(1)).unwrap();
    assert_eq!(permits.add_permit(), Err(TooManyPermits));
    let held = permits.acquire();
    assert_eq!(permits.add_permit(), Err(TooManyPermits), "it will come back by itself");
    drop(held);
    start(method, take_one, (&permits, &new_stage())).join().unwrap();
    assert_eq!(permits.available(), 0);
    assert!(permits.acquire_timeout(Duration::from_millis(150)).is_err());
    permits.add_permit().unwrap();
    assert_eq!(permits.add_permit(), Err(TooManyPermits));
    assert_eq!(permits.available(), 1);
}

fn a_time_out_is_neither_early_nor_without_end(method: StartMethod) {
    let (permits, stage) = (permits(1), new_stage());
    let holder = start(method, keep, (&permits, 1, &stage));
    until(&stage, 1);
    for time in [0, 1, 20, 120].map(Duration::from_millis) {
        let since = Instant::now();
        assert!(permits.acquire_timeout(time).is_err());
        assert!(since.elapsed() >= time);
    }
    holder.kill().unwrap();
    assert!(permits.acquire_timeout(Duration::MAX).is_ok());
}

#[process_task]
fn make_copies(permits: &Permits) {
    let mut held = Some(permits.acquire());
    in_a_copy(|| drop(held.take()));
    in_a_copy(|| held.take().unwrap().forget());
    assert_eq!(permits.available(), 1, "the permit is the original's");
    in_a_copy(|| {
        // A copy has permits of its own, until its end.
        let _own = ManuallyDrop::new(permits.try_acquire().unwrap());
        assert_eq!(permits.available(), 0);
    });
    drop(held);
    assert!(permits.acquire_timeout(PATIENCE).is_ok());
}

fn a_copy_made_by_fork_gives_nothing_back(method: StartMethod) {
    let permits = permits(2);
    start(method, make_copies, &permits).join().unwrap();
    eventually("all are back", PATIENCE, || permits.available() == 2);
}

fn three_hundred_processes_in_a_row_leave_room_for_the_next(method: StartMethod) {
    let permits = permits(1);
    for _ in 0..support::rounds(300) {
        start(method, take_and_give_back, &permits).join().unwrap();
    }
    assert_eq!(permits.available(), 1);
}

#[process_task]
fn take_and_give_back(permits: &Permits) {
    drop(permits.acquire());
}

#[process_task]
fn pass_through_all(semaphores: &Shared<[Semaphore]>) {
    for semaphore in semaphores.iter() {
        semaphore.add_permit().unwrap();
        drop(semaphore.acquire());
    }
}

fn a_thousand_semaphores_work_side_by_side(method: StartMethod) {
    let semaphores = Shared::<[Semaphore]>::from_iter((0..1000).map(|_| Semaphore::new(0))).unwrap();
    let both = [(); 2].map(|()| start(method, pass_through_all, &semaphores));
    for process in both {
        process.join().unwrap();
    }
    assert!(semaphores.iter().all(|semaphore| semaphore.available() == 2));
}

const HERD: usize = 5;
const PERMITS: u32 = 2;

/// The permits, which process is inside by its own word, how often one was killed and buried, whether it is over, and how
/// often one got a permit.
type Ground = Shared<(Semaphore, [AtomicU32; HERD], AtomicU32, AtomicBool, AtomicU64)>;

#[process_task]
fn come_and_go(number: usize, ground: &Ground) {
    let (permits, inside, burials, over, passes) = &**ground;
    let mut random = chaos::Random::new(number as u64 + 1);
    while !over.load(SeqCst) {
        let permit = match random.below(3) {
            0 => permits.try_acquire(),
            1 => permits.acquire_timeout(Duration::from_millis(1)).ok(),
            _ => Some(permits.acquire()),
        };
        let Some(permit) = permit else { continue };
        inside[number].store(1, SeqCst);
        // While a process is being killed, its permit may be another's before its word is taken back.
        let before = burials.load(SeqCst);
        let sum: u32 = inside.iter().map(|inside| inside.load(SeqCst)).sum();
        let no_death = before.is_multiple_of(2) && burials.load(SeqCst) == before;
        assert!(!no_death || sum <= PERMITS, "{sum} are inside");
        passes.fetch_add(1, SeqCst);
        if random.below(4) == 0 {
            std::thread::sleep(Duration::from_micros(300));
        }
        inside[number].store(0, SeqCst);
        drop(permit);
    }
}

fn kills_lose_and_double_no_permit(method: StartMethod) {
    let words = || [const { AtomicU32::new(0) }; HERD];
    let ground: Ground = Shared::new((
        Semaphore::bounded(PERMITS),
        words(),
        AtomicU32::new(0),
        AtomicBool::new(false),
        AtomicU64::new(0),
    ))
    .unwrap();
    let (permits, inside, burials, over, passes) = &*ground;
    let mut all = Herd::new(HERD, |number| -> Process<()> { start(method, come_and_go, (number, &ground)) });
    let mut last = 0;
    let kills = all.hunt(
        |_| {
            burials.fetch_add(1, SeqCst);
        },
        |number| {
            inside[number].store(0, SeqCst);
            burials.fetch_add(1, SeqCst);
            let gone_on = || passes.load(SeqCst) > last;
            eventually("the others go on", PATIENCE, gone_on);
            last = passes.load(SeqCst);
        },
    );
    over.store(true, SeqCst);
    all.go_home();
    println!("{method:?}: {kills} killed, {last} passes");
    assert!(kills > 10);
    assert_eq!(permits.available(), PERMITS);
    let all: Vec<_> = (0..PERMITS).map(|_| permits.try_acquire().unwrap()).collect();
    assert!(permits.try_acquire().is_none());
    drop(all);
    assert_eq!(permits.add_permit(), Err(TooManyPermits));
}
