//! Cells for data that a lock beside them guards.
//!
//! Owns: [`LockCell`] and [`RwCell`]. Runs in: any process.
//! Invariant: nothing is locked here. The caller guarantees what each function asks, by the lock that it holds.
#![expect(unsafe_code, reason = "changing data of several threads and processes, one at a time")]

use std::cell::UnsafeCell;
use std::fmt;
use std::marker::PhantomData;

/// Data that one thread at a time uses.
#[repr(transparent)]
pub(crate) struct LockCell<T: ?Sized>(UnsafeCell<T>);

// SAFETY: a reference to this gives the data to one thread at a time, as its functions ask of their callers; that is as if
// the data were sent from thread to thread.
unsafe impl<T: ?Sized + Send> Sync for LockCell<T> {}

impl<T> LockCell<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(UnsafeCell::new(value))
    }

    pub(crate) fn into_inner(self) -> T {
        self.0.into_inner()
    }
}

impl<T: ?Sized> LockCell<T> {
    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut()
    }

    /// Returns the data for reading.
    ///
    /// The caller guarantees, by the lock it holds, that no thread changes the data while the reference lives. If the data
    /// is not `Sync`, no other thread may use it either.
    #[inline]
    pub(crate) fn lend(&self) -> &T {
        // SAFETY: the pointer comes from a reference, so it is aligned and points to a value; the caller guarantees that it is
        // not changed meanwhile.
        unsafe { &*self.0.get() }
    }

    /// Returns the data for writing.
    ///
    /// The caller guarantees, by the lock it holds, that no other thread uses the data while the reference lives.
    #[inline]
    #[expect(clippy::mut_from_ref, reason = "one caller at a time, which is what it guarantees")]
    pub(crate) fn lend_mut(&self) -> &mut T {
        // SAFETY: as above; that there is no other reference is what the caller guarantees.
        unsafe { &mut *self.0.get() }
    }
}

/// Data that one thread at a time changes, or several read.
#[repr(transparent)]
pub(crate) struct RwCell<T: ?Sized> {
    /// Shared references come to several threads at once, so `&T` must be fit for that: this is `Sync` if `T` is.
    read_by_many: PhantomData<T>,
    data: LockCell<T>,
}

impl<T> RwCell<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self { read_by_many: PhantomData, data: LockCell::new(value) }
    }

    pub(crate) fn into_inner(self) -> T {
        self.data.into_inner()
    }
}

impl<T: ?Sized> RwCell<T> {
    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.data.get_mut()
    }

    /// See [`LockCell::lend`].
    #[inline]
    pub(crate) fn lend(&self) -> &T {
        self.data.lend()
    }

    /// See [`LockCell::lend_mut`].
    #[inline]
    pub(crate) fn lend_mut(&self) -> &mut T {
        self.data.lend_mut()
    }
}

impl<T: ?Sized> fmt::Debug for LockCell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LockCell(..)")
    }
}

impl<T: ?Sized> fmt::Debug for RwCell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RwCell(..)")
    }
}

/// Declares that primitives of [`sync`](crate::sync) can live in shared memory, with `T` inside if they hold data.
macro_rules! in_place {
    ($($name:ident $(<$T:ident>)?),+ $(,)?) => { $(
        #[expect(unsafe_code, reason = "the duties of a type that is made for shared memory")]
        #[diagnostic::do_not_recommend]
        // SAFETY: its words are atomics, or numbers that stay as they are, and hold no address (duty 1), without a destructor
        // (2); any bytes are such words, and every sequence of writes to the atomics may end anywhere, as the protocol on top of its file says (3), and aligned as numbers are (4); they change,
        // and so may what they guard (5). What it guards is a `Shareable` itself.
        unsafe impl $(<$T: $crate::shared::Shareable + Send>)? $crate::shared::Shareable for $name $(<$T>)? {
            const FROZEN: bool = false;
        }
    )+ };
}
pub(crate) use in_place;
