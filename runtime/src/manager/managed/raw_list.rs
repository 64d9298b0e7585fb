//! A list as a manager keeps it: encoded elements, in order.
//!
//! Runs in: the manager. An update locks the whole list, since other changes move elements.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::page::PageRoom;
use super::stored::Stored;
use super::update::{Updatable, UpdateCall, UpdateError};
use crate::process_object;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct RawList {
    elements: Updatable<ListElements, ()>,
}

#[derive(Debug, Default)]
struct ListElements {
    list: VecDeque<Stored>,
    /// How often the list was changed.
    version: u64,
}

/// Some elements, and whether there are more.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct ListPage {
    pub(super) elements: Vec<Stored>,
    pub(super) is_last: bool,
}

impl ListElements {
    fn index(&self, index: usize) -> Result<usize, UpdateError> {
        let len = self.list.len();
        if index < len { Ok(index) } else { Err(UpdateError::OutOfRange { index, len }) }
    }

    fn page(&self, from: usize, most: usize) -> ListPage {
        let (mut page, mut room) = (ListPage::default(), PageRoom::new(most));
        for element in self.list.iter().skip(from) {
            if !room.takes(0, element) {
                return page;
            }
            page.elements.push(element.clone());
        }
        page.is_last = true;
        page
    }
}

impl RawList {
    fn change<R>(&self, change: impl FnOnce(&mut VecDeque<Stored>) -> R) -> Result<R, UpdateError> {
        self.elements.write(
            |()| true,
            |elements| {
                elements.version += 1;
                change(&mut elements.list)
            },
        )
    }

    fn change_at<R>(&self, index: usize, change: impl FnOnce(&mut VecDeque<Stored>) -> R) -> Result<R, UpdateError> {
        self.elements.write(
            |()| true,
            |elements| {
                elements.index(index)?;
                elements.version += 1;
                Ok(change(&mut elements.list))
            },
        )?
    }
}

#[process_object(crate = crate)]
impl RawList {
    pub(crate) fn new(elements: Vec<Stored>) -> Self {
        Self { elements: Updatable::new(ListElements { list: elements.into(), version: 0 }) }
    }

    pub(crate) fn len(&self) -> usize {
        self.elements.read(|elements| elements.list.len())
    }

    pub(crate) fn get(&self, index: usize) -> Option<Stored> {
        self.elements.read(|elements| elements.list.get(index).cloned())
    }

    pub(crate) fn set(&self, index: usize, value: Stored) -> Result<Stored, UpdateError> {
        self.change_at(index, |list| std::mem::replace(&mut list[index], value))
    }

    pub(crate) fn push(&self, value: Stored) -> Result<(), UpdateError> {
        self.change(|list| list.push_back(value))
    }

    pub(crate) fn extend(&self, values: Vec<Stored>) -> Result<(), UpdateError> {
        self.change(|list| list.extend(values))
    }

    /// Inserts before the element of that index, or at the end.
    pub(crate) fn insert(&self, index: usize, value: Stored) -> Result<(), UpdateError> {
        self.elements.write(
            |()| true,
            |elements| {
                if index > elements.list.len() {
                    return Err(UpdateError::OutOfRange { index, len: elements.list.len() });
                }
                elements.version += 1;
                elements.list.insert(index, value);
                Ok(())
            },
        )?
    }

    pub(crate) fn remove(&self, index: usize) -> Result<Option<Stored>, UpdateError> {
        self.change(|list| list.remove(index))
    }

    /// Removes the first element that is encoded so.
    pub(crate) fn remove_value(&self, value: &[u8]) -> Result<bool, UpdateError> {
        self.change(|list| {
            let index = list.iter().position(|element| element.bytes() == value);
            index.and_then(|index| list.remove(index)).is_some()
        })
    }

    pub(crate) fn pop(&self) -> Result<Option<Stored>, UpdateError> {
        self.change(VecDeque::pop_back)
    }

    pub(crate) fn pop_front(&self) -> Result<Option<Stored>, UpdateError> {
        self.change(VecDeque::pop_front)
    }

    pub(crate) fn swap(&self, one: usize, other: usize) -> Result<(), UpdateError> {
        self.change_at(one.max(other), |list| list.swap(one, other))
    }

    pub(crate) fn reverse(&self) -> Result<(), UpdateError> {
        self.change(|list| list.make_contiguous().reverse())
    }

    pub(crate) fn truncate(&self, len: usize) -> Result<(), UpdateError> {
        self.change(|list| list.truncate(len))
    }

    /// Where the first element is that is encoded so.
    pub(crate) fn index_of(&self, value: &[u8]) -> Option<usize> {
        self.elements.read(|elements| elements.list.iter().position(|element| element.bytes() == value))
    }

    pub(crate) fn count(&self, value: &[u8]) -> usize {
        self.elements.read(|elements| elements.list.iter().filter(|element| element.bytes() == value).count())
    }

    /// The elements from `from` on, at most so many.
    pub(crate) fn page(&self, from: usize, most: usize) -> ListPage {
        self.elements.read(|elements| elements.page(from, most))
    }

    /// The elements from `from` on, at most so many, at one moment, and the list's version.
    pub(crate) fn snapshot(&self, from: usize, most: usize) -> (Vec<Stored>, u64) {
        let taken = |elements: &ListElements| elements.list.iter().skip(from).take(most).cloned().collect();
        self.elements.read(|elements| (taken(elements), elements.version))
    }

    /// Replaces all elements, if the list was not changed since it had that version. Returns whether it did.
    pub(crate) fn replace(&self, elements: Vec<Stored>, version: u64) -> Result<bool, UpdateError> {
        self.elements.write(
            |()| true,
            |present| {
                let is_same = present.version == version;
                if is_same {
                    *present = ListElements { list: elements.into(), version: version + 1 };
                }
                is_same
            },
        )
    }

    /// Puts the elements so many times one after another.
    pub(crate) fn repeat(&self, times: usize) -> Result<(), UpdateError> {
        self.change(|list| {
            let once: Vec<_> = if times == 0 { std::mem::take(list).into() } else { list.iter().cloned().collect() };
            let more = once.len().checked_mul(times.saturating_sub(1));
            let has_room = more.is_some_and(|more| list.try_reserve_exact(more).is_ok());
            if !has_room {
                return Err(UpdateError::NoMemory);
            }
            if !once.is_empty() {
                list.extend((1..times).flat_map(|_| once.iter().cloned()));
            }
            Ok(())
        })?
    }

    pub(crate) fn clear(&self) -> Result<(), UpdateError> {
        // Not under the lock: there may be many.
        self.change(std::mem::take).map(drop)
    }

    /// An update that makes no value takes the element out, if `removes`.
    pub(crate) fn update(&self, index: usize, call: &UpdateCall, removes: bool) -> Result<Option<Stored>, UpdateError> {
        let find = |elements: &ListElements| elements.index(index).map(|index| elements.list.get(index).cloned());
        self.elements.update(&(), call, find, |elements, value| {
            elements.version += 1;
            match value {
                Some(value) => elements.list[index] = value,
                None if removes => drop(elements.list.remove(index)),
                None => {}
            }
        })
    }
}
