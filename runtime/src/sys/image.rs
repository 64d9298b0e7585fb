//! The file this program was started from, kept open so that it can be started again.
//!
//! Owns: one descriptor, from before `main` to the end. Runs in: any process.
//! Never: asks for the file by name. A binary may be replaced or deleted while it runs; the descriptor shows the old one.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::OnceLock;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::fd::above_stdio;

static IMAGE: OnceLock<nix::Result<OwnedFd>> = OnceLock::new();

/// The image, open with `O_PATH`; the first call, before `main`, opens it.
pub(crate) fn keep() -> nix::Result<BorrowedFd<'static>> {
    let open = || {
        let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
        above_stdio(open("/proc/self/exe", flags, Mode::empty())?)
    };
    IMAGE.get_or_init(open).as_ref().map(OwnedFd::as_fd).map_err(|errno| *errno)
}

/// Names for the image that `posix_spawn` understands, best first.
pub(crate) fn paths() -> Vec<CString> {
    let kept = keep().ok().and_then(|image| CString::new(format!("/proc/self/fd/{}", image.as_raw_fd())).ok());
    kept.into_iter().chain([c"/proc/self/exe".to_owned()]).collect()
}

/// Whether the image is the file that this code was loaded from. It is not if the program was started as an argument of
/// the dynamic loader: then the image is the loader. True if `/proc` does not tell.
pub(crate) fn is_this_program() -> bool {
    let Ok(image) = std::fs::read_link("/proc/self/exe") else { return true };
    let Ok(maps) = std::fs::read("/proc/self/maps") else { return true };
    let here = is_this_program as fn() -> bool as usize;
    let holds_us = |line: &&[u8]| {
        let range = line.split(|byte| *byte == b' ').next().and_then(|range| std::str::from_utf8(range).ok());
        let bound = |text| usize::from_str_radix(text, 16).ok();
        range
            .and_then(|range| range.split_once('-'))
            .is_some_and(|(from, to)| bound(from).zip(bound(to)).is_some_and(|(from, to)| (from..to).contains(&here)))
    };
    let line = maps.split(|byte| *byte == b'\n').find(holds_us);
    // Both are the kernel's own words for one file, ` (deleted)` included; but a line break is written in two ways.
    let image = image.as_os_str().as_bytes();
    line.is_none_or(|line| image.contains(&b'\n') || line.ends_with(image))
}
