//! The file this program was started from, kept open so that it can be started again.
//!
//! Owns: one descriptor, from before `main` to the end. Runs in: any process.
//! Never: asks for the file by name. A binary may be replaced or deleted while it runs; the descriptor shows the old one.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use nix::errno::Errno;
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
pub(crate) fn paths() -> Result<[CString; 2], Errno> {
    let image = keep()?;
    let kept = CString::new(format!("/proc/self/fd/{}", image.as_raw_fd())).map_err(|_| Errno::EINVAL)?;
    Ok([kept, c"/proc/self/exe".to_owned()])
}
