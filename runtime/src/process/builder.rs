//! Describes how a process is started, and starts it.
//!
//! Runs in: the parent.
//! Invariant: a start that is reported as failed leaves no process behind.

use std::io::PipeWriter;
use std::sync::Arc;

use super::attributes::attribute_setters;
use super::handle::Process;
use super::output::{Output, Pipes};
use super::spawned_call::{IsRight, NotStarted, SpawnRequest, SpawnedCall};
use super::stdio::Stdio;
use crate::call::encode;
use crate::error::{Error, Result};
use crate::link::{Payload, SharedBufferPool, StartMethod};
use crate::supervisor::{ChildHandle, SetupFor, SpawnAttributes, StartRequest, setup, supervisor};
use crate::sys::{Errno, signal};
use crate::task::{Options as Limits, Registration, Task};

/// Options for processes, as [`std::process::Command`] has for programs: each [`spawn`](Self::spawn) starts one more, so that one
/// description starts any number, with any tasks. Setters change what later ones get.
///
/// Unless told otherwise, the process has: the name of the task; stdin on `/dev/null`; the processors of the fork server, which
/// are those that this program had when it first started a process; and all else as a program that
/// [`std::process::Command`] starts at the moment of [`spawn`](Self::spawn), from the thread that calls it:
///
/// - this process's environment, working directory, stdout, stderr, umask, resource limits, `oom_score_adj`, huge pages and
///   dumpability; this thread's niceness, scheduling, I/O priority, timer slack and signal mask;
/// - this thread's user, groups, capabilities, `no_new_privs`, seccomp filters, root directory, namespaces, control group and session.
///   What the kernel does not show, such as a Landlock ruleset, needs [`start_afresh`](crate::start_afresh).
///
/// With [`StartMethod::Exec`], environment, directory and streams are there from the first instruction: the dynamic loader, the C
/// library and constructors find them.
///
/// # Examples
/// ```
/// use process_task::{ProcessBuilder, process_task};
///
/// #[process_task]
/// fn greeting(name: &str) -> String {
///     format!("{} {name}", std::env::var("GREETING").unwrap_or_default())
/// }
///
/// let process = ProcessBuilder::new().name("greeter").env("GREETING", "hello").spawn(greeting, "world")?;
/// assert_eq!(process.join()?, "hello world");
///
/// let mut builder = ProcessBuilder::new();
/// builder.env("GREETING", "good morning");
/// let (one, other) = (builder.spawn(greeting, "Ada")?, builder.spawn(greeting, "Grace")?);
/// builder.env("GREETING", "good night");
/// let last = builder.spawn(greeting, "Ada")?;
/// assert_eq!((one.join()?, other.join()?), ("good morning Ada".to_owned(), "good morning Grace".to_owned()));
/// assert_eq!(last.join()?, "good night Ada");
/// # process_task::Result::Ok(())
/// ```
#[derive(Debug, Default)]
#[must_use = "a builder starts nothing until `spawn` is called"]
#[doc(alias = "Builder")]
pub struct ProcessBuilder {
    name: Option<String>,
    options: SpawnAttributes,
    stdin: Option<Stdio>,
    stdout: Option<Stdio>,
    stderr: Option<Stdio>,
}

impl ProcessBuilder {
    /// No options. [`Process::builder`] is the same.
    pub fn new() -> Self {
        Self::default()
    }

    /// What the process is called in errors, in [`current`](crate::current), and (15 bytes of it) in `top`.
    pub fn name(&mut self, name: impl Into<String>) -> &mut Self {
        self.name = Some(name.into());
        self
    }

    /// How the process is made.
    pub fn start_method(&mut self, method: StartMethod) -> &mut Self {
        self.options.method = method;
        self
    }

    /// All attributes at once.
    pub(crate) fn attributes(&mut self, attributes: SpawnAttributes) -> &mut Self {
        self.options = attributes;
        self
    }

    /// Its standard input; `/dev/null` unless asked. All processes of this builder read from the same file if that is what it is:
    /// see [`Stdio`].
    pub fn stdin(&mut self, stdio: impl Into<Stdio>) -> &mut Self {
        self.stdin = Some(stdio.into());
        self
    }

    /// Its standard output; this process's unless asked.
    pub fn stdout(&mut self, stdio: impl Into<Stdio>) -> &mut Self {
        self.stdout = Some(stdio.into());
        self
    }

    /// Its standard error; this process's unless asked.
    pub fn stderr(&mut self, stdio: impl Into<Stdio>) -> &mut Self {
        self.stderr = Some(stdio.into());
        self
    }

    /// How long the process has to exit after its task has returned, or panicked, and its result was sent: exit handlers
    /// (`atexit`) and destructors run then, which may hang. After that it is killed; its result stands, and
    /// [`wait`](Process::wait) says SIGKILL. Five seconds unless asked.
    ///
    /// # Examples
    /// ```
    /// # use std::time::Duration;
    /// use process_task::{ProcessBuilder, process_task};
    ///
    /// #[process_task]
    /// fn square(x: i64) -> i64 { x * x }
    ///
    /// let process = ProcessBuilder::new().exit_timeout(Duration::from_secs(60)).spawn(square, 3)?;
    /// assert_eq!(process.join()?, 9);
    /// # process_task::Result::Ok(())
    /// ```
    pub fn exit_timeout(&mut self, timeout: std::time::Duration) -> &mut Self {
        self.options.exit_timeout = Some(timeout);
        self
    }

    attribute_setters! {
        setter: (&mut self) -> &mut Self, this: self,
        it: "it", its: "its", new: "ProcessBuilder::new()", run: "spawn(seen, ())?.join()?"
    }

    /// Starts a process that runs `task` with `args`: the argument itself for a task of one parameter, a tuple for
    /// several, `()` for none.
    ///
    /// The task's own options act too: `task.timeout(…)` kills the process, with all that it started, when its call takes
    /// longer, and `task.memory_limit(…)` is as [`memory_limit`](Self::memory_limit) here, where the smaller one counts.
    ///
    /// ```
    /// use std::time::Duration;
    /// use process_task::{ErrorKind, ProcessBuilder, process_task};
    ///
    /// #[process_task]
    /// fn search() { loop { std::thread::yield_now() } }
    ///
    /// let process = ProcessBuilder::new().nice(19).spawn(search.timeout(Duration::from_millis(50)), ())?;
    /// assert!(matches!(process.join().unwrap_err().kind(), ErrorKind::TimedOut { .. }));
    /// # process_task::Result::Ok(())
    /// ```
    ///
    /// # Errors
    /// The process could not be started, the arguments could not be encoded, or the task has `retries`, which act in pools
    /// only. What the process itself is refused, such as a limit, [`join`](Process::join) reports.
    pub fn spawn<T: Task>(&self, task: T, args: T::Args<'_>) -> Result<Process<T::Output>> {
        self.start(task, args, &Stdio::inherit())
    }

    /// Starts a process that runs `task` with `args`, waits for its end, and returns its result with all that it has written to
    /// stdout and stderr, each of which is a pipe unless this builder says otherwise.
    ///
    /// Everything is kept in memory, as [`std::process::Command::output`] does.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn). What happened to the task is in the result.
    ///
    /// # Examples
    /// See [`Output`].
    pub fn output<T: Task>(&self, task: T, args: T::Args<'_>) -> Result<Output<T::Output>> {
        self.start(task, args, &Stdio::piped()).map(Process::output)
    }

    /// What [`spawn`](Self::spawn) does, with stdout and stderr connected to `unasked` unless this builder says otherwise.
    fn start<T: Task>(&self, task: T, args: T::Args<'_>, unasked: &Stdio) -> Result<Process<T::Output>> {
        let name = self.name.clone().unwrap_or_else(|| task.registration().short_name().to_owned());
        let (options, stdin, pipes) = self.prepare(&name, task.registration(), task.options().memory_limit, unasked)?;
        let call = launch(options, &name, task, args)?;
        let mut process = Process::new(name, Ok(call), T::decode_output);
        (process.stdin, process.pipes) = (stdin, pipes);
        Ok(process)
    }

    /// What a process is started with, and our ends of its streams.
    fn prepare(
        &self,
        name: &str,
        registration: &Registration,
        memory_limit: Option<u64>,
        unasked: &Stdio,
    ) -> Result<(SpawnAttributes, Option<PipeWriter>, Pipes)> {
        let (stdin, our_stdin) = self.stdin.as_ref().map_or(Ok((None, None)), Stdio::for_input)?;
        let (stdout, our_stdout) = self.stdout.as_ref().unwrap_or(unasked).for_output(1)?;
        let (stderr, our_stderr) = self.stderr.as_ref().unwrap_or(unasked).for_output(2)?;
        let mut options = self.options.clone();
        options.stdio = [stdin, stdout, stderr];
        options.memory = smaller(options.memory, memory_limit);
        options.check().map_err(|error| error.in_process(name, 0).in_task(registration.name()))?;
        Ok((options, our_stdin, Pipes::new([our_stdout, our_stderr])))
    }
}

/// How many more processes get the call if one is found dead that never claimed it.
const EXTRA_TRIES: u32 = 2;

/// What `task.spawn(…)` does: [`ProcessBuilder::spawn`] with no options, where a failed start is what `join` reports.
pub fn spawn<T: Task>(task: T, args: T::Args<'_>) -> Process<T::Output> {
    let name = task.registration().short_name().to_owned();
    let options = SpawnAttributes { memory: task.options().memory_limit, ..SpawnAttributes::default() };
    let started = launch(options, &name, task, args);
    Process::new(name, started, T::decode_output)
}

fn launch<T: Task>(options: SpawnAttributes, name: &str, task: T, args: T::Args<'_>) -> Result<Arc<SpawnedCall>> {
    let mut args = Some(args);
    // The call's memory is its own, and goes when the call is done: there will be no other.
    let mut encode = || encode::<T>(args.take().expect("encoded once"), &SharedBufferPool::default());
    launch_encoded(options, name, (task.registration(), task.options()), &mut encode)
}

/// Starts a process for a call. No part of [`launch`], which the compiler makes once for each task.
fn launch_encoded(
    options: SpawnAttributes,
    name: &str,
    (registration, limits): (&'static Registration, Limits),
    encode: &mut dyn FnMut() -> Result<Payload>,
) -> Result<Arc<SpawnedCall>> {
    let start = move || {
        let Limits { timeout: limit, retries, .. } = limits;
        if retries > 0 {
            return Err(Error::invalid(
                "retries act in pools only: submit the call to a pool, or take them back with `.retries(0)`",
            ));
        }
        let index = registration.task_index().ok_or_else(Error::unknown_task)?;
        let call = encode()?;
        let supervisor = supervisor()?;
        let mut call = call;
        // Noted here, since another process may have to be asked for by the reactor's thread.
        let mut options = options.of_this_thread();
        // A stream of the caller's is sent once, and closed here, or its other end would not see the end.
        let supplied = options.stdio.iter().any(Option::is_some);
        // Whether a spare has the rights of now is found out while it wakes: commonly it has.
        let mut likely = if supplied { None } else { supervisor.likely_child(&StartRequest::of(&options)?) };
        loop {
            let is_sure = likely.is_none();
            let (child, umask) = match likely.take() {
                Some(likely) => likely,
                None => supervisor.start_child(StartRequest::of(&options)?)?,
            };
            child.record.set_name(name);
            let give_up = |error: Error| {
                let _ = child.record.signal(signal::KILL);
                error
            };
            let base = child.record.server().base();
            let made = match setup(SetupFor { base, name, once: true, umask }, &options).map_err(give_up) {
                Ok(made) => made,
                // What this thread could have given the spare when it was made, it may not be able to any more.
                Err(_) if !is_sure => continue,
                Err(error) => return Err(error),
            };
            std::mem::take(&mut options.stdio);
            // Only forked children can be spares, which may have died unnoticed.
            let tries = if options.method == StartMethod::ForkServer && !supplied { EXTRA_TRIES } else { 0 };
            let order = Arc::new(SpawnRequest {
                task: registration.name(),
                index,
                ignores_termination: made.0.ignores_termination,
                options,
                umask,
                limit,
            });
            let is_right = |child: &ChildHandle| supervisor.is_right(child, umask);
            let is_right: IsRight<'_> = if is_sure { None } else { Some(&is_right) };
            match SpawnedCall::start(child, Arc::clone(&order), made, call, (tries, is_right)) {
                Ok(running) => return Ok(running),
                Err(NotStarted::Failed(error)) => return Err(error),
                Err(NotStarted::Wrong(again)) => call = again,
            }
            let unshared = Arc::into_inner(order);
            options = unshared.ok_or_else(|| Error::could_not_start("ask for another process", Errno::EBUSY))?.options;
        }
    };
    start().map_err(|error| error.in_process(name, 0).in_task(registration.name()))
}

/// The smaller one of two limits, either of which may be none.
fn smaller(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one.into_iter().chain(other).min()
}
