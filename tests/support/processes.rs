//! Which processes there are, as `/proc` tells it.
//!
//! Runs in: the test process. Never: signals anything.

use std::collections::BTreeMap;
use std::fs;

/// One line of `/proc/<pid>/stat`.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// `R`, `S`, `Z` and so on, as `ps` prints it.
    pub(crate) state: char,
    pub(crate) parent: u32,
}

/// Whether `pid` is a process that has not ended; a zombie has.
pub(crate) fn alive(pid: u32) -> bool {
    entry(pid).is_some_and(|entry| !matches!(entry.state, 'Z' | 'X'))
}

/// The state of `pid`, as in [`Entry`].
pub(crate) fn state_of(pid: u32) -> Option<char> {
    entry(pid).map(|entry| entry.state)
}

/// The process that will reap `pid`.
pub(crate) fn parent_of(pid: u32) -> Option<u32> {
    entry(pid).map(|entry| entry.parent)
}

/// Every process below this one, zombies among them: fork server, spares, children, and theirs.
pub(crate) fn descendants() -> BTreeMap<u32, Entry> {
    let all: BTreeMap<u32, Entry> = pids().filter_map(|pid| Some((pid, entry(pid)?))).collect();
    let own = std::process::id();
    let below_us = |pid: u32| {
        // A table that was not read at one moment may hold a loop; no real family is this deep.
        let mut ancestors = std::iter::successors(Some(pid), |pid| Some(all.get(pid)?.parent)).take(64);
        pid != own && ancestors.any(|ancestor| ancestor == own)
    };
    all.iter().filter(|(pid, _)| below_us(**pid)).map(|(pid, entry)| (*pid, entry.clone())).collect()
}

/// Every process in whose environment, as it was when it was executed, `tag` occurs: also those that left the family.
pub(crate) fn tagged(tag: &str) -> Vec<u32> {
    let has_tag = |pid: &u32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.windows(tag.len()).any(|window| window == tag.as_bytes())
    };
    pids().filter(has_tag).collect()
}

/// The family in words, for messages.
pub(crate) fn table() -> String {
    let line = |(pid, Entry { name, state, parent }): (u32, Entry)| format!("{pid} {name} {state} (of {parent})");
    descendants().into_iter().map(line).collect::<Vec<_>>().join(", ")
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn entry(pid: u32) -> Option<Entry> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in brackets and may hold anything, brackets too.
    let (name, rest) = (stat.split_once('(')?.1.rsplit_once(')')?.0, stat.rsplit_once(')')?.1);
    let mut rest = rest.split_whitespace();
    Some(Entry { name: name.to_owned(), state: rest.next()?.chars().next()?, parent: rest.next()?.parse().ok()? })
}
