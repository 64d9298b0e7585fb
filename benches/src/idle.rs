//! What a pool, or a manager, costs while nothing uses it: processor time, and memory.
//!
//! Runs in: the parent, which reads both from `/proc`. Never: uses processor time meanwhile.

use std::fs;
use std::path::Path;
use std::time::Duration;

use process_task::{Pool, active_children, process_task};

use crate::measure::{Figure, check};
use crate::python::Library;
use crate::race::{Measured, Peer, Race};
use crate::table::{Row, Unit};
use crate::{Outcome, WORKERS, python};

pub(crate) const ROWS: &[Row] = &[
    Row { name: "idle pool, busiest process in 2 s", unit: Unit::Seconds, run: idle },
    Row { name: "idle worker, private memory", unit: Unit::Bytes, run: memory },
];

/// Seconds of processor time.
const ALLOWED: f64 = 0.002;

/// Bytes.
const ALLOWED_MEMORY: f64 = 262_144.0;

#[process_task]
fn negate(number: i32) -> i32 {
    -number
}

fn idle() -> Outcome<Measured> {
    let pool = Pool::builder().workers(WORKERS).build()?;
    check(pool.map(negate, 0..100)? == (0..100).map(*negate).collect::<Vec<_>>(), true)?;
    // This process, the fork server, and two workers.
    let measured = measure(4)?;
    check(pool.call(negate, 5)?, -5)?;
    Ok(measured)
}

/// Seconds of processor time in 2 s of the busiest process of this family. Fails if it has fewer than `processes`.
pub(crate) fn measure(processes: usize) -> Outcome<Measured> {
    let mut rounds = Vec::new();
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(300));
        let members = family()?;
        // Fewer means that something else is measured.
        check(members.len() >= processes, true)?;
        let (below, own) = members.split_at(members.len() - 1);
        let (below_before, own_before) = (all_used(below)?, all_used(own)?);
        std::thread::sleep(Duration::from_secs(2));
        // Our own first: what the looking costs is not its own.
        let (own_after, below_after) = (all_used(own)?, all_used(below)?);
        let before = below_before.into_iter().chain(own_before);
        let used = before.zip(below_after.into_iter().chain(own_after)).map(|(before, after)| after - before);
        rounds.push(used.fold(0.0, f64::max));
        check(family()? == members, true)?;
    }
    Ok(Measured { ours: Figure::of(&rounds), peers: vec![Peer::bound("bound: 2 ms", ALLOWED)] })
}

/// Of a worker that has answered calls; of two, the one that has more.
fn memory() -> Outcome<Measured> {
    Race::new(5, || {
        let pool = Pool::builder().workers(WORKERS).build()?;
        check(pool.map(negate, 0..100)? == (0..100).map(*negate).collect::<Vec<_>>(), true)?;
        // What a worker does after its last call is done by then.
        std::thread::sleep(Duration::from_millis(50));
        let workers = active_children();
        check(workers.len(), WORKERS)?;
        most(workers.iter().map(|worker| private_bytes(worker.pid())))
    })
    .beside(Peer::bound("bound: 256 KiB", ALLOWED_MEMORY))
    .against("procspawn", || {
        let pool = procspawn::Pool::new(1)?;
        let worker = pool.spawn((), |()| std::process::id()).join()?;
        std::thread::sleep(Duration::from_millis(50));
        private_bytes(worker)
    })
    .beside(python::peer("Python Pool", Library::Pool, "memory")?)
    .beside(python::peer("Python ProcessPoolExecutor", Library::Executor, "memory")?)
    .run()
}

fn most(values: impl Iterator<Item = Outcome<f64>>) -> Outcome<f64> {
    values.into_iter().try_fold(0.0, |most: f64, value| Ok(most.max(value?)))
}

/// Bytes of a process that it shares with no other one.
fn private_bytes(pid: u32) -> Outcome<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let kibibytes = text.lines().filter(|line| line.starts_with("Private_")).map(|line| {
        let value = line.split_whitespace().nth(1).ok_or("a line of smaps_rollup has no value")?;
        Ok(f64::from(value.parse::<u32>()?))
    });
    let kibibytes: Vec<f64> = kibibytes.collect::<Outcome<_>>()?;
    check(kibibytes.is_empty(), false)?;
    Ok(1024.0 * kibibytes.iter().sum::<f64>())
}

/// The process ids of everything below this process, and last its own.
fn family() -> Outcome<Vec<u32>> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")?.flatten().filter_map(|entry| parent(&entry.path())).collect();
    let mut members = vec![std::process::id()];
    // Children stand behind their parents in `members`, so one pass over the growing list finds all.
    let mut next = 0;
    while let Some(member) = members.get(next).copied() {
        members.extend(parents.iter().filter(|(_, parent)| *parent == member).map(|(pid, _)| *pid));
        next += 1;
    }
    members.reverse();
    Ok(members)
}

fn all_used(pids: &[u32]) -> Outcome<Vec<f64>> {
    pids.iter().map(|pid| used(*pid)).collect()
}

/// The process that a directory of `/proc` stands for, and its parent.
fn parent(process: &Path) -> Option<(u32, u32)> {
    let pid = process.file_name()?.to_str()?.parse().ok()?;
    let stat = fs::read_to_string(process.join("stat")).ok()?;
    // The name may hold anything, but nothing behind it holds a parenthesis.
    let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
    Some((pid, parent))
}

/// Seconds that the threads of a process have run, in user mode and in the kernel.
fn used(pid: u32) -> Outcome<f64> {
    let mut seconds = 0.0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = fs::read_to_string(thread?.path().join("schedstat"))?;
        let nanoseconds: u64 = text.split_whitespace().next().ok_or("schedstat is empty")?.parse()?;
        seconds += Duration::from_nanos(nanoseconds).as_secs_f64();
    }
    Ok(seconds)
}
