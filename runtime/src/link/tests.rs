//! What the window promises to one thread and to two, and what a dead child leaves of a batch; `tests/models/link.rs` says the
//! same of every interleaving.
//!
//! Runs in: the test's process.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Acquire;

use super::batch::Builder;
use super::caller::Violation;
use super::frame::{FrameKind, INLINE, RING};
use super::window::{MAX_IN_FLIGHT, Window, claim, push, take_back};
use super::{Callee, Caller, InFlightAtExit, Incoming, Link, Payload};
use crate::codec::handles::Handles;

#[test]
fn what_is_pushed_is_claimed_once_or_taken_back() {
    // Close to the end of both counters, so that they wrap.
    let word = AtomicU64::new(u64::from(u32::MAX - 1) << 32 | u64::from(u32::MAX - 1));
    assert!(!claim(&word));
    for _ in 0..5 {
        push(&word, 1);
    }
    assert!(claim(&word));
    assert_eq!(take_back(&word, 2), 2);
    assert!(claim(&word) && claim(&word));
    assert!(!claim(&word));
    assert_eq!(take_back(&word, 9), 0);
    assert_eq!(Window::look(&word).unclaimed(), 0);
}

#[test]
fn threads_that_claim_and_take_back_never_meet() {
    let word = AtomicU64::new(0);
    let mut pushed = 0u32;
    let (mut back, mut claimed) = (0u32, 0u32);
    std::thread::scope(|scope| {
        let child = scope.spawn(|| {
            let mut claimed = 0u32;
            while word.load(Acquire) != u64::MAX {
                claimed += u32::from(claim(&word));
                if claimed % 64 == 63 {
                    std::thread::yield_now();
                }
                if claimed >= 10_000 {
                    break;
                }
            }
            claimed
        });
        while !child.is_finished() {
            if Window::look(&word).unclaimed() < MAX_IN_FLIGHT {
                push(&word, 1);
                pushed += 1;
            } else {
                back += take_back(&word, 3);
            }
        }
        claimed = child.join().unwrap();
    });
    assert_eq!(pushed, claimed + back + Window::look(&word).unclaimed());
}

/// Both ends of a link, in one process.
fn ends() -> (Caller<u32>, Callee) {
    let (link, theirs) = Link::new(7).unwrap();
    let parent = Caller::new(link.for_worker().unwrap());
    (parent, Callee::open(theirs, 7).unwrap())
}

fn batch_of(items: u8) -> Payload {
    let (mut builder, mut bytes) = (Builder::default(), Vec::new());
    for item in 0..items {
        bytes.resize(builder.next_start(), 0);
        bytes.push(item);
        assert!(builder.put(bytes.len()));
    }
    builder.finish(&mut bytes);
    Payload::small(bytes)
}

fn ask(parent: &mut Caller<u32>, child: &mut Callee, items: u8, tag: u32) -> Incoming {
    parent.push(FrameKind::Batch, 3, batch_of(items), tag).unwrap();
    let given = child.next().unwrap();
    assert_eq!((given.kind, given.task), (FrameKind::Batch, 3));
    given
}

/// What a call of one item is answered with.
fn result(round: u8, item: u8) -> Vec<u8> {
    vec![round ^ item; usize::from(item) * 7 % 30]
}

fn results(bytes: &[u8]) -> Vec<Vec<u8>> {
    super::batch::Results::of(bytes).map(|(_, bytes)| bytes.to_vec()).collect()
}

#[test]
fn results_before_a_death_are_there_wherever_the_answer_stands() {
    for answers_before in 0..80 {
        let (mut parent, mut child) = ends();
        for round in 0..answers_before {
            let given = ask(&mut parent, &mut child, 100, 1);
            let mut answer = child.begin_answer(&given);
            (0..100).for_each(|item| child.put_result(&mut answer, FrameKind::Done, &result(round, item)));
            child.finish_answer(&answer, 5);
            let mut came = Vec::new();
            parent.collect(|_, reply| came.push(reply)).unwrap();
            let reply = came.pop().unwrap();
            let batch = reply.batch.unwrap();
            assert_eq!((batch.tally.answered, batch.tally.good, batch.nanos), (100, true, 5));
            let expected: Vec<_> = (0..100).map(|item| result(round, item)).collect();
            assert_eq!(results(reply.body.bytes().unwrap()), expected);
        }
        let (done, ended) = (answers_before % 100, answers_before % 3 == 1);
        let given = ask(&mut parent, &mut child, 100, 2);
        parent.push(FrameKind::Batch, 3, batch_of(9), 3).unwrap();
        let mut answer = child.begin_answer(&given);
        (0..done).for_each(|item| child.put_result(&mut answer, FrameKind::Panicked, &result(9, item)));
        if ended {
            child.end_items(&answer);
        }
        drop(child);
        assert_eq!(parent.collect(|_, _| unreachable!("nothing was published")), Ok(false));
        let InFlightAtExit { running, salvaged, unclaimed } = parent.in_flight_at_exit();
        assert_eq!((running[0].0, running.len(), unclaimed[0].0, unclaimed.len()), (2, 1, 3, 1));
        let salvaged = salvaged.unwrap();
        assert_eq!((salvaged.tally.answered, salvaged.tally.good), (u32::from(done), done == 0));
        assert_eq!(salvaged.running, !ended);
        let expected: Vec<_> = (0..done).map(|item| result(9, item)).collect();
        assert_eq!(results(salvaged.body.bytes().unwrap()), expected);
    }
}

#[test]
fn a_batch_that_was_not_begun_has_lost_its_first_item_only() {
    let (mut parent, mut child) = ends();
    let given = ask(&mut parent, &mut child, 5, 1);
    let mut answer = child.begin_answer(&given);
    (0..5).for_each(|item| child.put_result(&mut answer, FrameKind::Done, &result(0, item)));
    child.finish_answer(&answer, 0);
    parent.collect(|_, _| ()).unwrap();
    // The word still speaks of the batch before.
    let _claimed = ask(&mut parent, &mut child, 5, 2);
    assert_eq!(parent.in_flight_at_exit().salvaged.unwrap().tally.answered, 0);
}

#[test]
fn results_that_were_scribbled_over_are_not_salvaged() {
    let (mut parent, mut child) = ends();
    let given = ask(&mut parent, &mut child, 5, 1);
    let mut answer = child.begin_answer(&given);
    // More than were asked for.
    (0..6).for_each(|_| child.put_result(&mut answer, FrameKind::Done, &[]));
    assert!(parent.in_flight_at_exit().salvaged.is_none());

    let (mut parent, mut child) = ends();
    let given = ask(&mut parent, &mut child, 5, 1);
    let mut answer = child.begin_answer(&given);
    child.put_result(&mut answer, FrameKind::Call, &[1, 2, 3]);
    assert!(parent.in_flight_at_exit().salvaged.is_none());
}

#[test]
fn an_answer_that_is_none_is_a_violation() {
    let (mut parent, mut child) = ends();
    let given = ask(&mut parent, &mut child, 5, 1);
    let mut answer = child.begin_answer(&given);
    (0..6).for_each(|_| child.put_result(&mut answer, FrameKind::Done, &[]));
    child.finish_answer(&answer, 0);
    assert_eq!(parent.collect(|_, _| ()), Err(Violation("results that are none")));

    let (mut parent, mut child) = ends();
    let given = ask(&mut parent, &mut child, 5, 1);
    let answer = child.begin_answer(&given);
    child.finish_answer(&answer, 0);
    assert_eq!(parent.collect(|_, _| ()), Err(Violation("results that are none")));

    let (mut parent, mut child) = ends();
    let given = ask(&mut parent, &mut child, 5, 1);
    child.answer(&given, FrameKind::Done, Payload::small(vec![0; 8]));
    assert_eq!(parent.collect(|_, _| ()), Err(Violation("one result of a batch")));

    let (mut parent, mut child) = ends();
    parent.push(FrameKind::Call, 3, Payload::small(vec![1]), 1).unwrap();
    let given = child.next().unwrap();
    let mut answer = child.begin_answer(&given);
    child.put_result(&mut answer, FrameKind::Done, &[]);
    child.finish_answer(&answer, 0);
    assert_eq!(parent.collect(|_, _| ()), Err(Violation("many results of one call")));
}

#[test]
fn as_many_answers_as_may_be_in_flight_never_meet() {
    let (mut parent, mut child) = ends();
    for round in 0..4 * RING / super::frame::MAX_FRAME_BYTES {
        let round = u8::try_from(round % 200).unwrap();
        for tag in 0..MAX_IN_FLIGHT {
            parent.push(FrameKind::Batch, 3, batch_of(2), tag).unwrap();
        }
        for tag in 0..MAX_IN_FLIGHT {
            let given = child.next().unwrap();
            let mut answer = child.begin_answer(&given);
            let byte = round ^ u8::try_from(tag).unwrap();
            let first = usize::from(byte) * 16 % (INLINE - 32);
            child.put_result(&mut answer, FrameKind::Done, &vec![byte; first]);
            let room = answer.room().unwrap();
            child.put_result(&mut answer, FrameKind::Done, &vec![byte; room]);
            assert_eq!(answer.room(), None);
            child.finish_answer(&answer, 0);
        }
        let mut next = 0;
        let each = |tag: u32, reply: super::Reply| {
            let bytes = results(reply.body.bytes().unwrap()).concat();
            assert!(bytes.iter().all(|byte| *byte == round ^ u8::try_from(tag).unwrap()) && bytes.len() > INLINE - 32);
            assert_eq!(std::mem::replace(&mut next, tag + 1), tag);
        };
        assert_eq!(parent.collect(each), Ok(true));
        assert_eq!(next, MAX_IN_FLIGHT);
    }
}

#[test]
fn results_overwritten_by_a_later_item_are_refused() {
    for published in [false, true] {
        let (mut parent, mut child) = ends();
        let given = ask(&mut parent, &mut child, 5, 1);
        let mut answer = child.begin_answer(&given);
        (0..3).for_each(|item| child.put_result(&mut answer, FrameKind::Done, &[item; 20]));
        child.scribble(&answer, 40, &[77]);
        child.put_result(&mut answer, FrameKind::Done, &[4; 20]);
        if published {
            child.finish_answer(&answer, 0);
            assert_eq!(parent.collect(|_, _| ()), Err(Violation("results that are none")));
        } else {
            assert!(parent.in_flight_at_exit().salvaged.is_none());
        }
    }
}

#[test]
fn handles_travel_beside_requests_and_answers_in_any_number() {
    for count in [1, 63, 64, 65, 300] {
        let (mut parent, mut child) = ends();
        parent.push(FrameKind::Call, 3, Payload::small(vec![1]).with(Handles::some(count)), 1).unwrap();
        let given = child.next().unwrap();
        assert_eq!((given.received.arrived(), given.payload().unwrap()), (count, &[1][..]));
        child.answer(&given, FrameKind::Done, Payload::small(vec![2; 5]).with(Handles::some(count + 1)));
        let mut came = None;
        parent.collect(|_, reply| came = Some(reply.body)).unwrap();
        let body = came.unwrap();
        assert_eq!((body.received().arrived(), body.bytes().unwrap()), (count + 1, &[2; 5][..]));
    }
}

#[test]
fn a_request_with_handles_is_not_taken_back_nor_any_before_it() {
    let (mut parent, _child) = ends();
    let plain = || Payload::small(vec![1]);
    parent.push(FrameKind::Call, 3, plain(), 1).unwrap();
    parent.push(FrameKind::Call, 3, plain().with(Handles::some(1)), 2).unwrap();
    parent.push(FrameKind::Call, 3, plain(), 3).unwrap();
    let back: Vec<_> = parent.take_back(u32::MAX).into_iter().map(|(tag, _)| tag).collect();
    assert_eq!(back, [3]);
    let unclaimed: Vec<_> =
        parent.in_flight_at_exit().unclaimed.into_iter().map(|(tag, payload)| (tag, payload.handles().len())).collect();
    assert_eq!(unclaimed, [(1, 0), (2, 1)], "once the child is dead, they go to another one");
}

#[test]
fn handles_of_a_request_that_was_given_up_are_let_go() {
    let (mut parent, mut child) = ends();
    parent.give_up(&Handles::some(3));
    parent.push(FrameKind::Call, 3, Payload::of_bytes(&vec![7; 100_000]).unwrap().with(Handles::some(2)), 2).unwrap();
    let given = child.next().unwrap();
    assert_eq!((given.received.arrived(), given.payload().unwrap().len()), (2, 100_000));
}

#[test]
fn the_handles_of_the_last_result_before_a_death_are_there() {
    let (mut parent, mut child) = ends();
    let given = ask(&mut parent, &mut child, 9, 1);
    let mut answer = child.begin_answer(&given);
    child.put_result(&mut answer, FrameKind::Done, &result(1, 0));
    child.put_handles(&mut answer, &Handles::some(70)).unwrap();
    child.put_result(&mut answer, FrameKind::Done, &result(1, 1));
    drop(child);
    let salvaged = parent.in_flight_at_exit().salvaged.unwrap();
    assert_eq!((salvaged.tally.answered, salvaged.body.received().arrived()), (2, 70));
}

#[test]
fn handles_that_are_promised_and_do_not_come_are_a_violation() {
    let (mut parent, mut child) = ends();
    let given = ask(&mut parent, &mut child, 1, 1);
    let mut answer = child.begin_answer(&given);
    child.put_result(&mut answer, FrameKind::Done, &result(1, 0));
    answer.promise(2);
    child.finish_answer(&answer, 5);
    assert!(parent.collect(|_, _| unreachable!("it is no answer")).is_err());
}
