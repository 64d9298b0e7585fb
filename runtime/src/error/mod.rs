//! Every way in which a call or a process can fail.
//!
//! Runs in: any process.

pub(crate) mod elapsed;
mod kind;
mod sent;
mod sentences;

use std::io;
use std::panic::AssertUnwindSafe;
use std::path::Path;

use nix::errno::Errno;

use crate::sys::process;

pub use self::elapsed::Elapsed;
pub use self::kind::{Direction, ErrorKind, Execution};
pub(crate) use self::sent::SentError;
pub(crate) use self::sentences::why;

/// What the functions of this crate return.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call has no result, or a process could not be started: which process, what happened, and while doing what.
///
/// The text is made for people; programs look at [`Error::kind`] and [`Error::execution`].
///
/// # Examples
/// ```
/// use process_task::{ErrorKind, Execution, process_task};
///
/// #[process_task]
/// fn divide(a: i32, b: i32) -> i32 { a / b }
///
/// let error = divide.spawn(1, 0).join().unwrap_err();
/// assert!(matches!(error.kind(), ErrorKind::Panicked { .. }));
/// assert_eq!(error.execution(), Execution::Finished);
/// assert!(error.to_string().contains("attempt to divide by zero"));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Error(Box<Inner>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Inner {
    kind: ErrorKind,
    execution: Execution,
    task: Option<&'static str>,
    process: Option<(String, u32)>,
    /// The attempts before, oldest first.
    attempts: Vec<Error>,
    /// What is known beside, for people.
    notes: Vec<String>,
    /// What the kernel said, for [`source`](std::error::Error::source).
    cause: Option<OsError>,
}

/// An error number of the kernel as an [`io::Error`], which itself is neither `Clone` nor `Eq`. It holds a number and
/// nothing else, so a panic leaves nothing half done in it.
#[derive(Debug)]
struct OsError(AssertUnwindSafe<io::Error>);

impl OsError {
    /// `None` for 0, which stands for no error of the kernel.
    fn of(errno: i32) -> Option<Self> {
        (errno != 0).then(|| Self(AssertUnwindSafe(io::Error::from_raw_os_error(errno))))
    }

    fn errno(&self) -> i32 {
        self.0.raw_os_error().unwrap_or_default()
    }
}

impl Clone for OsError {
    fn clone(&self) -> Self {
        Self(AssertUnwindSafe(io::Error::from_raw_os_error(self.errno())))
    }
}

impl PartialEq for OsError {
    fn eq(&self, other: &Self) -> bool {
        self.errno() == other.errno()
    }
}

impl Eq for OsError {}

impl Error {
    pub(crate) fn new(kind: ErrorKind, execution: Execution) -> Self {
        let cause = kind.errno().and_then(OsError::of);
        let (attempts, notes) = (Vec::new(), Vec::new());
        Self(Box::new(Inner { kind, execution, task: None, process: None, attempts, notes, cause }))
    }

    /// The process never started: `step` was refused with `errno`.
    pub(crate) fn could_not_start(step: impl Into<String>, errno: Errno) -> Self {
        let errno = errno as i32;
        Self::new(ErrorKind::CouldNotStart { step: step.into(), errno }, Execution::NotStarted)
    }

    /// The task is not in the registry of this process.
    pub(crate) fn unknown_task() -> Self {
        if process::has_main_started() {
            Self::new(ErrorKind::UnknownTask, Execution::NotStarted)
        } else {
            Self::before_main()
        }
    }

    /// A constructor asked for a process, and the process would know more tasks than this one.
    pub(crate) fn before_main() -> Self {
        let step = "ask for it before `main`, in a constructor: only those tasks are known by now that the constructors before \
                    it have registered; ask for it in `main`, or in what `main` calls";
        Self::new(ErrorKind::CouldNotStart { step: step.to_owned(), errno: 0 }, Execution::NotStarted)
    }

    pub(crate) fn closed(reason: impl Into<String>) -> Self {
        Self::new(ErrorKind::Closed { reason: reason.into() }, Execution::NotStarted)
    }

    pub(crate) fn invalid(reason: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput { reason: reason.into() }, Execution::NotStarted)
    }

    /// The arguments of a call refuse, for this reason.
    pub(crate) fn cannot_encode_arguments(reason: impl Into<String>) -> Self {
        let kind = ErrorKind::CannotEncode { direction: Direction::Arguments, reason: reason.into() };
        Self::new(kind, Execution::NotStarted)
    }

    /// The result of a call is none, for this reason.
    pub(crate) fn cannot_decode_result(reason: impl Into<String>) -> Self {
        let kind = ErrorKind::CannotDecode { direction: Direction::Result, reason: reason.into() };
        Self::new(kind, Execution::Finished)
    }

    /// No memory for processes to share: `step` was refused with `errno`.
    pub(crate) fn cannot_share(step: impl Into<String>, errno: Errno) -> Self {
        let errno = errno as i32;
        Self::new(ErrorKind::CannotShare { step: step.into(), errno }, Execution::NotStarted)
    }

    pub(crate) fn cannot_write(path: &Path, error: &std::io::Error) -> Self {
        let kind = ErrorKind::CannotWrite { path: path.to_owned(), reason: error.to_string() };
        let mut this = Self::new(kind, Execution::NotStarted);
        this.0.cause = error.raw_os_error().and_then(OsError::of);
        this
    }

    /// Adds which task was to run.
    pub(crate) fn in_task(mut self, task: &'static str) -> Self {
        self.0.task.get_or_insert(task);
        self
    }

    /// Adds in which process it happened.
    pub(crate) fn in_process(mut self, name: &str, pid: u32) -> Self {
        self.0.process.get_or_insert_with(|| (name.to_owned(), pid));
        self
    }

    /// Adds what else is known, which stands at the end of the sentence.
    pub(crate) fn with_note(mut self, note: impl Into<String>) -> Self {
        self.0.notes.push(note.into());
        self
    }

    /// Adds the attempts that failed before this one, oldest first.
    pub(crate) fn after(mut self, attempts: Vec<Self>) -> Self {
        self.0.attempts = attempts;
        self
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// Whether the task may have run, in the last attempt or in one of those [before](Self::attempts).
    #[must_use]
    pub fn execution(&self) -> Execution {
        match self.0.execution {
            Execution::NotStarted if !self.0.attempts.is_empty() => Execution::Unknown,
            of_the_last => of_the_last,
        }
    }

    /// The task it happened to, as `module::name`.
    #[must_use]
    pub fn task(&self) -> Option<&'static str> {
        self.0.task
    }

    /// The name and the process id of the process it happened in.
    #[must_use]
    pub fn process(&self) -> Option<(&str, u32)> {
        self.0.process.as_ref().map(|(name, pid)| (name.as_str(), *pid))
    }

    /// The earlier attempts of a call with retries, oldest first; empty if this was the first one. This error is how the
    /// last attempt ended.
    ///
    /// # Examples
    /// ```
    /// use process_task::{ErrorKind, Pool, process_task};
    ///
    /// #[process_task]
    /// fn leave() { std::process::exit(3) }
    ///
    /// let pool = Pool::builder().workers(1).build()?;
    /// let error = pool.call(leave.retries(2), ()).unwrap_err();
    /// assert!(matches!(error.kind(), ErrorKind::Exited { code: 3, .. }));
    /// assert_eq!(error.attempts().len(), 2);
    /// assert!(error.to_string().ends_with("(the last of 3 attempts)"));
    /// # process_task::Result::Ok(())
    /// ```
    #[must_use]
    pub fn attempts(&self) -> &[Self] {
        &self.0.attempts
    }
}

impl std::error::Error for Error {
    /// The [`io::Error`] of the kernel, if it was the kernel that refused something.
    ///
    /// ```
    /// use std::error::Error;
    /// use std::io;
    /// use process_task::{ProcessBuilder, process_task};
    ///
    /// #[process_task]
    /// fn nothing() {}
    ///
    /// let error = ProcessBuilder::new().current_dir("/nonexistent").spawn(nothing, ()).unwrap_err();
    /// let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>()).unwrap();
    /// assert_eq!(cause.kind(), io::ErrorKind::NotFound);
    /// ```
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.cause.as_ref().map(|cause| &*cause.0 as _)
    }
}

impl<T> From<Elapsed<T>> for Error {
    /// What was given is dropped, and the number of calls is not kept.
    fn from(_: Elapsed<T>) -> Self {
        Self::new(ErrorKind::Elapsed, Execution::NotStarted)
    }
}
