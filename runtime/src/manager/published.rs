//! Objects that have a name in their manager, so that processes that have connected find them.
//!
//! Runs in: the manager, which keeps what was published, and its clients.
//! Invariant: the manager holds each object that is in a published value, and counts it for a client before it answers it.
//!
//! What is published is any value with proxies in it. It is kept encoded. A proxy in it is no more than the number of its object:
//! no handle is needed, since the process that finds it is a client already. So it works across machines, too.

use std::any::type_name;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::handle::ManagerHandle;
use super::held::Held;
use super::wire::{AlignedBytes, ManagerId, ManagerQuestion};
use crate::codec::handles::Received;
use crate::codec::message::from_bytes;
use crate::codec::message_format::{of_message, to_message};
use crate::codec::{CodecError, Encoded, Message, NoSpill};
use crate::error::{Error, Result};

/// A value as the manager keeps it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct PublishedValue {
    /// The name of its type.
    pub(super) of: String,
    bytes: AlignedBytes,
    /// The objects whose proxies are in it, each once.
    pub(super) objects: Vec<u64>,
}

/// How a proxy in a published value is written.
#[derive(Serialize, Deserialize)]
pub(super) struct PublishedProxy {
    pub(super) object: u64,
    /// The number of its type.
    pub(super) of: u32,
    pub(super) timeout: Option<Duration>,
}

/// The value that this thread writes or reads.
struct Scope {
    manager: ManagerId,
    /// The objects whose proxies were written, or may be read.
    objects: HashMap<u64, Arc<Held>>,
}

thread_local! {
    static SCOPE: RefCell<Option<Scope>> = const { RefCell::new(None) };
}

/// Runs `within` while proxies of that manager are written and read as in a published value. With the objects at the end.
fn scoped<R>(scope: Scope, within: impl FnOnce() -> R) -> (R, HashMap<u64, Arc<Held>>) {
    struct Back(Option<Scope>);

    impl Drop for Back {
        fn drop(&mut self) {
            SCOPE.set(self.0.take());
        }
    }

    let back = Back(SCOPE.replace(Some(scope)));
    let result = within();
    let scope = SCOPE.take();
    drop(back);
    (result, scope.map(|scope| scope.objects).unwrap_or_default())
}

/// Whether this thread reads a published value.
pub(super) fn is_read() -> bool {
    SCOPE.with_borrow(Option::is_some)
}

/// Notes that a proxy of that object is written. False: this thread writes no value that is published in the object's manager.
pub(super) fn note(held: &Arc<Held>) -> bool {
    SCOPE.with_borrow_mut(|scope| {
        let scope = scope.as_mut().filter(|scope| scope.manager == held.route.id());
        scope.map(|scope| scope.objects.insert(held.object, Arc::clone(held))).is_some()
    })
}

/// The reference to an object whose proxy is read.
///
/// # Errors
/// The value has no such object.
pub(super) fn found(object: u64) -> std::result::Result<Arc<Held>, CodecError> {
    let held = SCOPE.with_borrow(|scope| scope.as_ref().and_then(|scope| scope.objects.get(&object).map(Arc::clone)));
    held.ok_or_else(|| CodecError::new("a proxy of an object that does not come with the value"))
}

impl ManagerHandle {
    /// Gives `value` a name in the manager, where [`find`](Self::find) finds it: most often a proxy, or several.
    ///
    /// What had the name is replaced. The objects whose proxies are in the value stay until the name is
    /// [taken away](Self::unpublish). A process that has connected publishes nothing, but finds everything.
    ///
    /// # Errors
    /// The manager is gone, the value holds what is no proxy of this manager and cannot travel without handles, or this process has
    /// connected.
    ///
    /// # Examples
    /// ```
    /// use process_task::Manager;
    /// use process_task::managed::Queue;
    ///
    /// let manager = Manager::start()?;
    /// manager.publish("jobs", &Queue::<String>::unbounded(&manager)?)?;
    ///
    /// let jobs: Queue<String> = manager.find("jobs")?.expect("it was published");
    /// jobs.send("paint".to_owned())?;
    /// assert!(manager.find::<Queue<String>>("results")?.is_none());
    /// # process_task::Result::Ok(())
    /// ```
    #[doc(alias("register", "get_queue"))]
    pub fn publish<T: Message>(&self, name: &str, value: &T) -> Result<()> {
        let scope = Scope { manager: self.route().id(), objects: HashMap::new() };
        let (encoded, held) = scoped(scope, || to_message(value, Vec::new(), (usize::MAX, &mut NoSpill)));
        let (bytes, handles) = encoded.map_err(|error| Error::cannot_encode_arguments(error.to_string()))?;
        let Encoded::Small(bytes) = bytes else { return Err(Error::cannot_encode_arguments("it is too long")) };
        if !handles.is_empty() {
            return Err(Error::cannot_encode_arguments(
                "what processes share has no name in a manager; publish proxies of its objects, or values",
            ));
        }
        let objects = held.keys().copied().collect();
        let value = PublishedValue { of: type_name::<T>().to_owned(), bytes: AlignedBytes::copied(&bytes), objects };
        // The objects are held here until they are there.
        self.route().ask_for_bytes(ManagerQuestion::Publish { name: name.to_owned(), value }, None).map(drop)
    }

    /// The value that was [published](Self::publish) under this name. `None`: none was.
    ///
    /// # Errors
    /// The manager is gone, or a value of another type has the name.
    pub fn find<T: Message>(&self, name: &str) -> Result<Option<T>> {
        let answer = self.route().ask_for_bytes(ManagerQuestion::Find { name: name.to_owned() }, None)?;
        let value: Option<PublishedValue> =
            from_bytes(&answer).map_err(|error| Error::cannot_decode_result(error.to_string()))?;
        let Some(value) = value else { return Ok(None) };
        // The manager has counted each of them for this process.
        let route = self.route();
        let objects = value.objects.iter().map(|object| (*object, route.adopt_found(*object))).collect();
        if value.of != type_name::<T>() {
            let reason = format!("`{name}` is a `{}`, and a `{}` is looked for", value.of, type_name::<T>());
            return Err(Error::invalid(reason));
        }
        let scope = Scope { manager: route.id(), objects };
        let (decoded, _held) = scoped(scope, || of_message(value.bytes.as_slice(), &Received::default()));
        decoded.map(Some).map_err(|error| Error::cannot_decode_result(error.to_string()))
    }

    /// Takes a name away. Returns whether it was there. Processes that have found its objects keep them.
    ///
    /// # Errors
    /// The manager is gone, or this process has connected.
    pub fn unpublish(&self, name: &str) -> Result<bool> {
        let answer = self.route().ask_for_bytes(ManagerQuestion::Unpublish { name: name.to_owned() }, None)?;
        Ok(answer.first() == Some(&1))
    }
}
