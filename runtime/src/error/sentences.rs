//! The wording of every error: lower-case, no full stop; which process, what happened, while doing what.
//!
//! Runs in: any process.

use std::fmt;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::{Direction, Error, ErrorKind, Execution, Inner};

/// The kernel's reason in words. Where a limit is that reason: which one, and what to do.
pub(crate) fn why(errno: Errno) -> &'static str {
    match errno {
        Errno::EMFILE => {
            "Too many open files, as RLIMIT_NOFILE (`ulimit -n`) counts them: raise it, or have fewer files and handles open in \
             this process at a time"
        }
        Errno::ETOOMANYREFS => {
            "Too many descriptors are on their way through sockets, of which RLIMIT_NOFILE (`ulimit -n`) allows a user as many \
             as a process may have open: raise it, or send fewer handles at a time"
        }
        other => other.desc(),
    }
}

impl fmt::Debug for Error {
    /// As `main` prints it: the sentence, the earlier attempts, then the backtrace if there is one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        for (number, attempt) in (1..).zip(self.attempts()) {
            write!(f, "\n  attempt {number}: {attempt}")?;
        }
        match &self.0.kind {
            ErrorKind::Panicked { backtrace: Some(trace), .. } => write!(f, "\n{trace}"),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sentence(f)?;
        self.0.notes.iter().try_for_each(|note| write!(f, "; {note}"))?;
        match self.attempts().len() {
            0 => Ok(()),
            earlier => write!(f, " (the last of {} attempts)", earlier + 1),
        }
    }
}

impl Error {
    /// What happened to this attempt.
    #[expect(clippy::too_many_lines, reason = "one arm for each kind")]
    fn sentence(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, execution, task, process, .. } = &*self.0;
        let who = Who(process.as_ref());
        let running = While(" while running", *task);
        let of = While(" of", *task);
        match kind {
            ErrorKind::CouldNotStart { step, errno } => {
                write!(f, "could not start {who}{}: {step}", While(" for", *task))?;
                reason_of_start(f, step, *errno)
            }
            ErrorKind::Panicked { message, location, .. } => {
                write!(f, "{who} panicked{running}")?;
                if let Some(location) = location {
                    write!(f, " at {location}")?;
                }
                write!(f, ": {message}")
            }
            ErrorKind::Killed { signal, core_dumped, message } => {
                write!(f, "{who} was killed by {}{running}", SignalName(*signal))?;
                if *core_dumped {
                    f.write_str(" (core dumped)")?;
                }
                message.as_ref().map_or(Ok(()), |message| write!(f, ": {message}"))
            }
            ErrorKind::NeedsTerminal { signal } => write!(
                f,
                "{who} was killed{running}: it, or a program that it started, used the terminal from the background, for which \
                 {} had stopped it; let the program itself ask, or start the process with `ProcessBuilder::stdin(Stdio::inherit())`",
                SignalName(*signal)
            ),
            ErrorKind::StackOverflow => write!(
                f,
                "{who} overflowed its stack{running}; it has the stack that RLIMIT_STACK (`ulimit -s`) allows when it is \
                 started, and threads of the task have as much as they ask for"
            ),
            ErrorKind::Exited { code } => match task {
                Some(task) => write!(f, "{who} exited with code {code} before `{task}` returned"),
                None => write!(f, "{who} exited with code {code}"),
            },
            ErrorKind::TimedOut { limit, elapsed } => {
                let (limit, elapsed) = (rounded_down(*limit), rounded_up(*elapsed));
                let what = task.map_or_else(|| "its task".to_owned(), |task| format!("`{task}`"));
                match execution {
                    Execution::NotStarted => {
                        write!(f, "{who} was killed because it had not begun {what} after {elapsed:?}")
                    }
                    _ => write!(f, "{who} was killed because it ran {what} for {elapsed:?}"),
                }?;
                write!(f, ", longer than the limit of {limit:?}")
            }
            ErrorKind::Cancelled if *execution == Execution::NotStarted => {
                write!(f, "the call{of} was cancelled before it started")
            }
            ErrorKind::Cancelled => {
                write!(f, "the call{of} was cancelled while it ran, and its worker was killed")
            }
            ErrorKind::CannotEncode { direction, reason } => {
                write!(f, "cannot encode the {direction}{of}: {reason}")
            }
            ErrorKind::CannotDecode { direction, reason } => {
                write!(f, "cannot decode the {direction}{of}: {reason}")
            }
            ErrorKind::UnknownTask => write!(
                f,
                "task{} is not in the registry of this program; a dependency that is listed in Cargo.toml but never named in \
                 the source is not linked, and its tasks are missing: `use` the crate where the program starts",
                While("", *task)
            ),
            ErrorKind::BinaryMismatch => write!(
                f,
                "{who} was not started from the same binary as this program, so its tasks cannot be trusted to be the same"
            ),
            ErrorKind::Closed { reason } => write!(f, "the pool is closed: {reason}"),
            ErrorKind::Empty => f.write_str("the channel is empty, or no connection is pending"),
            ErrorKind::Full => f.write_str("the channel is full"),
            ErrorKind::Elapsed => f.write_str("timed out: what was waited for did not happen in the time given"),
            ErrorKind::Disconnected => f.write_str(
                "the channel is disconnected: no process has its other end any more, or the queue is closed",
            ),
            ErrorKind::TooLong { bytes, limit } => {
                write!(f, "cannot send the {bytes} bytes of the message: at most {limit} bytes fit into the channel")
            }
            ErrorKind::PeerRefused { reason } => write!(f, "connection refused: {reason}"),
            ErrorKind::ChannelFailed { step, errno } => {
                write!(f, "cannot use the channel: {step}: {}", why(Errno::from_raw(*errno)))
            }
            ErrorKind::ProtocolViolation { reason } => {
                write!(f, "{who} broke the protocol{running} and was killed: {reason}")
            }
            ErrorKind::CannotShare { step, errno } => {
                write!(f, "cannot share memory: {step}: {}", why(Errno::from_raw(*errno)))
            }
            ErrorKind::CannotWrite { path, reason } => write!(f, "cannot write `{}`: {reason}", path.display()),
            ErrorKind::ManagerGone { name, pid, signal } => {
                write!(f, "manager `{name}` (pid {pid}), in which the object lived, has ended")?;
                signal.map_or(Ok(()), |signal| write!(f, ": killed by {}", SignalName(signal)))?;
                match execution {
                    Execution::NotStarted => write!(f, "; the call{of} did not begin"),
                    Execution::Finished => Ok(()),
                    Execution::Unknown => write!(f, "; the call{of} may have run"),
                }
            }
            ErrorKind::Poisoned => write!(
                f,
                "the object is poisoned: a method that had it for itself panicked; the call{of} did not begin; look at the \
                 object and call `clear_poison` on its proxy to go on"
            ),
            ErrorKind::InvalidInput { reason } => f.write_str(reason),
        }
    }
}

/// Why `step` of a start failed, if the kernel said why.
fn reason_of_start(f: &mut fmt::Formatter<'_>, step: &str, errno: i32) -> fmt::Result {
    if errno == 0 {
        return Ok(());
    }
    write!(f, ": {}", why(Errno::from_raw(errno)))?;
    if is_refused_by_a_filter(step, errno) {
        f.write_str(FILTERED)
    } else if errno == Errno::EAGAIN as i32 && is_about_processes(step) {
        f.write_str(NO_MORE_PROCESSES)
    } else {
        Ok(())
    }
}

/// What a step's error may come from, where the kernel itself has no reason to refuse.
const FILTERED: &str = " (a seccomp filter of this program, its container or its service manager may refuse it, or the kernel \
    is too old)";

/// Whether `step` is one that no kernel which knows its call answers so.
fn is_refused_by_a_filter(step: &str, errno: i32) -> bool {
    const FREE_TO_ALL: [&str; 10] = [
        "open a pidfd",
        "make a socket pair",
        "make an eventfd",
        "make an epoll set",
        "make the process table",
        "reserve the request half",
        "reserve the reply half",
        "reserve memory for its environment",
        "prepare the fork server",
        "execute this program again",
    ];
    let free_to_all = || FREE_TO_ALL.iter().any(|free| step.starts_with(free));
    errno == Errno::ENOSYS as i32 || (errno == Errno::EPERM as i32 && free_to_all())
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Arguments => "arguments",
            Self::Result => "result",
            Self::Message => "message",
        })
    }
}

/// `worker 3 (pid 4127)`, or `a process` where it has no name yet.
struct Who<'a>(Option<&'a (String, u32)>);

impl fmt::Display for Who<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some((name, 0)) => write!(f, "process `{name}`"),
            Some((name, pid)) => write!(f, "process `{name}` (pid {pid})"),
            None => f.write_str("a process"),
        }
    }
}

/// Follows the kernel's refusal to make one more process or thread.
const NO_MORE_PROCESSES: &str = " (there are as many processes and threads as the user may have, `RLIMIT_NPROC`, or the \
                                 control group, `pids.max`, or the system)";

/// Whether a step makes a process or a thread.
fn is_about_processes(step: &str) -> bool {
    step.starts_with("fork") || step.starts_with("execute this program again") || step.starts_with("start a thread")
}

/// What a task was doing, with its name, or nothing.
struct While(&'static str, Option<&'static str>);

impl fmt::Display for While {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.1.map_or(Ok(()), |task| write!(f, "{} `{task}`", self.0))
    }
}

/// Without digits that carry no information: whole milliseconds, if there are some.
fn rounded_down(exact: Duration) -> Duration {
    let millis = u64::try_from(exact.as_millis()).unwrap_or(0);
    if millis == 0 { exact } else { Duration::from_millis(millis) }
}

/// As [`rounded_down`], so that what was too long looks longer than the limit.
fn rounded_up(exact: Duration) -> Duration {
    rounded_down(exact.saturating_add(Duration::from_nanos(999_999)))
}

struct SignalName(i32);

impl fmt::Display for SignalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Signal::try_from(self.0) {
            Ok(signal) => f.write_str(signal.as_str()),
            Err(_) => write!(f, "signal {}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_say_where_what_and_while_doing_what() {
        let killed = ErrorKind::Killed { signal: 9, core_dumped: false, message: None };
        let error = Error::new(killed, Execution::Unknown).in_process("pool-3", 4127).in_task("demo::square");
        assert_eq!(error.to_string(), "process `pool-3` (pid 4127) was killed by SIGKILL while running `demo::square`");
        let timed_out =
            ErrorKind::TimedOut { limit: Duration::from_millis(300), elapsed: Duration::from_micros(311_018) };
        let error = Error::new(timed_out, Execution::Unknown).in_process("spin", 17).in_task("demo::spin");
        let sentence =
            "process `spin` (pid 17) was killed because it ran `demo::spin` for 312ms, longer than the limit of 300ms";
        assert_eq!(error.to_string(), sentence);
        let error = Error::could_not_start("open a pidfd in the fork server", Errno::EPERM).to_string();
        assert!(error.contains("Operation not permitted (a seccomp filter"), "{error}");
        let error = Error::could_not_start("set its resource limits", Errno::EPERM).to_string();
        assert!(error.ends_with("Operation not permitted"), "{error}");
        let error = Error::could_not_start("fork", Errno::EAGAIN).in_task("demo::square");
        let sentence = "could not start a process for `demo::square`: fork: Try again (there are as many processes and \
                        threads as the user may have, `RLIMIT_NPROC`, or the control group, `pids.max`, or the system)";
        assert_eq!(error.to_string(), sentence);
        let error = Error::could_not_start("fork", Errno::ENOMEM);
        assert_eq!(error.to_string(), "could not start a process: fork: Out of memory");
    }

    #[test]
    fn the_first_context_stays() {
        let error = Error::closed("terminated").in_task("inner").in_task("outer");
        assert_eq!(error.task(), Some("inner"));
    }

    #[test]
    fn a_cancelled_call_says_whether_it_ran() {
        let cancelled = |execution| Error::new(ErrorKind::Cancelled, execution).in_task("demo::square").to_string();
        assert_eq!(cancelled(Execution::NotStarted), "the call of `demo::square` was cancelled before it started");
        let ran = "the call of `demo::square` was cancelled while it ran, and its worker was killed";
        assert_eq!(cancelled(Execution::Unknown), ran);
    }

    #[test]
    fn every_attempt_is_told() {
        let exited = |code, pid| {
            let error = Error::new(ErrorKind::Exited { code }, Execution::Unknown);
            error.in_process("worker-0", pid).in_task("demo::square")
        };
        let error = exited(3, 12).after(vec![exited(1, 10), exited(2, 11)]);
        let codes: Vec<_> = error.attempts().iter().map(Error::kind).collect();
        assert_eq!(codes, [&ErrorKind::Exited { code: 1 }, &ErrorKind::Exited { code: 2 }]);
        let sentence = |code, pid| {
            format!("process `worker-0` (pid {pid}) exited with code {code} before `demo::square` returned")
        };
        let last = format!("{} (the last of 3 attempts)", sentence(3, 12));
        assert_eq!(error.to_string(), last);
        assert_eq!(
            format!("{error:?}"),
            format!("{last}\n  attempt 1: {}\n  attempt 2: {}", sentence(1, 10), sentence(2, 11))
        );
        assert_eq!(exited(1, 10).attempts(), []);
        let cancelled = Error::new(ErrorKind::Cancelled, Execution::NotStarted).after(vec![exited(1, 10)]);
        assert_eq!(cancelled.execution(), Execution::Unknown, "the first attempt may have done anything");
        assert!(cancelled.to_string().contains("was cancelled before it started (the last of 2 attempts)"));
    }
}
