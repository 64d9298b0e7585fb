//! What a child says when it panics, kept in the reply half, which outlives the process.
//!
//! Runs in: the child, on any of its threads, without allocating; [`left`] in the parent.
//! Invariant: a length that the child wrote is checked before use.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::Caller;
use super::control::{MAX_CRASH_NOTE_BYTES, ReplyControl};
use crate::shared::MappedHeader;

/// A place for a last message that outlives the process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CrashNote(&'static MappedHeader<ReplyControl>);

impl CrashNote {
    pub(super) fn new(reply: &'static MappedHeader<ReplyControl>) -> Self {
        Self(reply)
    }

    /// Forgets what was said during an earlier call.
    pub(crate) fn clear(self) {
        self.0.words().crash_note_len.0.store(0, Release);
    }

    /// Notes how many bytes of address space this process has; 0 if there is no limit. What the allocator says when that is
    /// used up goes to stderr, past every hook.
    pub(crate) fn limited(self, bytes: u64) {
        self.0.words().memory_limit.0.store(bytes, Release);
    }

    /// Appends a line, or as much of it as there is room for. Allocates nothing.
    pub(crate) fn say(self, line: &str) {
        let words = self.0.words();
        let used = (words.crash_note_len.0.load(Relaxed) as usize).min(MAX_CRASH_NOTE_BYTES);
        let separator = if used == 0 { "" } else { "\n" };
        let mut end = used;
        for (place, byte) in words.crash_note[used..].iter().zip(separator.bytes().chain(line.bytes())) {
            place.store(byte, Relaxed);
            end += 1;
        }
        words.crash_note_len.0.store(u32::try_from(end).unwrap_or(0), Release);
    }
}

/// What the child said when it panicked last, or how little memory it had.
fn left(words: &ReplyControl) -> Option<String> {
    let len = (words.crash_note_len.0.load(Acquire) as usize).min(words.crash_note.len());
    let bytes: Vec<u8> = words.crash_note[..len].iter().map(|byte| byte.load(Relaxed)).collect();
    if !bytes.is_empty() {
        return Some(String::from_utf8_lossy(&bytes).into_owned());
    }
    match words.memory_limit.0.load(Acquire) {
        0 => None,
        limit => {
            Some(format!("its memory was limited to {limit} bytes, and an allocation beyond that aborts the process"))
        }
    }
}

impl<T> Caller<T> {
    /// Whether the child ended because it overflowed its stack, and what it said when it panicked last, or how little memory
    /// it had.
    pub(crate) fn crash_note(&self) -> (bool, Option<String>) {
        let words = self.link.reply.words();
        (words.overflowed.0.load(Acquire) != 0, left(words))
    }
}
