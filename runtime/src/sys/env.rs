//! Changing the environment of a process that has just started, and what the dynamic loader was told when it was.
//!
//! Owns: the loader's variables. Runs in: children, on their only thread, and before `main` in all processes.
//! Never: changes anything in a parent, where other threads may read it.
#![expect(unsafe_code, reason = "changing the environment is unsafe while other threads run")]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;
use std::sync::OnceLock;

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

/// Variables that the dynamic loader reads, and what it made of them when this program was started.
#[derive(Debug)]
pub(crate) struct Loader {
    pub(crate) key: &'static str,
    pub(crate) value: OsString,
    /// The same, found from any directory.
    pub(crate) absolute: OsString,
}

static LOADER: OnceLock<Vec<Loader>> = OnceLock::new();

/// Notes what the dynamic loader was told, before the program can change its environment and directory.
///
/// What a library under `LD_PRELOAD` has removed by now is not noted: a profiler that does not want to be in children.
pub(crate) fn note_loader() {
    let noted = ["LD_LIBRARY_PATH", "LD_PRELOAD", "LD_AUDIT"].into_iter().filter_map(|key| {
        let value = std::env::var_os(key)?;
        let absolute = absolute(key, &value, || std::env::current_dir().ok());
        Some(Loader { key, value, absolute })
    });
    let _ = LOADER.set(noted.collect());
}

/// What [`note_loader`] found.
pub(crate) fn loader() -> &'static [Loader] {
    LOADER.get().map_or(&[], Vec::as_slice)
}

/// A list of paths in which each is absolute. In a list of folders, an empty entry is the working directory; a library without
/// a slash is looked for in folders.
fn absolute(key: &str, list: &OsStr, directory: impl FnOnce() -> Option<PathBuf>) -> OsString {
    let folders = key == "LD_LIBRARY_PATH";
    let between: &[u8] = if folders { b":;" } else { b": " };
    let relative = |entry: &[u8]| match entry.first() {
        None => folders,
        Some(b'/' | b'$') => false,
        Some(_) => folders || entry.contains(&b'/'),
    };
    let entries = || list.as_bytes().split(|byte| between.contains(byte));
    if !entries().any(relative) {
        return list.to_owned();
    }
    let Some(directory) = directory() else { return list.to_owned() };
    let whole = entries().map(|entry| {
        if relative(entry) {
            directory.join(OsStr::from_bytes(entry)).into_os_string().into_vec()
        } else {
            entry.to_vec()
        }
    });
    OsString::from_vec(whole.collect::<Vec<_>>().join(&b':'))
}

/// Whether the kernel says that this program may have more rights than its caller (`AT_SECURE`). See [`super::self_exe::grants_rights`].
pub(crate) fn is_privileged() -> bool {
    // SAFETY: getauxval reads a value that the kernel left for this process, and touches nothing else.
    (unsafe { nix::libc::getauxval(nix::libc::AT_SECURE) }) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_entries_become_absolute() {
        let made = |key, list: &str| absolute(key, list.as_ref(), || Some("/start".into()));
        assert_eq!(
            made("LD_LIBRARY_PATH", ".:lib:/usr/lib:$ORIGIN/x:"),
            "/start/.:/start/lib:/usr/lib:$ORIGIN/x:/start/"
        );
        assert_eq!(made("LD_LIBRARY_PATH", "/usr/lib;/lib"), "/usr/lib;/lib");
        assert_eq!(made("LD_PRELOAD", "libm.so ./own.so"), "libm.so:/start/./own.so");
        let unknown = |list: &str| absolute("LD_LIBRARY_PATH", list.as_ref(), || None);
        assert_eq!(unknown("lib"), "lib");
    }
}
