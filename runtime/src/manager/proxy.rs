//! [`Proxy`]: a reference to an object that lives in a manager.
//!
//! Runs in: any process. What users see of it is the type that `#[process_object]` writes around it.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::call_handle::CallHandle;
use super::handle::ManagerHandle;
use super::held::{Address, Held, Route};
use super::published::{self, PublishedProxy};
use super::wire::{Answer, ManagerQuestion};
use crate::codec::NoSpill;
use crate::codec::handles::{self, Handles};
use crate::codec::{CodecError, Encoded, Writer};
use crate::error::{Error, ErrorKind, Execution, Result};
use crate::task::{Object, Task};

/// A reference to an object of type `O` that lives in a manager.
///
/// What is made by [`#[process_object]`](macro@crate::process_object), say `CounterProxy` for `Counter`, is one of these. It
/// can be cloned, compared, and passed to any process. The object is dropped when its last proxy is, wherever that is,
/// also if its process is killed.
///
/// # If the manager dies
/// Each call fails within a tenth of a second with [`ErrorKind::ManagerGone`].
#[doc(alias("BaseProxy", "AutoProxy"))]
pub struct Proxy<O> {
    held: Arc<Held>,
    timeout: Option<Duration>,
    object: PhantomData<fn() -> O>,
}

/// Makes a call, and waits for its answer. With it, the reference to the object that a constructor made.
pub(super) fn call<T: Task>(
    route: &Route,
    (task, object): (T, u64),
    args: T::Args<'_>,
    (in_queue, deadline): (bool, Option<Instant>),
) -> Result<(Option<Arc<Held>>, T::Output)> {
    let registration = task.registration();
    let made = || {
        let index = registration.index().ok_or_else(Error::unknown_task)?;
        let (bytes, handles) = encode::<T>(args)?;
        let answer = route.call((index, object), (&bytes, &handles), (in_queue, deadline))?;
        keep(bytes);
        let held = (answer.object != 0).then(|| route.adopt(answer.object));
        Ok((held, decode(&answer, T::decode_output)?))
    };
    made().map_err(|error: Error| described(error, route, registration.name()))
}

/// Adds to an error where and in what it happened.
pub(super) fn described(error: Error, route: &Route, task: &'static str) -> Error {
    error.in_process(route.name(), route.pid()).in_task(task)
}

thread_local! {
    /// What arguments are encoded into.
    static ENCODED: std::cell::Cell<Vec<u8>> = const { std::cell::Cell::new(Vec::new()) };
}

/// Longer memory is not kept for the next call.
const MAX_KEPT_BYTES: usize = 1 << 16;

fn keep(bytes: Vec<u8>) {
    if bytes.capacity() <= MAX_KEPT_BYTES {
        ENCODED.set(bytes);
    }
}

pub(crate) fn encode<T: Task>(args: T::Args<'_>) -> Result<(Vec<u8>, Handles)> {
    let mut handles = Handles::default();
    let mut spill = NoSpill;
    let mut writer = Writer::new(ENCODED.take(), usize::MAX, &mut spill);
    let encoded = handles::collect(&mut handles, || T::encode(args, &mut writer)).and_then(|()| writer.finish());
    match encoded {
        Ok(Encoded::Small(bytes)) => Ok((bytes, handles)),
        Ok(Encoded::Spilled(_)) => Err(Error::cannot_encode_arguments("they are too long")),
        Err(error) => Err(Error::cannot_encode_arguments(error.to_string())),
    }
}

/// The result that an answer holds.
pub(super) fn decode<R>(answer: &Answer, decode: fn(&[u8]) -> std::result::Result<R, CodecError>) -> Result<R> {
    let (bytes, received) = answer.checked()?;
    handles::provide(received, || decode(bytes)).map_err(|error| Error::cannot_decode_result(error.to_string()))
}

impl<O: Object> Proxy<O> {
    fn of(held: Arc<Held>) -> Self {
        Self { held, timeout: None, object: PhantomData }
    }

    /// Makes an object by constructor `task`.
    ///
    /// # Errors
    /// The manager is gone, the constructor panicked, or a value could not travel.
    pub fn create<T: Task>(manager: &ManagerHandle, task: T, args: T::Args<'_>) -> Result<(Self, T::Output)> {
        let (held, output) = call(manager.route(), (task, 0), args, (false, None))?;
        let held = held.ok_or_else(|| Error::invalid("the constructor has made no object"))?;
        Ok((Self::of(held), output))
    }

    /// As [`create`](Self::create) for a constructor that may refuse.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn try_create<T, E>(manager: &ManagerHandle, task: T, args: T::Args<'_>) -> Result<std::result::Result<Self, E>>
    where
        T: Task<Output = std::result::Result<(), E>>,
    {
        let (held, output) = call(manager.route(), (task, 0), args, (false, None))?;
        match (held, output) {
            (Some(held), Ok(())) => Ok(Ok(Self::of(held))),
            (_, Err(error)) => Ok(Err(error)),
            (None, Ok(())) => Err(Error::invalid("the constructor has made no object")),
        }
    }

    /// Calls method `task`, and waits for its result.
    ///
    /// # Errors
    /// The manager is gone, the method panicked, a value could not travel, the object is poisoned, or the
    /// [time](Self::with_timeout) is over.
    #[inline]
    pub fn call<T: Task>(&self, task: T, args: T::Args<'_>) -> Result<T::Output> {
        // Calls that were made by `later` come first.
        let in_queue = self.held.queued.load(Relaxed) != 0;
        call(&self.held.route, (task, self.held.object), args, (in_queue, self.deadline())).map(|(_, output)| output)
    }

    /// Calls method `task`, and does not wait for its result.
    ///
    /// Calls that one process makes of one object are run in the order in which it made them, where they are exclusive
    /// (`&mut self`). Shared ones (`&self`) come after the exclusive ones that were made before, but while another shared call
    /// takes longer than ten milliseconds, they do not wait for the exclusive ones that wait for that.
    pub fn later<T: Task>(&self, task: T, args: T::Args<'_>) -> CallHandle<T::Output> {
        CallHandle::start(&self.held, task, args, self.deadline())
    }

    /// The time that each call has.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// Whether an answer may get lost between the manager and this process while both live: the call may be given up, or the answer
    /// may be refused by the connection.
    pub(crate) fn may_lose_answers(&self) -> bool {
        self.timeout.is_some() || self.held.route.is_connected()
    }

    /// What a call comes to that must be made in any case, such as a release. It is waited for as long as each call has; then it
    /// goes on without this thread.
    pub(crate) fn unless_late<T>(&self, call: CallHandle<T>) -> Result<T> {
        call.join_timeout(self.timeout.unwrap_or(Duration::MAX)).unwrap_or_else(|_late| {
            let route = &self.held.route;
            Err(Error::new(ErrorKind::Elapsed, Execution::Unknown).in_process(route.name(), route.pid()))
        })
    }

    fn deadline(&self) -> Option<Instant> {
        // A time beyond the clock's end is for ever.
        self.timeout.and_then(|timeout| Instant::now().checked_add(timeout))
    }

    /// The same object, where each call ends after `timeout` with [`ErrorKind::Elapsed`]. Its
    /// [`execution`](crate::Error::execution) says whether the method may have run, or may run later.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { timeout: Some(timeout), ..self.clone() }
    }

    /// The manager in which the object lives.
    #[must_use]
    pub fn manager(&self) -> ManagerHandle {
        ManagerHandle::new(self.held.route.clone())
    }

    /// Whether a method with `&mut self` has panicked, so that each call fails with [`ErrorKind::Poisoned`].
    ///
    /// # Errors
    /// The manager is gone.
    pub fn is_poisoned(&self) -> Result<bool> {
        self.ask(ManagerQuestion::IsPoisoned { object: self.held.object }).map(|bytes| bytes.first() == Some(&1))
    }

    /// Lets calls reach a poisoned object again.
    ///
    /// # Errors
    /// The manager is gone.
    pub fn clear_poison(&self) -> Result<()> {
        self.ask(ManagerQuestion::ClearPoison { object: self.held.object }).map(drop)
    }

    fn ask(&self, question: ManagerQuestion) -> Result<Vec<u8>> {
        self.held.route.ask_for_bytes(question, self.deadline())
    }

    fn is_same(&self, other: &Self) -> bool {
        (self.held.route.id(), self.held.object) == (other.held.route.id(), other.held.object)
    }
}

impl<O> Clone for Proxy<O> {
    /// Another proxy of the same object.
    fn clone(&self) -> Self {
        Self { held: Arc::clone(&self.held), timeout: self.timeout, object: PhantomData }
    }
}

impl<O: Object> fmt::Debug for Proxy<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Held { route, object, .. } = &*self.held;
        write!(f, "{} {object} in manager `{}` (pid {})", O::object_type().name(), route.name(), route.pid())
    }
}

impl<O: Object> PartialEq for Proxy<O> {
    /// Whether both are of the same object.
    fn eq(&self, other: &Self) -> bool {
        self.is_same(other)
    }
}

impl<O: Object> Eq for Proxy<O> {}

impl<O: Object> Hash for Proxy<O> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.held.route.id(), self.held.object).hash(state);
    }
}

/// How a proxy travels.
#[derive(Serialize, Deserialize)]
struct TravellingProxy {
    address: Address,
    object: u64,
    /// The number of its type.
    of: u32,
    timeout: Option<Duration>,
    ticket: u32,
}

impl<O: Object> Serialize for Proxy<O> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let of = O::object_type().index().ok_or_else(|| S::Error::custom("its type is not registered"))?;
        if published::note(&self.held) {
            return PublishedProxy { object: self.held.object, of, timeout: self.timeout }.serialize(serializer);
        }
        let address = self.held.route.travelling().map_err(S::Error::custom)?;
        let ticket = self.held.travelling().map_err(S::Error::custom)?;
        let travelling = TravellingProxy { address, object: self.held.object, of, timeout: self.timeout, ticket };
        travelling.serialize(serializer)
    }
}

impl<'de, O: Object> Deserialize<'de> for Proxy<O> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        if published::is_read() {
            let PublishedProxy { object, of, timeout } = Deserialize::deserialize(deserializer)?;
            if O::object_type().index() != Some(of) {
                return Err(D::Error::custom("a proxy of an object of another type was read"));
            }
            return Ok(Self { timeout, ..Self::of(published::found(object).map_err(D::Error::custom)?) });
        }
        let TravellingProxy { address, object, of, timeout, ticket } = Deserialize::deserialize(deserializer)?;
        if O::object_type().index() != Some(of) {
            return Err(D::Error::custom("a proxy of an object of another type was read"));
        }
        let route = Route::arrived(&address).map_err(D::Error::custom)?;
        let held = Held::arrived(&route, object, ticket).map_err(D::Error::custom)?;
        Ok(Self { timeout, ..Self::of(held) })
    }
}
