//! What a pool costs while nobody uses it.
//!
//! Runs in: the parent, which reads its own processor time and its descendants' from `/proc`. Never: uses any meanwhile.

use std::fs;
use std::path::Path;
use std::time::Duration;

use process_task::{Pool, process_task};

use crate::Outcome;
use crate::measure::{Comparison, Figure, check};
use crate::table::Row;

pub(crate) const ROWS: &[Row] =
    &[Row { name: "idle pool, busiest process in 2 s", yardstick: "the most it may use", aim: Some(1.0), run: idle }];

/// Seconds of processor time.
const ALLOWED: f64 = 0.002;

#[process_task]
fn negate(number: i32) -> i32 {
    -number
}

fn idle() -> Outcome<Comparison> {
    let pool = Pool::builder().workers(2).build()?;
    check(pool.map(negate, 0..100)? == (0..100).map(*negate).collect::<Vec<_>>(), true)?;
    let mut rounds = Vec::new();
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(300));
        let members = family()?;
        // This process, the fork server, and two workers; fewer means that we measure something else.
        check(members.len() >= 4, true)?;
        let (below, own) = members.split_at(members.len() - 1);
        let (below_before, own_before) = (all_used(below)?, all_used(own)?);
        std::thread::sleep(Duration::from_secs(2));
        // Our own first: what the looking costs is not the pool's.
        let (own_after, below_after) = (all_used(own)?, all_used(below)?);
        let before = below_before.into_iter().chain(own_before);
        let used = before.zip(below_after.into_iter().chain(own_after)).map(|(before, after)| after - before);
        rounds.push(used.fold(0.0, f64::max));
        check(family()? == members, true)?;
    }
    check(pool.call(negate, 5)?, -5)?;
    Ok(Comparison { ours: Figure::of(rounds), theirs: Figure { median: ALLOWED, low: ALLOWED, high: ALLOWED } })
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
