//! A timeline that is being recorded.
//!
//! Runs in: the parent. A pool records one at a time.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::recorder::Recorder;
use crate::error::{Error, Result};
use crate::pool::pool::Pool;
use crate::pool::shared::Shared;

/// How long the end of a recording waits for what was noted before.
const LATE: Duration = Duration::from_secs(1);

/// What [`Pool::timeline`] records, until this is finished or dropped.
///
/// # Examples
/// ```
/// use process_task::{Pool, process_task};
///
/// #[process_task]
/// fn square(x: i64) -> i64 { x * x }
///
/// # let path = std::env::temp_dir().join(format!("timeline-{}.json", std::process::id()));
/// let pool = Pool::new()?;
/// let timeline = pool.timeline(&path)?;
/// pool.map(square, 0..4)?;
/// timeline.finish()?;                       // drag the file into https://ui.perfetto.dev
/// # assert!(std::fs::read_to_string(&path).unwrap().contains("traceEvents"));
/// # std::fs::remove_file(&path).unwrap();
/// # process_task::Result::Ok(())
/// ```
#[derive(Debug)]
#[must_use = "the recording ends when this is dropped"]
pub struct Timeline {
    shared: Arc<Shared>,
    recorder: Arc<Recorder>,
    path: PathBuf,
}

impl Pool {
    /// Records from now on what each worker does, into a file that [Perfetto](https://ui.perfetto.dev) and
    /// `chrome://tracing` open: each call with its task, outcome and times, and each worker's start, death and restart.
    ///
    /// A row is a slot of the pool; the workers that fill it one after the other share it. A call's time is from the
    /// moment when its worker had it and nothing before it, until its result was taken. Many items of a `map` that
    /// travel in one message are one event. A file of that name is overwritten.
    ///
    /// Recording costs some microseconds a call, and about 200 bytes in the file.
    ///
    /// # Errors
    /// The file cannot be written, or a timeline of this pool is being recorded already.
    ///
    /// # Examples
    /// See [`Timeline`].
    pub fn timeline(&self, path: impl AsRef<Path>) -> Result<Timeline> {
        let shared = self.shared();
        if shared.is_foreign() {
            return Err(Error::closed("it belongs to the process that this one is a `fork()` of"));
        }
        let path = path.as_ref().to_owned();
        if shared.inspect(|scheduler| scheduler.workers.metrics.recorder().is_some()) {
            return Err(busy());
        }
        let recorder = Recorder::create(&path).map_err(|error| Error::cannot_write(&path, &error))?;
        let recorder = Arc::new(recorder);
        let begun = shared.update(|scheduler| scheduler.workers.begin_recording(&recorder));
        if begun { Ok(Timeline { shared: Arc::clone(shared), recorder, path }) } else { Err(busy()) }
    }
}

impl Timeline {
    /// Ends the recording, and writes the end of the file. Calls that are running are left out.
    ///
    /// # Errors
    /// The file could not be written, now or before: the disk is full, say, or the file would be longer than `RLIMIT_FSIZE`
    /// allows, which is no signal here. What was written before is left as it is.
    pub fn finish(self) -> Result<()> {
        self.end().map_err(|error| Error::cannot_write(&self.path, &error))
    }

    /// Does nothing the second time.
    fn end(&self) -> io::Result<()> {
        if self.shared.is_foreign() {
            return Ok(());
        }
        self.shared.update(|scheduler| scheduler.end_recording(&self.recorder));
        // Other threads may have noted something and not told it yet. The bound is for a subscriber that ends up here.
        let late = Instant::now() + LATE;
        while Arc::strong_count(&self.recorder) > 1 && Instant::now() < late {
            std::thread::sleep(Duration::from_micros(20));
        }
        self.recorder.finish()
    }
}

impl Drop for Timeline {
    /// As [`Timeline::finish`], but errors are not reported.
    fn drop(&mut self) {
        let _ = self.end();
    }
}

fn busy() -> Error {
    Error::invalid("a timeline of this pool is being recorded already; finish it first")
}
