//! [`ManagerHandle`]: the way to a manager, which any process may have.
//!
//! Runs in: any process.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::time::{Duration, Instant};

use serde::de::{DeserializeOwned, Error as _};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::held::{Address, Route};
use super::proxy;
use super::stats::ManagerStats;
use super::wire::ManagerQuestion;
use crate::codec::message::from_bytes;
use crate::error::{Elapsed, Error, Result};
use crate::sync::deadline::Deadline;
use crate::task::Task;

/// The way to a [`Manager`](crate::Manager): makes objects there. It can be cloned, and passed to tasks.
///
/// It does not keep the manager running.
#[derive(Clone)]
pub struct ManagerHandle {
    route: Route,
}

impl ManagerHandle {
    pub(super) fn new(route: Route) -> Self {
        Self { route }
    }

    pub(super) fn route(&self) -> &Route {
        &self.route
    }

    /// What the manager is called.
    #[must_use]
    pub fn name(&self) -> &str {
        self.route.name()
    }

    /// The manager's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.route.pid()
    }

    /// What the manager does, in numbers.
    ///
    /// # Errors
    /// The manager is gone.
    pub fn stats(&self) -> Result<ManagerStats> {
        self.ask(ManagerQuestion::Stats)
    }

    /// Where the manager listens, in the order in which its builder was told.
    ///
    /// # Errors
    /// The manager is gone.
    #[doc(alias = "address")]
    pub fn addresses(&self) -> Result<Vec<String>> {
        self.ask(ManagerQuestion::Addresses)
    }

    fn ask<T: DeserializeOwned>(&self, question: ManagerQuestion) -> Result<T> {
        let bytes = self.route.ask_for_bytes(question, None)?;
        from_bytes(&bytes).map_err(|error| Error::cannot_decode_result(error.to_string()))
    }

    /// Runs a task in the manager's process, on one of its threads, beside the calls of its objects.
    ///
    /// # Errors
    /// The manager is gone, the task panicked, or a value could not travel. The task's own options do not act.
    ///
    /// # Examples
    /// ```
    /// use process_task::{Manager, process_task};
    ///
    /// #[process_task]
    /// fn pid() -> u32 { std::process::id() }
    ///
    /// let manager = Manager::start()?;
    /// assert_eq!(manager.call(pid, ())?, manager.pid());
    /// # process_task::Result::Ok(())
    /// ```
    pub fn call<T: Task>(&self, task: T, args: T::Args<'_>) -> Result<T::Output> {
        proxy::call(&self.route, (task, 0), args, (false, None)).map(|(_, output)| output)
    }
}

/// How often a thread that waits for the end looks whether it has come.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

impl ManagerHandle {
    /// Waits until the manager has ended, or this process's connection to it.
    ///
    /// In the process that started it, [`Manager::wait`](crate::Manager::wait) says how it ended.
    ///
    /// # Examples
    /// ```
    /// use process_task::{Manager, ManagerHandle, process_task};
    ///
    /// #[process_task]
    /// fn outlive(manager: ManagerHandle) { manager.wait() }
    ///
    /// let manager = Manager::start()?;
    /// let process = outlive.spawn((*manager).clone());
    /// manager.shutdown()?;
    /// process.join()?;
    /// # process_task::Result::Ok(())
    /// ```
    pub fn wait(&self) {
        while self.wait_timeout(LOOK_INTERVAL).is_err() {}
    }

    /// As [`wait`](Self::wait), for `timeout` at the most.
    ///
    /// # Errors
    /// [`Elapsed`]: it has not ended in time.
    pub fn wait_timeout(&self, timeout: Duration) -> std::result::Result<(), Elapsed> {
        let deadline = Deadline::after(timeout);
        while !self.route.has_ended() {
            if deadline.is_over() {
                return Err(Elapsed::new());
            }
            let left = deadline.instant().map(|end| end.saturating_duration_since(Instant::now()));
            std::thread::sleep(left.map_or(LOOK_INTERVAL, |left| left.min(LOOK_INTERVAL)));
        }
        Ok(())
    }
}

impl AsRef<ManagerHandle> for ManagerHandle {
    fn as_ref(&self) -> &ManagerHandle {
        self
    }
}

impl fmt::Debug for ManagerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManagerHandle").field("name", &self.name()).field("pid", &self.pid()).finish_non_exhaustive()
    }
}

impl PartialEq for ManagerHandle {
    /// Whether both are of the same manager.
    fn eq(&self, other: &Self) -> bool {
        self.route.id() == other.route.id()
    }
}

impl Eq for ManagerHandle {}

impl Hash for ManagerHandle {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.route.id().hash(state);
    }
}

impl Serialize for ManagerHandle {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        self.route.travelling().map_err(S::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ManagerHandle {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let address = Address::deserialize(deserializer)?;
        Route::arrived(&address).map(Self::new).map_err(D::Error::custom)
    }
}
