//! The handle of a process that runs one task.
//!
//! Runs in: the parent. Dropping it does not end the process.

use std::fmt;
use std::future::Future;
use std::io::{PipeReader, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::process::ExitStatus;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::builder::ProcessBuilder;
use super::output::{Output, Pipes};
use super::spawned_call::SpawnedCall;
use crate::call::decode;
use crate::codec::CodecError;
use crate::error::{Elapsed, Error, Result};
use crate::reactor::reactor;
use crate::sys::{self, atfork, fd, signal};

/// A process that runs one task, and the way to its result.
///
/// Made by `task.spawn(…)` or [`ProcessBuilder::spawn`]. Dropping it detaches the process, which goes on. When this process
/// ends, however it does, the process ends too.
///
/// It is a future of its result, for use in any executor. A future that is dropped, for example by `tokio::time::timeout`,
/// detaches its process, too. To bound the process itself, give the task a time-out (`task.timeout(limit)`), or await
/// `&mut process` and [`kill`](Self::kill) it when it took too long.
///
/// # Examples
/// ```
/// use process_task::process_task;
///
/// #[process_task]
/// fn square(x: i64) -> i64 { x * x }
///
/// let process = square.spawn(10);
/// assert_eq!(process.join()?, 100);
/// # process_task::Result::Ok(())
/// ```
///
/// # If it cannot be started
/// `task.spawn(…)` gives a handle nevertheless, and [`join`](Self::join), [`wait`](Self::wait) and `.await` give the error, as do the
/// methods that signal; [`pid`](Self::pid) is `None`. [`ProcessBuilder::spawn`] gives the error itself, and no handle.
///
/// # If the other process dies
/// [`join`](Self::join) says how; see [`ErrorKind`](crate::ErrorKind).
#[must_use = "the process goes on by itself when this is dropped; say `detach()` if that is meant"]
pub struct Process<R> {
    name: String,
    state: HandleState,
    /// How many `fork()`s of the host program came before: a copy of this handle belongs to another process.
    generation: u64,
    decode: fn(&[u8]) -> std::result::Result<R, CodecError>,
    pub(super) stdin: Option<PipeWriter>,
    /// Those from stdout and stderr.
    pub(super) pipes: Pipes,
}

enum HandleState {
    Started(Arc<SpawnedCall>),
    /// It could not be started. The descriptor is readable, as that of a process that has ended.
    Failed(Error, Option<OwnedFd>),
}

impl Process<()> {
    /// Options for a process, whatever its task returns.
    ///
    /// # Examples
    /// ```
    /// use process_task::{Process, process_task};
    ///
    /// #[process_task]
    /// fn square(x: i64) -> i64 { x * x }
    ///
    /// assert_eq!(Process::builder().name("squarer").spawn(square, 3)?.join()?, 9);
    /// # process_task::Result::Ok(())
    /// ```
    pub fn builder() -> ProcessBuilder {
        ProcessBuilder::new()
    }
}

impl<R> Process<R> {
    pub(super) fn new(
        name: String,
        started: Result<Arc<SpawnedCall>>,
        decode: fn(&[u8]) -> std::result::Result<R, CodecError>,
    ) -> Self {
        let state = match started {
            Ok(running) => HandleState::Started(running),
            Err(error) => {
                let ended = fd::eventfd().ok();
                if let Some(event) = &ended {
                    fd::notify(event.as_fd());
                }
                HandleState::Failed(error, ended)
            }
        };
        Self { name, state, generation: atfork::generation(), decode, stdin: None, pipes: Pipes::default() }
    }

    /// The error of a start that failed.
    fn failure(&self) -> Option<&Error> {
        match &self.state {
            HandleState::Started(_) => None,
            HandleState::Failed(error, _) => Some(error),
        }
    }

    /// The process id; `None` if the process could not be started.
    #[must_use]
    #[doc(alias = "id")]
    pub fn pid(&self) -> Option<u32> {
        self.running().ok().map(|running| running.record.pid)
    }

    /// What the process is called: the task's name unless its builder says otherwise.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether [`join`](Self::join) would return at once.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.running().map_or(true, |running| running.outcome().is_some())
    }

    /// Waits for the result, as long as it takes. It comes when the task has returned, its destructors have run and
    /// stdout is flushed; the process itself may end a little later, and is killed if it takes longer for that than its
    /// [`exit_timeout`](crate::ProcessBuilder::exit_timeout), five seconds unless asked.
    ///
    /// A pipe to the process's stdin that was not taken is closed first. What comes through pipes from stdout and stderr that were
    /// not taken is read and thrown away, or the process would wait for its reader; [`output`](Self::output) keeps it.
    ///
    /// # Errors
    /// The start failed, the task panicked, the process ended before the task returned, or a value could not travel.
    /// A task that returns a `Result` gives two: `join()??`.
    ///
    /// # If the other process dies
    /// Returns within milliseconds of the end, with [`Execution::Unknown`](crate::Execution::Unknown) if the task had begun.
    pub fn join(mut self) -> Result<R> {
        drop(self.stdin.take());
        loop {
            let running = Arc::clone(self.running()?);
            let outcome = if self.pipes.are_open() {
                running.wait_by(|bell| self.pipes.read_until(bell, None, &mut |_, _| Ok(())))
            } else {
                running.wait(None)
            };
            if let Some(outcome) = outcome {
                return decode(outcome, self.decode).map_err(|error| running.describe(error));
            }
        }
    }

    /// Waits for the process's end, and returns its result with all that came through pipes from its stdout and stderr, if it
    /// has such and they were not taken.
    ///
    /// It is [`join`](Self::join) in all else. Everything is kept in memory. What programs that the task has started write
    /// after the process's end is left out.
    ///
    /// # Examples
    /// ```
    /// use process_task::{ErrorKind, ProcessBuilder, Stdio, process_task};
    ///
    /// #[process_task]
    /// fn crash() {
    ///     eprintln!("about to crash");
    ///     std::process::abort();
    /// }
    ///
    /// let output = ProcessBuilder::new().stderr(Stdio::piped()).spawn(crash, ())?.output();
    /// assert_eq!(output.stderr, b"about to crash\n");
    /// assert!(matches!(output.result.unwrap_err().kind(), ErrorKind::Killed { signal: 6, .. }));
    /// # process_task::Result::Ok(())
    /// ```
    #[doc(alias = "wait_with_output")]
    pub fn output(mut self) -> Output<R> {
        drop(self.stdin.take());
        let running = self.running().cloned();
        let collected = running.and_then(|running| self.pipes.collect_until(running.record.pidfd()));
        match collected {
            Ok([stdout, stderr]) => Output { result: self.join(), stdout, stderr },
            Err(error) => Output { result: Err(error), stdout: Vec::new(), stderr: Vec::new() },
        }
    }

    /// Lets the process go on by itself. It still ends when this process does.
    pub fn detach(self) {
        drop(self);
    }

    /// Waits for the process's end, and says how it ended: code 0 after a task that returned or panicked, SIGKILL if it took
    /// longer than its [`exit_timeout`](crate::ProcessBuilder::exit_timeout) to exit after that.
    ///
    /// A pipe to the process's stdin that was not taken is closed first. What comes through pipes from stdout and stderr that were
    /// not taken is read and kept, however much it is: [`take_stdout`](Self::take_stdout) and
    /// [`take_stderr`](Self::take_stderr) have it afterwards.
    ///
    /// # Errors
    /// The process could not be started, or there is no memory to keep what it writes.
    #[doc(alias = "exitcode")]
    pub fn wait(&mut self) -> Result<ExitStatus> {
        drop(self.stdin.take());
        let running = Arc::clone(self.running()?);
        if self.pipes.are_open() {
            self.pipes.keep_until(running.record.pidfd())?;
        }
        let status = self.end(None)?;
        status.ok_or_else(|| Error::invalid("the process has not ended yet"))
    }

    /// How the process ended, `None` if it has not.
    ///
    /// # Errors
    /// The process could not be started.
    #[doc(alias = "is_alive")]
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        self.end(Some(Instant::now()))
    }

    /// As [`wait`](Self::wait), for `timeout` at the most. It closes and reads no pipe: a process with a full pipe does not
    /// end before something is read, by [`take_stdout`](Self::take_stdout) say.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    /// use process_task::process_task;
    ///
    /// #[process_task]
    /// fn nap(seconds: u64) { std::thread::sleep(Duration::from_secs(seconds)) }
    ///
    /// let mut process = nap.spawn(600);
    /// assert!(process.wait_timeout(Duration::from_millis(5)).is_err());
    /// process.kill()?;
    /// assert!(!process.wait_timeout(Duration::from_secs(60))??.success());
    /// # process_task::Result::Ok(())
    /// ```
    ///
    /// # Errors
    /// [`Elapsed`]: the process has not ended in time. Inside: it could not be started.
    pub fn wait_timeout(&mut self, timeout: Duration) -> std::result::Result<Result<ExitStatus>, Elapsed> {
        // A time beyond the clock's end is for ever.
        self.end(Instant::now().checked_add(timeout)).transpose().ok_or_else(Elapsed::new)
    }

    /// Asks the process, and its whole group, to end: SIGTERM. Fine if it has ended. A process that
    /// [ignores](crate::ProcessBuilder::ignore_termination_signals) SIGTERM is [killed](Self::kill).
    ///
    /// # Errors
    /// The process could not be started, or the kernel refuses.
    pub fn terminate(&self) -> Result<()> {
        self.send(SpawnedCall::terminate)
    }

    /// Ends the process, and its whole group: SIGKILL. Fine if it has ended.
    ///
    /// # Errors
    /// The process could not be started, or the kernel refuses.
    pub fn kill(&self) -> Result<()> {
        self.signal(signal::KILL)
    }

    /// Interrupts the process, and its whole group, as Ctrl-C does: SIGINT. Fine if it has ended, or ignores it.
    ///
    /// # Errors
    /// The process could not be started, or the kernel refuses.
    pub fn interrupt(&self) -> Result<()> {
        self.signal(signal::INT)
    }

    /// Our end of the pipe to its stdin, if its builder asked for one; the first time only.
    pub fn take_stdin(&mut self) -> Option<PipeWriter> {
        self.stdin.take()
    }

    /// Our end of the pipe from its stdout, if its builder asked for one; the first time only.
    pub fn take_stdout(&mut self) -> Option<PipeReader> {
        self.pipes.take(0)
    }

    /// Our end of the pipe from its stderr, if its builder asked for one; the first time only.
    pub fn take_stderr(&mut self) -> Option<PipeReader> {
        self.pipes.take(1)
    }

    /// How the process ended, once it is known that no other one has the call instead; `None` if `deadline` came first.
    fn end(&self, deadline: Option<Instant>) -> Result<Option<ExitStatus>> {
        loop {
            let running = self.running()?;
            let Some(status) = running.record.wait(deadline) else { return Ok(None) };
            if running.wait(deadline).is_some() {
                return Ok(Some(status));
            }
            if deadline.is_some_and(|at| Instant::now() >= at) {
                return Ok(None);
            }
        }
    }

    fn signal(&self, signal: i32) -> Result<()> {
        self.send(|running| running.signal(signal))
    }

    fn send(&self, send: impl FnOnce(&SpawnedCall) -> sys::Result<()>) -> Result<()> {
        let running = self.running()?;
        let refused = |errno: sys::Errno| Error::invalid(format!("cannot signal the process: {}", errno.desc()));
        send(running).map_err(|errno| refused(errno).in_process(&self.name, running.record.pid))
    }

    fn running(&self) -> Result<&Arc<SpawnedCall>> {
        match &self.state {
            HandleState::Started(_) if self.generation != atfork::generation() => {
                Err(Error::invalid("the process was started by the process that this one is a `fork()` of"))
            }
            HandleState::Started(running) => Ok(running.latest()),
            HandleState::Failed(error, _) => Err(error.clone()),
        }
    }
}

impl<R> Future for Process<R> {
    type Output = Result<R>;

    /// See [`Process::join`].
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<R>> {
        drop(self.stdin.take());
        loop {
            let running = match self.running() {
                Ok(running) => Arc::clone(running),
                Err(error) => return Poll::Ready(Err(error)),
            };
            let mut more = false;
            if running.outcome().is_none() {
                let failed = |errno| Error::could_not_start("watch a process", errno);
                let watched = reactor().and_then(|reactor| {
                    let token = running.register_waker(&reactor, context.waker()).map_err(failed)?;
                    self.pipes.discard(&reactor, token).map_err(failed)
                });
                match watched {
                    Ok(rest) => more = rest,
                    Err(error) => return Poll::Ready(Err(error)),
                }
            }
            // Looked at after the waker is in place, or an answer in between would not wake it.
            if let Some(outcome) = running.outcome() {
                return Poll::Ready(decode(outcome, self.decode).map_err(|error| running.describe(error)));
            }
            if Arc::ptr_eq(&running, running.latest()) {
                if more {
                    context.waker().wake_by_ref();
                }
                return Poll::Pending;
            }
        }
    }
}

impl<R> AsFd for Process<R> {
    /// A descriptor that is readable once the process has ended: its pidfd.
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.state {
            HandleState::Started(running) => running.latest().record.pidfd(),
            HandleState::Failed(_, Some(ended)) => ended.as_fd(),
            // Not even an eventfd could be had; /dev/null's owner is always readable, as is any closed stream's.
            HandleState::Failed(_, None) => fd::stdio(0),
        }
    }
}

impl<R> Drop for Process<R> {
    fn drop(&mut self) {
        // In a copy made by `fork()`, the epoll set is still the original's, too.
        if let HandleState::Started(running) = &self.state
            && self.generation == atfork::generation()
        {
            running.latest().release();
            self.pipes.stop_listening();
        }
    }
}

impl<R> fmt::Debug for Process<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Process");
        debug.field("name", &self.name).field("pid", &self.pid());
        debug.field("failure", &self.failure()).finish_non_exhaustive()
    }
}
