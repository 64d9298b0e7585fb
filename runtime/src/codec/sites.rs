//! What is known of each type that travels by serde: whether its values need names, and which parts of it were seen to arrive.
//!
//! Owns: one record for each type, for as long as the process lives. Runs in: every process that encodes.
//! Never: says that a part arrives which no trial has read (see [`trial`](super::trial)).
//!
//! A *site* is a place where a type's code may go one way or another: a variant of an enum, what is in an `Option`, the elements
//! of a sequence. A value with known sites only is written as those before it were, and so it is read.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::sync::{Mutex, OnceLock};

use crate::sys::mutex::MutexExt as _;

/// How many sites the first table of a type has room for, four times; each later table has four times as many. In a table that is
/// fuller, a site would often not be found in the first slot that is looked at.
const FIRST_SLOTS: usize = 32;

/// How many tables a type may have: enough for as many sites as a program can have variants.
const MAX_TABLES: usize = 12;

/// How many types a thread finds without asking the map.
const CACHE_SLOTS: usize = 32;

/// How values of a type are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// No value was sent yet.
    Untried,
    /// Each part by its place alone.
    ByPlace,
    /// With names, since a value was seen to need them.
    ByName,
    /// With names if all comes back, else by place if all comes back: the names that are written are not those that are read.
    ByEither,
}

/// What is known of one type.
#[derive(Debug)]
pub(super) struct TypeRecord {
    way: AtomicU8,
    /// The table that is in use: `first`, or one of those behind it. Those before it stay, as other threads may look at them.
    level: AtomicUsize,
    first: [AtomicU64; FIRST_SLOTS],
    later: [OnceLock<Box<[AtomicU64]>>; MAX_TABLES - 1],
    /// How many sites there are.
    count: Mutex<usize>,
}

impl TypeRecord {
    pub(super) fn new() -> Self {
        Self {
            way: AtomicU8::new(0),
            level: AtomicUsize::new(0),
            first: [const { AtomicU64::new(0) }; FIRST_SLOTS],
            later: [const { OnceLock::new() }; MAX_TABLES - 1],
            count: Mutex::new(0),
        }
    }

    #[inline]
    pub(super) fn way(&self) -> Way {
        match self.way.load(Relaxed) {
            0 => Way::Untried,
            1 => Way::ByPlace,
            2 => Way::ByName,
            _ => Way::ByEither,
        }
    }

    /// Writes values of the type in this way from now on.
    pub(super) fn set_way(&self, way: Way) {
        self.way.store(way as u8, Relaxed);
    }

    /// The sites that are known.
    #[inline]
    pub(super) fn known(&self) -> KnownSites<'_> {
        match self.level.load(Acquire) {
            0 => KnownSites(&self.first),
            level => self.known_later(level),
        }
    }

    fn known_later(&self, level: usize) -> KnownSites<'_> {
        KnownSites(self.later[level - 1].get().map_or(&[], |table| table))
    }

    fn make(&self, level: usize) -> &[AtomicU64] {
        self.later[level - 1].get_or_init(|| (0..FIRST_SLOTS << (2 * level)).map(|_| AtomicU64::new(0)).collect())
    }

    /// Remembers sites.
    pub(super) fn learn(&self, sites: &Sites) {
        let mut count = self.count.lock_unpoisoned();
        for site in sites {
            if self.known().has(*site) {
                continue;
            }
            let level = self.level.load(Relaxed);
            if (*count + 1) * 4 > self.known().0.len() {
                // Beyond the last one nothing more is remembered, and values are tried again.
                if level + 1 == MAX_TABLES {
                    return;
                }
                let (old, new) = (self.known().0, self.make(level + 1));
                old.iter().map(|slot| slot.load(Relaxed)).filter(|site| *site != 0).for_each(|site| put(new, site));
                self.level.store(level + 1, Release);
            }
            put(self.known().0, *site);
            *count += 1;
        }
    }
}

/// Puts a site into the first free slot behind its own. There is always one: three of four are.
fn put(table: &[AtomicU64], site: u64) {
    let slots = (0..table.len()).map(|step| &table[slot(table, site, step)]);
    if let Some(free) = slots.into_iter().find(|slot| slot.load(Relaxed) == 0) {
        free.store(site, Relaxed);
    }
}

#[inline]
fn slot(table: &[AtomicU64], site: u64, step: usize) -> usize {
    ((site >> 32) as usize).wrapping_add(step) & (table.len().wrapping_sub(1))
}

/// The sites of a type that are known, at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct KnownSites<'r>(&'r [AtomicU64]);

impl KnownSites<'_> {
    #[inline]
    fn has(self, site: u64) -> bool {
        match self.0.get(slot(self.0, site, 0)).map(|first| first.load(Relaxed)) {
            Some(found) if found == site => true,
            Some(0) | None => false,
            Some(_) => self.has_farther(site),
        }
    }

    #[cold]
    fn has_farther(self, site: u64) -> bool {
        let found = |step| self.0[slot(self.0, site, step)].load(Relaxed);
        (1..self.0.len()).map(found).take_while(|found| *found != 0).any(|found| found == site)
    }
}

/// Sites, which are mixed enough to be their own hashes.
pub(super) type Sites = HashSet<u64, BuildHasherDefault<IdentityHasher>>;

#[derive(Debug, Default)]
pub(super) struct IdentityHasher(u64);

impl Hasher for IdentityHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

/// What is noted of one value while it is written.
#[derive(Debug)]
pub(super) struct SiteRecorder<'r> {
    known: KnownSites<'r>,
    /// Nothing, as long as all sites are known and no names are needed: one word, for it is made anew for each value.
    found: RefCell<Option<Box<NewSites>>>,
    /// How many elements all sequences and maps have.
    elements: Cell<usize>,
}

/// What is new in a value.
#[derive(Debug, Default)]
pub(super) struct NewSites {
    /// The sites that were not known.
    pub(super) new_sites: Sites,
    /// Why places alone do not do.
    pub(super) need: Option<String>,
}

impl<'r> SiteRecorder<'r> {
    #[inline]
    pub(super) fn new(known: KnownSites<'r>) -> Self {
        Self { known, found: RefCell::new(None), elements: Cell::new(0) }
    }

    /// Notes a site: where something of the type with number `own` is written in one way of several.
    #[inline]
    pub(super) fn site(&self, own: u64, way: u64) {
        let site = (own ^ way).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        if !self.known.has(site) {
            self.note(site);
        }
    }

    #[cold]
    fn note(&self, site: u64) {
        self.found.borrow_mut().get_or_insert_default().new_sites.insert(site);
    }

    /// Notes that the value has a part that cannot go by its place.
    #[cold]
    pub(super) fn needs_names(&self, why: impl FnOnce() -> String) {
        self.found.borrow_mut().get_or_insert_default().need.get_or_insert_with(why);
    }

    /// Notes that a sequence or map has so many elements.
    #[inline]
    pub(super) fn elements(&self, len: usize) {
        self.elements.set(self.elements.get().saturating_add(len));
    }

    /// How many elements all sequences and maps have.
    #[inline]
    pub(super) fn all_elements(&self) -> usize {
        self.elements.get()
    }

    /// How many sites were not known.
    pub(super) fn count(&self) -> usize {
        self.found.borrow().as_ref().map_or(0, |found| found.new_sites.len())
    }

    /// What was noted: nothing, if all sites were known and no names are needed.
    #[inline]
    pub(super) fn found(self) -> Option<Box<NewSites>> {
        self.found.into_inner()
    }
}

thread_local! {
    static CACHE: [Cell<Option<(u64, &'static TypeRecord)>>; CACHE_SLOTS] = const { [const { Cell::new(None) }; CACHE_SLOTS] };
}

/// The record of the type with this [number](crate::sys::specialize::key).
#[inline]
pub(super) fn record(key: u64) -> &'static TypeRecord {
    #[expect(clippy::cast_possible_truncation, reason = "only the low bits count")]
    let near = key as usize % CACHE_SLOTS;
    match CACHE.with(|cache| cache[near].get()) {
        Some((known, record)) if known == key => record,
        _ => find(key, near),
    }
}

#[cold]
fn find(key: u64, near: usize) -> &'static TypeRecord {
    static RECORDS: OnceLock<Mutex<HashMap<u64, &'static TypeRecord>>> = OnceLock::new();
    let mut records = RECORDS.get_or_init(Mutex::default).lock_unpoisoned();
    let record = *records.entry(key).or_insert_with(|| Box::leak(Box::new(TypeRecord::new())));
    CACHE.with(|cache| cache[near].set(Some((key, record))));
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_sites_stay_known_while_tables_grow() {
        let record = TypeRecord::new();
        for round in 0..2_000_u64 {
            let watch = SiteRecorder::new(record.known());
            (0..round).for_each(|way| watch.site(7, way));
            assert_eq!(watch.count(), 0, "{round}");
            watch.site(7, round);
            assert_eq!(watch.count(), 1, "{round}");
            record.learn(&watch.found().unwrap().new_sites);
        }
        let watch = SiteRecorder::new(record.known());
        watch.site(7 << 40, 1);
        assert_eq!(watch.count(), 1, "another type's site is another one");
    }

    #[test]
    fn each_type_has_one_record() {
        let key = crate::sys::specialize::key::<Vec<Sites>>();
        let own = record(key);
        let theirs = std::thread::spawn(move || record(key)).join().unwrap();
        assert!(std::ptr::eq(own, theirs) && std::ptr::eq(own, record(key)));
        assert!(!std::ptr::eq(own, record(key ^ CACHE_SLOTS as u64)));
    }
}
