//! Describes how a manager is started, and starts it.
//!
//! Runs in: the process that starts it.

use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::client::Client;
use super::connection_limits::ConnectionLimits;
use super::held::Route;
use super::initializer::{FirstCall, StartFailure};
use super::memory::ManagerMemory;
use super::owner::Manager;
use super::remote::ListenAt;
use super::serve::{INITIALIZES, Parts, SERVES, serve};
use super::wire::{ClientRequest, ManagerId, TravellingHandle};
use crate::call::EncodedCall;
use crate::channel::Queue;
use crate::error::{Error, ErrorKind, Execution, Result};
use crate::link::StartMethod;
use crate::process::{Process, ProcessBuilder, attribute_setters};
use crate::supervisor::SpawnAttributes;
use crate::sync::futex_wait;
use crate::task::Task;

/// Options for a manager. Made by [`Manager::builder`].
///
/// # Examples
/// ```
/// use process_task::Manager;
///
/// let manager = Manager::builder().name("counters").start()?;
/// assert_eq!(manager.name(), "counters");
/// # process_task::Result::Ok(())
/// ```
#[derive(Debug, Default)]
#[must_use = "a builder starts nothing until `start` is called"]
pub struct ManagerBuilder {
    name: Option<String>,
    options: SpawnAttributes,
    max_pending: Option<u32>,
    listen: Vec<ListenAt>,
    initializer: Option<Result<EncodedCall>>,
    limits: ConnectionLimits,
}

impl ManagerBuilder {
    /// What the manager is called in errors and (15 bytes of it) in `top`: `manager` unless asked.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// How the process is made.
    pub fn start_method(mut self, method: StartMethod) -> Self {
        self.options.method = method;
        self
    }

    /// The most calls that each process may have in flight by [`later`](crate::Proxy::later), or with long arguments: more wait
    /// until there are fewer. As many as there is memory for unless asked.
    pub fn max_pending(mut self, calls: u32) -> Self {
        self.max_pending = Some(calls);
        self
    }

    /// A task that the manager runs before it takes calls. The arguments are encoded here and now.
    ///
    /// If it panics, [`start`](Self::start) fails with that, and so it does if the manager dies in it. The task's `timeout`
    /// acts: a manager whose initializer takes longer is killed. Without one, `start` waits as long as the initializer takes.
    /// `retries` and `memory_limit` are refused.
    ///
    /// # Examples
    /// ```
    /// use std::sync::OnceLock;
    /// use process_task::{Manager, process_task};
    ///
    /// static WORD: OnceLock<String> = OnceLock::new();
    ///
    /// #[process_task]
    /// fn greet_with(word: &str) { WORD.set(word.to_owned()).unwrap() }
    ///
    /// #[process_task]
    /// fn greeting(name: &str) -> String { format!("{} {name}", WORD.get().unwrap()) }
    ///
    /// let manager = Manager::builder().initializer(greet_with, "hello").start()?;
    /// assert_eq!(manager.call(greeting, "world")?, "hello world");
    /// # process_task::Result::Ok(())
    /// ```
    pub fn initializer<T: Task<Output = ()>>(mut self, task: T, args: T::Args<'_>) -> Self {
        self.initializer = Some(EncodedCall::new(task, args));
        self
    }

    /// Has the manager listen at `path` for processes of this user that are no relatives: they
    /// [connect](Manager::connect_unix). Each must be of the same build of this program.
    ///
    /// # Examples
    /// ```no_run
    /// use process_task::Manager;
    ///
    /// let manager = Manager::builder().listen_unix("/run/user/1000/counters").start()?;
    /// let elsewhere = Manager::connect_unix("/run/user/1000/counters")?;
    /// assert_eq!(elsewhere, *manager);
    /// # process_task::Result::Ok(())
    /// ```
    pub fn listen_unix(mut self, path: impl Into<std::path::PathBuf>) -> Self {
        self.listen.push(ListenAt::Unix(path.into()));
        self
    }

    /// Has the manager listen at a port for processes that have the same key, on this machine or another: they
    /// [connect](Manager::connect_tcp). What goes over the network is encrypted.
    ///
    /// With a port alone, such as `"4711"`, processes of this machine can connect, and no others: name an address of a network for
    /// these, or `0.0.0.0`. What one that has connected may cost is [limited](Self::max_message_bytes).
    ///
    /// # Examples
    /// ```
    /// use process_task::Manager;
    /// use process_task::channel::Key;
    ///
    /// let key = Key::random()?;
    /// let manager = Manager::builder().listen_tcp("127.0.0.1:0", &key).start()?;
    /// let elsewhere = Manager::connect_tcp(&manager.addresses()?[0], &key)?;
    /// assert_eq!(elsewhere.pid(), manager.pid());
    /// # process_task::Result::Ok(())
    /// ```
    #[cfg(feature = "tcp")]
    pub fn listen_tcp(mut self, address: impl Into<String>, key: &crate::channel::Key) -> Self {
        self.listen.push(ListenAt::Tcp(address.into(), key.secret().to_vec()));
        self
    }

    /// Sets the number of processes that may be connected at once, 256 by default. One more is refused.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.limits.connections = connections;
        self
    }

    /// Sets the most bytes that the arguments of a call, or its result, may have where a process has connected: 64 MiB by
    /// default. The call fails if there are more.
    pub fn max_message_bytes(mut self, bytes: usize) -> Self {
        self.limits.message_bytes = bytes;
        self
    }

    /// Sets the number of objects that a process that has connected may have, 65,536 by default. With more, its
    /// constructors fail.
    pub fn max_connection_objects(mut self, objects: usize) -> Self {
        self.limits.objects = objects;
        self
    }

    /// Sets how long a process on another machine may be silent: 15 s by default.
    ///
    /// A process that has connected over TCP says every quarter of this time that it lives. If nothing comes, it is taken
    /// for dead: its objects go, and its locks are released and poisoned. So it is if its machine has vanished, if the
    /// network is cut, and also if the process is stopped (SIGSTOP, a debugger). To the other side, a manager that is silent for
    /// so long is gone.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use process_task::Manager;
    /// use process_task::channel::Key;
    ///
    /// let key = Key::random()?;
    /// let builder = Manager::builder().listen_tcp("127.0.0.1:0", &key);
    /// let manager = builder.lease(Duration::from_secs(60)).start()?;
    /// # drop(manager);
    /// # process_task::Result::Ok(())
    /// ```
    pub fn lease(mut self, lease: Duration) -> Self {
        self.limits.lease = lease;
        self
    }

    attribute_setters! {
        setter: (mut self) -> Self, this: self,
        it: "the manager", its: "the manager's", new: "Manager::builder()", run: "start()?.call(seen, ())?"
    }

    /// Starts the manager, and waits until it takes calls.
    ///
    /// # Errors
    /// The process could not be started, or ended before it took calls; or the initializer panicked, took too long, has
    /// arguments that could not be encoded, or options that do not act here.
    pub fn start(self) -> Result<Manager> {
        let name = self.name.unwrap_or_else(|| "manager".to_owned());
        let refused = |errno| Error::could_not_start("share memory with a manager", errno);
        let shared = Arc::new(ManagerMemory::create().map_err(refused)?);
        if self.max_pending == Some(0) {
            return Err(Error::invalid("max_pending must be at least 1; leave it out for no limit"));
        }
        self.limits.check()?;
        shared.words().most_calls.store(self.max_pending.unwrap_or(0), Relaxed);
        let initializer = self.initializer.transpose()?;
        let first = initializer.as_ref().map(FirstCall::of).transpose()?;
        let (sender, receiver) = Queue::<ClientRequest>::unbounded()?.split();
        let id = ManagerId::random();
        let parts = Parts {
            id,
            name: name.clone(),
            shared: TravellingHandle(Arc::clone(&shared)),
            receiver,
            sender: sender.clone(),
            listen: self.listen,
            initializer: first,
            limits: self.limits,
        };
        let process = ProcessBuilder::new().name(&name).attributes(self.options).spawn(serve, parts)?;
        let process = wait_until_it_serves(process, &shared, initializer.as_ref())?;
        let client = Client::connect((id, &name), || Ok((sender, shared))).inspect_err(|_| {
            // It would wait for clients until this process ends.
            let _ = process.kill();
        })?;
        let process = Arc::new(Mutex::new(process));
        let _ = client.process.set(Arc::clone(&process));
        Ok(Manager::new(Route::Client(client), process))
    }
}

fn wait_until_it_serves(
    process: Started,
    shared: &ManagerMemory,
    initializer: Option<&EncodedCall>,
) -> Result<Started> {
    let phase = &shared.words().phase;
    let limit = initializer.and_then(|initializer| initializer.options().timeout);
    let task = initializer.map(|initializer| initializer.task().name());
    let mut begun = None;
    loop {
        let now = phase.load(Acquire);
        if now == SERVES {
            // The thread that wakes up here sees the process that was written before.
            debug_assert!(shared.words().process.load(Relaxed) != 0);
            return Ok(process);
        }
        if process.is_finished() {
            return Err(not_started(process, task.filter(|_| phase.load(Acquire) == INITIALIZES)));
        }
        if now == INITIALIZES
            && let Some(limit) = limit
        {
            let elapsed = begun.get_or_insert_with(Instant::now).elapsed();
            if elapsed >= limit {
                let error = Error::new(ErrorKind::TimedOut { limit, elapsed }, Execution::Unknown);
                process.kill()?;
                let error =
                    error.in_process(process.name(), process.pid().unwrap_or(0)).in_task(task.unwrap_or_default());
                // How a process ends that was killed says nothing new.
                let _ = process.join();
                return Err(error);
            }
            let _ = futex_wait::sleep(phase, now, Instant::now().checked_add(limit.saturating_sub(elapsed)));
        } else {
            let _ = futex_wait::sleep(phase, now, None);
        }
    }
}

/// Why a manager's process has ended before it took calls. `initializer`: the name of what it ran, if it was in that.
fn not_started(process: Started, initializer: Option<&'static str>) -> Error {
    let (name, pid) = (process.name().to_owned(), process.pid().unwrap_or(0));
    let error = match (process.join(), initializer) {
        (Ok(Err(failure)), _) => failure.into_error(initializer),
        (Ok(Ok(())), _) => Error::could_not_start("it ended at once", crate::sys::Errno::UnknownErrno),
        (Err(error), Some(initializer)) => error.with_note(format!("it was in its initializer `{initializer}`")),
        (Err(error), None) => error,
    };
    error.in_process(&name, pid)
}

/// The process of a manager.
pub(super) type Started = Process<std::result::Result<(), StartFailure>>;
