//! What a connection promises when a process at one of its ends is killed or stopped: the one that is left gets all that was
//! sent before, each message whole and once, and then the end. No process waits for the dead.
//!
//! Runs in: the test process; its tasks hold the other ends, in children that are killed. Never: counts on time: the moments
//! of death differ from round to round, and any of them must do.
#![expect(clippy::cast_possible_truncation, reason = "patterns of bytes")]

use std::cell::Cell;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::Duration;

use crate::support::process_builder as builder;
use crate::support::shared_counter::{Stage, reach, stage, until, until_killed};
use crate::support::{PATIENCE, eventually, processes, rounds};
use nix::sys::signal::{Signal, raise};
use nix::unistd::Pid;
use process_task::channel::{Connection, Receiver, RecvError, RecvTimeoutError, Sender, TryRecvError, one_way, pipe};
use process_task::{Process, StartMethod, process_task};
use serde::{Deserialize, Serialize};

under_every_start_method! {
    within 100 seconds;
    a_sender_killed_at_any_moment_costs_what_it_had_not_sent,
    process_killed_inside_a_very_long_send_leaves_no_part,
    a_receiver_killed_at_any_moment_is_the_end_for_the_sender,
    a_sender_that_waits_for_room_hears_of_the_receivers_death,
    what_a_dead_process_sent_arrives_though_it_left_much_unread,
    a_child_hears_of_the_death_of_another,
    an_end_on_its_way_to_a_dead_process_is_closed,
    readers_that_die_reading_do_not_silence_the_sender,
    a_reader_that_panics_while_it_decodes_gives_the_memory_back,
    a_stopped_process_costs_time_only,
    a_drop_in_the_middle_of_a_call_is_heard_when_the_call_ends,
}

/// Kills a process whose call is not to be given to another one, however early this is.
fn kill<R>(process: &Process<R>) {
    process.kill().expect("it is ours");
}

/// A moment that is another one in each round.
fn moment(round: usize) {
    (0..round * 7919 % 90_000).for_each(|_| std::hint::spin_loop());
}

type Numbered = (u64, Vec<u8>);

fn numbered(number: u64, len: usize) -> Numbered {
    (number, vec![number as u8 ^ 0x5a; len])
}

fn is_whole((number, bytes): &Numbered, len: usize) -> bool {
    *bytes == vec![*number as u8 ^ 0x5a; len]
}

/// Sends numbered messages of that length, without end.
#[process_task]
fn pour(out: Sender<Numbered>, len: usize) {
    for number in 0.. {
        if out.send(numbered(number, len)).is_err() {
            return;
        }
    }
}

/// Receives numbered messages, all of which must be whole and in order. How many there were.
fn drain(from: &Receiver<Numbered>, len: usize) -> u64 {
    let mut next = 0;
    for message in from {
        let message = message.expect("nothing but messages and the end");
        assert!(message.0 == next && is_whole(&message, len), "message {} where {next} was to come", message.0);
        next += 1;
    }
    next
}

fn a_sender_killed_at_any_moment_costs_what_it_had_not_sent(method: StartMethod) {
    let mut most = 0;
    for round in 0..rounds(5) {
        let len = [0, 100, 30_000, 40_000, 3_000_000][round % 5];
        let (sender, receiver) = one_way().unwrap();
        let process = builder(method).spawn(pour, (sender, len)).unwrap();
        if round % 3 == 0 {
            assert!(receiver.is_ready_timeout(PATIENCE).unwrap());
        }
        let seen = thread::scope(|scope| {
            let draining = scope.spawn(|| drain(&receiver, len));
            moment(round);
            kill(&process);
            // Before a thread asks for the call's result.
            draining.join().unwrap()
        });
        assert!(process.join().is_err());
        most = most.max(seen);
    }
    assert!(most > 0, "nothing was ever sent");
}

fn process_killed_inside_a_very_long_send_leaves_no_part(method: StartMethod) {
    const LONG: usize = 100 << 20;
    for round in 0..rounds(2).min(60) {
        let (sender, receiver) = one_way().unwrap();
        let process = builder(method).spawn(pour, (sender, LONG)).unwrap();
        // It has claimed memory for the first, and is filling it.
        let filling = || {
            let maps = std::fs::read_to_string(format!("/proc/{}/maps", process.pid().unwrap())).unwrap_or_default();
            maps.contains("process-task-message")
        };
        eventually("it fills a message", PATIENCE, filling);
        moment(round);
        kill(&process);
        let seen = drain(&receiver, LONG);
        assert!(seen <= 2, "{seen} messages");
        assert!(process.join().is_err());
    }
}

/// Receives numbered messages until the end.
#[process_task]
fn drink(from: Receiver<Numbered>, stage: &Stage, len: usize) -> u64 {
    reach(stage);
    drain(&from, len)
}

fn a_receiver_killed_at_any_moment_is_the_end_for_the_sender(method: StartMethod) {
    for round in 0..rounds(5) {
        let len = [0, 100, 30_000, 40_000, 3_000_000][round % 5];
        let (sender, receiver) = one_way().unwrap();
        let stage = stage();
        let process = builder(method).spawn(drink, (receiver, &stage, len)).unwrap();
        if round % 3 == 0 {
            until(&stage, 1);
        }
        thread::scope(|scope| {
            let pouring = scope.spawn(|| {
                let refused = |number| sender.send(numbered(number, len)).err();
                (0..).find_map(refused).expect("an end")
            });
            moment(round);
            kill(&process);
            let error = pouring.join().unwrap();
            assert!(error.is_disconnected());
            assert!(is_whole(&error.into_inner(), len), "the message comes back");
        });
        assert!(process.join().is_err());
    }
}

/// Takes one message, and no other.
#[process_task]
fn take_one(from: Receiver<Numbered>, stage: &Stage) {
    from.recv().expect("a message");
    reach(stage);
    until_killed();
}

fn a_sender_that_waits_for_room_hears_of_the_receivers_death(method: StartMethod) {
    for len in [100, 100_000, 1 << 20] {
        let (sender, receiver) = one_way().unwrap();
        let stage = stage();
        let process = builder(method).spawn(take_one, (receiver, &stage)).unwrap();
        sender.send(numbered(0, len)).unwrap();
        until(&stage, 1);
        thread::scope(|scope| {
            let waiting = scope.spawn(|| (1..).find_map(|number| sender.send(numbered(number, len)).err()));
            // Until it waits, as far as can be seen from here.
            let mut full = 0;
            eventually("there is no room", PATIENCE, || {
                full += u32::from(sender.try_send(numbered(0, len)).is_err());
                full > 3
            });
            kill(&process);
            let error = waiting.join().unwrap().expect("an end");
            assert!(error.is_disconnected());
        });
        assert!(process.join().is_err());
    }
}

/// Sends some, and reads nothing.
#[process_task]
fn send_only(end: Connection<Numbered, Numbered>, stage: &Stage, len: usize) {
    (0..3).for_each(|number| end.send(numbered(number, len)).expect("there is room"));
    reach(stage);
    until_killed();
}

fn what_a_dead_process_sent_arrives_though_it_left_much_unread(method: StartMethod) {
    for len in [10, 50_000] {
        let (mine, theirs) = pipe().unwrap();
        let stage = stage();
        let process = builder(method).spawn(send_only, (theirs, &stage, len)).unwrap();
        (0..3).for_each(|number| mine.send(numbered(number, len)).unwrap());
        until(&stage, 1);
        kill(&process);
        assert!(process.join().is_err());
        for number in 0..3 {
            let message = mine.recv().expect("it was sent in time");
            assert!(message.0 == number && is_whole(&message, len));
        }
        assert_eq!(mine.recv(), Err(RecvError::Disconnected));
        assert!(mine.send(numbered(0, len)).unwrap_err().is_disconnected());
    }
}

/// Talks to another one until it is gone; how often that one has answered.
#[process_task]
fn chat(end: Connection<Numbered, Numbered>, stage: &Stage, len: usize) -> u64 {
    reach(stage);
    for number in 0.. {
        if end.send(numbered(number, len)).is_err() {
            return number;
        }
        match end.recv() {
            Ok(answer) => assert!(answer.0 == number && is_whole(&answer, len)),
            Err(RecvError::Disconnected) => return number,
            Err(other) => panic!("{other}"),
        }
    }
    unreachable!()
}

fn a_child_hears_of_the_death_of_another(method: StartMethod) {
    for round in 0..rounds(5) {
        let len = [8, 70_000][round % 2];
        let (one, other) = pipe().unwrap();
        let stage = stage();
        let first = builder(method).spawn(chat, (one, &stage, len)).unwrap();
        let second = builder(method).spawn(chat, (other, &stage, len)).unwrap();
        if round % 3 == 0 {
            until(&stage, 2);
        }
        moment(round);
        kill(&first);
        second.join().expect("the other ends by itself");
        assert!(first.join().is_err());
    }
}

#[process_task]
fn wait_for_ends(ends: Receiver<Receiver<u32>>, stage: &Stage) {
    reach(stage);
    let _first = ends.recv().expect("an end");
    reach(stage);
    until_killed();
}

fn an_end_on_its_way_to_a_dead_process_is_closed(method: StartMethod) {
    let (ends, theirs) = one_way().unwrap();
    let stage = stage();
    let process = builder(method).spawn(wait_for_ends, (theirs, &stage)).unwrap();
    let pairs: Vec<_> = (0..3).map(|_| one_way::<u32>().unwrap()).collect();
    let senders: Vec<_> = pairs
        .into_iter()
        .map(|(sender, receiver)| {
            ends.send(receiver).unwrap();
            sender
        })
        .collect();
    until(&stage, 2);
    for sender in &senders {
        sender.send(1).unwrap();
    }
    kill(&process);
    for sender in senders {
        eventually("it is closed", PATIENCE, || matches!(sender.try_send(2), Err(error) if error.is_disconnected()));
    }
    assert!(process.join().is_err());
}

thread_local! {
    /// What happens to a process that decodes a [`Fatal`].
    static FATE: Cell<Fate> = const { Cell::new(Fate::None) };
}

#[derive(Clone, Copy, PartialEq)]
enum Fate {
    None,
    Killed,
    Panic,
}

/// A message that kills its reader, if that is what it wants.
#[derive(Serialize)]
struct Fatal(Vec<u8>);

impl<'de> Deserialize<'de> for Fatal {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let bytes = Vec::deserialize(from)?;
        match FATE.get() {
            Fate::None => Ok(Self(bytes)),
            Fate::Killed => raise(Signal::SIGKILL).map(|()| unreachable!()).unwrap(),
            Fate::Panic => panic!("it does not want to be read"),
        }
    }
}

#[process_task]
fn die_reading(from: &Receiver<Fatal>) {
    FATE.set(Fate::Killed);
    drop(from.recv());
}

fn readers_that_die_reading_do_not_silence_the_sender(method: StartMethod) {
    let (sender, receiver) = one_way().unwrap();
    thread::scope(|scope| {
        // More than may be on their way at a time.
        let sending = scope.spawn(|| (0..20).for_each(|_| sender.send(Fatal(vec![7; 100_000])).unwrap()));
        for _ in 0..10 {
            assert!(builder(method).spawn(die_reading, &receiver).unwrap().join().is_err());
        }
        for _ in 0..10 {
            assert!(receiver.recv().unwrap().0 == vec![7; 100_000]);
        }
        sending.join().unwrap();
    });
    assert_eq!(receiver.try_recv().map(|_| ()), Err(TryRecvError::Empty));
}

#[process_task]
fn panic_reading(from: Receiver<Fatal>) -> u32 {
    FATE.set(Fate::Panic);
    std::panic::set_hook(Box::new(|_| {}));
    let mut panics = 0;
    while from.is_ready_timeout(Duration::from_secs(20)).expect("a look") {
        match std::panic::catch_unwind(|| from.recv()) {
            Ok(Err(RecvError::Disconnected)) => break,
            Ok(other) => panic!("{:?}", other.map(|_| ())),
            Err(_) => panics += 1,
        }
    }
    panics
}

fn a_reader_that_panics_while_it_decodes_gives_the_memory_back(method: StartMethod) {
    let (sender, receiver) = one_way().unwrap();
    let process = builder(method).spawn(panic_reading, receiver).unwrap();
    for len in (0..40).map(|round| [10, 100_000][round % 2]) {
        sender.send(Fatal(vec![1; len])).unwrap();
    }
    let mapped = std::fs::read_to_string("/proc/self/maps").unwrap().matches("process-task-message").count();
    drop(sender);
    assert_eq!(process.join().unwrap(), 40);
    // Each is mapped twice: its first page, and all of it.
    assert!(mapped <= 16, "{mapped} mappings");
}

/// Sends back what comes, but stops itself first.
#[process_task]
fn stop_first(end: Connection<Numbered, Numbered>) -> u64 {
    raise(Signal::SIGSTOP).expect("a signal that can be raised");
    let mut count = 0;
    for message in &end {
        end.send(message.expect("a message")).expect("the other end is there");
        count += 1;
    }
    count
}

fn a_stopped_process_costs_time_only(method: StartMethod) {
    for len in [100, 100_000] {
        let (mine, theirs) = pipe().unwrap();
        let process = builder(method).spawn(stop_first, theirs).unwrap();
        let pid = process.pid().unwrap();
        eventually("it has stopped", PATIENCE, || {
            processes::descendants().get(&pid).is_some_and(|entry| entry.state == 'T')
        });
        let mut sent = 0;
        let error = loop {
            match mine.send_timeout(numbered(sent, len), Duration::from_millis(50)) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
        };
        assert!(error.is_timeout());
        assert!(sent > 0 && is_whole(&error.into_inner(), len));
        assert_eq!(mine.recv_timeout(Duration::from_millis(20)), Err(RecvTimeoutError::Timeout));
        nix::sys::signal::kill(Pid::from_raw(pid.cast_signed()), Signal::SIGCONT).expect("it is ours");
        for number in 0..sent {
            let answer = mine.recv().unwrap();
            assert!(answer.0 == number && is_whole(&answer, len));
        }
        mine.send(numbered(sent, len)).unwrap();
        assert_eq!(mine.recv().unwrap().0, sent);
        drop(mine);
        assert_eq!(process.join().unwrap(), sent + 1);
    }
}

#[process_task]
fn drop_early(end: Sender<u32>, stage: &Stage) {
    drop(end);
    reach(stage);
    until(stage, 2);
}

fn a_drop_in_the_middle_of_a_call_is_heard_when_the_call_ends(method: StartMethod) {
    let (sender, receiver) = one_way::<u32>().unwrap();
    let stage = stage();
    let process = builder(method).spawn(drop_early, (sender, &stage)).unwrap();
    until(&stage, 1);
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty), "the caller may have to give the end to another process");
    stage.fetch_add(1, SeqCst);
    // No thread asks for the result: the end of the process is enough.
    assert_eq!(receiver.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
    process.join().unwrap();
}
