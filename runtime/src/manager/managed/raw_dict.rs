//! A dictionary as a manager keeps it: encoded keys, encoded values, in the order in which keys came.
//!
//! Runs in: the manager.

use std::collections::HashSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::entries::{DictEntries, EncodedKey};
use super::page::PageRoom;
use super::stored::Stored;
use super::update::{Updatable, UpdateCall, UpdateError};
use crate::process_object;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct RawDict {
    entries: Updatable<DictEntries, EncodedKey>,
}

/// Some entries, and where the next ones are.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct DictPage {
    /// Keys, which have no handles, and values.
    pub(super) entries: Vec<(Stored, Stored)>,
    /// `None`: there are no more.
    pub(super) next: Option<u64>,
}

/// The pieces of `bytes` that have these lengths, for as long as there are bytes.
pub(super) fn pieces<'a>(bytes: &'a [u8], lengths: &'a [u64]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = bytes;
    lengths.iter().map_while(move |length| {
        let (piece, behind) = rest.split_at_checked(usize::try_from(*length).ok()?)?;
        rest = behind;
        Some(piece)
    })
}

/// Some of the entries behind the age `after`: at most so many, and at least one if there is one.
fn page(entries: &DictEntries, after: u64, most: usize) -> DictPage {
    let (mut page, mut room, mut last) = (DictPage::default(), PageRoom::new(most), after);
    for (age, (key, value)) in entries.after(after) {
        if !room.takes(key.len(), value) {
            page.next = Some(last);
            break;
        }
        page.entries.push((Stored::shared(Arc::clone(key)), value.clone()));
        last = age;
    }
    page
}

#[process_object(crate = crate)]
impl RawDict {
    pub(crate) fn new() -> Self {
        Self { entries: Updatable::new(DictEntries::default()) }
    }

    pub(crate) fn get(&self, key: &[u8]) -> Option<Stored> {
        self.entries.read(|entries| entries.get(key).cloned())
    }

    /// As [`get`](Self::get), where the value has no handles. Else nothing is done.
    pub(crate) fn get_bytes(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ()> {
        self.entries.read(|entries| match entries.get(key) {
            Some(value) if !value.is_plain() => Err(()),
            value => Ok(value.map(|value| value.bytes().to_vec())),
        })
    }

    /// As [`insert`](Self::insert), where neither value has handles, and this thread does not update the entry. Else nothing is done.
    pub(crate) fn insert_bytes(&self, key: &[u8], value: &[u8]) -> Result<Option<Vec<u8>>, ()> {
        let insert = |entries: &mut DictEntries| {
            if entries.get(key).is_some_and(|there| !there.is_plain()) {
                return Err(());
            }
            let before = entries.insert(key, Stored::new(value, <_>::default()));
            Ok(before.map(|before| before.bytes().to_vec()))
        };
        self.entries.write(|other| **other == *key, insert).map_err(drop)?
    }

    /// As [`extend`](Self::extend): `bytes` are a key, its value, and so on, each of the length that `lengths` says.
    pub(crate) fn extend_bytes(&self, bytes: &[u8], lengths: &[u64]) -> Result<(), UpdateError> {
        let pieces: Vec<_> = pieces(bytes, lengths).collect();
        let (pairs, _) = pieces.as_chunks::<2>();
        let touches = |other: &EncodedKey| pairs.iter().any(|[key, _]| *key == &**other);
        self.entries.write(touches, |entries| {
            for [key, value] in pairs {
                entries.insert(key, Stored::new(value, <_>::default()));
            }
        })
    }

    pub(crate) fn contains_key(&self, key: &[u8]) -> bool {
        self.entries.read(|entries| entries.contains(key))
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.read(DictEntries::len)
    }

    pub(crate) fn insert(&self, key: &[u8], value: Stored) -> Result<Option<Stored>, UpdateError> {
        self.entries.write(|other| **other == *key, |entries| entries.insert(key, value))
    }

    pub(crate) fn remove(&self, key: &[u8]) -> Result<Option<Stored>, UpdateError> {
        self.entries.write(|other| **other == *key, |entries| entries.remove(key))
    }

    pub(crate) fn pop_last(&self) -> Result<Option<(Stored, Stored)>, UpdateError> {
        self.entries.write(
            |_| true,
            |entries| {
                let (key, value) = entries.pop_last()?;
                Some((Stored::shared(key), value))
            },
        )
    }

    pub(crate) fn get_or_insert(&self, key: &[u8], value: Stored) -> Result<Stored, UpdateError> {
        let get_or_insert = |entries: &mut DictEntries| {
            if let Some(value) = entries.get(key) {
                return value.clone();
            }
            entries.insert(key, value.clone());
            value
        };
        self.entries.write(|other| **other == *key, get_or_insert)
    }

    /// Inserts all at once.
    pub(crate) fn extend(&self, pairs: &[(Stored, Stored)]) -> Result<(), UpdateError> {
        let touches = |other: &EncodedKey| pairs.iter().any(|(key, _)| *key.bytes() == **other);
        self.entries.write(touches, |entries| {
            for (key, value) in pairs {
                entries.insert(key.bytes(), value.clone());
            }
        })
    }

    /// Takes out the entries at these keys. Returns how many there were.
    pub(crate) fn remove_all(&self, keys: &[Stored]) -> Result<usize, UpdateError> {
        let touches = |other: &EncodedKey| keys.iter().any(|key| *key.bytes() == **other);
        self.entries.write(touches, |entries| keys.iter().filter(|key| entries.remove(key.bytes()).is_some()).count())
    }

    /// Takes out the entries at all other keys. Returns how many there were.
    pub(crate) fn retain_all(&self, keys: &[Stored]) -> Result<usize, UpdateError> {
        let keys: HashSet<_> = keys.iter().map(Stored::bytes).collect();
        let retain = |entries: &mut DictEntries| {
            let before = entries.len();
            entries.retain(|key| keys.contains(key));
            before - entries.len()
        };
        self.entries.write(|other| !keys.contains(&**other), retain)
    }

    /// Takes out the entries at these keys, and puts those in that were not there, without values.
    pub(crate) fn toggle_all(&self, keys: &[Stored]) -> Result<(), UpdateError> {
        let mut seen = HashSet::new();
        let keys: Vec<_> = keys.iter().map(Stored::bytes).filter(|key| seen.insert(*key)).collect();
        let toggle = |entries: &mut DictEntries| {
            for key in keys {
                if entries.remove(key).is_none() {
                    entries.insert(key, Stored::default());
                }
            }
        };
        self.entries.write(|other| seen.contains(&**other), toggle)
    }

    /// How many of these keys there are, and how many entries.
    pub(crate) fn count_common(&self, keys: &[Stored]) -> (usize, usize) {
        let keys: HashSet<_> = keys.iter().map(Stored::bytes).collect();
        self.entries.read(|entries| {
            let common = keys.iter().filter(|key| entries.contains(key)).count();
            (common, entries.len())
        })
    }

    pub(crate) fn clear(&self) -> Result<(), UpdateError> {
        let all = self.entries.write(|_| true, std::mem::take)?;
        // Not under the lock: there may be many.
        drop(all);
        Ok(())
    }

    /// The entries behind `after`, at most so many, in the order in which their keys came.
    pub(crate) fn page(&self, after: u64, most: usize) -> DictPage {
        self.entries.read(|entries| page(entries, after, most))
    }

    /// All keys at one moment.
    pub(crate) fn keys(&self) -> Vec<Stored> {
        let key = |(key, _): &(EncodedKey, Stored)| Stored::shared(Arc::clone(key));
        self.entries.read(|entries| entries.iter().map(key).collect())
    }

    /// All entries at one moment.
    pub(crate) fn snapshot(&self) -> Vec<(Stored, Stored)> {
        let pairs = |(key, value): &(EncodedKey, Stored)| (Arc::clone(key), value.clone());
        let pairs: Vec<_> = self.entries.read(|entries| entries.iter().map(pairs).collect());
        pairs.into_iter().map(|(key, value)| (Stored::shared(key), value)).collect()
    }

    pub(crate) fn update(&self, key: &[u8], call: &UpdateCall) -> Result<Option<Stored>, UpdateError> {
        let find = |entries: &DictEntries| Ok(entries.get(key).cloned());
        self.entries.update(&key.into(), call, find, |entries, value| entries.put(key, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manager::managed::page::MAX_PAGE_BYTES;

    fn stored(byte: u8) -> Stored {
        Stored::new(&[byte], <_>::default())
    }

    fn keys(page: &DictPage) -> Vec<u8> {
        page.entries.iter().map(|(key, _)| key.bytes()[0]).collect()
    }

    #[test]
    fn pages_are_in_order_of_insertion_and_miss_nothing_that_stays() {
        let dict = RawDict::new();
        for key in 0..10 {
            dict.insert(&[key], stored(key)).unwrap();
        }
        let first = dict.page(0, 4);
        assert_eq!(keys(&first), [0, 1, 2, 3]);
        dict.remove(&[3]).unwrap();
        dict.remove(&[5]).unwrap();
        dict.insert(&[4], stored(44)).unwrap();
        dict.insert(&[0], stored(100)).unwrap();
        dict.insert(&[3], stored(33)).unwrap();
        let second = dict.page(first.next.unwrap(), 100);
        assert_eq!(keys(&second), [4, 6, 7, 8, 9, 3], "what was removed and came again is new");
        assert_eq!(second.entries[0].1.bytes(), [44]);
        assert_eq!(second.next, None);
        assert_eq!(keys(&dict.page(0, 0)), [0], "a page has an entry if there is one");
    }

    #[test]
    fn pages_are_bounded_by_bytes() {
        let dict = RawDict::new();
        for key in 0..3 {
            dict.insert(&[key], Stored::new(&vec![0; MAX_PAGE_BYTES - 100], <_>::default())).unwrap();
        }
        let page = dict.page(0, 100);
        assert_eq!((keys(&page), page.next.is_some()), (vec![0], true));
        let page = dict.page(page.next.unwrap(), 100);
        assert_eq!((keys(&page), page.next.is_some()), (vec![1], true));
    }

    #[test]
    fn toggled_keys_come_in_the_order_of_their_call() {
        let dict = RawDict::new();
        dict.insert(&[7], stored(7)).unwrap();
        let toggled: Vec<_> = (0..50).rev().chain([9, 9]).map(stored).collect();
        dict.toggle_all(&toggled).unwrap();
        assert_eq!(keys(&dict.page(0, 100)), (0..50).rev().filter(|key| *key != 7).collect::<Vec<_>>());
    }

    #[test]
    fn entry_that_is_there_keeps_its_place() {
        let dict = RawDict::new();
        dict.extend(&[(stored(1), stored(1)), (stored(2), stored(2)), (stored(1), stored(3))]).unwrap();
        assert_eq!(keys(&dict.page(0, 9)), [1, 2]);
        assert_eq!(dict.get(&[1]).unwrap().bytes(), [3]);
        assert_eq!(dict.get_or_insert(&[1], stored(9)).unwrap().bytes(), [3]);
        let (key, value) = dict.pop_last().unwrap().unwrap();
        assert_eq!((key.bytes(), value.bytes(), dict.len()), (&[2][..], &[2][..], 1));
        dict.clear().unwrap();
        assert!(dict.pop_last().unwrap().is_none() && dict.snapshot().is_empty());
    }
}
