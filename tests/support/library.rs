//! Shared libraries in C, as programs get them by `LD_PRELOAD`.
//!
//! Owns: a call of the C compiler. Runs in: the test process. Never: uses what another run has built.

use std::path::PathBuf;
use std::process::Command;

use crate::support::scratch::Scratch;

/// Compiles a library in `scratch`, and returns its path.
pub(crate) fn library(scratch: &Scratch, name: &str, source: &str) -> PathBuf {
    let (code, built) = (scratch.file(&format!("{name}.c")), PathBuf::from(scratch.file(&format!("{name}.so"))));
    std::fs::write(&code, source).expect("a place for the source");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-Wall", "-Werror", "-pthread", "-o"]).arg(&built).arg(&code);
    let output = compiler.output().expect("a C compiler, which Rust needs for linking, too");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    built
}

/// A line of shell for [`Victim::start_by`](crate::support::subprocess::Victim::start_by) that has the loader load it before all others.
pub(crate) fn preloading(library: &std::path::Path) -> String {
    format!("LD_PRELOAD='{}' exec \"$@\"", library.display())
}
