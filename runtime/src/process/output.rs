//! Reads what a process writes into pipes that its parent has not taken.
//!
//! Runs in: the parent, on the thread that waits.
//! Invariant: no wait is for a pipe alone. A program that outlives its task may hold the other end for ever.
//!
//! A process with a full pipe waits for its reader. So code that waits for the process reads its pipes meanwhile.

use std::io::{PipeReader, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use crate::error::{Error, Result, why};
use crate::reactor::{Reactor, Token};
use crate::sys::poll::{self, Trigger};
use crate::sys::{self, Errno, errno_of, memory};

/// How much is read at a time: what a pipe holds by default.
const CHUNK_BYTES: usize = 64 << 10;

/// How many chunks a future reads before it lets others of its executor run.
const MAX_CHUNKS_PER_POLL: usize = 16;

/// The result of a process, and what it has written into pipes; made by [`Process::output`](crate::Process::output) and
/// [`ProcessBuilder::output`](crate::ProcessBuilder::output).
///
/// # Examples
/// ```
/// use process_task::{ProcessBuilder, process_task};
///
/// #[process_task]
/// fn greet(name: &str) -> usize {
///     println!("hello {name}");
///     eprintln!("a warning");
///     name.len()
/// }
///
/// let output = ProcessBuilder::new().output(greet, "world")?;
/// assert_eq!(output.stdout, b"hello world\n");
/// assert_eq!(output.stderr, b"a warning\n");
/// assert_eq!(output.result?, 5);
/// # process_task::Result::Ok(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "the result may be an error"]
pub struct Output<R> {
    /// What [`Process::join`](crate::Process::join) would return.
    pub result: Result<R>,
    /// All that came through the pipe from stdout; empty if there was none, or it was taken.
    pub stdout: Vec<u8>,
    /// All that came through the pipe from stderr; empty if there was none, or it was taken.
    pub stderr: Vec<u8>,
}

/// Our ends of the pipes from stdout and stderr, as far as there are some and they were not taken.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    readers: [Option<PipeReader>; 2],
    /// Nothing more comes from these.
    ended: [bool; 2],
    /// The reactor that wakes a future when there is something to read.
    watched_by: Option<Arc<Reactor>>,
}

impl Pipes {
    pub(super) fn new(readers: [Option<PipeReader>; 2]) -> Self {
        Self { readers, ..Self::default() }
    }

    /// Whether more may come through one of them.
    pub(super) fn are_open(&self) -> bool {
        self.open().next().is_some()
    }

    /// The end of number `at`, which is not read here any more.
    pub(super) fn take(&mut self, at: usize) -> Option<PipeReader> {
        let reader = self.readers[at].take()?;
        if let Some(reactor) = &self.watched_by {
            reactor.deregister(reader.as_fd());
        }
        Some(reader)
    }

    /// Reads until `event` is readable; false if `deadline` came first. `each` gets what came, and from which pipe.
    ///
    /// # Errors
    /// That of `each`, or the kernel cannot wait.
    pub(super) fn read_until(
        &mut self,
        event: BorrowedFd<'_>,
        deadline: Option<Instant>,
        each: &mut dyn FnMut(usize, &[u8]) -> sys::Result<()>,
    ) -> sys::Result<bool> {
        loop {
            let open: Vec<_> = self.open().collect();
            let ends = open.iter().filter_map(|at| self.readers[*at].as_ref()).map(AsFd::as_fd);
            let watched: Vec<_> = [event].into_iter().chain(ends).collect();
            let ready = poll::readable_indices(&watched, deadline)?;
            for at in ready.iter().filter_map(|at| at.checked_sub(1)) {
                self.read_one(open[at], each)?;
            }
            match ready.first() {
                None => return Ok(false),
                Some(0) => return Ok(true),
                Some(_) => {}
            }
        }
    }

    /// Reads what is there by now, at most `chunks` chunks; true if there may be more.
    ///
    /// # Errors
    /// As [`Pipes::read_until`].
    pub(super) fn read_rest(
        &mut self,
        chunks: usize,
        each: &mut dyn FnMut(usize, &[u8]) -> sys::Result<()>,
    ) -> sys::Result<bool> {
        for _ in 0..chunks {
            let Some(at) = self.open().find(|at| self.is_readable(*at)) else { return Ok(false) };
            self.read_one(at, each)?;
        }
        Ok(true)
    }

    /// For a future: what comes is thrown away, and `token` of `reactor` is told of more. True: it is to be asked again soon.
    ///
    /// # Errors
    /// The kernel has no memory to watch a pipe.
    pub(super) fn discard(&mut self, reactor: &Arc<Reactor>, token: Token) -> sys::Result<bool> {
        if !self.are_open() {
            return Ok(false);
        }
        if self.watched_by.is_none() {
            for reader in self.readers.iter().flatten() {
                reactor.register(reader.as_fd(), token, Trigger::Edge)?;
            }
            self.watched_by = Some(Arc::clone(reactor));
        }
        self.read_rest(MAX_CHUNKS_PER_POLL, &mut |_, _| Ok(()))
    }

    /// The reactor is not to tell of them any more.
    pub(super) fn stop_listening(&mut self) {
        if let Some(reactor) = self.watched_by.take() {
            self.readers.iter().flatten().for_each(|reader| reactor.deregister(reader.as_fd()));
        }
    }

    /// Reads until the process behind `pidfd` has ended, and keeps what came where [`Pipes::take`] finds it.
    ///
    /// # Errors
    /// There is no memory to keep it in.
    pub(super) fn keep_until(&mut self, pidfd: BorrowedFd<'_>) -> Result<()> {
        let mut kept: [Option<(OwnedFd, usize)>; 2] = [None, None];
        let mut keep = |at: usize, bytes: &[u8]| {
            let (file, len) = match &mut kept[at] {
                Some(kept) => kept,
                none => none.insert((memory::create_empty("process-task-output")?, 0)),
            };
            let written: Vec<_> = bytes.iter().copied().map(MaybeUninit::new).collect();
            memory::append(file.as_fd(), *len, &written)?;
            *len += bytes.len();
            Ok(())
        };
        let read = self.read_until(pidfd, None, &mut keep).and_then(|_| self.read_rest(usize::MAX, &mut keep));
        read.map_err(|errno| Error::cannot_share("keep what the process has written", errno))?;
        for (at, kept) in kept.into_iter().enumerate() {
            if let Some((file, _)) = kept {
                drop(self.take(at));
                self.readers[at] = Some(file.into());
            }
        }
        Ok(())
    }

    /// As [`Pipes::keep_until`], but returns what came.
    ///
    /// # Errors
    /// The kernel cannot wait.
    pub(super) fn collect_until(&mut self, pidfd: BorrowedFd<'_>) -> Result<[Vec<u8>; 2]> {
        let mut all = [Vec::new(), Vec::new()];
        let mut collect = |at: usize, bytes: &[u8]| {
            all[at].extend_from_slice(bytes);
            Ok(())
        };
        let read = self.read_until(pidfd, None, &mut collect).and_then(|_| self.read_rest(usize::MAX, &mut collect));
        let failed = |errno: Errno| Error::invalid(format!("cannot read what the process writes: {}", why(errno)));
        read.map_err(failed).map(|_| all)
    }

    fn open(&self) -> impl Iterator<Item = usize> + use<> {
        let open = [0, 1].map(|at| self.readers[at].is_some() && !self.ended[at]);
        (0..2).filter(move |at| open[*at])
    }

    fn is_readable(&self, at: usize) -> bool {
        let ready = self.readers[at].as_ref().map(|reader| poll::readable([reader.as_fd()], Some(Instant::now())));
        ready == Some(Ok([true]))
    }

    /// Reads once from a pipe that is readable, which does not wait.
    fn read_one(&mut self, at: usize, each: &mut dyn FnMut(usize, &[u8]) -> sys::Result<()>) -> sys::Result<()> {
        let Some(reader) = &mut self.readers[at] else { return Ok(()) };
        let mut bytes = vec![0; CHUNK_BYTES];
        match reader.read(&mut bytes) {
            Ok(0) => self.ended[at] = true,
            Ok(len) => each(at, &bytes[..len])?,
            Err(error) if errno_of(&error) == Errno::EINTR => {}
            Err(_) => self.ended[at] = true,
        }
        Ok(())
    }
}
