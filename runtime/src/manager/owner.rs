//! [`Manager`]: a process that holds objects, in the process that started it.
//!
//! Runs in: the process that started the manager.

use std::ops::Deref;
use std::os::fd::AsFd as _;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use super::builder::{ManagerBuilder, Started};
use super::handle::ManagerHandle;
use super::held::Route;
use super::wire::ClientRequest;
use crate::error::{Elapsed, Error, Result};
use crate::sync::futex_wait;
use crate::sys::mutex::MutexExt as _;
use crate::sys::signal::{self, EndRequests};
use crate::sys::{Errno, atfork, errno_of, poll};

/// How long a manager that is told to end may take for that.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a thread that waits for the end keeps others from asking, once that has come; and how often it asks itself where it
/// has no descriptor for it.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A process that holds objects, which are used from many.
///
/// An object is made by the constructor of its proxy. The proxy has the object's methods, and each call is made in the
/// manager. Proxies can be cloned, and passed to tasks, through queues and pipes, and to other objects.
///
/// It derefs to its [`ManagerHandle`], which other processes can have. When it is dropped, the manager ends, and its
/// objects with it.
///
/// # If the manager dies
/// All that waits for it hears of that within a tenth of a second, by an error of kind
/// [`ManagerGone`](crate::ErrorKind::ManagerGone), and so does each later call. Its objects are gone.
#[derive(Debug)]
#[must_use = "the manager ends when this is dropped"]
#[doc(alias("SyncManager", "BaseManager"))]
pub struct Manager {
    handle: ManagerHandle,
    process: Arc<Mutex<Started>>,
    /// See [`atfork::generation`].
    generation: u64,
}

impl Manager {
    pub(super) fn new(route: Route, process: Arc<Mutex<Started>>) -> Self {
        Self { handle: ManagerHandle::new(route), process, generation: atfork::generation() }
    }

    /// Starts a manager.
    ///
    /// # Errors
    /// The process could not be started.
    ///
    /// # Examples
    /// ```
    /// use process_task::Manager;
    ///
    /// let manager = Manager::start()?;
    /// assert!(manager.stats()?.objects().is_empty());
    /// manager.shutdown()?;
    /// # process_task::Result::Ok(())
    /// ```
    pub fn start() -> Result<Self> {
        Self::builder().start()
    }

    /// Options for a manager.
    pub fn builder() -> ManagerBuilder {
        ManagerBuilder::default()
    }

    /// Ends the manager: its objects are dropped, and its process exits. One that takes longer than five seconds for
    /// that is killed, and so is one that is stopped.
    ///
    /// # Errors
    /// The manager had to be killed, and the kernel refuses.
    #[doc(alias = "stop")]
    pub fn shutdown(self) -> Result<()> {
        self.end()
    }

    /// Ends the manager at once: SIGKILL. Fine if it has ended.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn kill(&self) -> Result<()> {
        self.process()?.kill()
    }

    /// The process, for a moment: nothing is waited for meanwhile. A copy made by `fork()` does not try: a thread that it does not
    /// have may have locked it.
    fn process(&self) -> Result<MutexGuard<'_, Started>> {
        if self.generation != atfork::generation() {
            return Err(Error::invalid("the manager was started by the process that this one is a `fork()` of"));
        }
        Ok(self.process.lock_unpoisoned())
    }

    /// How the manager's process ended, `None` if it has not.
    ///
    /// # Errors
    /// This process is a `fork()` of the one that started it.
    pub fn try_wait(&self) -> Result<Option<ExitStatus>> {
        self.process()?.try_wait()
    }

    /// Waits until the manager's process has ended, for `timeout` at the most, and returns how.
    ///
    /// # Errors
    /// [`Elapsed`]: the process has not ended in time. Inside: as [`try_wait`](Self::try_wait).
    pub fn wait_timeout(&self, timeout: Duration) -> std::result::Result<Result<ExitStatus>, Elapsed> {
        self.wait_until(futex_wait::deadline_after(timeout))
    }

    fn wait_until(&self, end: Option<Instant>) -> std::result::Result<Result<ExitStatus>, Elapsed> {
        let pidfd = match self.process() {
            Ok(process) => process.as_fd().try_clone_to_owned(),
            Err(error) => return Ok(Err(error)),
        };
        loop {
            let is_late = end.is_some_and(|end| Instant::now() >= end);
            let look_until = Instant::now() + LOOK_INTERVAL;
            let look_until = end.map_or(look_until, |end| look_until.min(end));
            let has_ended = if let Ok(pidfd) = &pidfd {
                poll::readable([pidfd.as_fd()], end).is_ok_and(|[has_ended]| has_ended)
            } else {
                // There is no descriptor for it.
                thread::sleep(look_until.saturating_duration_since(Instant::now()));
                false
            };
            // The supervisor may say a moment later what the pidfd says.
            let moment = if has_ended { LOOK_INTERVAL } else { Duration::ZERO };
            let ended = match self.process() {
                Ok(mut process) => process.wait_timeout(moment),
                Err(error) => return Ok(Err(error)),
            };
            if ended.is_ok() || is_late {
                return ended;
            }
        }
    }

    /// Waits until the manager's process has ended, and returns how.
    ///
    /// # Errors
    /// As [`try_wait`](Self::try_wait).
    pub fn wait(&self) -> Result<ExitStatus> {
        loop {
            if let Ok(status) = self.wait_timeout(Duration::MAX) {
                return status;
            }
        }
    }

    /// Waits until this program is asked to end, by SIGTERM or SIGINT, or the manager's process has ended: for a program that is
    /// nothing but a manager. Then the manager is [shut down](Self::shutdown). Returns how it ended.
    ///
    /// For a signal for which the program has a handler of its own, that handler runs instead. A manager's process that is sent SIGTERM
    /// itself ends as by [`shutdown`](Self::shutdown), too, so that a service manager may send it to all processes.
    ///
    /// # Errors
    /// Another thread is in this method; there is no descriptor; or as [`shutdown`](Self::shutdown).
    ///
    /// # Examples
    /// ```no_run
    /// use process_task::Manager;
    /// use process_task::channel::Key;
    ///
    /// let key = Key::new(std::fs::read("counters.key").unwrap())?;
    /// let manager = Manager::builder().name("counters").listen_tcp("127.0.0.1:4711", &key).start()?;
    /// manager.serve_forever()?;
    /// # process_task::Result::Ok(())
    /// ```
    #[doc(alias("Server", "get_server"))]
    pub fn serve_forever(self) -> Result<ExitStatus> {
        let requests = EndRequests::of(&[signal::TERM, signal::INT]).map_err(|errno| match errno {
            Errno::EBUSY => Error::invalid("another thread of this process is in `serve_forever`"),
            errno => Error::cannot_share("wait for a signal", errno),
        })?;
        let refused = |errno| Error::cannot_share("wait for a signal", errno);
        let process = self.process()?.as_fd().try_clone_to_owned();
        let process = process.map_err(|error| refused(errno_of(&error)))?;
        poll::readable([requests.as_fd(), process.as_fd()], None).map_err(refused)?;
        self.end()?;
        self.wait()
    }

    fn end(&self) -> Result<()> {
        if self.generation != atfork::generation() {
            return Ok(());
        }
        let end = futex_wait::deadline_after(EXIT_TIMEOUT);
        if let Route::Client(client) = self.handle.route() {
            client.tell_until(ClientRequest::Shutdown, end);
            client.hurry();
        }
        if self.wait_until(end).is_err() {
            self.kill()?;
            // A process that cannot die ends with the program.
            let _ = self.wait_timeout(EXIT_TIMEOUT);
        }
        Ok(())
    }
}

impl Deref for Manager {
    type Target = ManagerHandle;

    fn deref(&self) -> &ManagerHandle {
        &self.handle
    }
}

impl AsRef<ManagerHandle> for Manager {
    fn as_ref(&self) -> &ManagerHandle {
        &self.handle
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = self.end();
    }
}
