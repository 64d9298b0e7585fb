//! [`List`]: values in order, in a manager.
//!
//! Runs in: clients.

use std::collections::VecDeque;

use super::raw_list::{ListPage, RawListProxy};
use super::stored::Stored;
use super::typed::managed_type;
use super::update::{UpdateCall, UpdateError};
use crate::channel::Message;
use crate::error::Result;
use crate::manager::handle::ManagerHandle;
use crate::task::Task;

/// The most elements that an iterator asks for at once.
const PAGE: usize = 256;

managed_type! {
    /// A list in a manager: Python's `list`, Rust's `Vec`. Elements at both ends come and go in constant time.
    ///
    /// See the [module](crate::managed) for what all collections have.
    ///
    /// # Examples
    /// ```
    /// use process_task::managed::List;
    /// use process_task::{Manager, process_task};
    ///
    /// #[process_task]
    /// fn append(text: Option<String>, more: &str) -> Option<String> { text.map(|text| text + more) }
    ///
    /// let manager = Manager::start()?;
    /// let list = List::new(&manager, ["a".to_owned(), "b".to_owned()])?;
    /// list.push("c".to_owned())?;
    /// assert_eq!(list.update(1, append, "!")?, Some("b!".to_owned()));
    /// assert_eq!(list.pop()?, Some("c".to_owned()));
    /// assert_eq!(list.to_vec()?, ["a", "b!"]);
    /// # process_task::Result::Ok(())
    /// ```
    #[doc(alias("ListProxy", "SyncManager.list"))]
    List<T>, RawListProxy, refuses by UpdateError
}

impl<T: Message> List<T> {
    /// Makes a list of `values` in `manager`.
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

    /// Puts `value` at the end.
    ///
    /// # Errors
    /// The value cannot travel, or the manager is gone.
    #[doc(alias = "append")]
    pub fn push(&self, value: T) -> Result<()> {
        self.settled(self.raw.push(Stored::of(value)?))
    }

    /// Puts all these values at the end, at one moment.
    ///
    /// # Errors
    /// As [`push`](Self::push). Then nothing was put in.
    pub fn extend(&self, values: impl IntoIterator<Item = T>) -> Result<()> {
        self.settled(self.raw.extend(encoded(values)?))
    }

    /// Puts `value` before the element of that index; at the end, if the index is the length.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn insert(&self, index: usize, value: T) -> Result<()> {
        self.settled(self.raw.insert(index, Stored::of(value)?))
    }

    /// Takes out the element of that index. `None`: there are not so many.
    ///
    /// # Errors
    /// The manager is gone.
    #[doc(alias("pop", "__delitem__"))]
    pub fn remove(&self, index: usize) -> Result<Option<T>> {
        decoded(self.settled(self.raw.remove(index))?)
    }

    /// Takes out the first element with this value. Returns whether there was one.
    ///
    /// # Errors
    /// The value cannot travel, or the manager is gone.
    #[doc(alias = "remove")]
    pub fn remove_value(&self, value: T) -> Result<bool> {
        self.settled(self.raw.remove_value(Stored::of(value)?.bytes()))
    }

    /// Takes out the last element.
    ///
    /// # Errors
    /// The manager is gone.
    pub fn pop(&self) -> Result<Option<T>> {
        decoded(self.settled(self.raw.pop())?)
    }

    /// Takes out the first element.
    ///
    /// # Errors
    /// The manager is gone.
    pub fn pop_front(&self) -> Result<Option<T>> {
        decoded(self.settled(self.raw.pop_front())?)
    }

    /// Runs `task` on the element of that index, in the manager, and puts what it returns in its place; with `None` the
    /// element is taken out. Returns what the task has returned.
    ///
    /// Other changes of the list wait until the task has returned. A panic of the task leaves the list as it was.
    ///
    /// # Errors
    /// There is no such element; the task panicked, or changes the list by a call of its own; a value cannot travel; or the
    /// manager is gone.
    #[doc(alias = "__iadd__")]
    pub fn update<'a, A, K>(&self, index: usize, task: K, arg: A) -> Result<Option<T>>
    where
        K: Task<Args<'a> = (Option<T>, A), Output = Option<T>>,
    {
        let call = UpdateCall::of::<T, A, K>(task, arg)?;
        decoded(self.settled(self.raw.update(index, &call, true))?)
    }

    /// Exchanges two elements.
    ///
    /// # Errors
    /// There is no such element, or the manager is gone.
    pub fn swap(&self, one: usize, other: usize) -> Result<()> {
        self.settled(self.raw.swap(one, other))
    }

    /// Reverses the order of the elements.
    ///
    /// # Errors
    /// The manager is gone.
    pub fn reverse(&self) -> Result<()> {
        self.settled(self.raw.reverse())
    }

    /// Puts the elements so many times one after another: with 0, there are none left.
    ///
    /// # Errors
    /// The manager is gone.
    #[doc(alias = "__imul__")]
    pub fn repeat(&self, times: usize) -> Result<()> {
        self.settled(self.raw.repeat(times))
    }

    /// Takes out all elements behind the first `len`.
    ///
    /// # Errors
    /// The manager is gone.
    pub fn truncate(&self, len: usize) -> Result<()> {
        self.settled(self.raw.truncate(len))
    }

    /// Takes out all elements.
    ///
    /// # Errors
    /// The manager is gone.
    pub fn clear(&self) -> Result<()> {
        self.settled(self.raw.clear())
    }

    /// Sorts the elements: in this process, and again if the list was changed meanwhile. Elements that are equal keep their
    /// order.
    ///
    /// # Errors
    /// The manager is gone.
    pub fn sort(&self) -> Result<()>
    where
        T: Ord,
    {
        loop {
            let (elements, version) = self.raw.snapshot(0, usize::MAX)?;
            let mut sorted: Vec<(T, Stored)> =
                elements.into_iter().map(|element| Ok((element.value()?, element))).collect::<Result<_>>()?;
            sorted.sort_by(|(one, _), (other, _)| one.cmp(other));
            let sorted = sorted.into_iter().map(|(_, element)| element).collect();
            if self.settled(self.raw.replace(sorted, version))? {
                return Ok(());
            }
        }
    }

    /// Whether there is an element with this value.
    ///
    /// # Errors
    /// The value cannot travel, or the manager is gone.
    #[doc(alias = "__contains__")]
    pub fn contains(&self, value: T) -> Result<bool> {
        Ok(self.index_of(value)?.is_some())
    }

    /// The index of the first element with this value.
    ///
    /// # Errors
    /// As [`contains`](Self::contains).
    #[doc(alias("index", "position"))]
    pub fn index_of(&self, value: T) -> Result<Option<usize>> {
        self.raw.index_of(Stored::of(value)?.bytes())
    }

    /// Number of elements with this value.
    ///
    /// # Errors
    /// As [`contains`](Self::contains).
    pub fn count(&self, value: T) -> Result<usize> {
        self.raw.count(Stored::of(value)?.bytes())
    }

    /// All elements as they are at one moment.
    ///
    /// # Errors
    /// The manager is gone; or they have more than 64 descriptors, all together: a proxy has one. Iterating has no bound.
    #[doc(alias = "copy")]
    pub fn to_vec(&self) -> Result<Vec<T>> {
        self.slice(0, usize::MAX)
    }

    /// The elements from `from` on as they are at one moment, at most so many.
    ///
    /// # Errors
    /// The manager is gone; or they have more than 64 descriptors, all together: a proxy has one. Iterating has no bound.
    pub fn slice(&self, from: usize, most: usize) -> Result<Vec<T>> {
        let (elements, _) = self.raw.snapshot(from, most)?;
        elements.into_iter().map(|element| element.value()).collect()
    }

    /// The elements by their index, some at a time.
    ///
    /// It is a live view. Elements that move while it goes on may come twice, or not.
    #[must_use]
    #[doc(alias = "__iter__")]
    pub fn iter(&self) -> ListIter<T> {
        ListIter { list: self.clone(), page: VecDeque::new(), next: Some(0) }
    }
}

/// The encodings of `values`.
pub(super) fn encoded<T: Message>(values: impl IntoIterator<Item = T>) -> Result<Vec<Stored>> {
    values.into_iter().map(Stored::of).collect()
}

pub(super) fn decoded<T: Message>(value: Option<Stored>) -> Result<Option<T>> {
    value.map(|value| value.value()).transpose()
}

/// The elements of a list, some at a time. See [`List::iter`].
#[derive(Debug)]
pub struct ListIter<T> {
    list: List<T>,
    page: VecDeque<Stored>,
    next: Option<usize>,
}

impl<T> ListIter<T> {
    /// The elements of another collection that is kept as a list.
    pub(super) fn of(raw: RawListProxy) -> Self {
        Self { list: List::of(raw), page: VecDeque::new(), next: Some(0) }
    }
}

impl<T: Message> Iterator for ListIter<T> {
    /// An error is the last item.
    type Item = Result<T>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.page.is_empty() {
            let from = self.next.take()?;
            match self.list.raw.page(from, PAGE) {
                Ok(ListPage { elements, is_last }) => {
                    self.next = (!is_last).then(|| from + elements.len());
                    self.page = elements.into();
                }
                Err(error) => return Some(Err(error)),
            }
        }
        self.page.pop_front().map(|element| element.value())
    }
}

impl<T: Message> std::iter::FusedIterator for ListIter<T> {}

impl<T: Message> IntoIterator for &List<T> {
    type Item = Result<T>;
    type IntoIter = ListIter<T>;

    fn into_iter(self) -> ListIter<T> {
        self.iter()
    }
}
