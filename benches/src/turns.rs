//! Two sides that take turns and sleep in between: processes with our primitives, threads with those that threads have, and
//! Python's processes. The figures are for one turn of each side.
//!
//! Runs in: the parent, which asks; [`answer_all`] in another process or thread. Never: counts the start of the other side,
//! which has answered once when the time begins.
//!
//! Threads have no semaphore and no event in the standard library, nor in `parking_lot`: they are made of a mutex and a
//! condition variable there, as is usual.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};
use process_task::sync::{Condvar, Event, Mutex, Semaphore};
use process_task::{Process, Shared, process_task};

use crate::measure::{check, each};
use crate::python::Library;
use crate::race::{Measured, Race};
use crate::table::{Row, Unit};
use crate::{Outcome, python};

pub(crate) const ROWS: &[Row] = &[
    Row { name: "Semaphore, there and back", unit: Unit::Seconds, run: semaphores },
    Row { name: "Event, there and back", unit: Unit::Seconds, run: events },
    Row { name: "Condvar, there and back", unit: Unit::Seconds, run: condvars },
];

const COUNT: u32 = 2_000;
const ROUNDS: u32 = 9;
/// Our share of what threads need.
const AIM: f64 = 1.3;

/// Two sides, one of which asks.
trait Game: Sync {
    /// Gives a number to the other side, and waits for its answer.
    fn ask(&self, number: u64) -> u64;
    /// Waits for a number, and answers with the next.
    fn answer(&self);
}

/// Says something that is heard once.
trait Signal: Sync {
    fn give(&self);
    fn take(&self);
}

/// There, back, and the number.
type Signals<S> = (S, S, AtomicU64);

impl<S: Signal> Game for Signals<S> {
    fn ask(&self, number: u64) -> u64 {
        self.2.store(number, Ordering::Relaxed);
        self.0.give();
        self.1.take();
        self.2.load(Ordering::Relaxed)
    }

    fn answer(&self) {
        self.0.take();
        self.2.fetch_add(1, Ordering::Relaxed);
        self.1.give();
    }
}

impl Signal for Semaphore {
    fn give(&self) {
        self.add_permit().expect("there is no bound");
    }

    fn take(&self) {
        self.acquire().forget();
    }
}

impl Signal for Event {
    fn give(&self) {
        self.set();
    }

    fn take(&self) {
        self.wait();
        self.clear();
    }
}

/// What a thread makes of the standard library: a semaphore, or an event.
#[derive(Debug, Default)]
struct Std<const EVENT: bool> {
    count: std::sync::Mutex<u32>,
    changed: std::sync::Condvar,
}

impl<const EVENT: bool> Signal for Std<EVENT> {
    fn give(&self) {
        let mut count = self.count.lock().expect("no thread panics");
        if EVENT {
            *count = 1;
            self.changed.notify_all();
        } else {
            *count += 1;
            self.changed.notify_one();
        }
    }

    fn take(&self) {
        let count = self.count.lock().expect("no thread panics");
        *self.changed.wait_while(count, |count| *count == 0).expect("no thread panics") -= 1;
    }
}

/// The same of `parking_lot`.
#[derive(Debug, Default)]
struct ParkingLot<const EVENT: bool> {
    count: parking_lot::Mutex<u32>,
    changed: parking_lot::Condvar,
}

impl<const EVENT: bool> Signal for ParkingLot<EVENT> {
    fn give(&self) {
        let mut count = self.count.lock();
        if EVENT {
            *count = 1;
            self.changed.notify_all();
        } else {
            *count += 1;
            self.changed.notify_one();
        }
    }

    fn take(&self) {
        let mut count = self.count.lock();
        self.changed.wait_while(&mut count, |count| *count == 0);
        *count -= 1;
    }
}

/// One of the permits of a channel.
impl Signal for (Sender<()>, Receiver<()>) {
    fn give(&self) {
        self.0.send(()).expect("we have the other end");
    }

    fn take(&self) {
        self.1.recv().expect("we have the other end");
    }
}

/// A number, which is odd while it is with the side that answers.
impl Game for (Mutex<u64>, Condvar) {
    fn ask(&self, number: u64) -> u64 {
        let mut turn = self.0.lock().expect("no process dies");
        *turn = 2 * number + 1;
        self.1.notify_one();
        *self.1.wait_while(turn, |turn| *turn % 2 == 1).expect("no process dies") / 2
    }

    fn answer(&self) {
        let turn = self.0.lock().expect("no process dies");
        *self.1.wait_while(turn, |turn| *turn % 2 == 0).expect("no process dies") += 1;
        self.1.notify_one();
    }
}

impl Game for (std::sync::Mutex<u64>, std::sync::Condvar) {
    fn ask(&self, number: u64) -> u64 {
        let mut turn = self.0.lock().expect("no thread panics");
        *turn = 2 * number + 1;
        self.1.notify_one();
        *self.1.wait_while(turn, |turn| *turn % 2 == 1).expect("no thread panics") / 2
    }

    fn answer(&self) {
        let turn = self.0.lock().expect("no thread panics");
        *self.1.wait_while(turn, |turn| *turn % 2 == 0).expect("no thread panics") += 1;
        self.1.notify_one();
    }
}

impl Game for (parking_lot::Mutex<u64>, parking_lot::Condvar) {
    fn ask(&self, number: u64) -> u64 {
        let mut turn = self.0.lock();
        *turn = 2 * number + 1;
        self.1.notify_one();
        self.1.wait_while(&mut turn, |turn| *turn % 2 == 1);
        *turn / 2
    }

    fn answer(&self) {
        let mut turn = self.0.lock();
        self.1.wait_while(&mut turn, |turn| *turn % 2 == 0);
        *turn += 1;
        self.1.notify_one();
    }
}

/// How often the other side answers in a round: once before the time begins.
fn answer_all(game: &impl Game) {
    (0..=COUNT).for_each(|_| game.answer());
}

#[process_task]
fn answer_semaphores(game: Shared<Signals<Semaphore>>) {
    answer_all(&*game);
}

#[process_task]
fn answer_events(game: Shared<Signals<Event>>) {
    answer_all(&*game);
}

#[process_task]
fn answer_condvar(game: Shared<(Mutex<u64>, Condvar)>) {
    answer_all(&*game);
}

fn ask_all(game: &impl Game) -> Outcome<f64> {
    check(game.ask(0), 1)?;
    each(COUNT, || (0..u64::from(COUNT)).try_for_each(|number| check(game.ask(number), number + 1)))
}

/// With a process that answers.
fn to_process<G: Game>(game: &G, other: Process<()>) -> Outcome<f64> {
    let seconds = ask_all(game)?;
    other.join()?;
    Ok(seconds)
}

/// With a thread that answers.
fn to_thread(game: &impl Game) -> Outcome<f64> {
    thread::scope(|scope| {
        let other = scope.spawn(|| answer_all(game));
        let seconds = ask_all(game)?;
        other.join().map_err(|_| "the thread panicked")?;
        Ok(seconds)
    })
}

fn both<S>(make: impl Fn() -> S) -> Signals<S> {
    (make(), make(), AtomicU64::new(0))
}

fn semaphores() -> Outcome<Measured> {
    let ours = Shared::new(both(|| Semaphore::new(0)))?;
    let (std, parking_lot) = (both(Std::<false>::default), both(ParkingLot::<false>::default));
    let channels = both(|| bounded(1));
    Race::new(ROUNDS, || to_process(&*ours, answer_semaphores.spawn(ours.clone())))
        .against("threads, std Mutex + Condvar", || to_thread(&std))
        .aim(AIM)
        .against("threads, parking_lot Mutex + Condvar", || to_thread(&parking_lot))
        .aim(AIM)
        .against("threads, crossbeam channels", || to_thread(&channels))
        .beside(python::peer("Python multiprocessing.Semaphore", Library::Process, "semaphores")?)
        .run()
}

fn events() -> Outcome<Measured> {
    let ours = Shared::new(both(Event::new))?;
    let (std, parking_lot) = (both(Std::<true>::default), both(ParkingLot::<true>::default));
    Race::new(ROUNDS, || to_process(&*ours, answer_events.spawn(ours.clone())))
        .against("threads, std Mutex + Condvar", || to_thread(&std))
        .aim(AIM)
        .against("threads, parking_lot Mutex + Condvar", || to_thread(&parking_lot))
        .aim(AIM)
        .beside(python::peer("Python multiprocessing.Event", Library::Process, "events")?)
        .run()
}

fn condvars() -> Outcome<Measured> {
    let ours = Shared::new((Mutex::new(0), Condvar::new()))?;
    let std = (std::sync::Mutex::new(0), std::sync::Condvar::new());
    let parking_lot = (parking_lot::Mutex::new(0), parking_lot::Condvar::new());
    Race::new(ROUNDS, || to_process(&*ours, answer_condvar.spawn(ours.clone())))
        .against("threads, std Mutex + Condvar", || to_thread(&std))
        .aim(AIM)
        .against("threads, parking_lot Mutex + Condvar", || to_thread(&parking_lot))
        .aim(AIM)
        .beside(python::peer("Python multiprocessing.Condition", Library::Process, "conditions")?)
        .run()
}
