//! What an event and a thing to be done once promise, whichever process is killed.
//!
//! Runs in: the test process; the tasks in children. Never: relies on how fast anything is, but for the one promise that is about
//! time, which is tried several times.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::support::chaos::{self, Herd, start};
use crate::support::shared_counter::{Stage, reach, stage as new_stage, until, until_asleep, until_killed};
use crate::support::{PATIENCE, eventually};
use process_task::sync::{Event, Once};
use process_task::{Process, Shared, StartMethod, process_task};

under_every_start_method! {
    within 120 seconds;
    set_and_cleared_are_seen_by_all,
    a_set_lets_all_go_even_if_it_is_cleared_at_once,
    a_time_out_is_neither_early_nor_without_end,
    a_killed_waiter_costs_nothing,
    a_thousand_events_work_side_by_side,
    kills_lose_no_event,
    it_is_done_once_by_one_of_many,
    killed_runner_lets_another_run_within_a_tenth_of_a_second,
    a_runner_that_exits_lets_another_one_run,
    a_runner_that_panics_poisons,
    kills_leave_a_once_done_once,
}

type News = Shared<Event>;

fn news() -> News {
    Shared::new(Event::new()).unwrap()
}

#[process_task]
fn hear(news: &News, stage: &Stage) {
    reach(stage);
    news.wait();
}

#[process_task]
fn is_set(news: &News) -> (bool, String) {
    (news.is_set(), format!("{:?}", **news))
}

#[process_task]
fn set(news: &News) {
    news.set();
}

fn set_and_cleared_are_seen_by_all(method: StartMethod) {
    let news = news();
    let look = || start(method, is_set, &news).join().unwrap();
    assert_eq!(look(), (false, "Event { set: false }".to_owned()));
    start(method, set, &news).join().unwrap();
    assert!(news.is_set());
    assert_eq!(look(), (true, "Event { set: true }".to_owned()));
    news.set();
    news.wait();
    start(method, hear, (&news, &new_stage())).join().unwrap();
    news.clear();
    news.clear();
    assert!(!look().0 && !news.is_set());
}

fn a_set_lets_all_go_even_if_it_is_cleared_at_once(method: StartMethod) {
    let (news, stage) = (news(), new_stage());
    for round in 1..=3 {
        let listeners = [(); 4].map(|()| start(method, hear, (&news, &stage)));
        until(&stage, 4 * round);
        for listener in &listeners {
            until_asleep(listener.pid().unwrap());
        }
        news.set();
        news.clear();
        for listener in listeners {
            listener.join().unwrap();
        }
        assert!(!news.is_set());
    }
}

fn a_time_out_is_neither_early_nor_without_end(method: StartMethod) {
    let (news, stage) = (news(), new_stage());
    for time in [0, 1, 20, 120].map(Duration::from_millis) {
        let since = Instant::now();
        assert!(news.wait_timeout(time).is_err());
        assert!(since.elapsed() >= time);
    }
    let listener = start(method, hear, (&news, &stage));
    until(&stage, 1);
    start(method, set, &news).join().unwrap();
    assert!(news.wait_timeout(Duration::ZERO).is_ok() && news.wait_timeout(Duration::MAX).is_ok());
    listener.join().unwrap();
}

fn a_killed_waiter_costs_nothing(method: StartMethod) {
    let (news, stage) = (news(), new_stage());
    let listeners = [(); 3].map(|()| start(method, hear, (&news, &stage)));
    until(&stage, 3);
    for listener in &listeners {
        until_asleep(listener.pid().unwrap());
    }
    let [first, second, third] = listeners;
    first.kill().unwrap();
    news.set();
    // This one may have been woken.
    second.kill().unwrap();
    third.join().unwrap();
    first.join().unwrap_err();
    drop(second.join());
    news.clear();
    assert!(news.wait_timeout(Duration::from_millis(1)).is_err());
}

#[process_task]
fn answer_all(events: &Shared<[(Event, Event)]>) {
    for (question, answer) in events.iter() {
        question.wait();
        answer.set();
    }
}

fn a_thousand_events_work_side_by_side(method: StartMethod) {
    let events = Shared::<[(Event, Event)]>::from_iter((0..500).map(|_| (Event::new(), Event::new()))).unwrap();
    let other = start(method, answer_all, &events);
    for (question, answer) in events.iter() {
        assert!(!answer.is_set());
        question.set();
        answer.wait();
    }
    other.join().unwrap();
}

const HERD: usize = 4;

/// The event, how often it was set, how often each listener was let go, and whether it is over.
type Ground = Shared<(Event, AtomicU32, [AtomicU64; HERD], AtomicBool)>;

/// Waits again and again. The event is set, and cleared at once, by the test process, which counts before it does.
#[process_task]
fn keep_listening(number: usize, ground: &Ground) {
    let (event, count, heard, over) = &**ground;
    while !over.load(SeqCst) {
        let before = count.load(SeqCst);
        event.wait();
        // The one that sets it counts first.
        assert!(count.load(SeqCst) >= before.max(1), "it was not set");
        heard[number].fetch_add(1, SeqCst);
    }
}

fn kills_lose_no_event(method: StartMethod) {
    let heard = [const { AtomicU64::new(0) }; HERD];
    let ground: Ground = Shared::new((Event::new(), AtomicU32::new(0), heard, AtomicBool::new(false))).unwrap();
    let (event, count, heard, over) = &*ground;
    let mut all = Herd::new(HERD, |number| -> Process<()> { start(method, keep_listening, (number, &ground)) });
    let pulse = || {
        count.fetch_add(1, SeqCst);
        event.set();
        event.clear();
    };
    let kills = all.hunt(
        |_| {
            for _ in 0..20 {
                pulse();
            }
        },
        |number| {
            for other in (0..HERD).filter(|other| *other != number) {
                // One pulse is enough for each that waits; one that is not there yet comes to the next pulse.
                let before = heard[other].load(SeqCst);
                eventually("another one hears of it", PATIENCE, || {
                    pulse();
                    heard[other].load(SeqCst) > before
                });
            }
        },
    );
    over.store(true, SeqCst);
    event.set();
    all.go_home();
    println!("{method:?}: {kills} killed, {} pulses", count.load(SeqCst));
    assert!(kills > 10);
}

/// What is to be done once, and how often a process began and ended it.
type Work = Shared<(Once, AtomicU32, AtomicU32)>;

fn work() -> Work {
    Shared::new((Once::new(), AtomicU32::new(0), AtomicU32::new(0))).unwrap()
}

fn do_it((once, begun, ended): &(Once, AtomicU32, AtomicU32)) -> bool {
    let mut own = false;
    once.call_once(|| {
        begun.fetch_add(1, SeqCst);
        std::thread::sleep(Duration::from_millis(1));
        ended.fetch_add(1, Relaxed);
        own = true;
    });
    assert_eq!(ended.load(Relaxed), 1);
    own
}

#[process_task]
fn do_once(work: &Work) -> bool {
    do_it(work)
}

fn it_is_done_once_by_one_of_many(method: StartMethod) {
    for _ in 0..5 {
        let work = work();
        assert!(!work.0.is_completed());
        let others = [(); 4].map(|()| start(method, do_once, &work));
        let own = do_it(&work);
        let done = others.map(|process| process.join().unwrap()).into_iter().filter(|done| *done).count();
        assert_eq!(done + usize::from(own), 1);
        assert!(work.0.is_completed());
        assert_eq!((work.1.load(SeqCst), work.2.load(SeqCst)), (1, 1));
    }
}

#[process_task]
fn begin_and_be_killed(work: &Work, stage: &Stage) {
    work.0.call_once(|| {
        work.1.fetch_add(1, SeqCst);
        reach(stage);
        until_killed();
    });
}

fn killed_runner_lets_another_run_within_a_tenth_of_a_second(method: StartMethod) {
    let mut times = vec![];
    while times.iter().all(|time| *time >= Duration::from_millis(100)) {
        assert!(times.len() < 20, "it takes too long: {times:?}");
        let (work, stage) = (work(), new_stage());
        let victim = start(method, begin_and_be_killed, (&work, &stage));
        until(&stage, 1);
        assert!(!work.0.is_completed());
        victim.kill().unwrap();
        let since = Instant::now();
        assert!(do_it(&work));
        times.push(since.elapsed());
        assert_eq!((work.1.load(SeqCst), work.2.load(SeqCst)), (2, 1));
        victim.join().unwrap_err();
    }
}

#[process_task]
fn begin_and_exit(work: &Work) {
    #[expect(clippy::exit, reason = "that is what is tried")]
    work.0.call_once(|| std::process::exit(0));
}

fn a_runner_that_exits_lets_another_one_run(method: StartMethod) {
    let work = work();
    start(method, begin_and_exit, &work).join().unwrap_err();
    assert!(do_it(&work));
}

#[process_task]
fn begin_and_panic(work: &Work) {
    work.0.call_once(|| panic!("in the middle"));
}

#[process_task]
fn mend(work: &Work) -> bool {
    let mut poisoned = false;
    work.0.call_once_force(|state| poisoned = state.is_poisoned());
    poisoned
}

fn a_runner_that_panics_poisons(method: StartMethod) {
    let work = work();
    for _ in 0..2 {
        start(method, begin_and_panic, &work).join().unwrap_err();
        start(method, do_once, &work).join().unwrap_err();
        assert!(!work.0.is_completed());
        assert_eq!(work.1.load(SeqCst), 0);
    }
    assert!(start(method, mend, &work).join().unwrap());
    assert!(work.0.is_completed());
    // It is done, and no process does it again.
    assert!(!start(method, mend, &work).join().unwrap());
    work.0.call_once(|| unreachable!("it is done"));
}

/// Many things to be done once; how often each was begun, and done; and whether it is over.
type Works = Shared<([(Once, AtomicU32, AtomicU32); WORKS], AtomicBool)>;

const WORKS: usize = 64;

#[process_task]
fn do_all(number: usize, works: &Works) {
    let mut random = chaos::Random::new(number as u64 + 1);
    while !works.1.load(SeqCst) {
        let (once, begun, done) = &works.0[random.below(WORKS)];
        once.call_once(|| {
            begun.fetch_add(1, SeqCst);
            std::thread::sleep(Duration::from_micros(500));
            // The last step of all. One that is killed after it, and before `Once` has heard of it, leaves it to be done again.
            done.fetch_add(1, SeqCst);
        });
        assert!(once.is_completed() && done.load(SeqCst) >= 1);
    }
}

fn kills_leave_a_once_done_once(method: StartMethod) {
    let one = || (Once::new(), AtomicU32::new(0), AtomicU32::new(0));
    let mut kills = 0;
    for _ in 0..4 {
        let works: Works = Shared::new((std::array::from_fn(|_| one()), AtomicBool::new(false))).unwrap();
        let mut all = Herd::new(HERD, |number| -> Process<()> { start(method, do_all, (number, &works)) });
        let killed = all.hunt_for(chaos::seconds() / 4, |_| (), |_| ());
        works.1.store(true, SeqCst);
        all.go_home();
        for (once, begun, done) in &works.0 {
            once.call_once(|| {
                done.fetch_add(1, SeqCst);
                begun.fetch_add(1, SeqCst);
            });
        }
        let sum = |which: fn(&(Once, AtomicU32, AtomicU32)) -> &AtomicU32| {
            works.0.iter().map(|work| which(work).load(SeqCst) as usize - 1).sum::<usize>()
        };
        let (begun_again, done_again) = (sum(|work| &work.1), sum(|work| &work.2));
        assert!(done_again <= begun_again && begun_again <= killed, "{begun_again} more than {killed} kills");
        kills += killed;
    }
    println!("{method:?}: {kills} killed");
    assert!(kills > 10);
}
