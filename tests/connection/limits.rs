//! What a connection does where something runs out, and how little it keeps: descriptors, memory, a reader for SIGPIPE.
//!
//! Runs in: the test process, and children whose limits are theirs alone. Never: lowers a limit of the test process.
#![expect(unsafe_code, reason = "a signal's default action")]
#![expect(clippy::cast_possible_truncation, reason = "patterns of bytes, and small numbers")]

use std::fs;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::Duration;

use crate::support::fork_copy;
use crate::support::process_builder as builder;
use crate::support::restore;
use crate::support::shared_counter::{Stage, reach, stage, until};
use crate::support::signal_storm;
use crate::support::{PATIENCE, eventually, rounds};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{Uid, setuid};
use process_task::channel::{Connection, Receiver, RecvError, Sender, one_way, pipe};
use process_task::{Error, ErrorKind, Shared, StartMethod, process_task};

under_every_start_method! {
    within 100 seconds;
    a_full_table_of_descriptors_costs_the_messages_that_need_one,
    with_few_descriptors_each_message_is_whole_or_an_error,
    a_sender_without_descriptors_gets_its_message_back,
    sender_waits_while_too_many_descriptors_are_in_flight,
    send_without_receiver_is_an_error_not_a_signal,
    a_storm_of_signals_costs_no_message,
    long_messages_leave_the_memory_as_it_was,
    memory_for_long_messages_goes_when_none_come_any_more,
    memory_for_a_very_long_message_goes_when_it_is_read,
    a_host_that_forks_shares_no_memory_with_its_copy,
}

fn open_descriptors() -> u64 {
    fs::read_dir("/proc/self/fd").expect("a list").count() as u64 - 1
}

/// Runs with room for so many more descriptors only.
fn with_room_for<R>(more: u64, body: impl FnOnce() -> R) -> R {
    // Descriptors are numbered from the lowest that is free, and there may be gaps.
    let gaps = fs::read_dir("/proc/self/fd").expect("a list");
    let highest = gaps.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u64>().ok()).max().unwrap_or(0);
    let fillers: Vec<_> = (open_descriptors()..=highest).filter_map(|_| fs::File::open("/dev/null").ok()).collect();
    let back = restore::soft_limit(Resource::RLIMIT_NOFILE, open_descriptors() + more);
    let result = body();
    drop((back, fillers));
    result
}

type Message = (Vec<Shared<u32>>, Vec<u8>);

fn message(handles: u32, len: usize) -> Message {
    ((0..handles).map(|n| Shared::new(n).expect("a little memory")).collect(), vec![3; len])
}

fn is_whole(message: &Message, handles: u32, len: usize) -> bool {
    message.0.iter().map(|region| **region).eq(0..handles) && *message.1 == vec![3; len]
}

/// Receives with room for so many descriptors; then, with room for all, what comes after.
#[process_task]
fn receive_with(from: Receiver<Message>, room: u64) -> Vec<String> {
    let say = |outcome: Result<Message, RecvError>| match outcome {
        Ok((handles, bytes)) => {
            assert!(
                handles.iter().map(|region| **region).eq(0..handles.len() as u32)
                    && bytes.iter().all(|byte| *byte == 3)
            );
            format!("{} {}", handles.len(), bytes.len())
        }
        Err(RecvError::Failed(error)) if matches!(error.kind(), ErrorKind::CannotDecode { reason, .. } if reason.contains("as many descriptors open as it may")) => {
            "no room".to_owned()
        }
        Err(other) => other.to_string(),
    };
    // What one message brought must not be taken for what a later one lost.
    let first = from.recv().expect("there is room for the first");
    let before = open_descriptors();
    let mut said: Vec<_> = with_room_for(room, || (0..3).map(|_| say(from.recv())).collect());
    assert_eq!(open_descriptors(), before, "what came is closed again");
    said.extend(from.iter().map(say));
    assert!(is_whole(&first, 2, 10));
    said
}

fn a_full_table_of_descriptors_costs_the_messages_that_need_one(method: StartMethod) {
    let (sender, receiver) = one_way().unwrap();
    sender.send(message(2, 10)).unwrap();
    sender.send(message(2, 10)).unwrap();
    sender.send(message(0, 10)).unwrap();
    sender.send(message(0, 100_000)).unwrap();
    for len in [10, 100_000] {
        sender.send(message(2, len)).unwrap();
    }
    drop(sender);
    let said = builder(method).spawn(receive_with, (receiver, 0)).unwrap().join().unwrap();
    assert_eq!(said, ["no room", "0 10", "no room", "2 10", "2 100000"]);
}

fn with_few_descriptors_each_message_is_whole_or_an_error(method: StartMethod) {
    for room in 0..8 {
        let (sender, receiver) = one_way().unwrap();
        sender.send(message(2, 10)).unwrap();
        for (handles, len) in [(4, 10), (3, 100_000), (1, 10), (4, 100_000)] {
            sender.send(message(handles, len)).unwrap();
        }
        drop(sender);
        let said = builder(method).spawn(receive_with, (receiver, room)).unwrap().join().unwrap();
        let or = |whole: &'static str, needs: u64| if room >= needs { whole } else { "no room" };
        // A region needs no further descriptor to be mapped.
        assert_eq!(said, [or("4 10", 4), or("3 100000", 4), or("1 10", 1), "4 100000"], "room for {room}");
    }
}

#[process_task]
fn send_without_descriptors(out: Sender<Message>) {
    let (short, with_handles, long) = (message(0, 10), message(2, 10), message(0, 100_000));
    let long = with_room_for(0, || {
        out.send(short).expect("it needs none");
        out.send(with_handles).expect("its handles have theirs");
        let error = out.send(long).expect_err("a long one needs one");
        assert!(matches!(error.failure().map(Error::kind), Some(ErrorKind::ChannelFailed { .. })), "{error}");
        error.into_inner()
    });
    assert!(is_whole(&long, 0, 100_000));
    out.send(long).expect("now there is one");
}

fn a_sender_without_descriptors_gets_its_message_back(method: StartMethod) {
    let (sender, receiver) = one_way().unwrap();
    builder(method).spawn(send_without_descriptors, sender).unwrap().join().unwrap();
    for (handles, len) in [(0, 10), (2, 10), (0, 100_000)] {
        assert!(is_whole(&receiver.recv().unwrap(), handles, len));
    }
    assert_eq!(receiver.recv().map(|_| ()), Err(RecvError::Disconnected));
}

/// As a user that may not have many descriptors on their way.
#[process_task]
fn send_with_few_on_their_way() {
    const FEW: u64 = 40;
    if Uid::effective().is_root() {
        setuid(restore::lone_user()).expect("a user without rights");
    }
    setrlimit(Resource::RLIMIT_NOFILE, FEW, FEW).expect("a limit that is lowered");
    let (sender, receiver) = one_way::<Message>().expect("two ends");
    let one = message(1, 10);
    let mut sent = 0;
    let error = loop {
        match sender.try_send(one.clone()) {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
    };
    assert!(error.is_full());
    assert!((FEW..FEW + 10).contains(&sent), "{sent} were sent");
    assert!(is_whole(&error.into_inner(), 1, 10));
    // What needs none goes all the same.
    sender.try_send(message(0, 10)).expect("there is room");
    let patient = sender.send_timeout(one.clone(), Duration::from_millis(10)).expect_err("there is no receiver");
    assert!(patient.is_timeout());
    let in_vain = sender.send(one.clone()).expect_err("no receiver for a second");
    assert!(matches!(in_vain.failure().map(Error::kind), Some(ErrorKind::ChannelFailed { .. })), "{in_vain}");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| sender.send(one.clone()).expect("there is room now"));
        (0..sent).for_each(|_| assert!(is_whole(&receiver.recv().expect("a message"), 1, 10)));
        assert!(is_whole(&receiver.recv().expect("the one that needed none"), 0, 10));
        assert!(is_whole(&receiver.recv().expect("the one that waited"), 1, 10));
        waiting.join().expect("it was sent");
    });
}

fn sender_waits_while_too_many_descriptors_are_in_flight(method: StartMethod) {
    builder(method).spawn(send_with_few_on_their_way, ()).unwrap().join().unwrap();
}

#[process_task]
fn send_to_closed_end(stage: &Stage, out: Sender<Vec<u8>>) -> usize {
    // SAFETY: the default action is no handler.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }.expect("a signal that has an action");
    reach(stage);
    until(stage, 2);
    let refused = |len: &usize| match out.send(vec![1; *len]) {
        Err(error) => error.is_disconnected() && error.into_inner().len() == *len,
        Ok(()) => false,
    };
    [0, 10, 100_000].iter().filter(|len| refused(len)).count()
}

fn send_without_receiver_is_an_error_not_a_signal(method: StartMethod) {
    let (sender, receiver) = one_way().unwrap();
    let stage = stage();
    let process = builder(method).spawn(send_to_closed_end, (&stage, sender)).unwrap();
    until(&stage, 1);
    drop(receiver);
    stage.fetch_add(1, SeqCst);
    assert_eq!(process.join().unwrap(), 3);
}

/// Sends back what comes, under fire. How many signals there were.
#[process_task]
fn echo_under_fire(end: Connection<Vec<u8>, Vec<u8>>) -> u32 {
    signal_storm::storm();
    for message in &end {
        end.send(message.expect("a message")).expect("the other end is there");
    }
    signal_storm::HANDLED.load(SeqCst)
}

fn a_storm_of_signals_costs_no_message(method: StartMethod) {
    let (mine, theirs) = pipe().unwrap();
    let process = builder(method).spawn(echo_under_fire, theirs).unwrap();
    for round in 0..rounds(100) {
        let sent = vec![round as u8; [0, 50, 30_000, 60_000, 2_000_000][round % 5]];
        mine.send(sent.clone()).unwrap();
        assert!(mine.recv().unwrap() == sent, "round {round}");
    }
    drop(mine);
    assert!(process.join().unwrap() > 100, "there was no storm");
}

/// How many pieces of memory for long messages this process maps, and how many bytes.
fn mapped() -> (usize, usize) {
    let maps = fs::read_to_string("/proc/self/maps").expect("a list of mappings");
    let range = |line: &str| {
        let (start, end) = line.split_once(' ')?.0.split_once('-')?;
        Some(usize::from_str_radix(end, 16).ok()? - usize::from_str_radix(start, 16).ok()?)
    };
    let sizes: Vec<_> = maps.lines().filter(|line| line.contains("process-task-message")).filter_map(range).collect();
    (sizes.len(), sizes.iter().sum())
}

/// Receives, and says after each message how much is mapped.
#[process_task]
fn swallow(end: Connection<(usize, usize), Vec<u8>>) {
    for message in &end {
        drop(message.expect("a message"));
        end.send(mapped()).expect("the other end is there");
    }
}

fn long_messages_leave_the_memory_as_it_was(method: StartMethod) {
    let (mine, theirs) = pipe().unwrap();
    let process = builder(method).spawn(swallow, theirs).unwrap();
    let lengths = [40_000, 300_000, 5_000_000, 1_000_000, 66 << 20];
    let mut most = (0, 0);
    for round in 0..rounds(250) {
        let len = if round % 100 == 99 { lengths[4] } else { lengths[round % 4] };
        mine.send(vec![0; len]).unwrap();
        let theirs = mine.recv().unwrap();
        for (count, bytes) in [mapped(), theirs] {
            most = (most.0.max(count), most.1.max(bytes));
        }
    }
    drop(mine);
    process.join().unwrap();
    // Eight of them, each mapped twice, and one that is too long to be kept.
    assert!(most.0 <= 18 && most.1 <= (64 + 70) << 20, "{most:?}");
}

fn memory_for_long_messages_goes_when_none_come_any_more(method: StartMethod) {
    let (mine, theirs) = pipe().unwrap();
    let process = builder(method).spawn(swallow, theirs).unwrap();
    for _ in 0..3 {
        for _ in 0..4 {
            mine.send(vec![0; 1_000_000]).unwrap();
            assert!(mine.recv().unwrap().0 > 0 && mapped().0 > 0);
        }
        let mut theirs = (0, 0);
        for _ in 0..102 {
            mine.send(vec![]).unwrap();
            theirs = mine.recv().unwrap();
        }
        assert_eq!((theirs, mapped()), ((0, 0), (0, 0)));
    }
    drop(mine);
    process.join().unwrap();
}

fn memory_for_a_very_long_message_goes_when_it_is_read(method: StartMethod) {
    const LONG: usize = 150 << 20;
    let (mine, theirs) = pipe().unwrap();
    let process = builder(method).spawn(swallow, theirs).unwrap();
    // All memory of this kind that this process has a descriptor for, which the other may share.
    let there = || {
        let fds = fs::read_dir("/proc/self/fd").expect("a list").filter_map(|entry| Some(entry.ok()?.path()));
        let ours =
            fds.filter(|fd| fs::read_link(fd).is_ok_and(|to| to.to_string_lossy().contains("process-task-message")));
        ours.filter_map(|fd| fs::metadata(fd).ok())
            .map(|of| std::os::unix::fs::MetadataExt::blocks(&of) * 512)
            .sum::<u64>()
    };
    for _ in 0..2 {
        mine.send(vec![1; LONG]).unwrap();
        mine.recv().unwrap();
        eventually("its memory is gone", PATIENCE, || there() < 4 << 20);
    }
    drop(mine);
    process.join().unwrap();
}

/// Sends, and has a copy of this process send as well, from memory that both remember.
#[process_task]
fn send_from_a_copy(out: Connection<Vec<u8>, ()>) {
    let send = |byte| out.send(vec![byte; 100_000]).expect("the other end is there");
    (0..3).for_each(|_| send(0));
    out.recv().expect("they were read");
    send(1);
    fork_copy::in_a_copy(|| (0..2).for_each(|_| send(2)));
    (0..2).for_each(|_| send(3));
}

fn a_host_that_forks_shares_no_memory_with_its_copy(method: StartMethod) {
    let (mine, theirs) = pipe().unwrap();
    let process = builder(method).spawn(send_from_a_copy, theirs).unwrap();
    let next = || {
        let message: Vec<u8> = mine.recv().unwrap();
        assert!(message.len() == 100_000 && message.iter().all(|byte| *byte == message[0]));
        message[0]
    };
    assert_eq!([next(), next(), next()], [0, 0, 0]);
    mine.send(()).unwrap();
    process.join().unwrap();
    assert_eq!([(); 5].map(|()| next()), [1, 2, 2, 3, 3]);
}
