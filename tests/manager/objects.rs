//! The objects of these tests, and how a manager is started for them.
//!
//! Runs in: the test process, which starts managers, and managers, where the methods run.
#![expect(clippy::unused_self, reason = "what is tested is the call, not what it does with the object")]

use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::support::shared_counter::{Stage, reach, until};
use crate::support::{PATIENCE, eventually};
use process_task::{Manager, ManagerHandle, StartMethod, process_object, process_task};

pub(crate) fn manager(method: StartMethod) -> Manager {
    Manager::builder().name("objects").start_method(method).start().unwrap()
}

/// Waits until the manager has so many objects, and nothing is on its way.
#[track_caller]
pub(crate) fn until_objects(manager: &ManagerHandle, count: usize) {
    eventually("the objects that no proxy is left of are dropped", PATIENCE, || {
        let stats = manager.stats().unwrap();
        stats.objects().values().sum::<usize>() == count && stats.travelling() == 0
    });
}

/// Counts.
pub(crate) struct Counter {
    count: i64,
    met: AtomicU32,
}

#[process_object]
impl Counter {
    pub(crate) fn new(start: i64) -> Self {
        Self { count: start, met: AtomicU32::new(0) }
    }

    pub(crate) fn positive(start: i64) -> Result<Self, String> {
        if start > 0 { Ok(Self::new(start)) } else { Err(format!("{start} is not positive")) }
    }

    pub(crate) fn add(&mut self, more: i64) -> i64 {
        self.count += more;
        self.count
    }

    pub(crate) fn get(&self) -> i64 {
        self.count
    }

    /// Waits until so many calls are in this method. False: they do not come.
    pub(crate) fn meet(&self, calls: u32) -> bool {
        let end = Instant::now() + PATIENCE;
        self.met.fetch_add(1, SeqCst);
        while self.met.load(SeqCst) < calls && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.met.load(SeqCst) >= calls
    }

    pub(crate) fn checked_div(&self, by: i64) -> Result<i64, String> {
        self.count.checked_div(by).ok_or_else(|| "division by zero".to_owned())
    }

    pub(crate) fn length(&self, text: &str, numbers: &[u64]) -> usize {
        text.len() + numbers.len()
    }

    pub(crate) fn echo(&self, bytes: Vec<u8>) -> Vec<u8> {
        bytes
    }

    pub(crate) fn zeros(&self, count: usize) -> Vec<u8> {
        vec![0; count]
    }

    pub(crate) fn panic_shared(&self) {
        panic!("on purpose, shared")
    }

    pub(crate) fn panic_exclusive(&mut self) {
        self.count = -1;
        panic!("on purpose, exclusive")
    }

    pub(crate) fn pid(&self) -> u32 {
        std::process::id()
    }

    /// Comes to `stage`, and stays until `gate` have come there.
    pub(crate) fn stay(&self, stage: &Stage, gate: u32) -> u32 {
        reach(stage);
        until(stage, gate);
        gate
    }

    /// As `stay`, alone.
    pub(crate) fn stay_alone(&mut self, stage: &Stage, gate: u32) {
        reach(stage);
        until(stage, gate);
    }

    pub(crate) fn sleep(&self, time: Duration) {
        std::thread::sleep(time);
    }

    /// Asks a process of the manager's own, which asks the manager again.
    pub(crate) fn by_a_task(&self, counter: CounterProxy) -> i64 {
        read.spawn(counter).join().unwrap() + self.count
    }

    pub(crate) fn exit(&self) {
        std::process::exit(7)
    }
}

#[process_task]
fn read(counter: CounterProxy) -> i64 {
    counter.get().unwrap()
}

/// Tells a stage when it is dropped, and keeps proxies.
pub(crate) struct Keeper {
    dropped: Option<Stage>,
    counters: Vec<CounterProxy>,
    keepers: Vec<KeeperProxy>,
}

#[process_object]
impl Keeper {
    pub(crate) fn new(dropped: Option<Stage>) -> Self {
        Self { dropped, counters: Vec::new(), keepers: Vec::new() }
    }

    pub(crate) fn keep(&mut self, counter: CounterProxy) {
        self.counters.push(counter);
    }

    pub(crate) fn keep_keeper(&mut self, keeper: KeeperProxy) {
        self.keepers.push(keeper);
    }

    pub(crate) fn last(&self) -> Option<CounterProxy> {
        self.counters.last().cloned()
    }

    pub(crate) fn sum(&self) -> i64 {
        self.counters.iter().map(|counter| counter.get().unwrap()).sum()
    }

    pub(crate) fn make(&mut self, start: i64) -> CounterProxy {
        let manager = self.keepers[0].manager();
        CounterProxy::new(&manager, start).unwrap()
    }

    /// Calls this object through a proxy of its own.
    pub(crate) fn call_itself(&mut self) -> String {
        match self.keepers[0].forget() {
            Ok(()) => "it went through".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    pub(crate) fn forget(&mut self) {
        self.counters.clear();
    }

    pub(crate) fn forget_keepers(&mut self) {
        self.keepers.clear();
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(dropped) = &self.dropped {
            reach(dropped);
        }
    }
}

/// Notes calls in the order in which they run.
pub(crate) struct Journal(Vec<(u64, u64)>);

#[process_object]
impl Journal {
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn note(&mut self, writer: u64, number: u64) -> u64 {
        self.0.push((writer, number));
        number
    }

    pub(crate) fn note_after(&mut self, writer: u64, number: u64, time: Duration, _bytes: Vec<u8>) -> u64 {
        if !time.is_zero() {
            std::thread::sleep(time);
        }
        self.note(writer, number)
    }

    pub(crate) fn entries(&self) -> Vec<(u64, u64)> {
        self.0.clone()
    }
}
