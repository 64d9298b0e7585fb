//! What a connection promises while every process lives: messages arrive whole, in order, one by one, in whatever process their
//! end is by now, and what cannot be sent comes back.
//!
//! Runs in: the test process; its tasks hold the other ends, in children. Never: waits for time, but where a time-out is
//! what is promised.
#![expect(clippy::cast_possible_truncation, reason = "patterns of bytes, and small numbers")]

use std::fmt::{self, Write as _};
use std::os::fd::AsFd;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::process_builder as builder;
use crate::support::{PATIENCE, eventually};
use process_task::channel::{Connection, Receiver, RecvError, RecvTimeoutError, Sender, TryRecvError, one_way, pipe};
use process_task::{Error, ErrorKind, Pool, Shared, StartMethod, process_task};
use serde::{Deserialize, Serialize};

under_every_start_method! {
    messages_stay_apart_and_in_order,
    an_empty_message_is_a_message,
    a_process_that_only_polls_takes_nothing,
    an_end_closed_by_its_giver_is_still_the_takers,
    a_dropped_end_is_the_end_after_all_that_was_sent,
    messages_of_every_length_arrive_whole,
    ends_go_through_connections_tasks_and_results,
    an_end_that_was_only_shown_belongs_to_both,
    regions_go_beside_messages,
    a_message_has_as_many_handles_as_a_packet_and_no_more,
    what_cannot_be_encoded_comes_back,
    what_cannot_be_decoded_costs_itself_only,
    try_send_without_room_returns_the_message,
    blocked_sender_goes_on_when_there_is_room,
    time_outs_are_kept_and_take_nothing,
    every_message_goes_to_one_of_many_threads,
    a_loop_over_an_end_ends_with_it,
    connection_between_two_children_needs_no_parent,
}

/// Sends back what comes, until nothing more does.
#[process_task]
fn echo(end: Connection<Vec<u8>, Vec<u8>>) -> usize {
    end.iter().map(|message| end.send(message.expect("a message")).expect("the other end is there")).count()
}

#[process_task]
fn say(out: Sender<String>, words: Vec<String>) {
    for word in words {
        out.send(word).expect("the other end is there");
    }
}

fn words(of: &[&str]) -> Vec<String> {
    of.iter().map(|word| (*word).to_owned()).collect()
}

fn messages_stay_apart_and_in_order(method: StartMethod) {
    let (sender, receiver) = one_way().unwrap();
    let said = words(&["a", "b", "cd", "", "ef", "", ""]);
    let process = builder(method).spawn(say, (sender, said.clone())).unwrap();
    for word in said {
        // However often one asks, the message is there until it is taken.
        assert!(receiver.is_ready_timeout(PATIENCE).unwrap() && receiver.is_ready_timeout(Duration::ZERO).unwrap());
        assert_eq!(receiver.recv(), Ok(word));
    }
    process.join().unwrap();
    assert!(receiver.is_ready_timeout(PATIENCE).unwrap(), "the end is there, too");
    assert_eq!(receiver.recv(), Err(RecvError::Disconnected));
    assert_eq!(receiver.recv(), Err(RecvError::Disconnected), "the end stays");
}

#[process_task]
fn say_nothing(end: Connection<(), ()>, times: u32) {
    for _ in 0..times {
        end.send(()).expect("the other end is there");
        end.recv().expect("an answer");
    }
}

fn an_empty_message_is_a_message(method: StartMethod) {
    let (mine, theirs) = pipe::<(), ()>().unwrap();
    let process = builder(method).spawn(say_nothing, (theirs, 2)).unwrap();
    for _ in 0..2 {
        assert!(mine.is_ready_timeout(PATIENCE).unwrap());
        assert!(mine.is_ready_timeout(Duration::ZERO).unwrap());
        mine.recv().unwrap();
        assert!(!mine.is_ready_timeout(Duration::ZERO).unwrap());
        mine.send(()).unwrap();
    }
    process.join().unwrap();
}

/// Sees that there is something, and leaves it.
#[process_task]
fn look(end: &Receiver<String>) -> bool {
    end.is_ready_timeout(Duration::from_secs(20)).expect("a look")
        && end.is_ready_timeout(Duration::ZERO).expect("another look")
}

fn a_process_that_only_polls_takes_nothing(method: StartMethod) {
    let (sender, receiver) = one_way().unwrap();
    sender.send("first".to_owned()).unwrap();
    sender.send("second".to_owned()).unwrap();
    assert!(builder(method).spawn(look, &receiver).unwrap().join().unwrap());
    assert_eq!(receiver.recv().unwrap(), "first");
    assert!(builder(method).spawn(look, &receiver).unwrap().join().unwrap());
    assert_eq!(receiver.recv().unwrap(), "second");
    assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
}

fn an_end_closed_by_its_giver_is_still_the_takers(method: StartMethod) {
    let (mine, theirs) = pipe().unwrap();
    let process = builder(method).spawn(echo, theirs).unwrap();
    for round in 0..100u8 {
        mine.send(vec![round; usize::from(round)]).unwrap();
        assert_eq!(mine.recv().unwrap(), vec![round; usize::from(round)]);
    }
    drop(mine);
    assert_eq!(process.join().unwrap(), 100);
}

fn a_dropped_end_is_the_end_after_all_that_was_sent(method: StartMethod) {
    let (sender, receiver) = one_way().unwrap();
    let many: Vec<_> = (0..100).map(|n| n.to_string()).collect();
    builder(method).spawn(say, (sender, many.clone())).unwrap().join().unwrap();
    let all: Result<Vec<String>, _> = receiver.iter().collect();
    assert_eq!(all.unwrap(), many);
    // And in the other direction, where something was never read.
    let (sender, receiver) = one_way::<Vec<u8>>().unwrap();
    sender.send(vec![1; 100]).unwrap();
    sender.send(vec![2; 100_000]).unwrap();
    drop(receiver);
    for long in [10, 100_000] {
        let error = sender.send(vec![3; long]).unwrap_err();
        assert_eq!((error.is_disconnected(), error.into_inner().len()), (true, long));
    }
}

/// As different bytes as there can be.
fn bytes(len: usize) -> Vec<u8> {
    let page: Vec<u8> = (0..4096_usize).map(|at| (at % 251) as u8).collect();
    let mut bytes = page.repeat(len.div_ceil(page.len()));
    bytes.truncate(len);
    for (number, page) in bytes.chunks_mut(page.len()).enumerate() {
        page.iter_mut().zip(number.to_ne_bytes()).for_each(|(byte, number)| *byte ^= number);
    }
    bytes
}

fn messages_of_every_length_arrive_whole(method: StartMethod) {
    let (mine, theirs) = pipe().unwrap();
    let process = builder(method).spawn(echo, theirs).unwrap();
    let packet = 32 << 10;
    let around = |at: usize| at - 40..at + 3;
    let lengths =
        (0..40).chain(around(packet)).chain(around(64 << 10)).chain(around(1 << 20)).chain([5_000_000, 70 << 20]);
    let mut count = 0;
    for len in lengths {
        let sent = bytes(len);
        mine.send(sent.clone()).unwrap();
        assert!(mine.recv().unwrap() == sent, "a message of {len} bytes");
        count += 1;
    }
    drop(mine);
    assert_eq!(process.join().unwrap(), count);
    // Of a type that is written in small pieces, too.
    let (sender, receiver) = one_way().unwrap();
    for count in [10, 1000, 10_000, 100_000] {
        let many: Vec<(u32, String)> = (0..count).map(|n| (n, format!("{n:08}"))).collect();
        sender.send(many.clone()).unwrap();
        assert!(receiver.recv().unwrap() == many, "{count} pieces");
    }
}

#[derive(Serialize, Deserialize)]
struct Job {
    input: Receiver<u32>,
    output: Sender<u32>,
}

/// Does jobs that come: both ends of each come through one.
#[process_task]
fn work(jobs: Receiver<Job>) -> Option<Receiver<u32>> {
    let mut last = None;
    for job in jobs {
        let Job { input, output } = job.expect("a job");
        while let Ok(number) = input.recv() {
            output.send(number * 2).expect("the next stage is there");
        }
        last = Some(input);
    }
    last
}

#[process_task]
fn make_end(first: u32) -> Receiver<u32> {
    let (sender, receiver) = one_way().expect("two ends");
    (first..first + 3).for_each(|number| sender.send(number).expect("there is room"));
    receiver
}

fn ends_go_through_connections_tasks_and_results(method: StartMethod) {
    let (jobs, theirs) = one_way().unwrap();
    let process = builder(method).spawn(work, theirs).unwrap();
    for round in 0..3 {
        let ((numbers, input), (output, doubled)) = (one_way().unwrap(), one_way().unwrap());
        // What was sent before the end travels arrives, too.
        numbers.send(round).unwrap();
        jobs.send(Job { input, output }).unwrap();
        numbers.send(round + 1).unwrap();
        assert_eq!((doubled.recv(), doubled.recv()), (Ok(2 * round), Ok(2 * round + 2)));
        drop(numbers);
        assert_eq!(doubled.recv(), Err(RecvError::Disconnected));
    }
    drop(jobs);
    let last = process.join().unwrap().expect("there were jobs");
    assert_eq!(last.recv(), Err(RecvError::Disconnected));
    // What a process made outlives it.
    let numbers = builder(method).spawn(make_end, 7).unwrap().join().unwrap();
    assert_eq!(numbers.iter().collect::<Result<Vec<_>, _>>().unwrap(), [7, 8, 9]);
    let pool = Pool::builder().workers(2).start_method(method).build().unwrap();
    let ends = pool.map(make_end, [1, 10, 100]).unwrap();
    assert_eq!(ends.iter().map(|end| end.recv().unwrap()).collect::<Vec<_>>(), [1, 10, 100]);
}

#[process_task]
fn take_one(end: &Receiver<u32>) -> u32 {
    end.recv().expect("a number")
}

fn an_end_that_was_only_shown_belongs_to_both(method: StartMethod) {
    let (sender, receiver) = one_way().unwrap();
    for round in 0..10 {
        sender.send(round).unwrap();
        assert_eq!(builder(method).spawn(take_one, &receiver).unwrap().join().unwrap(), round);
        sender.send(round + 100).unwrap();
        assert_eq!(receiver.recv().unwrap(), round + 100);
    }
}

#[process_task]
fn add_to(counters: Receiver<(Shared<AtomicU64>, u64)>) {
    for counter in &counters {
        let (counter, more) = counter.expect("a counter");
        counter.fetch_add(more, SeqCst);
    }
}

fn regions_go_beside_messages(method: StartMethod) {
    let (sender, receiver) = one_way().unwrap();
    let process = builder(method).spawn(add_to, receiver).unwrap();
    let counters: Vec<_> = (0..4).map(|_| Shared::new(AtomicU64::new(0)).unwrap()).collect();
    for round in 0..200 {
        sender.send((counters[round % 4].clone(), round as u64)).unwrap();
    }
    drop(sender);
    process.join().unwrap();
    assert_eq!(counters.iter().map(|counter| counter.load(SeqCst)).sum::<u64>(), (0..200).sum());
}

fn a_message_has_as_many_handles_as_a_packet_and_no_more(_: StartMethod) {
    const MOST: usize = 252;
    // The bytes are there so that the second ones are in a parcel.
    for len in [0, 100_000] {
        let (sender, receiver) = one_way::<(Vec<Shared<u32>>, Vec<u8>)>().unwrap();
        let regions: Vec<_> = (0..=MOST).map(|n| Shared::new(n as u32).unwrap()).collect();
        let error = sender.send((regions.clone(), bytes(len))).unwrap_err();
        assert!(
            matches!(error.failure().map(Error::kind), Some(ErrorKind::CannotEncode { reason, .. }) if reason.contains("252 handles"))
        );
        assert_eq!(error.into_inner().0.len(), MOST + 1);
        sender.send((regions[..MOST].to_vec(), bytes(len))).unwrap();
        let (came, with) = receiver.recv().unwrap();
        assert!(came.iter().map(|region| **region as usize).eq(0..MOST) && with == bytes(len));
    }
}

/// Is refused by one side, at will.
#[derive(Debug, PartialEq)]
struct Awkward(u8);

impl Serialize for Awkward {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if self.0 == 1 {
            return Err(serde::ser::Error::custom("it does not want to go"));
        }
        (self.0, vec![self.0; if self.0 > 100 { 100_000 } else { 0 }]).serialize(to)
    }
}

impl<'de> Deserialize<'de> for Awkward {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let (number, _) = <(u8, Vec<u8>)>::deserialize(from)?;
        if number % 100 == 2 {
            return Err(serde::de::Error::custom("it does not want to be there"));
        }
        Ok(Self(number))
    }
}

#[process_task]
fn awkward(out: Sender<Awkward>) -> String {
    out.send(Awkward(0)).expect("a good one");
    let error = out.send(Awkward(1)).expect_err("one that does not want to go");
    let text = error.to_string();
    assert_eq!(error.into_inner(), Awkward(1));
    for number in [2, 3, 102, 103] {
        out.send(Awkward(number)).expect("one that goes");
    }
    text
}

fn what_cannot_be_encoded_comes_back(method: StartMethod) {
    let (sender, receiver) = one_way().unwrap();
    let text = builder(method).spawn(awkward, sender).unwrap().join().unwrap();
    assert!(text.contains("it does not want to go"), "{text}");
    assert_eq!(receiver.recv(), Ok(Awkward(0)));
}

fn what_cannot_be_decoded_costs_itself_only(method: StartMethod) {
    let (sender, receiver) = one_way().unwrap();
    builder(method).spawn(awkward, sender).unwrap().join().unwrap();
    let refused = |outcome: &Result<Awkward, RecvError>| matches!(outcome, Err(RecvError::Failed(error)) if matches!(error.kind(), ErrorKind::CannotDecode { reason, .. } if reason.contains("want to be there")));
    let all: Vec<_> = receiver.iter().collect();
    assert!(refused(&all[1]) && refused(&all[3]), "{all:?}");
    assert_eq!([&all[0], &all[2], &all[4]], [&Ok(Awkward(0)), &Ok(Awkward(3)), &Ok(Awkward(103))]);
}

fn try_send_without_room_returns_the_message(_: StartMethod) {
    for len in [100usize, 30_000, 1 << 20, 100 << 20] {
        let (sender, receiver) = one_way().unwrap();
        let message = vec![7u8; len];
        let mut sent = 0;
        let error = loop {
            match sender.try_send(message.clone()) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
            assert!(sent < 1000, "there is no end of room");
        };
        assert_eq!((error.is_full(), error.into_inner().len()), (true, len));
        assert!(sent > 0, "{len} bytes");
        let error = sender.send_timeout(message.clone(), Duration::from_millis(20)).unwrap_err();
        assert_eq!((error.is_timeout(), error.into_inner().len()), (true, len));
        // What did not go was not sent, and there is room again once all was read.
        (0..sent).for_each(|_| assert_eq!(receiver.try_recv().unwrap().len(), len));
        assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
        sender.try_send(message).unwrap();
        assert_eq!(receiver.recv().unwrap().len(), len);
    }
}

fn blocked_sender_goes_on_when_there_is_room(_: StartMethod) {
    for timeout in [None, Some(10 * PATIENCE)] {
        let (sender, receiver) = one_way::<u64>().unwrap();
        let sent = (0..u64::MAX).take_while(|number| sender.try_send(*number).is_ok()).count();
        thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let number = sent as u64;
                match timeout {
                    None => sender.send(number).unwrap(),
                    Some(timeout) => sender.send_timeout(number, timeout).unwrap(),
                }
            });
            thread::sleep(Duration::from_millis(50));
            assert!(!waiting.is_finished());
            // Not more: the reader of these may wait for something else now, such as a word of the one that sends.
            for number in 0..sent / 2 {
                assert_eq!(receiver.recv(), Ok(number as u64));
            }
            waiting.join().unwrap();
        });
        assert!((sent / 2..=sent).all(|number| receiver.recv() == Ok(number as u64)));
    }
}

fn time_outs_are_kept_and_take_nothing(_: StartMethod) {
    let (sender, receiver) = one_way::<u32>().unwrap();
    let start = Instant::now();
    assert_eq!(receiver.recv_timeout(Duration::from_millis(30)), Err(RecvTimeoutError::Timeout));
    assert!(!receiver.is_ready_timeout(Duration::from_millis(30)).unwrap());
    assert!(start.elapsed() >= Duration::from_millis(60));
    assert_eq!(receiver.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Timeout));
    thread::scope(|scope| {
        let late = scope.spawn(|| receiver.recv_timeout(PATIENCE));
        sender.send(7).unwrap();
        assert_eq!(late.join().unwrap(), Ok(7));
        let beyond_the_clock = scope.spawn(|| receiver.recv_timeout(Duration::MAX));
        sender.send(8).unwrap();
        assert_eq!(beyond_the_clock.join().unwrap(), Ok(8));
    });
}

fn every_message_goes_to_one_of_many_threads(method: StartMethod) {
    const EACH: u64 = 300;
    let (sender, receiver) = one_way::<(u64, Vec<u8>)>().unwrap();
    let (mine, theirs) = one_way().unwrap();
    let process = builder(method).spawn(forward, (receiver, mine)).unwrap();
    let mut got: Vec<Vec<u64>> = Vec::new();
    thread::scope(|scope| {
        let takers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let numbers = theirs.iter().map(|message| {
                        let (number, bytes): (u64, Vec<u8>) = message.unwrap();
                        assert!(bytes == vec![number as u8; long(number)]);
                        number
                    });
                    numbers.collect()
                })
            })
            .collect();
        let sender = sender;
        thread::scope(|scope| {
            for thread in 0..3 {
                let sender = &sender;
                scope.spawn(move || {
                    (0..EACH)
                        .map(|n| thread * EACH + n)
                        .for_each(|n| sender.send((n, vec![n as u8; long(n)])).unwrap());
                });
            }
        });
        drop(sender);
        got = takers.into_iter().map(|taker| taker.join().unwrap()).collect();
    });
    process.join().unwrap();
    for thread in 0..3 {
        // A taker sees the messages of one sender in the order in which they were sent.
        let of_one = |n: &&u64| **n / EACH == thread;
        assert!(got.iter().all(|taker| taker.iter().filter(of_one).is_sorted()));
    }
    let mut all: Vec<_> = got.into_iter().flatten().collect();
    all.sort_unstable();
    assert!(all.into_iter().eq(0..3 * EACH));
}

/// Every seventh message is a long one.
fn long(number: u64) -> usize {
    if number.is_multiple_of(7) { 50_000 + number as usize } else { number as usize }
}

#[process_task]
fn forward(from: Receiver<(u64, Vec<u8>)>, to: Sender<(u64, Vec<u8>)>) {
    for message in from {
        to.send(message.expect("a message")).expect("the other end is there");
    }
}

fn a_loop_over_an_end_ends_with_it(method: StartMethod) {
    let (sender, receiver) = one_way().unwrap();
    let process = builder(method).spawn(say, (sender, words(&["one", "two"]))).unwrap();
    let mut heard = Vec::new();
    for word in &receiver {
        heard.push(word.unwrap());
    }
    assert_eq!(heard, ["one", "two"]);
    let mut messages = receiver.into_iter();
    assert!(messages.next().is_none() && messages.next().is_none());
    process.join().unwrap();
}

/// Gives its identity to the other, and returns what that one says.
#[process_task]
fn meet(end: Connection<u32, u32>) -> (u32, u32) {
    end.send(std::process::id()).expect("the other is there");
    (std::process::id(), end.recv().expect("the other says so, too"))
}

fn connection_between_two_children_needs_no_parent(method: StartMethod) {
    let (one, other) = pipe().unwrap();
    let first = builder(method).spawn(meet, one).unwrap();
    let second = builder(method).spawn(meet, other).unwrap();
    let (first, second) = (first.join().unwrap(), second.join().unwrap());
    assert_eq!((first.0, first.1), (second.1, second.0));
    // An end means nothing outside a message and a call.
    let (sender, _) = one_way::<u32>().unwrap();
    assert!(write!(String::new(), "{}", Elsewhere(&sender)).is_err());
    eventually("the end can be watched by others", PATIENCE, || sender.as_fd().try_clone_to_owned().is_ok());
    let failed: process_task::Error = sender.try_send(1).unwrap_err().into();
    assert!(matches!(failed.kind(), ErrorKind::Disconnected));
}

/// An end in the hands of a serialiser that is none of ours.
struct Elsewhere<'e>(&'e Sender<u32>);

impl fmt::Display for Elsewhere<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.serialize(f)
    }
}
