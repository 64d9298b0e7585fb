//! [`Proxy`]: a reference to an object that lives in a manager.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::call_handle::CallHandle;
use super::handle::ManagerHandle;
use crate::error::Result;
use crate::task::Task;

/// A reference to an object of type `O` that lives in a manager.
pub struct Proxy<O> {
    object: PhantomData<fn() -> O>,
}

impl<O> Proxy<O> {
    /// Makes an object by constructor `task`.
    ///
    /// # Errors
    /// The manager is gone, or the constructor failed.
    pub fn create<T: Task>(_manager: &ManagerHandle, _task: T, _args: T::Args<'_>) -> Result<(Self, T::Output)> {
        unimplemented!()
    }

    /// As [`create`](Self::create) for a constructor that may refuse.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn try_create<T, E>(_manager: &ManagerHandle, _task: T, _args: T::Args<'_>) -> Result<std::result::Result<Self, E>>
    where
        T: Task<Output = std::result::Result<(), E>>,
    {
        unimplemented!()
    }

    /// Calls method `task`.
    ///
    /// # Errors
    /// The call failed.
    pub fn call<T: Task>(&self, _task: T, _args: T::Args<'_>) -> Result<T::Output> {
        unimplemented!()
    }

    /// Calls method `task` and does not wait.
    pub fn later<T: Task>(&self, _task: T, _args: T::Args<'_>) -> CallHandle<T::Output> {
        unimplemented!()
    }

    /// The same object, where each call ends after `timeout`.
    #[must_use]
    pub fn with_timeout(&self, _timeout: Duration) -> Self {
        unimplemented!()
    }

    /// The manager in which the object lives.
    #[must_use]
    pub fn manager(&self) -> ManagerHandle {
        unimplemented!()
    }

    /// Whether a method panicked while it had the object for itself.
    ///
    /// # Errors
    /// The manager is gone.
    pub fn is_poisoned(&self) -> Result<bool> {
        unimplemented!()
    }

    /// Lets calls reach a poisoned object again.
    ///
    /// # Errors
    /// The manager is gone.
    pub fn clear_poison(&self) -> Result<()> {
        unimplemented!()
    }
}

impl<O> Clone for Proxy<O> {
    fn clone(&self) -> Self {
        unimplemented!()
    }
}

impl<O> fmt::Debug for Proxy<O> {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        unimplemented!()
    }
}

impl<O> PartialEq for Proxy<O> {
    fn eq(&self, _other: &Self) -> bool {
        unimplemented!()
    }
}

impl<O> Eq for Proxy<O> {}

impl<O> Hash for Proxy<O> {
    fn hash<H: Hasher>(&self, _state: &mut H) {
        unimplemented!()
    }
}

impl<O> Serialize for Proxy<O> {
    fn serialize<S: Serializer>(&self, _serializer: S) -> std::result::Result<S::Ok, S::Error> {
        unimplemented!()
    }
}

impl<'de, O> Deserialize<'de> for Proxy<O> {
    fn deserialize<D: Deserializer<'de>>(_deserializer: D) -> std::result::Result<Self, D::Error> {
        unimplemented!()
    }
}
