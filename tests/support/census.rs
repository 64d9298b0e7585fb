//! What this process holds: family, descriptors, threads, shared mappings, signals. A test must leave it as it was.
//!
//! Runs in: the test process. Never: changes anything that it counts.
//!
//! Threads of the test harness are not counted; each names itself with [`register_this_thread`] before anything else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::processes;

/// The name of the threads that watch over tests.
pub(crate) const WATCHDOG: &str = "watchdog";

static HARNESS: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// How much of everything there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Census {
    /// Processes below this one by name; spares have the fork server's.
    pub(crate) processes: BTreeMap<String, usize>,
    /// Open descriptors by what they lead to, numbers left out.
    pub(crate) descriptors: BTreeMap<String, usize>,
    /// Threads by name, without the harness's.
    pub(crate) threads: BTreeMap<String, usize>,
    /// Distinct memfds that are mapped.
    pub(crate) memfds: usize,
    /// Entries of `/dev/shm`.
    pub(crate) shm: BTreeSet<String>,
    /// Blocked (by this thread), ignored and caught signals.
    pub(crate) signals: Vec<String>,
}

/// What there is now, once two looks in a row agree.
pub(crate) fn census() -> Census {
    let end = Instant::now() + Duration::from_secs(10);
    let mut last = look();
    loop {
        thread::sleep(Duration::from_millis(5));
        let now = look();
        if now == last || Instant::now() > end {
            return now;
        }
        last = now;
    }
}

/// How many pidfds this process has: one for each child that it knows of, and one for the fork server.
pub(crate) fn pidfds() -> usize {
    let links = listed("/proc/self/fd").into_iter().filter_map(|fd| fs::read_link(format!("/proc/self/fd/{fd}")).ok());
    links.filter(|target| target.to_string_lossy().contains("[pidfd]")).count()
}

/// Waits until there is what there was `before`; panics with the difference if that does not happen.
///
/// Fewer threads are fine: one of the harness's may not have named itself yet when it was counted.
pub(crate) fn clean(before: &Census) {
    let end = Instant::now() + Duration::from_secs(15);
    loop {
        let now = look();
        let no_new_thread = now.threads.iter().all(|(name, count)| before.threads.get(name) >= Some(count));
        let all_else = Census { threads: before.threads.clone(), ..now.clone() };
        if no_new_thread && all_else == *before {
            return;
        }
        let family = processes::table();
        assert!(Instant::now() < end, "left behind; before: {before:#?}\nnow: {now:#?}\nprocesses: {family}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Says that this thread is the harness's own.
pub(crate) fn register_this_thread() {
    let tid = nix::unistd::gettid().as_raw().unsigned_abs();
    HARNESS.lock().unwrap_or_else(PoisonError::into_inner).insert(tid);
}

fn look() -> Census {
    Census {
        processes: count(processes::descendants().into_values().map(|entry| {
            let ended = if entry.state == 'Z' { " (ended)" } else { "" };
            format!("{}{ended}", entry.name)
        })),
        descriptors: count(listed("/proc/self/fd").into_iter().filter_map(|fd| {
            let target = fs::read_link(format!("/proc/self/fd/{fd}")).ok()?;
            let target = target.to_string_lossy().into_owned();
            // The directory that is being listed is open only now.
            (!target.ends_with("/fd")).then(|| target.replace(|c: char| c.is_ascii_digit(), ""))
        })),
        threads: count(threads()),
        memfds: mapped_memfds(),
        shm: listed("/dev/shm").into_iter().collect(),
        signals: signals(),
    }
}

fn threads() -> impl Iterator<Item = String> {
    let harness = HARNESS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let main = std::process::id();
    let not_harness = move |tid: &String| tid.parse().is_ok_and(|tid: u32| tid != main && !harness.contains(&tid));
    let name = |tid: String| Some(fs::read_to_string(format!("/proc/self/task/{tid}/comm")).ok()?.trim().to_owned());
    listed("/proc/self/task").into_iter().filter(not_harness).filter_map(name).filter(|name| name != WATCHDOG)
}

fn mapped_memfds() -> usize {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let inode = |line: &str| line.contains("memfd:").then(|| line.split_whitespace().nth(4).map(str::to_owned));
    maps.lines().filter_map(inode).collect::<BTreeSet<_>>().len()
}

fn signals() -> Vec<String> {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let wanted = |line: &&str| ["SigBlk", "SigIgn", "SigCgt"].iter().any(|field| line.starts_with(field));
    status.lines().filter(wanted).map(str::to_owned).collect()
}

fn listed(directory: &str) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned())).collect()
}

fn count(names: impl Iterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counted = BTreeMap::new();
    names.for_each(|name| *counted.entry(name).or_default() += 1);
    counted
}
