//! What a barrier promises when those that meet there are killed, give up, or come late.
//!
//! Runs in: the test process; the tasks in children. Never: relies on how fast anything is, but for the one promise that is about
//! time, which is tried several times.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::chaos::{Herd, start};
use crate::support::shared_counter::{Stage, reach, stage as new_stage, until, until_asleep, until_killed};
use crate::support::{self, PATIENCE, eventually};
use process_task::sync::{Barrier, BrokenBarrier, Mutex};
use process_task::{Process, Shared, StartMethod, process_task};

under_every_start_method! {
    within 120 seconds;
    so_many_go_on_together_and_one_leads,
    parties_go_in_step_for_many_rounds,
    a_killed_party_breaks_the_barrier_within_a_tenth_of_a_second,
    a_party_that_is_killed_between_two_rounds_breaks_the_second,
    a_party_that_returned_after_its_round_breaks_nothing,
    one_that_never_came_breaks_nothing,
    a_party_that_lives_breaks_nothing_however_late_it_comes,
    an_abort_frees_all_and_the_barrier_stays_broken,
    a_reset_frees_all_and_the_barrier_is_good_at_once,
    a_barrier_is_good_again_after_an_abort_and_a_reset,
    a_time_out_breaks_the_barrier_for_all,
    barrier_of_one_does_not_block,
    a_thousand_barriers_work_side_by_side,
    kills_leave_no_round_half_complete,
}

type Meeting = Shared<Barrier>;

fn meeting(parties: usize) -> Meeting {
    Shared::new(Barrier::new(parties)).unwrap()
}

/// Waits so many times, says after each that it has, and says how often it led.
#[process_task]
fn meet(meeting: &Meeting, times: u32, stage: &Stage) -> Result<u32, ()> {
    let mut led = 0;
    for _ in 0..times {
        led += u32::from(meeting.wait().map_err(|_broken: BrokenBarrier| ())?.is_leader());
        reach(stage);
    }
    Ok(led)
}

fn so_many_go_on_together_and_one_leads(method: StartMethod) {
    let (meeting, stage) = (meeting(5), new_stage());
    assert_eq!((meeting.parties(), meeting.waiting()), (5, 0));
    let others = [(); 4].map(|()| start(method, meet, (&meeting, 10, &stage)));
    let mut led = 0;
    for round in 0..10 {
        eventually("all the others wait", PATIENCE, || meeting.waiting() == 4);
        assert_eq!(stage.load(SeqCst), 4 * round, "a party went on alone");
        led += u32::from(meeting.wait().unwrap().is_leader());
        until(&stage, 4 * (round + 1));
    }
    let led_by_others: u32 = others.map(|process| process.join().unwrap().unwrap()).iter().sum();
    assert_eq!(led + led_by_others, 10);
    assert!(!meeting.is_broken());
}

/// After each of many rounds, writes the round's number into its own place, and looks at those of all.
#[process_task]
fn keep_step(number: usize, rounds: u32, hall: &Shared<(Barrier, [AtomicU32; 5])>, journal: &Shared<Mutex<[u32; 2]>>) {
    let (barrier, at) = &**hall;
    for round in 1..=rounds {
        at[number].store(round, SeqCst);
        barrier.wait().unwrap();
        assert!(at.iter().all(|at| at.load(SeqCst) == round), "round {round}: {at:?}");
        if barrier.wait().unwrap().is_leader() {
            let mut journal = journal.lock().unwrap();
            assert_eq!(journal[0] + 1, round);
            *journal = [round, journal[1] + 1];
        }
    }
}

fn parties_go_in_step_for_many_rounds(method: StartMethod) {
    let rounds = u32::try_from(support::rounds(200)).unwrap();
    let hall = Shared::new((Barrier::new(5), [const { AtomicU32::new(0) }; 5])).unwrap();
    let journal = Shared::new(Mutex::new([0, 0])).unwrap();
    let all: Vec<_> = (0..5).map(|number| start(method, keep_step, (number, rounds, &hall, &journal))).collect();
    for process in all {
        process.join().unwrap();
    }
    assert_eq!(*journal.lock().unwrap(), [rounds; 2]);
}

#[process_task]
fn wait_to_be_killed(meeting: &Meeting) {
    let _ = meeting.wait();
    until_killed();
}

fn a_killed_party_breaks_the_barrier_within_a_tenth_of_a_second(method: StartMethod) {
    let mut times = vec![];
    while times.iter().all(|time| *time >= Duration::from_millis(100)) {
        assert!(times.len() < 20, "it takes too long: {times:?}");
        let meeting = meeting(3);
        let victim = start(method, wait_to_be_killed, &meeting);
        eventually("it waits", PATIENCE, || meeting.waiting() == 1);
        let (broken, since) = thread::scope(|scope| {
            let waits = scope.spawn(|| (meeting.wait(), Instant::now()));
            eventually("both wait", PATIENCE, || meeting.waiting() == 2);
            let since = Instant::now();
            victim.kill().unwrap();
            let (broken, at) = waits.join().unwrap();
            (broken, at - since)
        });
        assert_eq!(broken, Err(BrokenBarrier::Aborted));
        times.push(since);
        assert!(meeting.is_broken());
        assert_eq!((meeting.wait(), meeting.waiting()), (Err(BrokenBarrier::Aborted), 0));
        victim.join().unwrap_err();
    }
}

#[process_task]
fn meet_once_and_be_killed(meeting: &Meeting, stage: &Stage) {
    meeting.wait().unwrap();
    reach(stage);
    until_killed();
}

fn a_party_that_is_killed_between_two_rounds_breaks_the_second(method: StartMethod) {
    // While a party waits already, and before any does.
    for waits_already in [true, false] {
        let (meeting, stage) = (meeting(3), new_stage());
        let victim = start(method, meet_once_and_be_killed, (&meeting, &stage));
        let other = start(method, meet, (&meeting, 2, &stage));
        meeting.wait().unwrap();
        until(&stage, 2);
        eventually("the other waits", PATIENCE, || meeting.waiting() == 1);
        if waits_already {
            thread::scope(|scope| {
                let waits = scope.spawn(|| meeting.wait());
                eventually("all that will come are there", PATIENCE, || meeting.waiting() == 2);
                victim.kill().unwrap();
                assert_eq!(waits.join().unwrap(), Err(BrokenBarrier::Aborted));
            });
            victim.join().unwrap_err();
        } else {
            victim.kill().unwrap();
            victim.join().unwrap_err();
            assert_eq!(meeting.wait(), Err(BrokenBarrier::Aborted));
        }
        assert_eq!(other.join().unwrap(), Err(()));
        // The parties that were known before are forgotten.
        meeting.reset();
        let others = [(); 2].map(|()| start(method, meet, (&meeting, 2, &stage)));
        meeting.wait().unwrap();
        meeting.wait().unwrap();
        for process in others {
            process.join().unwrap().unwrap();
        }
    }
}

fn a_party_that_returned_after_its_round_breaks_nothing(method: StartMethod) {
    let (meeting, stage) = (meeting(2), new_stage());
    for _ in 0..3 {
        let guest = start(method, meet, (&meeting, 1, &stage));
        meeting.wait().unwrap();
        guest.join().unwrap().unwrap();
        assert!(!meeting.is_broken());
    }
}

#[process_task]
fn be_killed(stage: &Stage, _meeting: &Meeting) {
    reach(stage);
    until_killed();
}

fn one_that_never_came_breaks_nothing(method: StartMethod) {
    let (meeting, stage) = (meeting(2), new_stage());
    let stranger = start(method, be_killed, (&stage, &meeting));
    until(&stage, 1);
    let guest = start(method, meet, (&meeting, 1, &stage));
    eventually("the guest waits", PATIENCE, || meeting.waiting() == 1);
    stranger.kill().unwrap();
    stranger.join().unwrap_err();
    // For longer than it takes to notice a death.
    thread::sleep(Duration::from_millis(150));
    meeting.wait().unwrap();
    guest.join().unwrap().unwrap();
}

fn a_party_that_lives_breaks_nothing_however_late_it_comes(method: StartMethod) {
    let (meeting, stage) = (meeting(2), new_stage());
    let guest = start(method, meet, (&meeting, 2, &stage));
    meeting.wait().unwrap();
    eventually("the guest waits", PATIENCE, || meeting.waiting() == 1);
    let pid = nix::unistd::Pid::from_raw(guest.pid().unwrap().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    thread::sleep(Duration::from_millis(300));
    meeting.wait().unwrap();
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).unwrap();
    assert!(guest.join().unwrap().is_ok());
}

/// Four wait, and the test process does something else than to come.
fn instead_of_coming(method: StartMethod, act: impl FnOnce(&Barrier)) -> Meeting {
    let (meeting, stage) = (meeting(5), new_stage());
    let others = [(); 4].map(|()| start(method, meet, (&meeting, 1, &stage)));
    eventually("all the others wait", PATIENCE, || meeting.waiting() == 4);
    for process in &others {
        until_asleep(process.pid().unwrap());
    }
    act(&meeting);
    for process in others {
        assert_eq!(process.join().unwrap(), Err(()));
    }
    meeting
}

fn an_abort_frees_all_and_the_barrier_stays_broken(method: StartMethod) {
    let meeting = instead_of_coming(method, Barrier::abort);
    assert!(meeting.is_broken());
    assert_eq!(start(method, meet, (&meeting, 1, &new_stage())).join().unwrap(), Err(()));
    assert_eq!(format!("{:?}", *meeting), "Barrier { parties: 5, waiting: 0, broken: true, .. }");
}

/// All five meet, several times.
fn is_good(method: StartMethod, meeting: &Meeting) {
    let stage = new_stage();
    let others = [(); 4].map(|()| start(method, meet, (meeting, 3, &stage)));
    for _ in 0..3 {
        meeting.wait().unwrap();
    }
    for process in others {
        process.join().unwrap().unwrap();
    }
    assert!(!meeting.is_broken());
}

fn a_reset_frees_all_and_the_barrier_is_good_at_once(method: StartMethod) {
    let meeting = instead_of_coming(method, |meeting| {
        meeting.reset();
        assert!(!meeting.is_broken());
    });
    is_good(method, &meeting);
    // Where no party waits it changes nothing.
    meeting.reset();
    is_good(method, &meeting);
}

fn a_barrier_is_good_again_after_an_abort_and_a_reset(method: StartMethod) {
    let meeting = instead_of_coming(method, Barrier::abort);
    meeting.reset();
    is_good(method, &meeting);
}

fn a_time_out_breaks_the_barrier_for_all(method: StartMethod) {
    let meeting = meeting(5);
    let guest = start(method, meet, (&meeting, 1, &new_stage()));
    eventually("the guest waits", PATIENCE, || meeting.waiting() == 1);
    let since = Instant::now();
    assert_eq!(meeting.wait_timeout(Duration::from_millis(120)), Err(BrokenBarrier::Timeout));
    assert!(since.elapsed() >= Duration::from_millis(120));
    assert_eq!(guest.join().unwrap(), Err(()));
    assert!(meeting.is_broken());
    meeting.reset();
    is_good(method, &meeting);
}

fn barrier_of_one_does_not_block(method: StartMethod) {
    for parties in [0, 1] {
        let meeting = meeting(parties);
        assert_eq!(start(method, meet, (&meeting, 2, &new_stage())).join().unwrap(), Ok(2));
        assert!(meeting.wait().unwrap().is_leader());
        assert!(meeting.wait_timeout(Duration::ZERO).unwrap().is_leader());
    }
}

#[process_task]
fn meet_everywhere(meetings: &Shared<[Barrier]>) {
    for meeting in meetings.iter() {
        meeting.wait().unwrap();
    }
}

fn a_thousand_barriers_work_side_by_side(method: StartMethod) {
    let meetings = Shared::<[Barrier]>::from_iter((0..1000).map(|_| Barrier::new(2))).unwrap();
    let both = [(); 2].map(|()| start(method, meet_everywhere, &meetings));
    for process in both {
        process.join().unwrap();
    }
    assert!(meetings.iter().all(|meeting| meeting.waiting() == 0 && !meeting.is_broken()));
}

const HERD: usize = 4;

/// The barrier, and what all know of each other.
type Ground = Shared<(Barrier, Known)>;

/// The round at which each party is; the last break that each has heard of; how many breaks have been mended; whether it is
/// over; and how many rounds were complete.
type Known = ([AtomicU32; HERD], [AtomicU32; HERD], AtomicU32, AtomicBool, AtomicU64);

/// More rounds than there are from one break to the next.
const MANY: u32 = 1 << 20;

/// Meets the others, round after round, twice in each: what is looked at between the two is the same for all.
#[process_task]
fn keep_meeting(number: usize, ground: &Ground) {
    let (barrier, (at, heard, mended, over, complete)) = &**ground;
    while !over.load(SeqCst) {
        let breaks = mended.load(SeqCst);
        for round in breaks * MANY.. {
            at[number].store(round, SeqCst);
            if barrier.wait().is_err() {
                break;
            }
            let all_are_here = at.iter().all(|at| at.load(SeqCst) == round);
            let Ok(second) = barrier.wait() else { break };
            assert!(all_are_here, "a party was missing in round {round}");
            complete.fetch_add(u64::from(second.is_leader()), SeqCst);
        }
        heard[number].store(breaks + 1, SeqCst);
        while mended.load(SeqCst) == breaks && !over.load(SeqCst) {
            thread::sleep(Duration::from_micros(100));
        }
    }
}

fn kills_leave_no_round_half_complete(method: StartMethod) {
    let words = || [const { AtomicU32::new(0) }; HERD];
    let known = (words(), words(), AtomicU32::new(0), AtomicBool::new(false), AtomicU64::new(0));
    let ground: Ground = Shared::new((Barrier::new(HERD), known)).unwrap();
    let (barrier, (_, heard, mended, over, complete)) = &*ground;
    let mut all = Herd::new(HERD, |number| -> Process<()> { start(method, keep_meeting, (number, &ground)) });
    let last = Cell::new(0);
    let kills = all.hunt(
        // All must have met since the last death, so that each is known as a party.
        |_| eventually("they meet again", PATIENCE, || complete.load(SeqCst) > last.get()),
        |number| {
            let breaks = mended.load(SeqCst);
            let has_heard = |party: usize| party == number || heard[party].load(SeqCst) > breaks;
            eventually("all others hear of it", PATIENCE, || (0..HERD).all(has_heard));
            assert!(barrier.is_broken());
            barrier.reset();
            last.set(complete.load(SeqCst));
            mended.fetch_add(1, SeqCst);
        },
    );
    over.store(true, SeqCst);
    barrier.abort();
    all.go_home();
    println!("{method:?}: {kills} killed, {} rounds", complete.load(SeqCst));
    assert!(kills > 10);
}
