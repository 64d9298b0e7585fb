//! How many workers a pool may have.
//!
//! Runs in: the parent.

use crate::error::{Error, Result};
use crate::sys::{Errno, limits};

/// The most workers of one pool. A slot costs memory and time even where no worker is.
pub(super) const MOST_WORKERS: usize = 1 << 16;

/// How many descriptors a worker costs this process: its two memories, its eventfd, its socket, and its pidfd.
const DESCRIPTORS: usize = 5;

/// Refuses a number of workers that a pool cannot have. An `eager` pool starts them all.
///
/// # Errors
/// It is 0, for which `instead` says what to do, or more than [`MOST_WORKERS`], or more than this process has descriptors for.
pub(super) fn check_size(workers: usize, eager: bool, instead: &str) -> Result<()> {
    if workers == 0 {
        return Err(Error::invalid(format!("`workers` must be at least 1, not 0; {instead}")));
    }
    if workers > MOST_WORKERS {
        return Err(Error::invalid(format!("`workers` must be at most {MOST_WORKERS}, not {workers}")));
    }
    let needed = (workers * DESCRIPTORS) as u64;
    let (allowed, _) = limits::current()[limits::OPEN_FILES];
    if eager && needed > allowed {
        let step = format!(
            "find {needed} descriptors for {workers} workers, of which this process may have {allowed} \
             (`RLIMIT_NOFILE`, `ulimit -n`)"
        );
        return Err(Error::could_not_start(step, Errno::EMFILE));
    }
    Ok(())
}
