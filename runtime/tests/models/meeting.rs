//! Barriers, events and `Once` under every interleaving, with the death of a process at each of its steps.
//!
//! The files of `sync` are compiled here a second time, as they are, on top of processes that die ([`mortal`]). The
//! models check that no thread sleeps for good, that no party goes on alone, and that writes before are seen after.
//! Runs in: one process, without children.
//!
//! Each rule is left out once, at every run (`the_checker_finds`). Beyond that, these mistakes were put into the files
//! themselves, one at a time, and each was found by a test here. In `barrier.rs`: the last party wakes no thread; a dead party is
//! not looked for, among those that wait or among those of the round before; a reset or a time-out breaks nothing; the breaks
//! are read before the round. In `event.rs`: a waiter looks at the flag and not at the count; a set does not count; waiters set
//! no flag. In `once.rs`: it is complete before it was run. One mistake was not found, as it looks like a party that never
//! came: the barrier does not break for a party that dies under the lock before it was seen.

#[expect(unreachable_pub, dead_code, reason = "a part of the crate, of which a model needs some")]
#[expect(clippy::trivially_copy_pass_by_ref, reason = "as in the standard library")]
#[path = "../../src/sync/barrier.rs"]
mod barrier;
#[expect(unreachable_pub, dead_code, reason = "a part of the crate, of which a model needs some")]
#[path = "../../src/error/elapsed.rs"]
mod elapsed;
#[expect(unreachable_pub, dead_code, reason = "a part of the crate, of which a model needs some")]
#[path = "../../src/sync/event.rs"]
mod event;
#[expect(dead_code, reason = "queues have more use for it")]
#[path = "../../src/sync/event_count.rs"]
mod event_count;
#[expect(dead_code, reason = "a part of the crate, of which a model needs some")]
#[path = "../../src/sync/holders.rs"]
mod holders;
#[expect(dead_code, reason = "a part of the crate, of which a model needs some")]
#[path = "../../src/sync/lock.rs"]
mod lock;
#[expect(unreachable_pub, dead_code, reason = "a part of the crate, of which a model needs some")]
#[path = "../../src/sync/once.rs"]
mod once;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use loom::cell::UnsafeCell;
use loom::sync::Arc;

use crate::checker::{at_each_step, explore_with};
use crate::mortal::{FOR_EVER, Process, act_as, atomic, futex_wait, proc_table, the_checker_finds};
use barrier::{Barrier, BrokenBarrier};
use event::Event;
use once::Once;

/// As many as a model has.
const MAX_HOLDERS: usize = 3;

/// A barrier, and what each writes before it and looks at after it.
struct Meeting {
    barrier: Barrier,
    written: [UnsafeCell<()>; 4],
}

impl Meeting {
    fn new(parties: usize) -> Arc<Self> {
        let meeting = Self { barrier: Barrier::new(parties), written: std::array::from_fn(|_| UnsafeCell::new(())) };
        // All words are to be there before there are other threads.
        meeting.barrier.abort();
        meeting.barrier.reset();
        for _ in 0..parties {
            let _ = act_as(1, || meeting.barrier.wait_timeout(Duration::ZERO));
            meeting.barrier.reset();
        }
        Arc::new(meeting)
    }

    fn write(&self, number: usize) {
        self.written[number].with_mut(|_| ());
    }

    fn look(&self, parties: std::ops::RangeInclusive<usize>) {
        for number in parties {
            self.written[number].with(|_| ());
        }
    }
}

#[test]
fn all_parties_go_on_and_see_what_the_others_wrote() {
    explore_with(2, 500, || {
        let meeting = Meeting::new(3);
        let others = [2, 3].map(|number| {
            Process::start(number, FOR_EVER, &meeting, move |meeting| {
                meeting.write(number as usize);
                let leads = meeting.barrier.wait().unwrap().is_leader();
                meeting.look(1..=3);
                leads
            })
        });
        meeting.write(1);
        let leads = meeting.barrier.wait().unwrap().is_leader();
        meeting.look(1..=3);
        let leaders = others.map(|other| other.join().unwrap()).into_iter().filter(|leads| *leads).count();
        assert_eq!(leaders + usize::from(leads), 1);
    });
}

#[test]
fn one_round_follows_the_other() {
    explore_with(2, 200, || {
        let meeting = Meeting::new(2);
        let other = Process::start(2, FOR_EVER, &meeting, |meeting| {
            meeting.barrier.wait().unwrap();
            meeting.write(2);
            meeting.barrier.wait().unwrap();
        });
        meeting.write(2);
        meeting.barrier.wait().unwrap();
        meeting.barrier.wait().unwrap();
        meeting.write(2);
        other.join().unwrap();
    });
}

#[test]
fn waiters_hear_of_abort_and_reset() {
    for end in [Barrier::abort, Barrier::reset] {
        explore_with(2, 100, move || {
            let meeting = Meeting::new(3);
            let first = Process::start(2, FOR_EVER, &meeting, |meeting| meeting.barrier.wait());
            let second = Process::start(3, FOR_EVER, &meeting, |meeting| meeting.barrier.wait());
            while meeting.barrier.waiting() < 2 {
                loom::thread::yield_now();
            }
            end(&meeting.barrier);
            assert_eq!([first, second].map(|party| party.join().unwrap()), [Err(BrokenBarrier::Aborted); 2]);
            assert_eq!(meeting.barrier.waiting(), 0);
            meeting.barrier.reset();
            assert!(!meeting.barrier.is_broken());
        });
    }
}

#[test]
fn a_time_out_breaks_the_barrier_for_all_or_comes_too_late() {
    explore_with(2, 50, || {
        let meeting = Meeting::new(2);
        let hasty =
            Process::start(2, FOR_EVER, &meeting, |meeting| meeting.barrier.wait_timeout(Duration::ZERO).is_ok());
        let good = meeting.barrier.wait().is_ok();
        assert_eq!(hasty.join(), Some(good));
        assert_ne!(meeting.barrier.is_broken(), good);
    });
}

#[test]
fn party_death_completes_the_round_or_breaks_the_barrier() {
    at_each_step(1, |steps| {
        let meeting = Meeting::new(2);
        let victim = Process::start(2, steps, &meeting, |meeting| meeting.barrier.wait().is_ok());
        let other = Process::start(3, FOR_EVER, &meeting, |meeting| meeting.barrier.wait().is_ok());
        let killed = victim.join().is_none();
        if killed {
            // If it died before it came, it is not known that it was to be a party.
            meeting.barrier.abort();
        }
        assert!(other.join().unwrap() || killed);
        meeting.barrier.reset();
        assert_eq!((meeting.barrier.waiting(), meeting.barrier.is_broken()), (0, false));
        killed
    });
}

#[test]
fn a_party_that_dies_while_it_waits_breaks_the_barrier() {
    explore_with(2, 100, || {
        let meeting = Meeting::new(3);
        let victim = Process::start(2, FOR_EVER, &meeting, |meeting| meeting.barrier.wait());
        let other = Process::start(3, FOR_EVER, &meeting, |meeting| meeting.barrier.wait());
        while meeting.barrier.waiting() < 2 {
            loom::thread::yield_now();
        }
        proc_table::kill(2);
        assert_eq!(other.join(), Some(Err(BrokenBarrier::Aborted)));
        assert_eq!(victim.join(), None);
        assert_eq!(meeting.barrier.wait(), Err(BrokenBarrier::Aborted));
    });
}

#[test]
fn a_party_that_dies_between_two_rounds_breaks_the_second() {
    explore_with(2, 100, || {
        let meeting = Meeting::new(2);
        let victim = Process::start(2, FOR_EVER, &meeting, |meeting| {
            meeting.barrier.wait().unwrap();
            crate::mortal::die();
        });
        let other = Process::start(3, FOR_EVER, &meeting, |meeting| {
            meeting.barrier.wait().unwrap();
            meeting.barrier.wait()
        });
        assert_eq!(other.join(), Some(Err(BrokenBarrier::Aborted)));
        assert!(victim.join().is_none());
    });
}

/// An event, and what is written before it is set.
struct News {
    event: Event,
    written: UnsafeCell<()>,
}

impl News {
    fn new() -> Arc<Self> {
        let news = Self { event: Event::new(), written: UnsafeCell::new(()) };
        assert!(!news.event.is_set());
        Arc::new(news)
    }

    fn hear(&self) {
        self.event.wait();
        self.written.with(|_| ());
    }
}

#[test]
fn set_then_clear_releases_waiters() {
    explore_with(2, 500, || {
        let news = News::new();
        let listeners = [2, 3].map(|number| Process::start(number, FOR_EVER, &news, News::hear));
        news.written.with_mut(|_| ());
        news.event.set();
        news.event.clear();
        // A party that comes only now is let go by this one.
        news.event.set();
        for listener in listeners {
            listener.join().unwrap();
        }
    });
}

#[test]
fn set_then_clear_wakes_sleeping_waiters() {
    explore_with(2, 50, || {
        let news = News::new();
        let listeners = [2, 3].map(|number| Process::start(number, FOR_EVER, &news, News::hear));
        while futex_wait::asleep() < 2 {
            loom::thread::yield_now();
        }
        news.written.with_mut(|_| ());
        news.event.set();
        news.event.clear();
        for listener in listeners {
            listener.join().unwrap();
        }
    });
}

#[test]
fn an_event_goes_back_and_forth_without_a_loss() {
    explore_with(3, 500, || {
        let both = Arc::new([Event::new(), Event::new()]);
        assert!(!both.iter().any(Event::is_set));
        let other = Process::start(2, FOR_EVER, &both, |both| {
            for _ in 0..2 {
                both[0].wait();
                both[0].clear();
                both[1].set();
            }
        });
        for _ in 0..2 {
            both[0].set();
            both[1].wait();
            both[1].clear();
        }
        other.join().unwrap();
    });
}

#[test]
fn death_at_any_step_of_an_event_leaves_no_waiter_asleep() {
    for dies in [News::hear, |news: &News| news.event.set()] {
        at_each_step(2, move |steps| {
            let news = News::new();
            let victim = Process::start(2, steps, &news, dies);
            let listener = Process::start(3, FOR_EVER, &news, News::hear);
            news.event.set();
            listener.join().unwrap();
            victim.join().is_none()
        });
    }
}

/// Something to be done once, and what it writes.
struct Work {
    once: Once,
    done: UnsafeCell<()>,
}

impl Work {
    fn new() -> Arc<Self> {
        let work = Self { once: Once::new(), done: UnsafeCell::new(()) };
        // All words are to be there before there are other threads: a thread tries, and panics.
        let tried = catch_unwind(AssertUnwindSafe(|| work.once.call_once(|| resume_unwind(Box::new(())))));
        assert!(tried.is_err() && !work.once.is_completed());
        Arc::new(work)
    }

    fn get(&self) -> bool {
        let mut ran = false;
        self.once.call_once_force(|_| {
            self.done.with_mut(|_| ());
            ran = true;
        });
        self.done.with(|_| ());
        ran
    }
}

#[test]
fn it_is_done_once_and_seen_by_all() {
    explore_with(2, 100, || {
        let work = Work::new();
        let others = [2, 3].map(|number| Process::start(number, FOR_EVER, &work, Work::get));
        let own = work.get();
        let ran = others.map(|other| other.join().unwrap()).into_iter().filter(|ran| *ran).count();
        assert_eq!(ran + usize::from(own), 1);
    });
}

#[test]
fn a_runner_that_dies_at_any_step_lets_another_one_run() {
    at_each_step(1, |steps| {
        let work = Work::new();
        let victim = Process::start(2, steps, &work, Work::get);
        let other = Process::start(3, FOR_EVER, &work, Work::get);
        work.get();
        other.join().unwrap();
        assert!(work.once.is_completed());
        victim.join().is_none()
    });
}

the_checker_finds! {
    last_party_without_wake_is_found: WakesAreLost, all_parties_go_on_and_see_what_the_others_wrote, "deadlock";
    event_set_without_wake_is_found: WakesAreLost, an_event_goes_back_and_forth_without_a_loss, "deadlock";
    unnoticed_party_death_is_found: NoDeathIsKnown, a_party_that_dies_while_it_waits_breaks_the_barrier, "deadlock";
    dead_party_expected_once_more: NoDeathIsKnown,
        a_party_that_dies_between_two_rounds_breaks_the_second, "deadlock";
    unnoticed_runner_death_is_found: NoDeathIsKnown, a_runner_that_dies_at_any_step_lets_another_one_run, "deadlock";
    party_goes_on_without_what_others_wrote: ReleaseIsRelaxed,
        one_round_follows_the_other, "deadlock";
    waiter_hears_of_what_is_not_there_yet: ReleaseIsRelaxed,
        set_then_clear_releases_waiters, "Causality violation";
    relaxed_once_is_found: ReleaseIsRelaxed, it_is_done_once_and_seen_by_all, "Causality violation";
}
