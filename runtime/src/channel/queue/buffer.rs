//! Memory for the bytes of one item on its way out.
//!
//! Owns: [`Buffer`]. Runs in: whichever process gets an item. Never: allocates for a short one.

/// Memory for an item's bytes, aligned as a payload is to be: a little of its own, and for longer ones what was lent to it.
#[derive(Debug)]
pub(super) struct Buffer {
    own: [u128; 8],
    more: Vec<u128>,
    /// Where to have more from.
    lender: fn() -> Vec<u128>,
}

impl Buffer {
    pub(super) const fn new(lender: fn() -> Vec<u128>) -> Self {
        Self { own: [0; 8], more: Vec::new(), lender }
    }

    /// What was lent.
    pub(super) fn into_lent(self) -> Vec<u128> {
        self.more
    }

    /// So many bytes.
    #[inline]
    pub(super) fn of(&mut self, len: usize) -> &mut [u8] {
        if len <= size_of_val(&self.own) {
            return &mut bytemuck::bytes_of_mut(&mut self.own)[..len];
        }
        if self.more.is_empty() {
            self.more = (self.lender)();
        }
        let words = len.div_ceil(size_of::<u128>());
        if self.more.len() < words {
            self.more.resize(words, 0);
        }
        &mut bytemuck::cast_slice_mut(&mut self.more)[..len]
    }

    /// The bytes of an item that was got.
    #[inline]
    pub(super) fn bytes(&self, len: usize) -> &[u8] {
        if len <= size_of_val(&self.own) {
            return &bytemuck::bytes_of(&self.own)[..len];
        }
        &bytemuck::cast_slice(&self.more)[..len]
    }
}
