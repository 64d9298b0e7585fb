//! A directory of a test's own, which goes when the test is over.
//!
//! Runs in: the test process; children get paths in it. Never: shares a path with another test.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::{env, fs, process};

/// The directory.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("process-task-{}-{}", process::id(), COUNT.fetch_add(1, Relaxed));
        // Links are resolved, so that a child's working directory can be compared with it.
        let path = env::temp_dir().canonicalize().expect("a directory for temporary files").join(name);
        fs::create_dir(&path).expect("a directory of one's own");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The path of `name` in it, as tasks take it.
    pub(crate) fn file(&self, name: &str) -> String {
        self.0.join(name).into_os_string().into_string().expect("a path of plain characters")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
