//! Which processes have a region of shared memory: by the number of its memfd, in the lists of mappings and descriptors.
//!
//! Runs in: the test process. Never: takes part in holding what it looks for.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::thread;
use std::time::{Duration, Instant};

use process_task::{Pool, PoolBuilder, Shareable, Shared, StartMethod};

use crate::support::{PATIENCE, eventually, processes};

/// Memory that was there when this was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Inode(u64);

/// The memory of `shared`.
pub(crate) fn inode<T: Shareable + ?Sized>(shared: &Shared<T>) -> Inode {
    let address = std::ptr::from_ref::<T>(shared).cast::<u8>() as usize;
    inode_at(address)
}

/// The memory that is mapped at this address.
pub(crate) fn inode_at(address: usize) -> Inode {
    let maps = fs::read_to_string("/proc/self/maps").expect("the list of mappings");
    let is_there = |line: &&str| {
        let range = line.split(' ').next().and_then(|range| range.split_once('-')).expect("a range");
        let [start, end] = [range.0, range.1].map(|text| usize::from_str_radix(text, 16).expect("an address"));
        // An empty slice may begin where the mapping ends.
        start < address && address <= end && line.contains("memfd:process-task-shared")
    };
    let line = maps.lines().find(is_there).expect("a mapping of shared memory");
    Inode(line.split_whitespace().nth(4).and_then(|number| number.parse().ok()).expect("the number of an inode"))
}

impl Inode {
    /// The processes that map it or have a descriptor of it: of this process, and all below it.
    pub(crate) fn holders(self) -> BTreeSet<u32> {
        let family = processes::descendants().into_keys().chain([std::process::id()]);
        family.filter(|pid| self.is_mapped_by(*pid) || self.is_open_in(*pid)).collect()
    }

    fn is_mapped_by(self, pid: u32) -> bool {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        let number = self.0.to_string();
        maps.lines().any(|line| line.contains("/memfd:") && line.split_whitespace().nth(4) == Some(&number))
    }

    fn is_open_in(self, pid: u32) -> bool {
        let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let is_it = |path: std::path::PathBuf| {
            let memory = fs::read_link(&path).is_ok_and(|target| target.to_string_lossy().starts_with("/memfd:"));
            memory && fs::metadata(path).is_ok_and(|file| file.ino() == self.0)
        };
        entries.map(|entry| entry.path()).any(is_it)
    }

    /// Waits until no process has it.
    #[track_caller]
    pub(crate) fn is_gone(self) {
        let end = Instant::now() + PATIENCE;
        while !self.holders().is_empty() {
            assert!(Instant::now() < end, "{:?} still have the memory: {}", self.holders(), processes::table());
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until this process alone has it.
    #[track_caller]
    pub(crate) fn is_ours_alone(self) {
        let ours = BTreeSet::from([std::process::id()]);
        eventually("no other process has the memory any more", PATIENCE, || self.holders() == ours);
    }
}

/// How many descriptors a process has.
pub(crate) fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

pub(crate) fn builder(method: StartMethod, workers: usize) -> PoolBuilder {
    Pool::builder().workers(workers).start_method(method)
}

pub(crate) fn pool(method: StartMethod, workers: usize) -> Pool {
    builder(method, workers).build().expect("a pool")
}

/// The processes that this one has started, but for the fork server and its spares.
pub(crate) fn workers() -> Vec<u32> {
    process_task::active_children().iter().map(process_task::ProcessInfo::pid).collect()
}

/// Sends a signal to a process that may have ended.
pub(crate) fn signal(pid: u32, signal: nix::sys::signal::Signal) {
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), signal);
}
