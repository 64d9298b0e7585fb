//! The file of a timeline: Chrome's trace format, which Perfetto opens.
//!
//! Runs in: the parent, on whichever thread runs the effects, one at a time. No more events are in memory than a buffer's worth. A write that fails is the last one, and is reported at the end.
//!
//! The format is that of "Trace Event Format" by the Chromium project: an object with a list `traceEvents`, with times in
//! microseconds. Each worker is a thread of our process; its calls are complete events (`X`), and what else happens to it
//! are instants (`i`). Metadata (`M`) name the process and the threads.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use serde::Serialize;
use serde_json_core::ser;

use super::event::{EventKind, PoolEvent, name_of};
use crate::error::Error;
use crate::sys::mutex::MutexExt as _;
use crate::sys::quiet_file::QuietFile;
use crate::sys::signal;

/// A file that is being written, or `None` when it is finished.
#[derive(Debug)]
pub(in crate::pool) struct Recorder(Mutex<Option<Out>>);

#[derive(Debug)]
struct Out {
    file: BufWriter<QuietFile>,
    /// Where an entry is put together.
    text: Vec<u8>,
    /// Workers with names that are written.
    named: HashSet<u64>,
    written: io::Result<()>,
    first: bool,
}

/// One entry of the list.
#[derive(Serialize)]
struct TimelineEntry<'a> {
    name: &'a str,
    #[serde(rename = "cat", skip_serializing_if = "str::is_empty")]
    category: &'static str,
    #[serde(rename = "ph")]
    phase: &'static str,
    /// Microseconds.
    ts: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    dur: Option<f64>,
    pid: u32,
    tid: u64,
    /// How far an instant is drawn: over its thread, or the whole process.
    #[serde(rename = "s", skip_serializing_if = "Option::is_none")]
    scope: Option<&'static str>,
    args: Args<'a>,
}

/// What is told of an event beside its name and time.
#[derive(Default, Serialize)]
struct Args<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sort_index: Option<u64>,
    /// The worker's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    calls: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<String>,
}

impl Recorder {
    /// Begins a file; one that is there is overwritten.
    ///
    /// # Errors
    /// It cannot be made or written.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let file = BufWriter::with_capacity(64 << 10, QuietFile(File::create(path)?));
        let mut out = Out { file, text: Vec::new(), named: HashSet::new(), written: Ok(()), first: true };
        out.file.write_all(b"{\"displayTimeUnit\":\"ms\",\"traceEvents\":[")?;
        let program = std::env::args_os().next().unwrap_or_default();
        let program = Path::new(&program).file_name().unwrap_or_default().to_string_lossy().into_owned();
        out.name("process_name", 0, Args { name: Some(&program), ..Args::default() });
        // Tells at once if the disk is full.
        out.file.flush()?;
        Ok(Self(Mutex::new(Some(out))))
    }

    /// Writes one event down.
    pub(super) fn record(&self, event: &PoolEvent) {
        let mut out = self.out();
        let Some(out) = out.as_mut() else { return };
        // Thread 0 is the pool itself.
        let tid = event.worker.as_ref().map_or(0, |worker| worker.slot as u64 + 1);
        if out.named.insert(tid) {
            let name = event.worker.as_ref().map_or("pool", |worker| worker.name.as_str());
            out.name("thread_name", tid, Args { name: Some(name), ..Args::default() });
            out.name("thread_sort_index", tid, Args { sort_index: Some(tid), ..Args::default() });
        }
        let own = Args { pid: event.worker.as_ref().map(|worker| worker.pid), ..Args::default() };
        match &event.what {
            EventKind::Started { again: false } => out.mark("started", tid, event.at, own),
            EventKind::Started { again: true } => out.mark("restarted", tid, event.at, own),
            EventKind::Left => out.mark("left", tid, event.at, own),
            EventKind::Stopped { task, signal } => {
                let args = Args { task: *task, signal: Some(signal::name(*signal)), ..own };
                out.mark("stopped", tid, event.at, args);
            }
            EventKind::Continued => out.mark("continued", tid, event.at, own),
            EventKind::Died { task, error } | EventKind::Killed { task, cause: error } => {
                out.mark("died", tid, event.at, Args { task: *task, error: Some(error.to_string()), ..own });
            }
            EventKind::Forced { task, limit } => {
                let args = Args { task: *task, limit: Some(format!("{limit:?}")), ..own };
                out.mark("did not end in time", tid, event.at, args);
            }
            EventKind::Stuck { waited } => {
                out.mark("does not end", tid, event.at, Args { limit: Some(format!("{waited:?}")), ..own });
            }
            EventKind::NotFinalized { error } => {
                let args = Args { task: error.task(), error: Some(error.to_string()), ..own };
                out.mark("finalizer failed", tid, event.at, args);
            }
            EventKind::NotStarted { error, failures, .. } => {
                let args = Args { attempts: Some(*failures), error: Some(error.to_string()), ..Args::default() };
                out.mark("could not be started", tid, event.at, args);
            }
            EventKind::Settled { task, calls, began, error } => {
                let args = Args { calls: (*calls != 1).then_some(*calls), ..of_call(own, task, error.as_ref()) };
                out.call(tid, *began, event.at, args);
            }
            EventKind::TimedOut { task, limit } => {
                let args = Args { task: Some(task), limit: Some(format!("{limit:?}")), ..own };
                out.mark("timed out", tid, event.at, args);
            }
            EventKind::Retried { task, attempts, began, error } => {
                let again = Args { task: Some(task), attempts: Some(*attempts), pid: own.pid, ..Args::default() };
                out.call(tid, *began, event.at, of_call(own, task, Some(error)));
                out.mark("made again", tid, event.at, again);
            }
            EventKind::Closed { cause, .. } => {
                out.mark("closed", tid, event.at, Args { error: Some(cause.to_string()), ..own });
            }
        }
    }

    /// Writes the end. Only the first time; later events are left out.
    ///
    /// # Errors
    /// Something could not be written, now or before.
    pub(super) fn finish(&self) -> io::Result<()> {
        let Some(mut out) = self.out().take() else { return Ok(()) };
        out.written?;
        out.file.write_all(b"\n]}\n")?;
        out.file.flush()
    }

    fn out(&self) -> MutexGuard<'_, Option<Out>> {
        self.0.lock_unpoisoned()
    }
}

fn of_call<'a>(own: Args<'a>, task: &'a str, error: Option<&Error>) -> Args<'a> {
    let outcome = error.map_or_else(|| "Done".to_owned(), |error| name_of(error.kind()));
    Args { task: Some(task), outcome: Some(outcome), error: error.map(Error::to_string), ..own }
}

impl Out {
    /// Names the process or a thread.
    fn name(&mut self, name: &str, tid: u64, args: Args<'_>) {
        let pid = std::process::id();
        self.put(&TimelineEntry { name, category: "", phase: "M", ts: 0.0, dur: None, pid, tid, scope: None, args });
    }

    /// Something at one moment.
    fn mark(&mut self, name: &str, tid: u64, at: u64, args: Args<'_>) {
        let (pid, ts, scope) = (std::process::id(), microseconds(at), Some(if tid == 0 { "p" } else { "t" }));
        self.put(&TimelineEntry { name, category: "worker", phase: "i", ts, dur: None, pid, tid, scope, args });
    }

    /// A call, or several in one message.
    fn call(&mut self, tid: u64, began: u64, ended: u64, args: Args<'_>) {
        let task = args.task.unwrap_or_default();
        let short = task.rsplit("::").next().unwrap_or(task);
        let several = args.calls.map(|calls| format!("{short} x {calls}"));
        let name = several.as_deref().unwrap_or(short);
        let (pid, ts, dur) = (std::process::id(), microseconds(began), microseconds(ended.saturating_sub(began)));
        self.put(&TimelineEntry {
            name,
            category: "call",
            phase: "X",
            ts,
            dur: Some(dur),
            pid,
            tid,
            scope: None,
            args,
        });
    }

    fn put(&mut self, entry: &TimelineEntry<'_>) {
        if self.written.is_ok() {
            self.written = self.write(entry);
        }
    }

    fn write(&mut self, entry: &TimelineEntry<'_>) -> io::Result<()> {
        self.file.write_all(if std::mem::take(&mut self.first) { b"\n" } else { b",\n" })?;
        self.text.resize(self.text.len().max(1 << 10), 0);
        let len = loop {
            match ser::to_slice(entry, &mut self.text) {
                Ok(len) => break len,
                Err(ser::Error::BufferFull) => self.text.resize(2 * self.text.len(), 0),
                Err(error) => return Err(io::Error::other(error)),
            }
        };
        self.file.write_all(&self.text[..len])
    }
}

fn microseconds(nanoseconds: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "2^52 nanoseconds are 52 days, and then it is a matter of a few")]
    let nanoseconds = nanoseconds as f64;
    nanoseconds / 1e3
}
