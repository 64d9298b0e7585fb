//! How much of a collection goes with one answer.
//!
//! Runs in: the manager.

use super::stored::Stored;
use crate::sys::socket::MAX_DESCRIPTORS;

/// The most bytes of a page that has more than one entry.
pub(super) const MAX_PAGE_BYTES: usize = 64 << 10;

/// The most handles of a page that has more than one entry: as many as one message carries.
const MAX_PAGE_HANDLES: usize = MAX_DESCRIPTORS;

/// What a page has room for. It has at least one entry, if there is one.
#[derive(Debug)]
pub(super) struct PageRoom {
    most: usize,
    entries: usize,
    bytes: usize,
    handles: usize,
}

impl PageRoom {
    /// For `most` entries.
    pub(super) fn new(most: usize) -> Self {
        Self { most, entries: 0, bytes: 0, handles: 0 }
    }

    /// Whether there is room for one more entry: a value, and a key of so many bytes.
    pub(super) fn takes(&mut self, key_bytes: usize, value: &Stored) -> bool {
        self.bytes = self.bytes.saturating_add(key_bytes).saturating_add(value.bytes().len());
        self.handles += value.handles();
        let is_full = self.entries >= self.most || self.bytes > MAX_PAGE_BYTES || self.handles > MAX_PAGE_HANDLES;
        let takes = !is_full || self.entries == 0;
        self.entries += usize::from(takes);
        takes
    }
}
