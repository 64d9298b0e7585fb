//! What a child's standard streams are connected to.
//!
//! Runs in: the parent. The child's end of a pipe is closed here once the child has it. A file that the caller gave stays open
//! as long as the builder has it, which may start further processes with it.

use std::fs::File;
use std::io::{PipeReader, PipeWriter};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::error::Result;
use crate::supervisor::preparing;
use crate::sys::{Errno, fd};

/// What one of a process's standard streams is connected to, as in [`std::process::Stdio`].
///
/// A file or pipe that is given as a stream stays open in this process while the [`ProcessBuilder`](crate::ProcessBuilder) has it,
/// which may start further processes with it. So the reader of a given [`PipeWriter`] sees the end of the pipe only when the builder
/// is dropped too, as with [`std::process::Command`]. [`Stdio::piped`] makes another pipe for each process, and keeps none.
///
/// # Examples
/// ```
/// use std::io::Read as _;
/// use process_task::{ProcessBuilder, Stdio, process_task};
///
/// #[process_task]
/// fn greet() { print!("hello from another process"); }
///
/// let mut process = ProcessBuilder::new().stdout(Stdio::piped()).spawn(greet, ())?;
/// let mut text = String::new();
/// process.take_stdout().unwrap().read_to_string(&mut text).unwrap();
/// assert_eq!(text, "hello from another process");
/// process.join()?;
/// # process_task::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct Stdio(StdioKind);

#[derive(Debug)]
enum StdioKind {
    Inherit,
    Null,
    Piped,
    File(Arc<OwnedFd>),
}

impl Stdio {
    /// `/dev/null`. What stdin is unless asked otherwise.
    #[must_use]
    pub fn null() -> Self {
        Self(StdioKind::Null)
    }

    /// The parent's own stream. What stdout and stderr are unless asked otherwise.
    ///
    /// # Terminals
    /// As stdin, this gives a process the terminal, if that is what the parent's stdin is. It joins the parent's process group, as a
    /// child of [`std::process::Command`] does: so it can read a line or ask for a password, also by `/dev/tty`, and so can the
    /// programs that it starts. Ctrl-C and Ctrl-Z reach it directly. Signals that [`Process`](crate::Process) sends go to it alone,
    /// and what it has started is not killed with it.
    ///
    /// Any other process leads a group of its own, in the background of the terminal. It can print, also under `stty tostop`, and
    /// change the terminal's mode. If it reads from the terminal, or a program that it started does, its call ends with
    /// [`ErrorKind::NeedsTerminal`](crate::ErrorKind::NeedsTerminal). A task that blocks or ignores SIGTTIN has `EIO` from the read
    /// instead.
    ///
    /// ```no_run
    /// use process_task::{ProcessBuilder, Stdio, process_task};
    ///
    /// #[process_task]
    /// fn ask() -> String {
    ///     println!("Your name?");
    ///     std::io::stdin().lines().next().and_then(Result::ok).unwrap_or_default()
    /// }
    ///
    /// let name = ProcessBuilder::new().stdin(Stdio::inherit()).spawn(ask, ())?.join()?;
    /// # process_task::Result::Ok(())
    /// ```
    #[must_use]
    pub fn inherit() -> Self {
        Self(StdioKind::Inherit)
    }

    /// A new pipe; the parent's end is had from the [`Process`](crate::Process).
    #[must_use]
    pub fn piped() -> Self {
        Self(StdioKind::Piped)
    }

    /// The child's end for stdin, and ours if it is a pipe.
    pub(super) fn for_input(&self) -> Result<(Option<Arc<OwnedFd>>, Option<PipeWriter>)> {
        if let StdioKind::Piped = self.0 {
            let (theirs, ours) = std::io::pipe().map_err(|error| preparing("make a pipe", &error))?;
            return Ok((Some(Arc::new(theirs.into())), Some(ours)));
        }
        Ok((self.file(0)?, None))
    }

    /// The child's end for stdout (1) or stderr (2), and ours if it is a pipe.
    pub(super) fn for_output(&self, number: i32) -> Result<(Option<Arc<OwnedFd>>, Option<PipeReader>)> {
        if let StdioKind::Piped = self.0 {
            let (ours, theirs) = std::io::pipe().map_err(|error| preparing("make a pipe", &error))?;
            return Ok((Some(Arc::new(theirs.into())), Some(ours)));
        }
        Ok((self.file(number)?, None))
    }

    fn file(&self, number: i32) -> Result<Option<Arc<OwnedFd>>> {
        let opened = |file: std::result::Result<OwnedFd, Errno>, step| match file {
            Ok(file) => Ok(Some(Arc::new(file))),
            Err(errno) => Err(preparing(step, &errno.into())),
        };
        match &self.0 {
            StdioKind::Null => opened(fd::dev_null(), "open /dev/null"),
            StdioKind::File(file) => Ok(Some(Arc::clone(file))),
            // Outputs are inherited anyway; for stdin it must be said.
            StdioKind::Inherit if number == 0 => opened(fd::duplicate(fd::stdio(0).as_fd()), "open a standard stream"),
            StdioKind::Inherit | StdioKind::Piped => Ok(None),
        }
    }
}

impl From<OwnedFd> for Stdio {
    fn from(file: OwnedFd) -> Self {
        Self(StdioKind::File(Arc::new(file)))
    }
}

impl From<File> for Stdio {
    fn from(file: File) -> Self {
        OwnedFd::from(file).into()
    }
}

impl From<PipeReader> for Stdio {
    fn from(pipe: PipeReader) -> Self {
        OwnedFd::from(pipe).into()
    }
}

impl From<PipeWriter> for Stdio {
    fn from(pipe: PipeWriter) -> Self {
        OwnedFd::from(pipe).into()
    }
}
