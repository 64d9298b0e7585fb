//! Calls of objects that live in a manager, against calls of a pool, and against Python's managers.
//!
//! Runs in: the parent; the clients of one row run in processes of their own.
//!
//! A call of a pool is the yardstick, since it is a round trip to another process by the same means.

use std::time::Instant;

use process_task::managed::Dict;
use process_task::sync::Barrier;
use process_task::{Manager, Pool, Shared, process_object, process_task};

use crate::measure::{check, each, isolated};
use crate::python::Library;
use crate::race::{Measured, Race};
use crate::table::{Row, Unit};
use crate::{Outcome, WORKERS, idle, python};

pub(crate) const ROWS: &[Row] = &[
    Row { name: "manager: call, one after the other", unit: Unit::Seconds, run: hot },
    Row { name: "manager: call, 2 ms apart", unit: Unit::Seconds, run: apart },
    Row { name: "manager: call, four clients at once", unit: Unit::Seconds, run: four_clients },
    Row { name: "manager: call, among 1,000,000 objects", unit: Unit::Seconds, run: among_many },
    Row { name: "manager: Dict insert", unit: Unit::Seconds, run: insert },
    Row { name: "manager: Dict extend by 1,000, per entry", unit: Unit::Seconds, run: extend },
    Row { name: "manager: start and shutdown", unit: Unit::Seconds, run: start },
    Row { name: "manager: idle, busiest process in 2 s", unit: Unit::Seconds, run: idle },
];

/// Calls of a round.
const COUNT: u32 = 3_000;

/// A sum, in a manager.
#[derive(Debug, Default)]
struct Counter {
    sum: u64,
}

#[process_object]
impl Counter {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn add(&mut self, number: u64) -> u64 {
        self.sum += number;
        self.sum
    }

    pub(crate) fn sum(&self) -> u64 {
        self.sum
    }
}

#[process_task]
fn step(number: u64) -> u64 {
    number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1)
}

/// A client: makes so many calls once all have come.
#[process_task]
fn add_often(counter: CounterProxy, count: u32, start: Shared<Barrier>) -> Result<(), String> {
    counter.sum().map_err(|error| error.to_string())?;
    start.wait().map_err(|error| error.to_string())?;
    (0..count).try_for_each(|_| counter.add(1).map(drop)).map_err(|error| error.to_string())
}

/// A counter, and the pool that is the yardstick.
#[derive(Debug)]
struct Sides {
    counter: CounterProxy,
    pool: Pool,
    _manager: Manager,
}

impl Sides {
    /// With one call made of each.
    fn new() -> Outcome<Self> {
        let manager = Manager::start()?;
        let (counter, pool) = (CounterProxy::new(&manager)?, Pool::builder().workers(WORKERS).build()?);
        let sides = Self { counter, pool, _manager: manager };
        sides.proxy_call(0)?;
        sides.pool_call(0)?;
        Ok(sides)
    }

    fn proxy_call(&self, number: u32) -> Outcome<()> {
        let sum = self.counter.add(u64::from(number))?;
        check(sum >= u64::from(number), true)
    }

    fn pool_call(&self, number: u32) -> Outcome<()> {
        check(self.pool.call(step, u64::from(number))?, step(u64::from(number)))
    }
}

fn hot() -> Outcome<Measured> {
    let sides = Sides::new()?;
    Race::new(15, || each(COUNT, || (0..COUNT).try_for_each(|number| sides.proxy_call(number))))
        .against("process-task Pool::call", || {
            each(COUNT, || (0..COUNT).try_for_each(|number| sides.pool_call(number)))
        })
        .aim(1.5)
        .beside(python::peer("Python Manager", Library::Process, "manager_call")?)
        .run()
}

fn apart() -> Outcome<Measured> {
    let sides = Sides::new()?;
    Race::new(15, || isolated(40, |number| sides.proxy_call(number)))
        .against("process-task Pool::call", || isolated(40, |number| sides.pool_call(number)))
        .aim(1.5)
        .beside(python::peer("Python Manager", Library::Process, "manager_call_apart")?)
        .run()
}

fn four_clients() -> Outcome<Measured> {
    let manager = Manager::start()?;
    let counter = CounterProxy::new(&manager)?;
    let by_clients = |clients: u32| {
        let before = counter.sum()?;
        let start = Shared::new(Barrier::new(clients as usize + 1))?;
        let make = |_| add_often.spawn(counter.clone(), COUNT, start.clone());
        let handles: Vec<_> = (0..clients).map(make).collect();
        start.wait()?;
        let begin = Instant::now();
        for handle in handles {
            handle.join()??;
        }
        let taken = begin.elapsed().as_secs_f64();
        check(counter.sum()? - before, u64::from(clients * COUNT))?;
        Ok(taken / f64::from(clients * COUNT))
    };
    Race::new(9, || by_clients(4)).against("one client", || by_clients(1)).aim(1.0).run()
}

fn among_many() -> Outcome<Measured> {
    const OBJECTS: usize = 1_000_000;
    let (manager, empty) = (Manager::start()?, Manager::start()?);
    let objects = (0..OBJECTS).map(|_| CounterProxy::new(&manager)).collect::<process_task::Result<Vec<_>>>()?;
    let (one, alone) = (CounterProxy::new(&manager)?, CounterProxy::new(&empty)?);
    let mut place = 0;
    let mut next = || {
        place = (place + 611_953) % OBJECTS;
        &objects[place]
    };
    let call = |counter: &CounterProxy| check(counter.add(1)? > 0, true);
    let measured = Race::new(9, || each(COUNT, || (0..COUNT).try_for_each(|_| call(&one))))
        .against("a manager of one object", || each(COUNT, || (0..COUNT).try_for_each(|_| call(&alone))))
        .aim(1.1)
        // What it costs that neither its proxy nor the object is in a cache.
        .against("each time another object", || each(COUNT, || (0..COUNT).try_for_each(|_| call(next()))))
        .run();
    // Dropping a million proxies one by one is not what is measured.
    manager.kill()?;
    measured
}

fn insert() -> Outcome<Measured> {
    let manager = Manager::start()?;
    let dict: Dict<u64, u64> = Dict::new(&manager)?;
    Race::new(15, || {
        dict.clear()?;
        let insert = |number: u32| check(dict.insert(&u64::from(number), u64::from(number))?, None);
        each(COUNT, || (0..COUNT).try_for_each(insert))
    })
    .beside(python::peer("Python Manager().dict()", Library::Process, "manager_insert")?)
    .aim(0.02)
    .run()
}

fn extend() -> Outcome<Measured> {
    const ENTRIES: u64 = 1_000;
    let manager = Manager::start()?;
    let dict: Dict<u64, u64> = Dict::new(&manager)?;
    Race::new(15, || {
        dict.clear()?;
        each(1_000, || Ok(dict.extend((0..ENTRIES).map(|number| (number, number)))?))
    })
    .beside(python::peer("Python Manager().dict().update", Library::Process, "manager_update")?)
    .aim(0.02)
    .run()
}

fn start() -> Outcome<Measured> {
    Race::new(15, || {
        each(5, || {
            for _ in 0..5 {
                Manager::start()?.shutdown()?;
            }
            Ok(())
        })
    })
    .beside(python::peer("Python Manager", Library::Process, "manager_start")?)
    .aim(0.1)
    .run()
}

fn idle() -> Outcome<Measured> {
    let manager = Manager::start()?;
    let counter = CounterProxy::new(&manager)?;
    for number in 0..100 {
        check(counter.add(1)?, number + 1)?;
    }
    // This process, the fork server, and the manager.
    let measured = idle::measure(3)?;
    check(counter.sum()?, 100)?;
    Ok(measured)
}
