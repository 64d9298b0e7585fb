//! Changing the environment of a process that has just started.
//!
//! Owns: nothing. Runs in: children, on their only thread. Never: in a parent, where other threads may read it.
#![expect(unsafe_code, reason = "changing the environment is unsafe while other threads run")]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

/// Whether an environment can hold a variable `key` of this value.
pub(crate) fn can_hold(key: &OsStr, value: Option<&OsStr>) -> bool {
    let of_key = |byte: &u8| !matches!(byte, b'=' | 0);
    let value = value.unwrap_or_default().as_bytes();
    !key.is_empty() && key.as_bytes().iter().all(of_key) && !value.contains(&0)
}

/// `setenv(3)`. What [no environment can hold](can_hold), although this one's parent had it, is left alone.
///
/// Runs in: a child, before any user code, so on its only thread.
pub(crate) fn set(key: &OsStr, value: &OsStr) {
    if can_hold(key, Some(value)) {
        // SAFETY: this process has one thread: it is a child that has not run any user code.
        unsafe { std::env::set_var(key, value) };
    }
}

/// `unsetenv(3)`. The same holds as for [`set`].
pub(crate) fn remove(key: &OsStr) {
    if can_hold(key, None) {
        // SAFETY: this process has one thread: it is a child that has not run any user code.
        unsafe { std::env::remove_var(key) };
    }
}

/// Whether the kernel says that this program may have more rights than its caller (`AT_SECURE`). See [`super::image::gives_rights`].
pub(crate) fn is_privileged() -> bool {
    // SAFETY: getauxval reads a value that the kernel left for this process, and touches nothing else.
    (unsafe { nix::libc::getauxval(nix::libc::AT_SECURE) }) != 0
}
