//! Keys and values of a dictionary, by key and by age.
//!
//! Runs in: the manager.
//!
//! As Python's `dict` does it: the entries stand in a list in the order in which their keys came, and a table says where
//! each key's entry is. One that is taken out leaves its place empty, and the list is packed when half of it is empty. The
//! age of an entry is a number that it keeps, by which [iteration](DictEntries::after) goes on wherever entries have moved to.

use std::collections::HashMap;
use std::sync::Arc;

use super::stored::Stored;

pub(super) type EncodedKey = Arc<[u8]>;

/// A list that is shorter than this is not packed.
const MIN_PACKED: usize = 32;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct DictEntries {
    /// Where in the list a key's entry is.
    places: HashMap<EncodedKey, usize>,
    list: Vec<Aged>,
    last_age: u64,
}

/// An entry, or the empty place of one that was taken out.
#[derive(Debug)]
struct Aged {
    age: u64,
    entry: Option<(EncodedKey, Stored)>,
}

impl DictEntries {
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn contains(&self, key: &[u8]) -> bool {
        self.places.contains_key(key)
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<&Stored> {
        let aged = self.list.get(*self.places.get(key)?)?;
        aged.entry.as_ref().map(|(_, value)| value)
    }

    /// Puts `value` where the key is, or at the end. Returns what was there.
    pub(super) fn insert(&mut self, key: &[u8], value: Stored) -> Option<Stored> {
        if let Some(place) = self.places.get(key)
            && let Some((_, there)) = self.list.get_mut(*place).and_then(|aged| aged.entry.as_mut())
        {
            return Some(std::mem::replace(there, value));
        }
        self.last_age += 1;
        let key: EncodedKey = key.into();
        self.places.insert(Arc::clone(&key), self.list.len());
        self.list.push(Aged { age: self.last_age, entry: Some((key, value)) });
        None
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> Option<Stored> {
        let place = self.places.remove(key)?;
        let removed = self.list.get_mut(place).and_then(|aged| aged.entry.take());
        self.pack();
        removed.map(|(_, value)| value)
    }

    /// Puts the value in, or takes the entry out if there is none.
    pub(super) fn put(&mut self, key: &[u8], value: Option<Stored>) {
        match value {
            Some(value) => drop(self.insert(key, value)),
            None => drop(self.remove(key)),
        }
    }

    /// Takes out the entry whose key came last.
    pub(super) fn pop_last(&mut self) -> Option<(EncodedKey, Stored)> {
        let entry = std::iter::from_fn(|| self.list.pop()).find_map(|aged| aged.entry)?;
        self.places.remove(&entry.0);
        Some(entry)
    }

    /// Takes out the entries whose keys `keep` refuses.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&[u8]) -> bool) {
        self.list.retain(|aged| aged.entry.as_ref().is_some_and(|(key, _)| keep(key)));
        self.find_places();
    }

    /// All entries, in the order in which their keys came.
    pub(super) fn iter(&self) -> impl Iterator<Item = &(EncodedKey, Stored)> {
        self.after(0).map(|(_, entry)| entry)
    }

    /// The entries of higher age than `age`, with theirs, in the order in which their keys came.
    pub(super) fn after(&self, age: u64) -> impl Iterator<Item = (u64, &(EncodedKey, Stored))> {
        let first = self.list.partition_point(|aged| aged.age <= age);
        let entries = self.list.iter().skip(first);
        entries.filter_map(|aged| aged.entry.as_ref().map(|entry| (aged.age, entry)))
    }

    /// Closes the gaps, if they are half of the list.
    fn pack(&mut self) {
        if self.list.len() >= MIN_PACKED && self.list.len() >= 2 * self.places.len() {
            self.list.retain(|aged| aged.entry.is_some());
            self.find_places();
        }
    }

    fn find_places(&mut self) {
        self.places.clear();
        for (place, aged) in self.list.iter().enumerate() {
            if let Some((key, _)) = &aged.entry {
                self.places.insert(Arc::clone(key), place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(byte: u8) -> Stored {
        Stored::new(&[byte], <_>::default())
    }

    fn keys(entries: &DictEntries) -> Vec<u8> {
        entries.iter().map(|(key, _)| key[0]).collect()
    }

    #[test]
    fn packed_entries_keep_their_order_and_ages() {
        let mut entries = DictEntries::default();
        for key in 0..100 {
            entries.insert(&[key], stored(key));
        }
        let (age, _) = entries.after(0).nth(60).unwrap();
        for key in (0..100).filter(|key| key % 3 != 0) {
            assert_eq!(entries.remove(&[key]).unwrap().bytes(), [key]);
        }
        assert!(entries.list.len() < 67, "{} places for {} entries", entries.list.len(), entries.len());
        let every_third: Vec<u8> = (0..100).filter(|key| key % 3 == 0).collect();
        assert_eq!(keys(&entries), every_third);
        let behind: Vec<u8> = entries.after(age).map(|(_, (key, _))| key[0]).collect();
        assert_eq!(behind, every_third.iter().copied().filter(|key| *key > 60).collect::<Vec<_>>());
        assert!(every_third.iter().all(|key| entries.get(&[*key]).is_some_and(|value| value.bytes() == [*key])));
    }

    #[test]
    fn last_entry_is_popped_over_empty_places() {
        let mut entries = DictEntries::default();
        for key in 0..5 {
            entries.insert(&[key], stored(key));
        }
        entries.remove(&[4]);
        entries.remove(&[2]);
        let popped: Vec<u8> = std::iter::from_fn(|| entries.pop_last()).map(|(key, _)| key[0]).collect();
        assert_eq!((popped, entries.len(), entries.list.len()), (vec![3, 1, 0], 0, 0));
        entries.insert(&[1], stored(7));
        assert_eq!(entries.get(&[1]).unwrap().bytes(), [7]);
    }

    #[test]
    fn what_is_not_kept_is_not_found() {
        let mut entries = DictEntries::default();
        for key in 0..50 {
            entries.insert(&[key], stored(key));
        }
        entries.remove(&[0]);
        entries.retain(|key| key[0] >= 48 || key[0] < 2);
        assert_eq!(keys(&entries), [1, 48, 49]);
        assert!(entries.get(&[30]).is_none() && !entries.contains(&[0]));
        assert_eq!(entries.get(&[49]).unwrap().bytes(), [49]);
    }
}
