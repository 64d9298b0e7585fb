//! Ways in which a thread restricts itself.
//!
//! Runs in: victims, as root. Never: changes other threads than the one that calls.
#![expect(unsafe_code, reason = "nix has no wrapper for capget(2) and capset(2)")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::support::subprocess;

/// This thread keeps its user, which is root, and loses the capabilities in this set.
pub(crate) fn give_up_capabilities(lost: u32) {
    let header = [0x2008_0522_u32, 0];
    let mut sets = [[0_u32; 3]; 2];
    // SAFETY: the kernel reads a header and writes two triples of words for this version.
    assert_eq!(unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()) }, 0);
    (sets[0][0], sets[0][1]) = (sets[0][0] & !lost, sets[0][1] & !lost);
    // SAFETY: the kernel reads both.
    assert_eq!(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) }, 0);
}

/// A directory that holds what the root does, by bind mounts in a namespace of this thread's own.
pub(crate) fn other_root() -> PathBuf {
    // Every thread has the same root and mounts, or the ones that replace workers would stay outside.
    let root = subprocess::stage().join("root");
    fs::create_dir(&root).unwrap();
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    for entry in fs::read_dir("/").unwrap().flatten() {
        let (from, to) = (entry.path(), root.join(entry.file_name()));
        let kind = entry.file_type().unwrap();
        if kind.is_symlink() {
            symlink(fs::read_link(&from).unwrap(), &to).unwrap();
        } else if kind.is_dir() {
            fs::create_dir(&to).unwrap();
            mount(Some(&from), &to, none, MsFlags::MS_REC | MsFlags::MS_BIND, none).unwrap();
        }
    }
    root
}
