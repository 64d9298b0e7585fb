//! [`Value`]: one value in a manager.
//!
//! Runs in: clients.

use super::raw_value::RawValueProxy;
use super::stored::Stored;
use super::typed::managed_type;
use super::update::{UpdateCall, UpdateError};
use crate::channel::Message;
use crate::error::Result;
use crate::manager::handle::ManagerHandle;
use crate::task::Task;

managed_type! {
    /// A value in a manager: Python's `Value`, and a struct's place in the way of its `Namespace`.
    ///
    /// # Examples
    /// ```
    /// use process_task::managed::Value;
    /// use process_task::{Manager, process_task};
    ///
    /// #[process_task]
    /// fn plus(old: Option<i64>, more: i64) -> Option<i64> { old.map(|old| old + more) }
    ///
    /// let manager = Manager::start()?;
    /// let value = Value::new(&manager, 7)?;
    /// assert_eq!(value.update(plus, 3)?, Some(10));                // one call, as a whole
    /// assert_eq!(value.replace(1)?, 10);
    /// assert_eq!(value.compare_exchange(2, 5)?, Err(1));
    /// assert_eq!(value.get()?, 1);
    /// # process_task::Result::Ok(())
    /// ```
    #[doc(alias("ValueProxy", "SyncManager.Value"))]
    Value<T>, RawValueProxy, refuses by UpdateError
}

impl<T: Message> Value<T> {
    /// Makes a place for `value` in `manager`.
    ///
    /// # Errors
    /// The value cannot travel, or the manager is gone.
    pub fn new(manager: &impl AsRef<ManagerHandle>, value: T) -> Result<Self> {
        RawValueProxy::new(manager, Stored::of(value)?).map(Self::of)
    }

    /// The value. While it is [updated](Self::update), that is the one before.
    ///
    /// # Errors
    /// The manager is gone.
    pub fn get(&self) -> Result<T> {
        self.raw.get()?.value()
    }

    /// Puts `value` in its place.
    ///
    /// # Errors
    /// The value cannot travel, or the manager is gone.
    pub fn set(&self, value: T) -> Result<()> {
        self.settled(self.raw.replace(Stored::of(value)?)).map(drop)
    }

    /// Puts `value` in its place, and returns what was there.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    #[doc(alias = "swap")]
    pub fn replace(&self, value: T) -> Result<T> {
        self.settled(self.raw.replace(Stored::of(value)?))?.value()
    }

    /// Puts `new` in its place if that is `expected`. Returns what was there: `Ok` if it was replaced.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn compare_exchange(&self, expected: T, new: T) -> Result<std::result::Result<T, T>> {
        let (expected, new) = (Stored::of(expected)?, Stored::of(new)?);
        let (is_expected, before) = self.settled(self.raw.compare_exchange(expected.bytes(), new))?;
        let before = before.value()?;
        Ok(if is_expected { Ok(before) } else { Err(before) })
    }

    /// Runs `task` on the value, in the manager, and puts what it returns in its place; with `None` the value stays as it
    /// is. Returns what the task has returned.
    ///
    /// Other changes wait until the task has returned. A panic of the task leaves the value as it was.
    ///
    /// # Errors
    /// The task panicked, or changes the value by a call of its own; a value cannot travel; or the manager is gone.
    #[doc(alias = "__iadd__")]
    pub fn update<'a, A, K>(&self, task: K, arg: A) -> Result<Option<T>>
    where
        K: Task<Args<'a> = (Option<T>, A), Output = Option<T>>,
    {
        let call = UpdateCall::of::<T, A, K>(task, arg)?;
        self.settled(self.raw.update(&call))?.map(|value| value.value()).transpose()
    }
}
