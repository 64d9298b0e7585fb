//! The mappings of this process by the file that they map: memory that arrives twice is mapped once. Connections likewise, by
//! another key.
//!
//! Owns: [`MappingCache`], a table in a static. Runs in: any process.
//! Invariant: the cache keeps no mapping alive.
#![expect(unsafe_code, reason = "a static that points to a leaked table")]

use std::collections::BTreeMap;
use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::{AcqRel, Acquire};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use crate::sys::atfork;
use crate::sys::fd::FileId;
use crate::sys::mutex::MutexExt as _;

/// See the [module](self). For a static: a table is made at the first use and never freed.
pub(crate) struct MappingCache<T, K = FileId>(AtomicPtr<CacheTable<T, K>>);

struct CacheTable<T, K> {
    /// The process of this table: see [`atfork::generation`].
    generation: u64,
    entries: Mutex<CacheEntries<T, K>>,
}

type CacheEntries<T, K> = BTreeMap<K, Weak<T>>;

impl<T, K: Ord> MappingCache<T, K> {
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(std::ptr::null_mut()))
    }

    /// Adds a mapping. From now on it is found by the file it maps.
    pub(crate) fn insert(&self, identity: K, one: Arc<T>) -> Arc<T> {
        self.entries().insert(identity, Arc::downgrade(&one));
        one
    }

    /// Returns the mapping of that file, and makes it if there is none.
    ///
    /// # Errors
    /// As `make`, in which no `T` may be dropped.
    pub(crate) fn find_or_insert<E>(&self, identity: K, make: impl FnOnce() -> Result<T, E>) -> Result<Arc<T>, E> {
        let mut entries = self.entries();
        if let Some(known) = entries.get(&identity).and_then(Weak::upgrade) {
            return Ok(known);
        }
        let new = Arc::new(make()?);
        entries.insert(identity, Arc::downgrade(&new));
        Ok(new)
    }

    /// Removes a mapping that is being dropped, unless another one has taken its place since its last holder dropped it.
    pub(crate) fn remove(&self, identity: &K, one: &T) {
        let mut entries = self.entries();
        if entries.get(identity).is_some_and(|found| std::ptr::eq(found.as_ptr(), one)) {
            entries.remove(identity);
        }
    }

    #[cfg(test)]
    pub(crate) fn contains(&self, identity: &K) -> bool {
        self.entries().contains_key(identity)
    }

    /// Returns this process's table. A copy made by `fork()` begins an empty one: a thread that the copy does not have may
    /// hold the lock of the original's.
    fn entries(&self) -> MutexGuard<'_, CacheEntries<T, K>> {
        let generation = atfork::generation();
        let mut table = self.0.load(Acquire);
        loop {
            // SAFETY: null, or a table that was made below and never goes.
            match unsafe { table.as_ref() } {
                Some(table) if table.generation == generation => {
                    return table.entries.lock_unpoisoned();
                }
                _ => {}
            }
            let new: *mut _ = Box::leak(Box::new(CacheTable { generation, entries: Mutex::default() }));
            table = self.0.compare_exchange(table, new, AcqRel, Acquire).map_or_else(|other| other, |_| new);
        }
    }
}
