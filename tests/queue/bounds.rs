//! What a queue promises where it is full, empty or closed, and a process looks at it or uses it at that moment.
//!
//! Runs in: the test process, in several threads. Never: relies on how fast anything is.

use std::thread;
use std::time::Duration;

use crate::support::{promise, rounds};
use process_task::channel::{Queue, QueueLimits, RecvError, SendError, SendTimeoutError, TrySendError};
use process_task::{Error, ErrorKind};

const A_WHILE: Duration = Duration::from_millis(80);

#[test]
fn an_item_as_long_as_an_error_says_is_taken() {
    promise(|| {
        for most in (40..60).chain(32_700..32_900) {
            let queue = Queue::with_limits(QueueLimits { items: 9, bytes: most }).unwrap();
            for len in [most - 8, most, most + 9, 70_000] {
                let Err(error) = queue.send(vec![1u8; len]) else { continue };
                let Some(ErrorKind::TooLong { bytes, limit, .. }) = error.failure().map(Error::kind) else {
                    panic!("{error}")
                };
                assert!(limit < bytes, "{bytes} of {limit}");
                // A vector is somewhat longer than what is in it.
                let fits = vec![1; limit.saturating_sub(bytes - len)];
                assert!(*limit < bytes - len || queue.try_send(fits).is_ok(), "of {most} bytes, {limit} are too many");
                while queue.try_recv().is_ok() {}
            }
        }
    });
}

#[test]
fn a_full_queue_that_is_closed_refuses_long_items_as_well() {
    promise(|| {
        let queue = Queue::bounded(1).unwrap();
        let item = vec![7u8; 100_000];
        queue.send(item.clone()).unwrap();
        let (waits, copy) = (queue.clone(), item.clone());
        let waits = thread::spawn(move || waits.send(copy));
        queue.close();
        assert!(queue.try_send(item.clone()) == Err(TrySendError::Disconnected(item.clone())));
        let refused = queue.send_timeout(item.clone(), A_WHILE);
        assert!(refused == Err(SendTimeoutError::Disconnected(item.clone())));
        for refused in [queue.send(item.clone()), waits.join().unwrap()] {
            assert!(refused == Err(SendError::Disconnected(item.clone())));
        }
        assert!(queue.recv().unwrap() == item);
        assert_eq!(queue.recv(), Err(RecvError::Disconnected));
    });
}

#[test]
fn a_queue_never_seems_to_hold_more_than_it_may() {
    promise(|| {
        let queue = Queue::bounded(2).unwrap();
        thread::scope(|scope| {
            let getter = scope.spawn(|| queue.iter().sum::<u64>());
            let looks = scope.spawn(|| {
                let mut most = 0;
                while !queue.is_closed() {
                    most = most.max(queue.len());
                }
                most
            });
            (1..=rounds(60_000) as u64).for_each(|number| queue.send(number).unwrap());
            queue.close();
            getter.join().unwrap();
            let most = looks.join().unwrap();
            assert!(most <= 2, "it seemed to hold {most}");
        });
    });
}

#[test]
fn zero_timeout_takes_what_is_there() {
    promise(|| {
        let queue = Queue::unbounded().unwrap();
        // Longer than those that are taken without a lock.
        (0..20_000).for_each(|_| queue.send(vec![1u8; 200]).unwrap());
        let missed = thread::scope(|scope| {
            let get = || {
                let mut missed = 0;
                while queue.len() > 8 {
                    missed += u32::from(queue.recv_timeout(Duration::ZERO).is_err());
                }
                missed
            };
            let getters: Vec<_> = (0..4).map(|_| scope.spawn(get)).collect();
            getters.into_iter().map(|getter| getter.join().unwrap()).sum::<u32>()
        });
        // Not never: the holder of the lock may have to wait for a processor.
        assert!(missed < 50, "{missed} times there was nothing, as it seemed");
    });
}
