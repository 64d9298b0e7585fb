//! The file this program was started from, kept open so that it can be started again.
//!
//! Owns: one descriptor, from before `main` to the end. Runs in: any process.
//! Invariant: the file is never looked up by name. A binary may be replaced or deleted while it runs; the descriptor is still
//! open on the old one.
//! Invariant: the descriptor is checked before each use. A program may close descriptors that it did not open, and the next
//! file that it opens then has this number.
#![expect(unsafe_code, reason = "nix has no wrapper for getxattr(2)")]

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::libc;
use nix::sys::stat::Mode;

use super::fd::{FileId, above_stdio, duplicate, file_id};

/// The descriptor, and the file that it was opened on.
static SELF_EXE: OnceLock<nix::Result<(OwnedFd, FileId)>> = OnceLock::new();

/// Returns the image, open with `O_PATH`. The first call, before `main`, opens it.
///
/// # Errors
/// It could not be opened; `ESTALE` if the descriptor shows another file by now, or none.
pub(crate) fn keep() -> nix::Result<BorrowedFd<'static>> {
    let kept = SELF_EXE.get_or_init(|| {
        let image = open_image()?;
        let file = file_id(image.as_fd()).ok_or(Errno::ESTALE)?;
        Ok((image, file))
    });
    let (image, file) = kept.as_ref().map_err(|errno| *errno)?;
    if file_id(image.as_fd()) == Some(*file) { Ok(image.as_fd()) } else { Err(Errno::ESTALE) }
}

/// Returns the image, open with `O_PATH`: the kept descriptor, or a new one.
pub(crate) fn get_or_open() -> nix::Result<OwnedFd> {
    keep().and_then(duplicate).or_else(|_| open_image())
}

fn open_image() -> nix::Result<OwnedFd> {
    above_stdio(open("/proc/self/exe", OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?)
}

/// Returns paths of the image for `execve`, best first.
///
/// The first is the kernel's own link to the image, whatever became of its file's name. The second contains a descriptor's
/// number, which another thread may give to another file before it is used.
pub(crate) fn paths() -> Vec<CString> {
    let kept = keep().ok().and_then(|image| CString::new(format!("/proc/self/fd/{}", image.as_raw_fd())).ok());
    [c"/proc/self/exe".to_owned()].into_iter().chain(kept).collect()
}

/// Returns whether executing the image grants rights that its caller does not have, by a set-id bit or file capabilities.
///
/// The kernel sets `AT_SECURE` for these, and also where nothing is gained: where the caller's real and effective ids differ.
/// True if the answer cannot be had.
pub(crate) fn grants_rights() -> bool {
    let Ok(image) = open_image() else { return true };
    let set_id = Mode::S_ISUID | Mode::S_ISGID;
    let mode = nix::sys::stat::fstat(image.as_fd()).map(|stat| Mode::from_bits_truncate(stat.st_mode));
    if mode.map_or(true, |mode| mode.intersects(set_id)) {
        return true;
    }
    let (path, name) = (c"/proc/self/exe".as_ptr(), c"security.capability".as_ptr());
    // SAFETY: both names are strings that end in a zero byte, and no bytes are written where there is room for none.
    let found = Errno::result(unsafe { libc::getxattr(path, name, std::ptr::null_mut(), 0) });
    !matches!(found, Err(Errno::ENODATA | Errno::EOPNOTSUPP))
}

/// Returns whether `/proc` has an entry for this process.
pub(crate) fn is_proc_mounted() -> bool {
    std::fs::symlink_metadata("/proc/self/exe").is_ok()
}

/// Returns the file that this code was loaded from, if that is not the image; `None` if it is, or if that is unknown.
///
/// It differs where this code is in a shared library that a host program has loaded, and where the program was passed to the
/// dynamic loader as an argument. Code without a file is the program's own: some programs copy their text to anonymous
/// memory, for huge pages.
pub(crate) fn other_file() -> Option<String> {
    const NO_FILES: [&[u8]; 3] = [b"/memfd:", b"/anon_hugepage", b"/dev/zero"];
    let image = std::fs::read_link("/proc/self/exe").ok()?;
    let maps = std::fs::read("/proc/self/maps").ok()?;
    let here = other_file as fn() -> Option<String> as usize;
    let holds_us = |line: &&[u8]| {
        let range = line.split(|byte| *byte == b' ').next().and_then(|range| std::str::from_utf8(range).ok());
        let bound = |text| usize::from_str_radix(text, 16).ok();
        range
            .and_then(|range| range.split_once('-'))
            .is_some_and(|(from, to)| bound(from).zip(bound(to)).is_some_and(|(from, to)| (from..to).contains(&here)))
    };
    let line = maps.split(|byte| *byte == b'\n').find(holds_us)?;
    let file = &line[line.iter().position(|byte| *byte == b'/')?..];
    let image = image.as_os_str().as_bytes();
    // Both are the kernel's own words for one file, ` (deleted)` included; but a line break is written in two ways.
    let same = image.contains(&b'\n') || file == image;
    let none = NO_FILES.iter().any(|start| file.starts_with(start));
    (!same && !none).then(|| String::from_utf8_lossy(file).into_owned())
}
