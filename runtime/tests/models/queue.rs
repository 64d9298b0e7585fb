//! Queues under every interleaving, with the death of a process at each of its steps.
//!
//! The files of the queue are compiled here a second time, as they are, on top of processes that die ([`mortal`]) and of a memory
//! of a few small chunks ([`memory`]). What is asked: that an item which was put is got once, or its taker died with it;
//! that nothing is seen of one that was not put, and nothing half written; that the items of a producer come in their order;
//! that none sleeps for good; that no chunk is lost, nor used by two; that a lent item comes back when its holder is dead or
//! gave it up, and at no other time. Runs in: one process, without children.

#[expect(dead_code, reason = "a part of the crate, of which a model needs some")]
#[path = "../../src/channel/queue/buffer.rs"]
mod buffer;
#[path = "../../src/channel/queue/chunk_alloc.rs"]
mod chunk_alloc;
#[expect(dead_code, reason = "a part of the crate, of which a model needs some")]
#[path = "../../src/channel/queue/dequeue.rs"]
mod dequeue;
#[expect(dead_code, reason = "a part of the crate, of which a model needs some")]
#[path = "../../src/channel/queue/enqueue.rs"]
mod enqueue;
#[expect(dead_code, reason = "a part of the crate, of which a model needs some")]
#[path = "../../src/sync/event_count.rs"]
mod event_count;
#[path = "../../src/channel/queue/header.rs"]
mod header;
#[path = "../../src/channel/queue/layout.rs"]
mod layout;
#[path = "../../src/channel/queue/leases.rs"]
mod leases;
#[path = "../../src/sync/lock.rs"]
mod lock;
mod memory;
mod model;
#[path = "../../src/channel/queue/recovery.rs"]
mod recovery;

use loom::sync::Arc;

use crate::checker::{at_each_step_up_to, explore_up_to, explore_with};
use crate::mortal::{FOR_EVER, Process, atomic, futex_wait, proc_table, the_checker_finds};
use atomic::Ordering::Relaxed;
use model::{LONG, Queue, SHORT, WIDE};

/// So many executions of each model, and of each with a death at a step: with all of them, some models would take hours.
const MANY: usize = 600;
const SOME: usize = 15;

/// The items of a producer: its number, and theirs.
fn items(producer: u32, count: u8) -> impl Iterator<Item = u8> {
    (1..=count).map(move |item| u8::try_from(producer).unwrap() << 4 | item)
}

/// A process that puts so many items, unless it dies before or the queue is closed.
fn producer(number: u32, steps: u32, queue: &Arc<Queue>, count: u8) -> Process<bool> {
    Process::start(number, steps, queue, move |queue| items(number, count).all(|item| queue.put(item)))
}

/// A process that gets so many items, and is done with each.
fn consumer(number: u32, steps: u32, queue: &Arc<Queue>, count: u8) -> Process<bool> {
    Process::start(number, steps, queue, move |queue| (0..count).all(|_| queue.work().is_some()))
}

#[test]
fn what_two_have_put_is_got_once_and_in_their_order() {
    explore_up_to(2, MANY, || {
        let queue = Queue::of(SHORT, 1);
        let producers = [2, 3].map(|number| producer(number, FOR_EVER, &queue, 2));
        for _ in 0..4 {
            queue.get().unwrap();
        }
        assert_eq!(producers.map(Process::join), [Some(true); 2]);
        assert_eq!(queue.drain(false), [0x21, 0x22, 0x31, 0x32]);
    });
}

#[test]
fn two_consumers_share_the_items() {
    explore_up_to(2, MANY, || {
        let queue = Queue::of(SHORT, 2);
        let consumers = [2, 3].map(|number| consumer(number, FOR_EVER, &queue, 2));
        for item in items(1, 4) {
            assert!(queue.put(item));
        }
        assert_eq!(consumers.map(Process::join), [Some(true); 2]);
        assert_eq!(queue.drain(false), [0x11, 0x12, 0x13, 0x14]);
    });
}

#[test]
fn close_wakes_all_waiters() {
    explore_up_to(2, MANY, || {
        let queue = Queue::of(SHORT, 1);
        let producer = producer(2, FOR_EVER, &queue, 2);
        let consumers = [3, 4].map(|number| consumer(number, FOR_EVER, &queue, 2));
        queue.close();
        producer.join().unwrap();
        assert!(!consumers.map(Process::join).contains(&None));
        queue.drain(false);
    });
}

#[test]
fn items_with_a_chunk_each_follow_the_hops() {
    explore_up_to(2, MANY, || {
        let queue = Queue::of(WIDE, 2);
        let producer = producer(2, FOR_EVER, &queue, 4);
        for _ in 0..4 {
            queue.get().unwrap();
        }
        producer.join();
        assert_eq!(queue.drain(false), [0x21, 0x22, 0x23, 0x24]);
    });
}

#[test]
fn long_items_come_whole() {
    explore_up_to(2, MANY, || {
        let queue = Queue::of(LONG, 2);
        let producers = [2, 3].map(|number| producer(number, FOR_EVER, &queue, 1));
        for _ in 0..2 {
            queue.get().unwrap();
        }
        assert_eq!(producers.map(Process::join), [Some(true); 2]);
        assert_eq!(queue.drain(false), [0x21, 0x31]);
    });
}

#[test]
fn there_are_no_more_bytes_than_may_be() {
    explore_up_to(2, MANY, || {
        // Room for two items at a time, and their heads.
        let queue = Queue::with(SHORT, (u32::MAX, 50), false);
        let producers = [2, 3].map(|number| producer(number, FOR_EVER, &queue, 2));
        for _ in 0..4 {
            assert!(queue.memory.len() <= 2);
            queue.get().unwrap();
        }
        assert_eq!(producers.map(Process::join), [Some(true); 2]);
        queue.drain(false);
    });
}

#[test]
fn a_search_for_lost_chunks_takes_none_from_the_living() {
    explore_up_to(2, MANY, || {
        let queue = Queue::of(LONG, 2);
        queue.memory.words().stock.dirty.store(1, Relaxed);
        let producers = [2, 3].map(|number| producer(number, FOR_EVER, &queue, 1));
        for _ in 0..2 {
            queue.get().unwrap();
            queue.memory.words().stock.dirty.store(1, Relaxed);
        }
        assert_eq!(producers.map(Process::join), [Some(true); 2]);
        assert_eq!(queue.drain(true), [0x21, 0x31]);
    });
}

/// A producer that dies at any step, another that does not, and one that gets.
fn a_producer_dies(queue: fn() -> Arc<Queue>) {
    at_each_step_up_to(1, SOME, move |steps| {
        let queue = queue();
        let victim = producer(2, steps, &queue, 2);
        let consumer = Process::start(3, FOR_EVER, &queue, |queue| while queue.work().is_some() {});
        assert!(items(1, 2).all(|item| queue.put(item)));
        let died = victim.join().is_none();
        queue.close();
        consumer.join().unwrap();
        let got = queue.drain(true);
        let expected = [0x11, 0x12, 0x21, 0x22];
        assert!(got == expected || died && (got == expected[..2] || got == expected[..3]), "{got:x?}");
        died
    });
}

#[test]
fn what_a_dead_producer_had_not_put_is_never_seen() {
    a_producer_dies(|| Queue::of(SHORT, 1));
}

#[test]
fn a_dead_producer_of_wide_items_leaves_no_chunk_behind() {
    a_producer_dies(|| Queue::of(WIDE, 3));
}

#[test]
fn a_dead_producer_of_long_items_leaves_no_chunk_behind() {
    a_producer_dies(|| Queue::of(LONG, 1));
}

#[test]
fn a_dead_producer_of_what_is_lent_leaves_nothing_behind() {
    a_producer_dies(|| Queue::lending(SHORT, 2));
}

/// A consumer that dies at any step, and another that gets what is left.
fn a_consumer_dies(queue: fn() -> Arc<Queue>) {
    at_each_step_up_to(1, SOME, move |steps| {
        let queue = queue();
        let victim = consumer(2, steps, &queue, 2);
        let heir = Process::start(3, FOR_EVER, &queue, |queue| while queue.work().is_some() {});
        let put: Vec<_> = items(1, 3).collect();
        assert!(put.iter().all(|item| queue.put(*item)));
        if queue.lends {
            queue.join();
            assert_eq!(queue.unfinished(), 0);
        }
        queue.close();
        let died = victim.join().is_none();
        heir.join().unwrap();
        let mut got = queue.drain(true);
        if queue.lends {
            assert!(got.len() <= put.len() + usize::from(died), "{got:x?}");
            got.dedup();
            assert_eq!(got, put);
        } else {
            assert!(got.len() + usize::from(died) >= put.len(), "{got:x?}");
            assert!(got.is_sorted_by(|one, next| one < next), "{got:x?}");
        }
        died
    });
}

#[test]
fn a_dead_consumer_takes_one_item_with_it_at_most() {
    a_consumer_dies(|| Queue::of(SHORT, 1));
}

#[test]
fn a_dead_consumer_of_wide_items_leaves_no_chunk_behind() {
    a_consumer_dies(|| Queue::of(WIDE, 3));
}

#[test]
fn a_dead_consumer_of_long_items_leaves_no_chunk_behind() {
    a_consumer_dies(|| Queue::of(LONG, 1));
}

#[test]
fn what_a_dead_consumer_had_comes_back() {
    a_consumer_dies(|| Queue::lending(SHORT, 3));
}

#[test]
fn what_a_dead_consumer_had_comes_back_with_its_chunk() {
    a_consumer_dies(|| Queue::lending(WIDE, 3));
}

#[test]
fn what_a_dead_consumer_had_of_long_items_comes_back() {
    a_consumer_dies(|| Queue::lending(LONG, 3));
}

#[test]
fn released_item_goes_to_a_waiter() {
    given_up(&[2]);
}

#[test]
fn released_item_goes_to_one_of_several_waiters() {
    given_up(&[2, 3]);
}

/// Of these, one gets an item that comes back.
fn given_up(heirs: &'static [u32]) {
    let model = || {
        let queue = Queue::lending(SHORT, 2);
        assert!(queue.put(0x11));
        let (_, at) = queue.get().unwrap();
        let heirs: Vec<_> = heirs.iter().map(|number| Process::start(*number, FOR_EVER, &queue, Queue::work)).collect();
        queue.give_up(at);
        queue.join();
        queue.close();
        let got: Vec<_> = heirs.into_iter().filter_map(|heir| heir.join().unwrap()).collect();
        assert_eq!(got, [0x11]);
        assert_eq!(queue.drain(false), [0x11, 0x11]);
    };
    if heirs.len() == 1 { explore_with(2, 150, model) } else { explore_up_to(2, MANY, model) }
}

#[test]
fn death_during_timeout_counts_as_timeout() {
    at_each_step_up_to(1, SOME, |steps| {
        let queue = Queue::lending(SHORT, 2);
        assert!(queue.put(0x11));
        let fickle = Process::start(2, steps, &queue, |queue| {
            if let Some((_, at)) = queue.get() {
                queue.give_up(at);
            }
        });
        let heir = Process::start(3, FOR_EVER, &queue, |queue| while queue.work().is_some() {});
        queue.join();
        queue.close();
        let died = fickle.join().is_none();
        heir.join().unwrap();
        let got = queue.drain(true);
        assert!(got == [0x11] || got == [0x11, 0x11], "{got:x?}");
        died
    });
}

#[test]
fn join_is_woken_by_the_last_done_item() {
    explore_up_to(2, MANY, || {
        let queue = Queue::lending(SHORT, 2);
        let consumers = [2, 3].map(|number| consumer(number, FOR_EVER, &queue, 1));
        assert!(items(1, 2).all(|item| queue.put(item)));
        queue.join();
        assert_eq!(queue.journal(), [0x11, 0x12]);
        assert_eq!(consumers.map(Process::join), [Some(true); 2]);
        queue.drain(false);
    });
}

#[test]
fn death_during_chunk_recovery_loses_no_chunk() {
    at_each_step_up_to(1, SOME, |steps| {
        let queue = Queue::of(WIDE, 4);
        // Of one that dies with a chunk of its own.
        let lost = Process::start(4, 12, &queue, |queue| queue.memory.fill(&[9; LONG]).map(std::mem::forget));
        assert!(lost.join().is_none());
        queue.memory.words().stock.dirty.store(1, Relaxed);
        let victim = producer(2, steps, &queue, 2);
        let consumer = Process::start(3, FOR_EVER, &queue, |queue| while queue.work().is_some() {});
        assert!(items(1, 2).all(|item| queue.put(item)));
        let died = victim.join().is_none();
        queue.close();
        consumer.join().unwrap();
        let got = queue.drain(true);
        assert!(died || got == [0x11, 0x12, 0x21, 0x22]);
        died
    });
}

the_checker_finds! {
    relaxed_release_is_found: ReleaseIsRelaxed, what_two_have_put_is_got_once_and_in_their_order, "panicked";
    send_without_wake_is_found: WakesAreLost, what_two_have_put_is_got_once_and_in_their_order, "deadlock";
    sleep_without_second_look_is_found: LooksTooEarly, what_two_have_put_is_got_once_and_in_their_order, "deadlock";
    unnoticed_holder_death_is_found: NoDeathIsKnown, what_a_dead_producer_had_not_put_is_never_seen, "deadlock";
    missing_item_recovery_is_found: NothingIsSought, what_a_dead_consumer_had_comes_back, "deadlock";
    release_without_wake_is_found: GivesBackInSilence, released_item_goes_to_a_waiter, "deadlock";
    missing_chunk_recovery_is_found: NothingIsSwept, a_dead_producer_of_long_items_leaves_no_chunk_behind, "is lost";
    kept_chunk_memory_is_found: MemoryIsKept, a_dead_producer_of_long_items_leaves_no_chunk_behind, "of chunk";
    write_without_reserved_memory_is_found: NothingIsReserved, items_with_a_chunk_each_follow_the_hops, "no memory";
}

/// What no model needs, some other one does.
const _: fn() = || {
    futex_wait::wake_all(&atomic::AtomicU32::new(0));
};
