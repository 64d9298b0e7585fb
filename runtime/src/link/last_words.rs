//! What a child says when it panics, kept where it outlives the process.
//!
//! Owns: nothing; the place is in the reply half. Runs in: the child, on any of its threads, without allocating; [`left`] in
//! the parent. Never: believes a length that it has not checked.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::Caller;
use super::words::{LAST_WORDS, ReplyWords};
use crate::shared::MappedHeader;

/// A place for a last message that outlives the process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LastWords(&'static MappedHeader<ReplyWords>);

impl LastWords {
    pub(super) fn new(reply: &'static MappedHeader<ReplyWords>) -> Self {
        Self(reply)
    }

    /// Forgets what was said during an earlier call.
    pub(crate) fn clear(self) {
        self.0.words().last_words_len.0.store(0, Release);
    }

    /// Notes how many bytes of address space this process has; 0 if there is no limit. What the allocator says when that is
    /// used up goes to stderr, past every hook.
    pub(crate) fn limited(self, bytes: u64) {
        self.0.words().memory_limit.0.store(bytes, Release);
    }

    /// Appends a line, or as much of it as there is room for. Allocates nothing.
    pub(crate) fn say(self, line: &str) {
        let words = self.0.words();
        let used = (words.last_words_len.0.load(Relaxed) as usize).min(LAST_WORDS);
        let separator = if used == 0 { "" } else { "\n" };
        let mut end = used;
        for (place, byte) in words.last_words[used..].iter().zip(separator.bytes().chain(line.bytes())) {
            place.store(byte, Relaxed);
            end += 1;
        }
        words.last_words_len.0.store(u32::try_from(end).unwrap_or(0), Release);
    }
}

/// What the child said when it panicked last, or how little memory it had.
fn left(words: &ReplyWords) -> Option<String> {
    let len = (words.last_words_len.0.load(Acquire) as usize).min(words.last_words.len());
    let bytes: Vec<u8> = words.last_words[..len].iter().map(|byte| byte.load(Relaxed)).collect();
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
    pub(crate) fn last_words(&self) -> (bool, Option<String>) {
        let words = self.link.reply.words();
        (words.overflowed.0.load(Acquire) != 0, left(words))
    }
}
