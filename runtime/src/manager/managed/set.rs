//! [`Set`]: values in a manager, each once.
//!
//! Runs in: clients. It is a dictionary of keys without values.

use std::collections::VecDeque;

use super::dict::{PAGE, decoded_key};
use super::key::AsKey;
use super::raw_dict::{DictPage, RawDictProxy};
use super::stored::{Stored, key_bytes};
use super::typed::managed_type;
use super::update::UpdateError;
use crate::channel::Message;
use crate::error::Result;
use crate::manager::handle::ManagerHandle;

managed_type! {
    /// A set in a manager: Python's `set`, Rust's `HashSet`. It keeps the order in which values came.
    ///
    /// # Examples
    /// ```
    /// use process_task::Manager;
    /// use process_task::managed::Set;
    ///
    /// let manager = Manager::start()?;
    /// let seen: Set<String> = Set::new(&manager)?;
    /// assert!(seen.insert("a")?);                                  // it is new
    /// assert!(!seen.insert("a")?);
    /// seen.extend(["b".to_owned(), "c".to_owned()])?;
    /// assert!(seen.contains("c")? && seen.remove("c")?);
    /// assert_eq!(seen.to_vec()?, ["a", "b"]);
    /// # process_task::Result::Ok(())
    /// ```
    Set<T>, RawDictProxy, refuses by UpdateError
}

impl<T: Message> Set<T> {
    /// Makes an empty set in `manager`.
    ///
    /// # Errors
    /// The manager is gone.
    pub fn new(manager: &impl AsRef<ManagerHandle>) -> Result<Self> {
        RawDictProxy::new(manager).map(Self::of)
    }

    /// Puts `value` in. Returns whether it is new.
    ///
    /// # Errors
    /// The value cannot travel, or the manager is gone.
    #[doc(alias = "add")]
    pub fn insert(&self, value: &(impl AsKey<T> + ?Sized)) -> Result<bool> {
        let before = self.settled(self.raw.insert(&value.key_bytes()?, Stored::default()))?;
        Ok(before.is_none())
    }

    /// Puts all these values in, at one moment.
    ///
    /// # Errors
    /// As [`insert`](Self::insert). Then nothing was put in.
    #[doc(alias = "update")]
    pub fn extend(&self, values: impl IntoIterator<Item = T>) -> Result<()> {
        let encode = |value: T| Ok((Stored::new(&key_bytes(&value)?, <_>::default()), Stored::default()));
        let pairs = values.into_iter().map(encode).collect::<Result<Vec<_>>>()?;
        self.settled(self.raw.extend(&pairs))
    }

    /// Takes all these values out, at one moment. Returns how many there were.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    #[doc(alias("difference_update", "__isub__"))]
    pub fn remove_all(&self, values: impl IntoIterator<Item = T>) -> Result<usize> {
        self.settled(self.raw.remove_all(&encoded(values)?))
    }

    /// Takes all other values out, at one moment. Returns how many there were.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    #[doc(alias("intersection_update", "__iand__"))]
    pub fn retain_all(&self, values: impl IntoIterator<Item = T>) -> Result<usize> {
        self.settled(self.raw.retain_all(&encoded(values)?))
    }

    /// Takes those of these values out that are there, and puts the others in, at one moment.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    #[doc(alias("symmetric_difference_update", "__ixor__"))]
    pub fn toggle_all(&self, values: impl IntoIterator<Item = T>) -> Result<()> {
        self.settled(self.raw.toggle_all(&encoded(values)?))
    }

    /// Whether each value of this set is among these.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    #[doc(alias = "issubset")]
    pub fn is_subset(&self, values: impl IntoIterator<Item = T>) -> Result<bool> {
        let (common, len) = self.raw.count_common(&encoded(values)?)?;
        Ok(common == len)
    }

    /// Whether each of these values is in this set.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    #[doc(alias = "issuperset")]
    pub fn is_superset(&self, values: impl IntoIterator<Item = T>) -> Result<bool> {
        let mut values = encoded(values)?;
        values.sort_by(|one, other| one.bytes().cmp(other.bytes()));
        values.dedup_by(|one, other| one.bytes() == other.bytes());
        let (common, _) = self.raw.count_common(&values)?;
        Ok(common == values.len())
    }

    /// Whether none of these values is in this set.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    #[doc(alias = "isdisjoint")]
    pub fn is_disjoint(&self, values: impl IntoIterator<Item = T>) -> Result<bool> {
        let (common, _) = self.raw.count_common(&encoded(values)?)?;
        Ok(common == 0)
    }

    /// Takes `value` out. Returns whether it was there.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    #[doc(alias = "discard")]
    pub fn remove(&self, value: &(impl AsKey<T> + ?Sized)) -> Result<bool> {
        let before = self.settled(self.raw.remove(&value.key_bytes()?))?;
        Ok(before.is_some())
    }

    /// Takes out the value that came last.
    ///
    /// # Errors
    /// The manager is gone.
    pub fn pop(&self) -> Result<Option<T>> {
        self.settled(self.raw.pop_last())?.map(|(value, _)| decoded_key(&value)).transpose()
    }

    /// Whether `value` is there.
    ///
    /// # Errors
    /// As [`insert`](Self::insert).
    #[doc(alias = "__contains__")]
    pub fn contains(&self, value: &(impl AsKey<T> + ?Sized)) -> Result<bool> {
        self.raw.contains_key(&value.key_bytes()?)
    }

    /// Number of values.
    ///
    /// # Errors
    /// The manager is gone.
    #[doc(alias = "__len__")]
    pub fn len(&self) -> Result<usize> {
        self.raw.len()
    }

    /// Whether there are no values.
    ///
    /// # Errors
    /// The manager is gone.
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Takes out all values.
    ///
    /// # Errors
    /// The manager is gone.
    pub fn clear(&self) -> Result<()> {
        self.settled(self.raw.clear())
    }

    /// All values as they are at one moment, in the order in which they came.
    ///
    /// # Errors
    /// The manager is gone.
    #[doc(alias = "copy")]
    pub fn to_vec(&self) -> Result<Vec<T>> {
        self.raw.snapshot()?.into_iter().map(|(value, _)| decoded_key(&value)).collect()
    }

    /// The values, some at a time, in the order in which they came. A live view, as [`Dict::iter`](super::Dict::iter) is.
    #[must_use]
    #[doc(alias = "__iter__")]
    pub fn iter(&self) -> SetIter<T> {
        SetIter { set: self.clone(), page: VecDeque::new(), next: Some(0) }
    }
}

/// The encodings of `values`, as keys.
fn encoded<T: Message>(values: impl IntoIterator<Item = T>) -> Result<Vec<Stored>> {
    values.into_iter().map(|value| Ok(Stored::new(&key_bytes(&value)?, <_>::default()))).collect()
}

/// The values of a set, some at a time. See [`Set::iter`].
#[derive(Debug)]
pub struct SetIter<T> {
    set: Set<T>,
    page: VecDeque<(Stored, Stored)>,
    next: Option<u64>,
}

impl<T: Message> Iterator for SetIter<T> {
    /// An error is the last item.
    type Item = Result<T>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.is_empty() {
            match self.set.raw.page(self.next.take()?, PAGE) {
                Ok(DictPage { entries, next }) => (self.page, self.next) = (entries.into(), next),
                Err(error) => return Some(Err(error)),
            }
        }
        self.page.pop_front().map(|(value, _)| decoded_key(&value))
    }
}

impl<T: Message> std::iter::FusedIterator for SetIter<T> {}

impl<T: Message> IntoIterator for &Set<T> {
    type Item = Result<T>;
    type IntoIter = SetIter<T>;

    fn into_iter(self) -> SetIter<T> {
        self.iter()
    }
}
