//! [`Array`]: a fixed number of values in a manager.
//!
//! Runs in: clients.

use super::list::{ListIter, decoded, encoded};
use super::raw_list::RawListProxy;
use super::stored::Stored;
use super::typed::managed_type;
use super::update::{UpdateCall, UpdateError};
use crate::channel::Message;
use crate::error::Result;
use crate::manager::handle::ManagerHandle;
use crate::task::Task;

managed_type! {
    /// An array in a manager: Python's `Array`. Its length does not change.
    ///
    /// Where all processes run on one machine, [`SharedMut`](crate::SharedMut) is an array without a manager, at the speed
    /// of memory.
    ///
    /// # Examples
    /// ```
    /// use process_task::Manager;
    /// use process_task::managed::Array;
    ///
    /// let manager = Manager::start()?;
    /// let array = Array::new(&manager, [1.5, 2.5, 3.5])?;
    /// assert_eq!(array.set(1, 9.0)?, 2.5);
    /// assert_eq!(array.to_vec()?, [1.5, 9.0, 3.5]);
    /// assert_eq!(array.get(3)?, None);
    /// # process_task::Result::Ok(())
    /// ```
    #[doc(alias("ArrayProxy", "SyncManager.Array"))]
    Array<T>, RawListProxy, refuses by UpdateError
}

impl<T: Message> Array<T> {
    /// Makes an array of `values` in `manager`.
    ///
    /// # Errors
    /// A value cannot travel, or the manager is gone.
    pub fn new(manager: &impl AsRef<ManagerHandle>, values: impl IntoIterator<Item = T>) -> Result<Self> {
        RawListProxy::new(manager, encoded(values)?).map(Self::of)
    }

    /// Number of elements.
    ///
    /// # Errors
    /// The manager is gone.
    #[doc(alias = "__len__")]
    pub fn len(&self) -> Result<usize> {
        self.raw.len()
    }

    /// Whether there are no elements.
    ///
    /// # Errors
    /// The manager is gone.
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// The element of that index. `None`: there are not so many.
    ///
    /// # Errors
    /// The manager is gone.
    #[doc(alias = "__getitem__")]
    pub fn get(&self, index: usize) -> Result<Option<T>> {
        decoded(self.raw.get(index)?)
    }

    /// Puts `value` in the place of the element of that index. Returns what was there.
    ///
    /// # Errors
    /// The value cannot travel, there is no such element, or the manager is gone.
    #[doc(alias = "__setitem__")]
    pub fn set(&self, index: usize, value: T) -> Result<T> {
        self.settled(self.raw.set(index, Stored::of(value)?))?.value()
    }

    /// Exchanges two elements.
    ///
    /// # Errors
    /// There is no such element, or the manager is gone.
    pub fn swap(&self, one: usize, other: usize) -> Result<()> {
        self.settled(self.raw.swap(one, other))
    }

    /// Runs `task` on the element of that index, in the manager, and puts what it returns in its place; with `None` the
    /// element stays as it is. Returns what the task has returned.
    ///
    /// Other changes of the array wait until the task has returned. A panic of the task leaves the array as it was.
    ///
    /// # Errors
    /// There is no such element; the task panicked, or changes the array by a call of its own; a value cannot travel; or the
    /// manager is gone.
    #[doc(alias = "__iadd__")]
    pub fn update<'a, A, K>(&self, index: usize, task: K, arg: A) -> Result<Option<T>>
    where
        K: Task<Args<'a> = (Option<T>, A), Output = Option<T>>,
    {
        let call = UpdateCall::of::<T, A, K>(task, arg)?;
        decoded(self.settled(self.raw.update(index, &call, false))?)
    }

    /// All elements as they are at one moment.
    ///
    /// # Errors
    /// The manager is gone.
    #[doc(alias = "copy")]
    pub fn to_vec(&self) -> Result<Vec<T>> {
        self.slice(0, usize::MAX)
    }

    /// The elements from `from` on as they are at one moment, at most so many.
    ///
    /// # Errors
    /// The manager is gone.
    pub fn slice(&self, from: usize, most: usize) -> Result<Vec<T>> {
        let (elements, _) = self.raw.snapshot(from, most)?;
        elements.into_iter().map(|element| element.value()).collect()
    }

    /// The elements, some at a time, each as it is when its page is fetched.
    #[must_use]
    #[doc(alias = "__iter__")]
    pub fn iter(&self) -> ListIter<T> {
        ListIter::of(self.raw.clone())
    }
}

impl<T: Message> IntoIterator for &Array<T> {
    type Item = Result<T>;
    type IntoIter = ListIter<T>;

    fn into_iter(self) -> ListIter<T> {
        self.iter()
    }
}
