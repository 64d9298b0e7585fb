//! What a new image of this program inherits: the standard streams, and the descriptors that are handed to it by number.
//!
//! Owns: nothing. Runs in: the process that is about to execute the image, after the copy and before `execve`.
//! Invariant: no descriptor is closed in the new image.
//!
//! The program may hold descriptors that are not marked close-on-exec, and these must not leak. The new image cannot close
//! them itself. Constructors run there before ours, those of libraries under `LD_PRELOAD` first, and a log that one of them has
//! opened looks the same as a leak. Closed under its owner, its number is given to the next file that is opened, and the
//! owner's next line lands in that file. So the process that executes marks everything close-on-exec, in its own copy
//! of the table, and then takes the mark from what it hands over. Whatever is open in the new image before ours was
//! opened there and has an owner; nothing of it is touched.
//!
//! Everything here is also called between `clone(CLONE_VM)` and `execve`, where the memory is the parent's. So it makes system
//! calls and nothing else: it does not allocate, panic, or call a function of the C library that another library may replace.
#![expect(unsafe_code, reason = "close_range(2), getdents64(2) and fcntl(2) as plain system calls")]

use std::ffi::{CStr, c_int, c_long};

use nix::libc;

/// Where the kernel lists the descriptors of the process that asks.
const FD_DIRECTORY: &CStr = c"/proc/self/fd";

/// The highest number that is tried where the kernel neither marks a range nor lists what is open: its own default limit.
const MAX_FD_TRIED: u64 = 1 << 20;

/// Marks every descriptor from 3 up as one that the next image does not inherit.
///
/// `close_range(2)` does it in one call, since Linux 5.11. A filter may refuse it, and an older kernel does not know it: then the
/// descriptors are looked up in `/proc`, and where that is missing too, every number up to the limit is tried.
pub(crate) fn close_all_on_exec() {
    if !mark_range() && !mark_listed() {
        mark_counted();
    }
}

/// Lets the next image inherit `fd`.
pub(super) fn leave_open(fd: c_int) -> c_long {
    set_flags(fd, 0)
}

fn mark_range() -> bool {
    // SAFETY: takes three numbers and touches no memory.
    (unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) }) == 0
}

/// False if `/proc` does not list them all.
fn mark_listed() -> bool {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: the path is a string that lives for ever.
    let opened = unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, FD_DIRECTORY.as_ptr(), flags, 0) };
    let Some(directory) = c_int::try_from(opened).ok().filter(|number| *number >= 0) else { return false };
    let mut buffer = [0_u64; 256];
    let complete = loop {
        let room = size_of_val(&buffer);
        // SAFETY: the kernel writes at most `room` bytes into the buffer, which is borrowed for the call.
        let len = unsafe { libc::syscall(libc::SYS_getdents64, directory, buffer.as_mut_ptr(), room) };
        match usize::try_from(len) {
            Ok(0) => break true,
            Ok(len) => {
                // SAFETY: the buffer has `room` initialised bytes, and any byte is a valid u8.
                let bytes = unsafe { std::slice::from_raw_parts(buffer.as_ptr().cast::<u8>(), len.min(room)) };
                each_number(bytes, |number| {
                    if number > 2 {
                        set_flags(number, libc::FD_CLOEXEC);
                    }
                });
            }
            Err(_) => break false,
        }
    };
    // SAFETY: takes a number; the descriptor was opened above, and no other code knows it.
    unsafe { libc::syscall(libc::SYS_close, directory) };
    complete
}

fn mark_counted() {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    let none = std::ptr::null::<libc::rlimit64>();
    // SAFETY: asks and does not set; the answer is written into `limit`, which is borrowed for the call.
    let asked = unsafe { libc::syscall(libc::SYS_prlimit64, 0, libc::RLIMIT_NOFILE, none, &raw mut limit) };
    // The soft limit may have been lowered after something above it was opened.
    let most = if asked == 0 { limit.rlim_max.min(MAX_FD_TRIED) } else { MAX_FD_TRIED };
    for number in 3..c_int::try_from(most).unwrap_or(c_int::MAX) {
        set_flags(number, libc::FD_CLOEXEC);
    }
}

fn set_flags(fd: c_int, flags: c_int) -> c_long {
    // SAFETY: takes three numbers and touches no memory. A number that is not open is an error, which changes nothing.
    unsafe { libc::syscall(libc::SYS_fcntl, fd, libc::F_SETFD, flags) }
}

/// Calls `act` with each name in these directory entries that is a number.
fn each_number(entries: &[u8], mut act: impl FnMut(c_int)) {
    // `struct linux_dirent64`: two words, the length of the entry, a type; then the name, which ends with a NUL byte.
    const LENGTH: usize = 16;
    const NAME: usize = 19;
    let mut rest = entries;
    while let Some(length) = rest.get(LENGTH..).and_then(<[u8]>::first_chunk) {
        let length = usize::from(u16::from_ne_bytes(*length));
        let (Some(name), Some(next)) = (rest.get(NAME..length), rest.get(length..)) else { return };
        if let Some(number) = number(name) {
            act(number);
        }
        rest = next;
    }
}

fn number(name: &[u8]) -> Option<c_int> {
    let mut value: Option<c_int> = None;
    for byte in name.iter().take_while(|byte| **byte != 0) {
        let digit = c_int::from(byte.checked_sub(b'0').filter(|digit| *digit < 10)?);
        value = Some(value.unwrap_or(0).checked_mul(10)?.checked_add(digit)?);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_are_parsed_as_descriptors() {
        for (name, expected) in [
            (&b"0\0"[..], Some(0)),
            (b"17\0junk", Some(17)),
            (b"2147483647\0", Some(c_int::MAX)),
            (b"2147483648\0", None),
            (b".\0", None),
            (b"..\0", None),
            (b"", None),
        ] {
            assert_eq!(number(name), expected, "{name:?}");
        }
    }

    #[test]
    fn truncated_entries_are_skipped() {
        let entry = |name: &[u8], length: u16| {
            let mut entry = vec![0; 16];
            entry.extend_from_slice(&length.to_ne_bytes());
            entry.push(4);
            entry.extend_from_slice(name);
            entry.resize(usize::from(length).max(entry.len()), 0);
            entry
        };
        let found = |bytes: &[u8]| {
            let mut found = Vec::new();
            each_number(bytes, |number| found.push(number));
            found
        };
        let whole = [entry(b"..", 24), entry(b"5", 24), entry(b"123", 24)].concat();
        assert_eq!(found(&whole), [5, 123]);
        assert_eq!(found(&whole[..whole.len() - 3]), [5]);
        assert_eq!(found(&entry(b"7", 3)), [0; 0], "an entry shorter than its head");
        assert_eq!(found(&[]), [0; 0]);
    }
}
