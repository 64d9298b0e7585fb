//! What a preload promises: it runs once, in the fork server, and every forked child has what it left.
//!
//! Runs in: the test's process, the fork server, and its children.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::support;
use process_task::{ProcessBuilder, StartMethod, process_task};

static LOADED_BY: AtomicU32 = AtomicU32::new(0);

#[process_task::preload]
fn load() {
    LOADED_BY.fetch_add(std::process::id(), Relaxed);
}

#[process_task]
fn loaded_by() -> u32 {
    LOADED_BY.load(Relaxed)
}

#[test]
fn preloaded_state_is_in_forked_children_only() {
    support::promise(|| {
        let server = loaded_by.spawn().join().unwrap();
        assert_ne!(server, 0);
        assert_ne!(server, std::process::id());
        assert_eq!(loaded_by.spawn().join().unwrap(), server, "it ran once");
        assert_eq!(loaded_by(), 0);
        let executed = ProcessBuilder::new().start_method(StartMethod::Exec).spawn(loaded_by, ()).unwrap();
        assert_eq!(executed.join().unwrap(), 0);
    });
}
