//! A child's life: claims a call, runs it, answers, until the parent closes the link.
//!
//! Runs in: a child, on its main thread, which is the one that tasks run on.
//!
//! Why what a call shares is let go before its result is published: a caller that waits for all of a map can then
//! freeze what the workers wrote. Frozen regions alone stay mapped until the next call is answered, or for 50 ms. To
//! map and unmap 1 GiB would cost more than the rest of a call, and the next call most likely brings the same.

use std::io::Write as _;
use std::panic;
use std::time::Duration;

use super::batch;
use super::setup;
use crate::call::{self, panics};
use crate::codec::Writer;
use crate::codec::handles::{self, Handles, Received};
use crate::codec::message::{from_bytes, to_bytes};
use crate::error;
use crate::link::frame::{FrameKind, INLINE};
use crate::link::message::{Setup, SetupRefusal};
use crate::link::{Callee, Incoming, Payload};
use crate::sys::{Errno, atfork, crash, limits, process};
use crate::task::lookup;

/// Serves until the parent closes the link, or until the one call of a `spawn` is done.
pub(super) fn serve(mut callee: Callee) -> ! {
    let crash_note = callee.crash_note();
    crash::set_overflow_flag(callee.overflow_flag());
    panics::set_sink(crash_note);
    prefault();
    let mut once = None;
    while let Some(given) = callee.next() {
        if given.kind == FrameKind::Setup {
            match set_up(&mut callee, &given) {
                Ok(only_one) => {
                    once = only_one;
                    crash_note.limited(limits::address_space().unwrap_or(0));
                }
                Err(refusal) => {
                    answer(&mut callee, &given, FrameKind::BadSetup, &to_bytes(&refusal));
                    process::exit_now(1);
                }
            }
            callee.answer(&given, FrameKind::Done, Payload::small(Vec::new()));
            continue;
        }
        if given.kind == FrameKind::Batch {
            batch::run(&mut callee, &given, crash_note);
            callee.linger(given);
            continue;
        }
        crash_note.clear();
        run(&mut callee, &given);
        callee.linger(given);
        if once.is_some() {
            // Ending takes 0.2 ms; the parent, which may have been woken on this processor, goes first.
            process::yield_now();
            break;
        }
    }
    if let Some(limit) = once {
        // Whatever runs from here on, exit handlers and destructors, is the program's. A pool sees to its workers itself.
        process::kill_self_after(limit);
    }
    exit()
}

/// Goes through what the first request will need, so that a spare takes its page faults before a caller waits for it, and
/// the fork server looks up for all of them what the dynamic linker leaves to the first use.
pub(super) fn prefault() {
    setup::measure();
    let setup = to_bytes(&Setup::default());
    let setup: Option<Setup> = from_bytes(&setup).ok();
    let known = panic::catch_unwind(|| lookup(0).is_some());
    let _ = std::io::stdout().flush();
    let (mut handles, received) = (Handles::default(), Received::default());
    handles::provide(&received, || handles::collect(&mut handles, || ()));
    std::hint::black_box((setup, known.is_ok(), handles, atfork::generation()));
}

/// Becomes what the parent asked for; if one call is all that will come, returns how long exiting may take after that.
fn set_up(callee: &mut Callee, given: &Incoming) -> Result<Option<Duration>, SetupRefusal> {
    let unreadable = |errno: Errno| SetupRefusal { step: "read its setup".to_owned(), errno: errno as i32 };
    let bytes = given.payload().map_err(unreadable)?;
    let setup: Setup = from_bytes(bytes).map_err(|_| unreadable(Errno::EPROTO))?;
    let attached = if setup.attached.is_empty() { Vec::new() } else { callee.attached().map_err(unreadable)? };
    let once = setup.once;
    callee.watch_memory(setup.most_memory);
    let other_stack = setup.limits.iter().any(|(place, _)| *place == limits::STACK);
    setup::apply(setup, &attached)?;
    if other_stack {
        crash::find_stack();
    }
    Ok(once)
}

/// Runs one call, and answers it whatever happens.
fn run(callee: &mut Callee, given: &Incoming) {
    let Some(task) = lookup(given.task) else {
        return answer(callee, given, FrameKind::UnknownTask, &[]);
    };
    let arguments = match given.payload() {
        Ok(arguments) => arguments,
        Err(errno) => {
            let why = format!("the parcel that holds them could not be received: {}", error::why(errno));
            return answer(callee, given, FrameKind::BadArguments, why.as_bytes());
        }
    };
    if let Some(refusal) = given.memory.and_then(setup::refuse_memory) {
        return answer(callee, given, FrameKind::BadSetup, &to_bytes(&refusal));
    }
    let (generation, crash_note) = (atfork::generation(), callee.crash_note());
    let note_limit = || crash_note.limited(limits::address_space().unwrap_or(0));
    let mut limited = given.memory.map(|bytes| {
        let limited = limits::limit_address_space(bytes);
        note_limit();
        limited
    });
    let returned = || {
        if atfork::generation() != generation {
            // The task called `fork()`, and this is the copy: the link is the original's.
            process::exit_now(0);
        }
        if let Some(limited) = limited.take() {
            drop(limited);
            note_limit();
        }
    };
    let (kind, payload) = call::run_one(task, arguments, &given.received, callee.filling(), returned);
    // What the caller shares with this process is released before the caller gets the result.
    given.received.release();
    // What the task printed is there before its result is.
    let _ = std::io::stdout().flush();
    callee.answer(given, kind, payload);
}

/// Answers with bytes of our own, which may be too long for the ring.
pub(super) fn answer(callee: &mut Callee, given: &Incoming, kind: FrameKind, bytes: &[u8]) {
    let mut filling = callee.filling();
    let mut writer = Writer::new(Vec::new(), INLINE, &mut filling);
    let payload = writer.put_bytes(bytes).and_then(|()| writer.finish());
    let payload = payload.ok().and_then(|payload| Payload::new(payload, filling, Handles::default()));
    callee.answer(given, kind, payload.unwrap_or_else(|| Payload::small(Vec::new())));
}

/// Ends as a program does that returns from `main`: exit handlers run, buffers are flushed, code 0.
#[expect(clippy::exit, reason = "this is where a child that is done ends")]
fn exit() -> ! {
    std::process::exit(0)
}
