//! One value as a manager keeps it.
//!
//! Runs in: the manager.

use super::stored::Stored;
use super::update::{Updatable, UpdateCall, UpdateError};
use crate::process_object;

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct RawValue {
    value: Updatable<Stored, ()>,
}

#[process_object(crate = crate)]
impl RawValue {
    pub(crate) fn new(value: Stored) -> Self {
        Self { value: Updatable::new(value) }
    }

    pub(crate) fn get(&self) -> Stored {
        self.value.read(Stored::clone)
    }

    /// Puts `new` in, and returns what was there.
    pub(crate) fn replace(&self, new: Stored) -> Result<Stored, UpdateError> {
        self.value.write(|()| true, |value| std::mem::replace(value, new))
    }

    /// Puts `new` in if the value is encoded as `expected`. Returns what was there.
    pub(crate) fn compare_exchange(&self, expected: &[u8], new: Stored) -> Result<(bool, Stored), UpdateError> {
        self.value.write(
            |()| true,
            |value| {
                let is_expected = value.bytes() == expected;
                (is_expected, if is_expected { std::mem::replace(value, new) } else { value.clone() })
            },
        )
    }

    /// An update that makes no value leaves the one that is there.
    pub(crate) fn update(&self, call: &UpdateCall) -> Result<Option<Stored>, UpdateError> {
        let find = |value: &Stored| Ok(Some(value.clone()));
        self.value.update(&(), call, find, |value, made| {
            if let Some(made) = made {
                *value = made;
            }
        })
    }
}
