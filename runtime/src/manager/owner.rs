//! [`Manager`]: a process that holds objects, in the process that started it.
//!
//! Runs in: the process that started the manager.

use std::ops::Deref;
use std::os::fd::AsFd as _;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex};
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

/// How long a thread that waits for the end keeps others from asking.
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
        self.process.lock_unpoisoned().kill()
    }

    /// How the manager's process ended, `None` if it has not.
    ///
    /// # Errors
    /// This process is a `fork()` of the one that started it.
    pub fn try_wait(&self) -> Result<Option<ExitStatus>> {
        self.process.lock_unpoisoned().try_wait()
    }

    /// Waits until the manager's process has ended, for `timeout` at the most, and returns how.
    ///
    /// # Errors
    /// [`Elapsed`]: the process has not ended in time. Inside: as [`try_wait`](Self::try_wait).
    pub fn wait_timeout(&self, timeout: Duration) -> std::result::Result<Result<ExitStatus>, Elapsed> {
        let end = futex_wait::deadline_after(timeout);
        loop {
            // Not for as long as it takes at once: other threads ask, too.
            let left = end.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()));
            let ended = self.process.lock_unpoisoned().wait_timeout(left.min(LOOK_INTERVAL));
            if ended.is_ok() || left <= LOOK_INTERVAL {
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
        let process = self.process.lock_unpoisoned().as_fd().try_clone_to_owned();
        let process = process.map_err(|error| refused(errno_of(&error)))?;
        poll::readable([requests.as_fd(), process.as_fd()], None).map_err(refused)?;
        self.end()?;
        self.wait()
    }

    fn end(&self) -> Result<()> {
        if self.generation != atfork::generation() {
            return Ok(());
        }
        if let Route::Client(client) = self.handle.route() {
            client.tell_until(ClientRequest::Shutdown, futex_wait::deadline_after(EXIT_TIMEOUT));
            client.hurry();
        }
        if self.wait_timeout(EXIT_TIMEOUT).is_err() {
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
