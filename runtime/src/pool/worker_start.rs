//! Starts workers: asks for a child, hands it its setup, and attaches it to its slot.
//!
//! Runs in: the parent; most of it on the reactor's thread, once the child is there.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use super::effects::Start;
use super::inline;
use super::shared::Shared;
use super::slot::{Request, Worker};
use super::waitable::AllCalls;
use crate::codec::message::to_bytes;
use crate::error::{Error, Result};
use crate::link::frame::FrameKind;
use crate::link::{Caller, Payload};
use crate::supervisor::{ChildHandle, OnStarted, SetupFor, SpawnedChild, StartRequest, hand_over, setup_of_worker};
use crate::sys::poll::Trigger;
use crate::sys::{Errno, rights, signal};

/// How often `build` polls for workers that set themselves up, if it waits for that alone.
const SETUP_POLL_INTERVAL: Duration = Duration::from_millis(1);

/// Starts a worker for a slot, if that still needs one.
pub(super) fn start(shared: &Arc<Shared>, start: Start) {
    if !shared.update(|scheduler| scheduler.workers.confirm_start(start)) {
        return;
    }
    let (own, number) = (Arc::clone(shared), start.number);
    let started = move |child| {
        if let Err(error) = attach(&own, number, child) {
            own.update(|scheduler| scheduler.workers.start_failed(number, &error));
        }
    };
    ask(shared, Box::new(started));
}

/// Starts the first workers, and waits until all are there and initialized.
pub(super) fn start_all(shared: &Arc<Shared>, workers: usize) -> Result<()> {
    if inline::is_on() {
        return inline::begin(&shared.config);
    }
    let (sender, receiver) = channel();
    let awaiting_ready = shared.update(|scheduler| scheduler.workers.confirm_first_starts(workers));
    for number in 0..workers {
        let (own, sender) = (Arc::clone(shared), sender.clone());
        let started = move |child| {
            let result = attach(&own, number, child);
            if result.is_err() {
                own.update(|scheduler| scheduler.workers.first_start_failed(number));
            }
            drop(sender.send(result));
        };
        ask(shared, Box::new(started));
    }
    drop(sender);
    receiver.into_iter().take(workers).collect::<Result<()>>()?;
    if shared.config.initializer.is_none() && !shared.config.may_be_refused {
        return Ok(());
    }
    // A worker sends no notification when its setup is finished.
    let poll_again = || shared.config.initializer.is_none().then(|| Instant::now() + SETUP_POLL_INTERVAL);
    while !shared.wait(&|| awaiting_ready.load(SeqCst) == 0, &AllCalls, poll_again()) {}
    shared.inspect(|scheduler| scheduler.workers.failure().cloned().map_or(Ok(()), Err))
}

/// Asks for a child.
fn ask(shared: &Shared, started: OnStarted) {
    let options = &shared.config.options;
    let asked = options.rights().and_then(|rights| Ok((rights, StartRequest::of(options)?)));
    match asked {
        Ok((rights, how)) => shared.supervisor.start_child_later(how, rights, started),
        Err(error) => started(Err(error)),
    }
}

/// A child is there for a slot, or could not be started. Hands it its setup.
fn attach(shared: &Arc<Shared>, number: usize, child: Result<SpawnedChild>) -> Result<()> {
    let name = format!("{}-{number}", shared.config.name);
    let SpawnedChild { record, link } = child.map_err(|error| error.in_process(&name, 0))?;
    record.set_name(&name);
    let doorbell = Arc::clone(link.bell());
    let link = link.for_worker().map_err(|errno| {
        let _ = record.signal(signal::KILL);
        Error::could_not_start("reserve the link's memory", errno).in_process(&name, record.pid)
    })?;
    let mut caller = Caller::new(link);
    let prepared = prepare(shared, &record, &mut caller, (&name, number), doorbell.as_fd());
    if let Err(error) = prepared {
        let _ = record.signal(signal::KILL);
        return Err(error.in_process(&name, record.pid));
    }
    let worker = Worker::new(Arc::clone(&record), caller, shared.config.quota);
    if !shared.update(|scheduler| {
        worker.caller.wake();
        scheduler.attach_worker(number, worker)
    }) {
        let _ = record.signal(signal::KILL);
    }
    let (own, stopped) = (Arc::downgrade(shared), Arc::downgrade(&record));
    record.on_stop(move |signal| {
        if let (Some(own), Some(record)) = (own.upgrade(), stopped.upgrade()) {
            own.update(|scheduler| scheduler.workers.on_stop(number, &record, signal));
        }
    });
    let (own, ended) = (Arc::downgrade(shared), Arc::clone(&record));
    record.on_exit(move || {
        if let Some(own) = own.upgrade() {
            own.supervisor.reactor().deregister(doorbell.as_fd());
            let status = ended.status().unwrap_or(ExitStatus::from_raw(signal::KILL));
            own.update(|scheduler| scheduler.on_worker_exit(number, &ended, status));
        }
    });
    Ok(())
}

fn prepare(
    shared: &Shared,
    record: &ChildHandle,
    caller: &mut Caller<Request>,
    (name, number): (&str, usize),
    doorbell: BorrowedFd<'_>,
) -> Result<()> {
    let at = |step: &'static str| move |errno: Errno| Error::could_not_start(step, errno);
    let worker = SetupFor { base: record.server().base(), name, once: false, umask: rights::umask() };
    let (setup, descriptors) = setup_of_worker(worker, &shared.config.options, number)?;
    hand_over(caller, &descriptors).map_err(at("hand over descriptors"))?;
    let setup = Payload::of_bytes(&to_bytes(&setup)).map_err(at("find memory for the setup"))?;
    let pushed = caller.push(FrameKind::Setup, 0, setup, Request::Setup);
    pushed.map_err(|(errno, ..)| at("hand over the setup")(errno))?;
    if let Some(initializer) = &shared.config.initializer {
        let unknown = || Error::unknown_task().in_task(initializer.task().name());
        let index = initializer.task().task_index().ok_or_else(unknown)?;
        let payload = initializer.payload().map_err(at("find memory for the initializer's arguments"))?;
        let request = (index, initializer.options().memory_limit);
        let written = caller.write(FrameKind::Call, request, payload, Request::Initializer);
        written.map_err(|(errno, ..)| at("hand over the initializer's arguments")(errno))?;
        caller.publish();
    }
    // The pool's own set first: a leader that sleeps there is woken rather than the reactor.
    shared.set.add(doorbell, 0, Trigger::EdgeExclusive).map_err(at("watch a worker"))?;
    let token = shared.token.get();
    let watched =
        token.map_or(Ok(()), |token| shared.supervisor.reactor().register(doorbell, *token, Trigger::EdgeExclusive));
    watched.map_err(at("watch a worker"))
}
