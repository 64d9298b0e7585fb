//! How much memory the queues of this process have, as the kernel counts it.
//!
//! Runs in: the test process. Never: takes the word of the library for it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;

/// Bytes of a chunk, of which a queue gives back all but [`KEPT`] when nothing is in it.
pub(crate) const CHUNK: u64 = 64 << 10;
/// So many chunks keep their memory: those that a queue keeps warm, and the one in which the next item will stand.
pub(crate) const KEPT: u64 = 16 + 1;

/// How many queues this process has a descriptor of, and how many bytes of memory are behind them.
pub(crate) fn backing() -> (usize, u64) {
    let mut queues = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/fd").expect("a list of descriptors").flatten() {
        let is_queue = fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().contains("process-task-queue"));
        if is_queue && let Ok(file) = fs::metadata(entry.path()) {
            queues.insert(file.ino(), file.blocks() * 512);
        }
    }
    (queues.len(), queues.values().sum())
}

/// Bytes of memory behind the one queue that this process has.
pub(crate) fn of_the_only_one() -> u64 {
    let (queues, bytes) = backing();
    assert_eq!(queues, 1, "more than one queue is open");
    bytes
}
