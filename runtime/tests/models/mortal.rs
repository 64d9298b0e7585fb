//! Processes that die at any step, for the model checker: what `sync` is compiled with there.
//!
//! The protocols of `sync` are compiled a second time, on top of these: atomics, each use of which is a step after which the process may be
//! gone; members; and sleeping on a word, as the kernel has it. A process is a thread of the model, and its death unwinds
//! it, without a word to any other. Afterwards its end becomes known, and each sleeper looks again, as in the real world
//! all do from time to time. As long as none has died, none wakes up for no reason: a wake-up that is lost
//! then is a deadlock, which the checker reports. Runs in: one process, inside the model checker.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::Command;
use std::sync::OnceLock;

use loom::sync::Arc;
use loom::thread;

/// More steps than anything here takes.
pub(crate) const FOR_EVER: u32 = u32::MAX;

/// Of one that is dead, while its guards are dropped: nothing that they do is done.
const GONE: u32 = u32::MAX - 1;

loom::thread_local! {
    /// Which member this thread is.
    static OWN: Cell<u32> = Cell::new(1);
    /// How many steps it still has.
    static STEPS: Cell<u32> = Cell::new(FOR_EVER);
    /// How often time had passed when this thread last fell asleep.
    static SEEN: Cell<u32> = Cell::new(0);
}

/// The variable that has a test run without one of the rules, which ends its process when the checker finds out.
const FAULT: &str = "PROCESS_TASK_FAULT";

/// A rule that is left out, to see that the checker finds out: a model that cannot fail shows nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A sleeper has not left a note before.
    WaitersSetNoFlag,
    /// The one that looks for a note, and the one that leaves it, may see what was there before the other one wrote.
    FencesAreLeftOut,
    /// No wake-up arrives.
    WakesAreLost,
    /// No process asks, or hears, that another has died.
    NoDeathIsKnown,
    /// What was written before a lock is given back may be seen later.
    ReleaseIsRelaxed,
    /// A waiter leaves the line before it has the mutex again.
    LeavesTooEarly,
    /// A waker hears of one sleeper less than it woke.
    WakersMiscount,
    /// A thread that is about to sleep does not look again once it has the lock.
    LooksTooEarly,
    /// No process looks for what the dead had.
    NothingIsSought,
    /// One that gives something back tells no other.
    GivesBackInSilence,
    /// What the dead left behind in memory stays there.
    NothingIsSwept,
    /// Memory that is given back is there still.
    MemoryIsKept,
    /// Memory is used before there is any.
    NothingIsReserved,
}

impl Fault {
    /// Whether this process does without that rule.
    pub(crate) fn is_made(self) -> bool {
        static MADE: OnceLock<Option<String>> = OnceLock::new();
        let made = MADE.get_or_init(|| std::env::var(FAULT).ok());
        made.as_ref().is_some_and(|made| *made == format!("{self:?}"))
    }

    /// Has another process run a test without this rule, and looks at what the checker says of it there.
    pub(crate) fn is_found_by(self, test: &str, says: &str) {
        let program = std::env::current_exe().expect("this program");
        let mut checker = Command::new(program);
        // The harness leaves the program's own name out.
        let test = test.split_once("::").map_or(test, |(_, test)| test);
        checker.args(["--exact", test, "--nocapture"]).env(FAULT, format!("{self:?}"));
        let output = checker.output().expect("another process");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(says), "{self:?} was not found: {said}");
    }
}

/// Tests that a rule that is left out is found: one for each.
macro_rules! the_checker_finds {
    ($($name:ident: $fault:ident, $test:ident, $says:literal;)+) => { $(
        #[test]
        fn $name() {
            let _: fn() = $test;
            $crate::mortal::Fault::$fault.is_found_by(concat!(module_path!(), "::", stringify!($test)), $says);
        }
    )+ };
}
pub(crate) use the_checker_finds;

/// What unwinds a process that is killed.
struct Killed;

/// One step. The last one does not happen, nor any after it: then this is false.
pub(crate) fn step() -> bool {
    match STEPS.with(Cell::get) {
        0 => die(),
        GONE => return false,
        FOR_EVER => {}
        left => STEPS.with(|steps| steps.set(left - 1)),
    }
    true
}

/// Dies, now.
pub(crate) fn die() -> ! {
    STEPS.with(|steps| steps.set(GONE));
    resume_unwind(Box::new(Killed));
}

/// Does something as that member, in this thread.
pub(crate) fn act_as<R>(number: u32, act: impl FnOnce() -> R) -> R {
    let own = OWN.with(|own| own.replace(number));
    let result = act();
    OWN.with(|of| of.set(own));
    result
}

/// A process.
pub(crate) struct Process<R>(thread::JoinHandle<Option<R>>);

impl<R: 'static> Process<R> {
    /// Runs `life` as this member, which is killed after so many steps.
    pub(crate) fn start<T: 'static>(number: u32, steps: u32, with: &Arc<T>, life: impl Fn(&T) -> R + 'static) -> Self {
        let with = Arc::clone(with);
        Self(thread::spawn(move || {
            OWN.with(|own| own.set(number));
            STEPS.with(|left| left.set(steps));
            let lived = catch_unwind(AssertUnwindSafe(|| life(&with)));
            STEPS.with(|left| left.set(FOR_EVER));
            match lived {
                Ok(result) => Some(result),
                Err(killed) if killed.is::<Killed>() => {
                    proc_table::report_exit(number);
                    futex_wait::look_again();
                    None
                }
                Err(panic) => resume_unwind(panic),
            }
        }))
    }

    /// What came of it. None: it was killed, which all know by now.
    pub(crate) fn join(self) -> Option<R> {
        self.0.join().unwrap()
    }
}

/// Atomics whose every use is a step.
pub(crate) mod atomic {
    use std::sync::OnceLock;

    pub(crate) use loom::sync::atomic::Ordering;

    use super::{Fault, step};

    /// What an order is without its promise that what was written before is seen by the reader of this.
    fn weaken(order: Ordering) -> Ordering {
        let promises = matches!(order, Ordering::Release | Ordering::AcqRel);
        if promises && Fault::ReleaseIsRelaxed.is_made() { Ordering::Relaxed } else { order }
    }

    macro_rules! mortal {
        ($($name:ident: $number:ty),+) => { $(
            /// Made at its first use, so that a constant function can promise it. That use must come before other threads.
            #[derive(Debug)]
            pub(crate) struct $name {
                first: $number,
                word: OnceLock<loom::sync::atomic::$name>,
            }

            impl $name {
                pub(crate) const fn new(first: $number) -> Self {
                    Self { first, word: OnceLock::new() }
                }

                /// A look that is no step of any thread.
                pub(super) fn peek(&self) -> $number {
                    self.word().load(Ordering::Relaxed)
                }

                fn word(&self) -> &loom::sync::atomic::$name {
                    self.word.get_or_init(|| loom::sync::atomic::$name::new(self.first))
                }

                pub(crate) fn load(&self, order: Ordering) -> $number {
                    if step() { self.word().load(order) } else { self.first }
                }

                pub(crate) fn store(&self, value: $number, order: Ordering) {
                    let is_note = value == 1 << (<$number>::BITS - 1);
                    if step() && !(is_note && Fault::WaitersSetNoFlag.is_made()) {
                        self.word().store(value, weaken(order));
                    }
                }

                pub(crate) fn compare_exchange(
                    &self,
                    current: $number,
                    new: $number,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$number, $number> {
                    if !step() {
                        return Ok(current);
                    }
                    let result = self.word().compare_exchange(current, new, weaken(success), failure);
                    if success == Ordering::SeqCst {
                        // The checker takes it for less than it is.
                        loom::sync::atomic::fence(Ordering::SeqCst);
                    }
                    result
                }

                pub(crate) fn fetch_or(&self, value: $number, order: Ordering) -> $number {
                    if step() { self.word().fetch_or(value, order) } else { self.first }
                }

                pub(crate) fn fetch_and(&self, value: $number, order: Ordering) -> $number {
                    if step() { self.word().fetch_and(value, order) } else { self.first }
                }

                pub(crate) fn fetch_add(&self, value: $number, order: Ordering) -> $number {
                    if step() { self.word().fetch_add(value, order) } else { self.first }
                }

                pub(crate) fn fetch_update(
                    &self,
                    success: Ordering,
                    failure: Ordering,
                    change: impl FnMut($number) -> Option<$number>,
                ) -> Result<$number, $number> {
                    if step() { self.word().fetch_update(success, failure, change) } else { Ok(self.first) }
                }
            }
        )+ };
    }
    mortal!(AtomicU32: u32, AtomicU64: u64);

    /// What no model needs, some other one does.
    const _: fn() = || {
        let _ = (AtomicU32::fetch_or, AtomicU32::fetch_and, AtomicU64::fetch_or, AtomicU64::fetch_and);
        let _ = (AtomicU64::peek, AtomicU64::compare_exchange, AtomicU32::fetch_add, AtomicU64::fetch_add);
        let _ = AtomicU32::new(0).fetch_update(Ordering::Relaxed, Ordering::Relaxed, Some);
        let _ = AtomicU64::new(0).fetch_update(Ordering::Relaxed, Ordering::Relaxed, Some);
    };
}

/// Which members live: a bit for each member that does not, or is about to be killed.
pub(crate) mod proc_table {
    use loom::sync::atomic::AtomicU32;
    use loom::sync::atomic::Ordering::{Acquire, Release};

    use super::{Fault, OWN};

    loom::lazy_static! {
        static ref DEAD: AtomicU32 = AtomicU32::new(0);
        static ref DOOMED: AtomicU32 = AtomicU32::new(0);
    }

    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub(crate) struct ProcId(u32);

    impl ProcId {
        pub(crate) fn bits(self) -> u32 {
            self.0
        }

        pub(crate) fn from_bits(bits: u32) -> Option<Self> {
            (bits != 0).then_some(Self(bits))
        }
    }

    pub(crate) fn current() -> ProcId {
        ProcId(OWN.with(std::cell::Cell::get))
    }

    pub(crate) fn is_current(member: ProcId) -> bool {
        member == current()
    }

    pub(crate) fn is_alive(member: ProcId) -> bool {
        Fault::NoDeathIsKnown.is_made() || DEAD.load(Acquire) & 1 << member.0 == 0
    }

    pub(crate) fn was_killed(member: ProcId) -> bool {
        !is_alive(member)
    }

    pub(super) fn report_exit(number: u32) {
        DEAD.fetch_or(1 << number, Release);
    }

    /// How many have ended.
    pub(crate) fn deaths() -> u32 {
        DEAD.load(Acquire).count_ones()
    }

    /// Kills that member when it next sleeps, or now if it does.
    pub(crate) fn kill(number: u32) {
        DOOMED.fetch_or(1 << number, Release);
        super::futex_wait::look_again();
    }

    pub(super) fn is_doomed() -> bool {
        DOOMED.load(Acquire) & 1 << current().0 != 0
    }
}

/// Sleeping on a word, as the kernel has it: a look at the word and the falling asleep are one step.
pub(crate) mod futex_wait {
    use std::time::{Duration, Instant};

    use loom::sync::{Mutex, MutexGuard};
    use loom::thread::{self, Thread};

    use super::atomic::AtomicU32;
    use super::{Fault, SEEN, die, proc_table, step};

    loom::lazy_static! {
        static ref BEDS: Mutex<Beds> = Mutex::new(Beds::default());
    }

    #[derive(Default)]
    struct Beds {
        /// Which threads sleep on which word, in the order in which they fell asleep.
        asleep: Vec<(usize, Thread)>,
        /// How often time has passed.
        time: u32,
    }

    impl Beds {
        fn lock() -> MutexGuard<'static, Self> {
            BEDS.lock().unwrap()
        }

        fn wake(&mut self, mut which: impl FnMut(usize) -> bool) {
            self.asleep.retain(|(on, sleeper)| {
                let is_woken = which(*on);
                if is_woken {
                    sleeper.unpark();
                }
                !is_woken
            });
        }
    }

    fn key(word: &AtomicU32) -> usize {
        std::ptr::from_ref(word).addr()
    }

    /// A thread that has a deadline finds it over when it would sleep, which is as late or early as the checker likes.
    pub(crate) fn sleep(word: &AtomicU32, expected: u32, deadline: Option<Instant>) -> bool {
        if deadline.is_some() {
            return false;
        }
        if !step() {
            return true;
        }
        let me = thread::current();
        {
            let mut beds = Beds::lock();
            // What it saw before time passed is to be looked at again.
            if word.peek() != expected || SEEN.with(|seen| seen.replace(beds.time)) != beds.time {
                return true;
            }
            if !proc_table::is_doomed() {
                beds.asleep.push((key(word), me.clone()));
            }
        }
        while Beds::lock().asleep.iter().any(|(_, sleeper)| sleeper.id() == me.id()) {
            thread::park();
        }
        if proc_table::is_doomed() {
            die();
        }
        true
    }

    /// As the real one, but that both halves of the fence are whole ones here.
    pub(crate) fn sleep_contended(
        note: &AtomicU32,
        (expected, deadline): (u32, Option<Instant>),
        must_wait: impl FnOnce() -> bool,
    ) -> bool {
        light_fence();
        !must_wait() || sleep(note, expected, deadline)
    }

    pub(crate) fn light_fence() {
        if !Fault::FencesAreLeftOut.is_made() {
            loom::sync::atomic::fence(loom::sync::atomic::Ordering::SeqCst);
        }
    }

    pub(crate) fn wake(word: &AtomicU32, count: u32) -> u32 {
        if !step() || Fault::WakesAreLost.is_made() {
            return 0;
        }
        let mut beds = Beds::lock();
        let mut woken = 0;
        beds.wake(|on| {
            on == key(word) && woken < count && {
                woken += 1;
                true
            }
        });
        if Fault::WakersMiscount.is_made() { woken.min(count - 1) } else { woken }
    }

    pub(crate) fn wake_one(word: &AtomicU32) {
        wake(word, 1);
    }

    pub(crate) fn wake_all(word: &AtomicU32) {
        wake(word, u32::MAX);
    }

    #[expect(clippy::unnecessary_wraps, reason = "as the real one")]
    pub(crate) fn deadline_after(_: Duration) -> Option<Instant> {
        Some(Instant::now())
    }

    /// Later than any live process keeps a lock.
    pub(crate) fn short_deadline() -> Option<Instant> {
        None
    }

    /// How many sleep.
    pub(crate) fn asleep() -> usize {
        Beds::lock().asleep.len()
    }

    /// Time passes: every sleeper looks again, and so does every thread that is about to sleep.
    pub(crate) fn look_again() {
        let mut beds = Beds::lock();
        beds.time += 1;
        beds.wake(|_| true);
    }

    /// One look, as a model has no use for several.
    pub(crate) fn spin_until(mut found: impl FnMut() -> bool) -> bool {
        found()
    }
}

/// What one model does not need, another one does.
const _: fn() = || {
    act_as(0, || proc_table::kill(0));
    let _: fn() -> ! = die;
    let word = atomic::AtomicU32::new(0);
    futex_wait::wake_one(&word);
    futex_wait::wake_all(&word);
    let _ = (
        proc_table::current(),
        proc_table::is_current(proc_table::current()),
        proc_table::was_killed(proc_table::current()),
    );
    let _ = (futex_wait::asleep(), futex_wait::short_deadline());
    let _ = futex_wait::deadline_after(std::time::Duration::ZERO);
    Fault::WakersMiscount.is_found_by("", "");
    let _ = (Fault::WaitersSetNoFlag, Fault::FencesAreLeftOut, Fault::WakesAreLost, Fault::NoDeathIsKnown);
    let _ = (Fault::ReleaseIsRelaxed, Fault::LeavesTooEarly, futex_wait::spin_until(|| true));
    let _ = (Fault::LooksTooEarly, Fault::NothingIsSought, Fault::GivesBackInSilence, Fault::NothingIsSwept);
    let _ = (Fault::MemoryIsKept, Fault::NothingIsReserved, proc_table::deaths());
};
