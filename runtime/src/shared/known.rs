//! What this process has mapped and can share, by the file that it is: what comes twice is mapped once.
//!
//! Owns: [`Known`], a table in a static. Runs in: any process.
//! Never: keeps anything alive.
#![expect(unsafe_code, reason = "a static that points to a leaked table")]

use std::collections::BTreeMap;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::{AcqRel, Acquire};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::sys::fd::Identity;
use crate::sys::forked;

/// See the [module](self). For a static: a table that is made at the first use is never freed.
pub(crate) struct Known<T>(AtomicPtr<Table<T>>);

struct Table<T> {
    /// The process that has this table: see [`forked::generation`].
    generation: u64,
    entries: Mutex<Entries<T>>,
}

type Entries<T> = BTreeMap<Identity, Weak<T>>;

impl<T> Known<T> {
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(std::ptr::null_mut()))
    }

    /// From now on, what comes to this process and is the same file is this one.
    pub(crate) fn enter(&self, identity: Identity, one: Arc<T>) -> Arc<T> {
        self.entries().insert(identity, Arc::downgrade(&one));
        one
    }

    /// The one of that file, made now if there is none.
    ///
    /// # Errors
    /// As `make`, in which no `T` may be dropped.
    pub(crate) fn find_or_enter<E>(
        &self,
        identity: Identity,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        let mut entries = self.entries();
        if let Some(known) = entries.get(&identity).and_then(Weak::upgrade) {
            return Ok(known);
        }
        let new = Arc::new(make()?);
        entries.insert(identity, Arc::downgrade(&new));
        Ok(new)
    }

    /// Takes out one that goes, unless another one was entered in its place since its last holder let go.
    pub(crate) fn forget(&self, identity: Identity, one: &T) {
        let mut entries = self.entries();
        if entries.get(&identity).is_some_and(|entered| std::ptr::eq(entered.as_ptr(), one)) {
            entries.remove(&identity);
        }
    }

    #[cfg(test)]
    pub(crate) fn knows(&self, identity: Identity) -> bool {
        self.entries().contains_key(&identity)
    }

    /// This process's table. A copy made by `fork()` begins an empty one: of the original's it cannot know whether a thread
    /// that is not there holds the lock.
    fn entries(&self) -> MutexGuard<'_, Entries<T>> {
        let generation = forked::generation();
        let mut table = self.0.load(Acquire);
        loop {
            // SAFETY: null, or a table that was made below and never goes.
            match unsafe { table.as_ref() } {
                Some(table) if table.generation == generation => {
                    return table.entries.lock().unwrap_or_else(PoisonError::into_inner);
                }
                _ => {}
            }
            let new: *mut _ = Box::leak(Box::new(Table { generation, entries: Mutex::default() }));
            table = self.0.compare_exchange(table, new, AcqRel, Acquire).map_or_else(|other| other, |_| new);
        }
    }
}
