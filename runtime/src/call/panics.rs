//! Keeps what a panic says for the parent.
//!
//! Runs in: a child, on the thread that panics; in a parent that runs tasks itself.
//! Invariant: the hook that was there before still runs, so its text still goes to stderr.
//!
//! With `panic = "abort"`, for a second panic during unwinding, and for one that crosses `extern "C"`, the hook is the
//! last code of ours that runs: so it also leaves the text in the reply half, which outlives the process.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::{Mutex, OnceLock};

use crate::link::CrashNote;
use crate::link::message::PanicReport;
use crate::sys::mutex::MutexExt as _;

thread_local! {
    static LAST: RefCell<Option<PanicReport>> = const { RefCell::new(None) };
}

/// Where the text of a panic is left, in a child that has a link.
static CRASH_NOTE: OnceLock<CrashNote> = OnceLock::new();

/// From now on, what a panic says is left in `crash_note`, too.
pub(crate) fn set_sink(crash_note: CrashNote) {
    let _ = CRASH_NOTE.set(crash_note);
}

/// What is told of a panic that ends the process, besides.
static ABORT_HOOK: Mutex<Option<fn(&str)>> = Mutex::new(None);

/// In a program that aborts on panics, `hook` is called with what a panic says before the process ends.
pub(crate) fn set_abort_hook(hook: Option<fn(&str)>) {
    *ABORT_HOOK.lock_unpoisoned() = hook;
}

/// Runs `code`.
///
/// # Errors
/// It panicked: what it said. In a program that aborts on panics, nothing returns.
pub(crate) fn catch(code: impl FnOnce()) -> Result<(), String> {
    panic::catch_unwind(AssertUnwindSafe(code)).map_err(|payload| sentence(&take_report(payload)))
}

fn sentence(report: &PanicReport) -> String {
    let place = report.location.as_deref().unwrap_or("an unknown place");
    format!("panicked at {place}: {}", report.message)
}

/// Listens to every panic from now on.
///
/// Runs in: the fork server, so that its children need not, in a child that was executed, and in a parent that runs
/// tasks itself.
pub(crate) fn install_hook() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let report = report(info);
        if let Some(crash_note) = CRASH_NOTE.get() {
            crash_note.say(&sentence(&report));
        } else if cfg!(panic = "abort") {
            let hook = *ABORT_HOOK.lock_unpoisoned();
            if let Some(hook) = hook {
                hook(&sentence(&report));
            }
        }
        // A thread that is ending has no place for it any more, and no way to ask for one.
        let _ = LAST.try_with(|last| {
            if let Ok(mut last) = last.try_borrow_mut() {
                *last = Some(report);
            }
        });
        before(info);
    }));
}

fn report(info: &PanicHookInfo<'_>) -> PanicReport {
    let trace = Backtrace::capture();
    PanicReport {
        message: message_of(info.payload()),
        location: info.location().map(ToString::to_string),
        backtrace: (trace.status() == BacktraceStatus::Captured).then(|| trace.to_string()),
    }
}

/// What is known of a panic that was caught on this thread; its payload is dropped here.
pub(crate) fn take_report(payload: Box<dyn Any + Send>) -> PanicReport {
    let message = message_of(&*payload);
    // A destructor of a payload may panic itself; that one's payload is left alone.
    if let Err(second) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        Box::leak(second);
    }
    let seen = LAST.with(RefCell::take);
    // The task may have set a hook of its own; then the payload is all there is.
    seen.filter(|report| report.message == message).unwrap_or(PanicReport { message, ..PanicReport::default() })
}

fn message_of(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        "a payload of unknown type".to_owned()
    }
}
