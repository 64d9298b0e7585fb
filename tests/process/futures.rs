//! A process in an executor and in a poll set: it is a future of its result, and a descriptor of its end.
//!
//! Runs in: the test process; the tasks in children. Never: relies on any executor; the one here is by hand.

use std::future::Future;
use std::io::{BufRead as _, BufReader, PipeWriter, Read as _};
use std::os::fd::AsFd as _;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use crate::support::{PATIENCE, eventually};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use process_task::{ErrorKind, Process, ProcessBuilder, StartMethod, Stdio, process_task};

under_every_start_method! {
    the_descriptor_is_readable_at_the_end_and_not_before,
    a_process_can_be_awaited,
    death_of_a_process_wakes_its_future,
    the_first_of_two_processes_is_had_first,
    the_last_waker_given_is_the_one_that_is_called,
    dropped_future_wakes_no_task_and_leaves_nothing,
    a_process_that_was_polled_can_still_be_joined,
    a_failed_start_is_ready_at_once,
    many_processes_can_be_awaited_by_one_thread,
}

fn builder(method: StartMethod) -> ProcessBuilder {
    let mut builder = ProcessBuilder::new();
    builder.start_method(method).stderr(Stdio::null());
    builder
}

#[process_task]
fn square(x: i64) -> i64 {
    x * x
}

/// Says that it runs, and returns `value` once its stdin is closed.
#[process_task]
fn when_told(value: i64) -> i64 {
    println!("running");
    std::io::stdin().read_to_string(&mut String::new()).unwrap();
    value
}

/// A process whose task runs until the pipe is dropped: all that happens before is over, and wakes no thread any more.
fn waiting(method: StartMethod, value: i64) -> (Process<i64>, PipeWriter) {
    let mut process = builder(method).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn(when_told, value).unwrap();
    let stdin = process.take_stdin().unwrap();
    let mut line = String::new();
    BufReader::new(process.take_stdout().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "running\n");
    (process, stdin)
}

/// Wakes a parked thread, and counts how often.
struct Unpark(Thread, AtomicUsize);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.1.fetch_add(1, SeqCst);
        self.0.unpark();
    }
}

fn waker_of_this_thread() -> (Arc<Unpark>, Waker) {
    let unpark = Arc::new(Unpark(thread::current(), AtomicUsize::new(0)));
    (Arc::clone(&unpark), Waker::from(unpark))
}

fn block_on<F: Future + Unpin>(mut future: F) -> F::Output {
    let (_, waker) = waker_of_this_thread();
    loop {
        if let Poll::Ready(output) = Pin::new(&mut future).poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        thread::park();
    }
}

fn poll_once<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

/// Ready with the output of whichever is ready first.
struct Select<'a, F>(&'a mut F, &'a mut F);

impl<F: Future + Unpin> Future for Select<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        match Pin::new(&mut *self.0).poll(context) {
            Poll::Pending => Pin::new(&mut *self.1).poll(context),
            ready @ Poll::Ready(_) => ready,
        }
    }
}

fn is_readable<R>(process: &Process<R>, timeout: PollTimeout) -> bool {
    poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], timeout).unwrap() == 1
}

fn the_descriptor_is_readable_at_the_end_and_not_before(method: StartMethod) {
    let (mut process, stdin) = waiting(method, 7);
    assert!(!is_readable(&process, PollTimeout::ZERO));
    drop(stdin);
    assert!(is_readable(&process, PollTimeout::NONE));
    assert!(process.is_finished());
    assert_eq!(process.wait().unwrap().code(), Some(0));
    assert!(is_readable(&process, PollTimeout::ZERO), "it stays so");
    assert_eq!(process.join().unwrap(), 7);
}

fn a_process_can_be_awaited(method: StartMethod) {
    for x in 0..20 {
        assert_eq!(block_on(builder(method).spawn(square, x).unwrap()).unwrap(), x * x);
    }
    // One that answered before a poll.
    let mut process = builder(method).spawn(square, 9).unwrap();
    process.wait().unwrap();
    assert_eq!(block_on(process).unwrap(), 81);
    // And one that answers only after the first poll.
    let (mut process, stdin) = waiting(method, 5);
    let (woken, waker) = waker_of_this_thread();
    assert!(poll_once(&mut process, &waker).is_pending());
    assert_eq!(woken.1.load(SeqCst), 0);
    drop(stdin);
    eventually("the waker is called", PATIENCE, || woken.1.load(SeqCst) > 0);
    assert_eq!(block_on(process).unwrap(), 5);
}

fn death_of_a_process_wakes_its_future(method: StartMethod) {
    let (mut process, _stdin) = waiting(method, 5);
    let (_, waker) = waker_of_this_thread();
    assert!(poll_once(&mut process, &waker).is_pending());
    process.kill().unwrap();
    let error = block_on(process).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Killed { signal: nix::libc::SIGKILL, .. }), "{error}");
}

fn the_first_of_two_processes_is_had_first(method: StartMethod) {
    let (mut late, tell_late) = waiting(method, 1);
    let (mut early, tell_early) = waiting(method, 2);
    drop(tell_early);
    assert_eq!(block_on(Select(&mut late, &mut early)).unwrap(), 2);
    drop(tell_late);
    assert_eq!(block_on(late).unwrap(), 1);
    assert_eq!(block_on(early).unwrap(), 2, "its result can be had again");
}

fn the_last_waker_given_is_the_one_that_is_called(method: StartMethod) {
    let (mut process, stdin) = waiting(method, 3);
    let (first, first_waker) = waker_of_this_thread();
    let (second, second_waker) = waker_of_this_thread();
    assert!(poll_once(&mut process, &first_waker).is_pending());
    assert!(poll_once(&mut process, &second_waker).is_pending());
    drop(stdin);
    eventually("the second waker is called", PATIENCE, || second.1.load(SeqCst) > 0);
    assert_eq!(first.1.load(SeqCst), 0);
    assert_eq!(block_on(process).unwrap(), 3);
}

fn dropped_future_wakes_no_task_and_leaves_nothing(method: StartMethod) {
    let (mut process, stdin) = waiting(method, 3);
    let (woken, waker) = waker_of_this_thread();
    assert!(poll_once(&mut process, &waker).is_pending());
    drop((process, waker));
    eventually("the waker is let go", Duration::from_secs(10), || Arc::strong_count(&woken) == 1);
    drop(stdin);
    eventually("the process ends", PATIENCE, || process_task::active_children().is_empty());
    assert_eq!(woken.1.load(SeqCst), 0);
}

fn a_process_that_was_polled_can_still_be_joined(method: StartMethod) {
    let (mut process, stdin) = waiting(method, 3);
    assert!(poll_once(&mut process, Waker::noop()).is_pending());
    let other = thread::spawn(move || process.join());
    drop(stdin);
    assert_eq!(other.join().unwrap().unwrap(), 3);
}

fn a_failed_start_is_ready_at_once(_: StartMethod) {
    let mut process = refuse_to_travel.spawn(Stays);
    assert!(is_readable(&process, PollTimeout::ZERO));
    let Poll::Ready(Err(error)) = poll_once(&mut process, Waker::noop()) else { panic!("not ready") };
    assert!(matches!(error.kind(), ErrorKind::CannotEncode { .. }), "{error}");
}

#[derive(serde::Deserialize)]
struct Stays;

impl serde::Serialize for Stays {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("it stays"))
    }
}

#[process_task]
fn refuse_to_travel(_stays: Stays) {}

fn many_processes_can_be_awaited_by_one_thread(method: StartMethod) {
    let mut processes: Vec<_> = (0..20).map(|x| Some(builder(method).spawn(square, x).unwrap())).collect();
    let (_, waker) = waker_of_this_thread();
    let mut results = vec![None; processes.len()];
    while results.contains(&None) {
        for (slot, result) in processes.iter_mut().zip(&mut results) {
            let Some(process) = slot else { continue };
            if let Poll::Ready(output) = poll_once(process, &waker) {
                *result = Some(output.unwrap());
                *slot = None;
            }
        }
        if results.contains(&None) {
            thread::park();
        }
    }
    assert!(results.into_iter().eq((0..20).map(|x| Some(x * x))));
}
