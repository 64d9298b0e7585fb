//! [`Namespace`]: named values of any types, in a manager.
//!
//! Runs in: clients. It is a dictionary whose values begin with what their type is.

use super::dict::decoded_key;
use super::key::AsKey as _;
use super::raw_dict::RawDictProxy;
use super::stored::Stored;
use super::typed::managed_type;
use super::update::UpdateError;
use crate::channel::Message;
use crate::error::{Error, Result};
use crate::manager::handle::ManagerHandle;
use crate::sys::specialize;

managed_type! {
    /// Values by name, each of a type of its own, in a manager: Python's `Namespace`.
    ///
    /// A value is read as the type that it was set as. Where all values are known beforehand, a struct in a
    /// [`Value`](super::Value) says so.
    ///
    /// # Examples
    /// ```
    /// use process_task::Manager;
    /// use process_task::managed::Namespace;
    ///
    /// let manager = Manager::start()?;
    /// let settings = Namespace::new(&manager)?;
    /// settings.set("depth", 3_u32)?;
    /// settings.set("title", "a title".to_owned())?;
    /// assert_eq!(settings.get::<u32>("depth")?, Some(3));
    /// assert!(settings.get::<String>("depth").is_err());           // it is no string
    /// assert_eq!(settings.names()?, ["depth", "title"]);
    /// # process_task::Result::Ok(())
    /// ```
    #[doc(alias("NamespaceProxy", "SyncManager.Namespace"))]
    Namespace<>, RawDictProxy, refuses by UpdateError
}

/// How many bytes say what a value's type is. A multiple of the alignment of what follows.
const TYPE_BYTES: usize = crate::codec::ALIGNMENT;

impl Namespace {
    /// Makes an empty namespace in `manager`.
    ///
    /// # Errors
    /// The manager is gone.
    pub fn new(manager: &impl AsRef<ManagerHandle>) -> Result<Self> {
        RawDictProxy::new(manager).map(Self::of)
    }

    /// Gives `name` this value.
    ///
    /// # Errors
    /// The value cannot travel, or the manager is gone.
    #[doc(alias("__setattr__", "setattr"))]
    pub fn set<V: Message>(&self, name: &str, value: V) -> Result<()> {
        let key = name.key_bytes()?;
        self.settled(self.raw.insert(&key, Stored::of(value)?.behind(&type_bytes::<V>()))).map(drop)
    }

    /// The value of `name`. `None`: there is none.
    ///
    /// # Errors
    /// It was set as another type, or the manager is gone.
    #[doc(alias("__getattr__", "getattr"))]
    pub fn get<V: Message>(&self, name: &str) -> Result<Option<V>> {
        let value = self.raw.get(&name.key_bytes()?)?;
        let Some(value) = value else { return Ok(None) };
        let Some(value) = value.without(&type_bytes::<V>()) else {
            let reason = format!(
                "`{name}` was not set as a `{}`; read it as the type that it was set as",
                std::any::type_name::<V>()
            );
            return Err(Error::invalid(reason));
        };
        value.value().map(Some)
    }

    /// Takes `name` out. Returns whether it was there.
    ///
    /// # Errors
    /// The manager is gone.
    #[doc(alias("__delattr__", "delattr"))]
    pub fn remove(&self, name: &str) -> Result<bool> {
        let before = self.settled(self.raw.remove(&name.key_bytes()?))?;
        Ok(before.is_some())
    }

    /// Whether `name` has a value.
    ///
    /// # Errors
    /// The manager is gone.
    #[doc(alias = "hasattr")]
    pub fn contains(&self, name: &str) -> Result<bool> {
        self.raw.contains_key(&name.key_bytes()?)
    }

    /// All names, in the order in which they came.
    ///
    /// # Errors
    /// The manager is gone.
    #[doc(alias = "dir")]
    pub fn names(&self) -> Result<Vec<String>> {
        self.raw.keys()?.iter().map(decoded_key).collect()
    }

    /// Takes out all names.
    ///
    /// # Errors
    /// The manager is gone.
    pub fn clear(&self) -> Result<()> {
        self.settled(self.raw.clear())
    }
}

fn type_bytes<V: Message>() -> [u8; TYPE_BYTES] {
    let mut bytes = [0; TYPE_BYTES];
    bytes[..size_of::<u64>()].copy_from_slice(&specialize::key::<V>().to_ne_bytes());
    bytes
}
