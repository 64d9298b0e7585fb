//! [`Dict`]: keys and values in a manager.
//!
//! Runs in: clients.

use std::collections::VecDeque;

use super::key::AsKey;
use super::raw_dict::{DictPage, RawDictProxy, pieces};
use super::stored::{Stored, append_key, append_value, value_of};
use super::typed::managed_type;
use super::update::{UpdateCall, UpdateError};
use crate::channel::Message;
use crate::codec::handles::{Handles, Received};
use crate::codec::message_format::of_message;
use crate::error::{Error, Result};
use crate::manager::handle::ManagerHandle;
use crate::task::Task;

/// The most entries that an iterator asks for at once.
pub(super) const PAGE: usize = 256;

managed_type! {
    /// A dictionary in a manager: Python's `dict`, Rust's `HashMap`. It keeps the order in which keys came.
    ///
    /// See the [module](crate::managed) for what all collections have.
    ///
    /// # Examples
    /// ```
    /// use process_task::managed::Dict;
    /// use process_task::{Manager, process_task};
    ///
    /// #[process_task]
    /// fn double(old: Option<i64>, _: ()) -> Option<i64> { old.map(|old| old * 2) }
    ///
    /// let manager = Manager::start()?;
    /// let dict: Dict<String, i64> = Dict::new(&manager)?;
    /// assert_eq!(dict.insert("one", 1)?, None);
    /// dict.extend([("two".to_owned(), 2), ("three".to_owned(), 3)])?;
    /// assert_eq!(dict.update("two", double, ())?, Some(4));        // one call, as a whole
    /// assert_eq!(dict.pop("one")?, Some(1));
    /// assert_eq!(dict.to_vec()?, [("two".to_owned(), 4), ("three".to_owned(), 3)]);
    /// # process_task::Result::Ok(())
    /// ```
    #[doc(alias("DictProxy", "SyncManager.dict"))]
    Dict<K, V>, RawDictProxy, refuses by UpdateError
}

impl<K: Message, V: Message> Dict<K, V> {
    /// Makes an empty dictionary in `manager`.
    ///
    /// # Errors
    /// The manager is gone.
    pub fn new(manager: &impl AsRef<ManagerHandle>) -> Result<Self> {
        RawDictProxy::new(manager).map(Self::of)
    }

    /// Puts `value` in at `key`. Returns what was there.
    ///
    /// # Errors
    /// The key or the value cannot travel, or the manager is gone.
    #[doc(alias("__setitem__", "set"))]
    pub fn insert(&self, key: &(impl AsKey<K> + ?Sized), value: V) -> Result<Option<V>> {
        let (key, (bytes, handles)) = (key.key_bytes()?, append_value(value, Vec::new())?);
        if handles.is_empty()
            && let Ok(before) = self.raw.insert_bytes(&key, &bytes)?
        {
            return decoded_bytes(before);
        }
        decoded(self.settled(self.raw.insert(&key, Stored::new(&bytes, handles)))?)
    }

    /// The value at `key`. While it is [updated](Self::update), that is the one before.
    ///
    /// # Errors
    /// The key cannot travel, or the manager is gone.
    #[doc(alias("__getitem__"))]
    pub fn get(&self, key: &(impl AsKey<K> + ?Sized)) -> Result<Option<V>> {
        let key = key.key_bytes()?;
        match self.raw.get_bytes(&key)? {
            Ok(value) => decoded_bytes(value),
            Err(()) => decoded(self.raw.get(&key)?),
        }
    }

    /// The value at `key`, which is `value` if there was none.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    #[doc(alias("setdefault", "entry", "or_insert"))]
    pub fn get_or_insert(&self, key: &(impl AsKey<K> + ?Sized), value: V) -> Result<V> {
        let (key, value) = (key.key_bytes()?, Stored::of(value)?);
        self.settled(self.raw.get_or_insert(&key, value))?.value()
    }

    /// Takes out the value at `key`.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    #[doc(alias("remove", "__delitem__"))]
    pub fn pop(&self, key: &(impl AsKey<K> + ?Sized)) -> Result<Option<V>> {
        decoded(self.settled(self.raw.remove(&key.key_bytes()?))?)
    }

    /// Takes out the entry whose key came last.
    ///
    /// # Errors
    /// The manager is gone.
    #[doc(alias = "popitem")]
    pub fn pop_last(&self) -> Result<Option<(K, V)>> {
        self.settled(self.raw.pop_last())?.map(entry).transpose()
    }

    /// Runs `task` on the value at `key`, in the manager, and puts what it returns in its place. `None` is for no value:
    /// the task gets it if there is none, and takes the entry out by it. Returns what the task has returned.
    ///
    /// Other changes of that entry wait until the task has returned. All other calls go on.
    ///
    /// A panic of the task leaves the entry as it was.
    ///
    /// # Errors
    /// The task panicked, or changes the same entry by a call of its own; a value cannot travel; or the manager is gone.
    #[doc(alias("__iadd__", "entry", "and_modify"))]
    pub fn update<'a, A, T>(&self, key: &(impl AsKey<K> + ?Sized), task: T, arg: A) -> Result<Option<V>>
    where
        T: Task<Args<'a> = (Option<V>, A), Output = Option<V>>,
    {
        let (key, call) = (key.key_bytes()?, UpdateCall::of::<V, A, T>(task, arg)?);
        decoded(self.settled(self.raw.update(&key, &call))?)
    }

    /// Puts all these entries in, at one moment.
    ///
    /// # Errors
    /// As [`insert`](Self::insert). Then nothing was put in.
    #[doc(alias = "update")]
    pub fn extend(&self, entries: impl IntoIterator<Item = (K, V)>) -> Result<()> {
        // One buffer for all, as they travel: a key, its value, and so on.
        let (mut bytes, mut lengths, mut all_handles) = (Vec::new(), Vec::new(), Vec::new());
        for (key, value) in entries {
            let begin = bytes.len();
            bytes = append_key(&key, bytes)?;
            let middle = bytes.len();
            let handles;
            (bytes, handles) = append_value(value, bytes)?;
            lengths.extend([middle - begin, bytes.len() - middle].map(|length| length as u64));
            all_handles.push(handles);
        }
        if all_handles.iter().all(Handles::is_empty) {
            return self.settled(self.raw.extend_bytes(&bytes, &lengths));
        }
        let pieces: Vec<_> = pieces(&bytes, &lengths).collect();
        let pairs = pieces.as_chunks::<2>().0.iter().zip(all_handles);
        let stored =
            |([key, value], handles): (&[&[u8]; 2], _)| (Stored::new(key, <_>::default()), Stored::new(value, handles));
        self.settled(self.raw.extend(&pairs.map(stored).collect::<Vec<_>>()))
    }

    /// Whether there is an entry at `key`.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    #[doc(alias("__contains__", "has_key"))]
    pub fn contains_key(&self, key: &(impl AsKey<K> + ?Sized)) -> Result<bool> {
        self.raw.contains_key(&key.key_bytes()?)
    }

    /// Number of entries.
    ///
    /// # Errors
    /// The manager is gone.
    #[doc(alias = "__len__")]
    pub fn len(&self) -> Result<usize> {
        self.raw.len()
    }

    /// Whether there are no entries.
    ///
    /// # Errors
    /// The manager is gone.
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Takes out all entries.
    ///
    /// # Errors
    /// The manager is gone.
    pub fn clear(&self) -> Result<()> {
        self.settled(self.raw.clear())
    }

    /// All entries as they are at one moment, in the order in which their keys came.
    ///
    /// # Errors
    /// The manager is gone; or they have more than 64 descriptors, all together: a proxy has one. Iterating has no bound.
    #[doc(alias("items", "copy"))]
    pub fn to_vec(&self) -> Result<Vec<(K, V)>> {
        self.raw.snapshot()?.into_iter().map(entry).collect()
    }

    /// The entries, some at a time, in the order in which their keys came.
    ///
    /// It is a live view. An entry that is there all the while comes once, with the value that it has when its page is
    /// fetched. One that comes or goes meanwhile comes at most once.
    #[must_use]
    #[doc(alias("items", "__iter__"))]
    pub fn iter(&self) -> DictIter<K, V> {
        DictIter { dict: self.clone(), page: VecDeque::new(), next: Some(0) }
    }

    /// As [`iter`](Self::iter), the keys alone.
    pub fn keys(&self) -> impl Iterator<Item = Result<K>> + use<K, V> {
        self.iter().map(|entry| entry.map(|(key, _)| key))
    }

    /// As [`iter`](Self::iter), the values alone.
    pub fn values(&self) -> impl Iterator<Item = Result<V>> + use<K, V> {
        self.iter().map(|entry| entry.map(|(_, value)| value))
    }
}

fn decoded_bytes<V: Message>(value: Option<Vec<u8>>) -> Result<Option<V>> {
    value.map(|bytes| value_of(&bytes, &Received::default())).transpose()
}

fn decoded<V: Message>(value: Option<Stored>) -> Result<Option<V>> {
    value.map(|value| value.value()).transpose()
}

/// The key that `key` is.
pub(super) fn decoded_key<K: Message>(key: &Stored) -> Result<K> {
    of_message(key.bytes(), &Received::default()).map_err(|error| Error::cannot_decode_result(error.to_string()))
}

fn entry<K: Message, V: Message>((key, value): (Stored, Stored)) -> Result<(K, V)> {
    Ok((decoded_key(&key)?, value.value()?))
}

/// The entries of a dictionary, some at a time. See [`Dict::iter`].
#[derive(Debug)]
pub struct DictIter<K, V> {
    dict: Dict<K, V>,
    page: VecDeque<(Stored, Stored)>,
    next: Option<u64>,
}

impl<K: Message, V: Message> Iterator for DictIter<K, V> {
    /// An error is the last item.
    type Item = Result<(K, V)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.is_empty() {
            match self.dict.raw.page(self.next.take()?, PAGE) {
                Ok(DictPage { entries, next }) => (self.page, self.next) = (entries.into(), next),
                Err(error) => return Some(Err(error)),
            }
        }
        self.page.pop_front().map(entry)
    }
}

impl<K: Message, V: Message> std::iter::FusedIterator for DictIter<K, V> {}

impl<K: Message, V: Message> IntoIterator for &Dict<K, V> {
    type Item = Result<(K, V)>;
    type IntoIter = DictIter<K, V>;

    fn into_iter(self) -> DictIter<K, V> {
        self.iter()
    }
}
