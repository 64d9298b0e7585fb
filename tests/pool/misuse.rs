//! What is said of a mistake: each sentence names what was asked for, and what would be right.
//!
//! Runs in: the test process; tasks in children.

use std::time::Duration;

use crate::support::process_builder;
use crate::support::scratch::Scratch;
use process_task::channel::{JoinableQueue, Listener, Queue, QueueLimits};
use process_task::{Error, ErrorKind, Execution, Pool, SharedMut, StartMethod, process_task};

under_every_start_method! {
    number_of_0_is_invalid_input_and_no_panic,
    sentence_about_a_mistake_says_what_would_be_right,
}

/// Every number of which at least 1 is needed.
fn number_of_0_is_invalid_input_and_no_panic(method: StartMethod) {
    let pool = Pool::builder().workers(1).start_method(method).build().unwrap();
    let scratch = Scratch::new();
    let listener = Listener::unix(scratch.path().join("ours/socket")).unwrap().max_handshakes(0);
    let builder = || Pool::builder().start_method(method);
    let process = || process_builder(method);
    let time = Duration::from_secs(9);
    let refused = [
        ("workers", builder().workers(0).build().map(drop)),
        ("workers", builder().workers(0).lazy().build().map(drop)),
        ("workers", pool.resize(0)),
        ("max_calls_per_worker", builder().max_calls_per_worker(0).build().map(drop)),
        ("max_pending", builder().max_pending(0).build().map(drop)),
        ("open_files_limit", builder().open_files_limit(0).build().map(drop)),
        ("open_files_limit", process().open_files_limit(0).spawn(square, 3).map(drop)),
        ("cpus", builder().cpus([]).build().map(drop)),
        ("cpus", process().cpus([]).spawn(square, 3).map(drop)),
        ("cpus", process().cpus([]).output(square, 3).map(drop)),
        ("capacity", Queue::<u32>::bounded(0).map(drop)),
        ("capacity", JoinableQueue::<u32>::bounded(0).map(drop)),
        ("capacity", Queue::<u32>::with_limits(QueueLimits { bytes: 0, ..QueueLimits::default() }).map(drop)),
        ("len", SharedMut::<[u8]>::zeroed(10).unwrap().split(0).map(drop).map_err(Error::from)),
        ("max_handshakes", listener.accept::<u32, u32>().map(drop)),
        ("max_handshakes", listener.accept_timeout::<u32, u32>(time).unwrap().map(drop)),
        ("max_handshakes", listener.try_accept::<u32, u32>().map(drop)),
        ("buffer", pool.imap(square, [1]).buffer(0).next().unwrap().map(drop)),
        ("buffer", pool.imap(square, [1]).buffer(0).next_timeout(time).unwrap().unwrap().map(drop)),
        ("buffer", pool.imap_unordered(square, [1]).buffer(0).next().unwrap().map(drop)),
        ("buffer", pool.imap_unordered(square, [1]).buffer(0).next_timeout(time).unwrap().unwrap().map(drop)),
    ];
    for (what, result) in refused {
        let error = result.expect_err(what);
        assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{what}: {error}");
        assert_eq!(error.execution(), Execution::NotStarted, "{what}");
        let sentence = error.to_string();
        assert!([what, "at least", "0"].iter().all(|part| sentence.contains(part)), "{what}: {sentence}");
    }

    // Each item has a result, and nothing runs.
    let mut squares = pool.imap(square, [0, 1, 2]).buffer(2);
    assert_eq!(squares.next(), Some(Ok(0)));
    let mut squares = squares.buffer(0);
    assert_eq!((squares.len(), squares.next()), (2, Some(Ok(1))), "what is on the way comes");
    assert!(squares.next().unwrap().is_err());
    assert_eq!((squares.len(), squares.next()), (0, None));
    assert_eq!(pool.imap_unordered(square, 0..3).buffer(0).filter(Result::is_err).count(), 3);
    assert_eq!(pool.call(square, 4), Ok(16), "the pool is of use as before");
}

#[process_task]
fn square(x: i64) -> i64 {
    x * x
}

fn sentence_about_a_mistake_says_what_would_be_right(method: StartMethod) {
    let builder = || Pool::builder().workers(1).start_method(method);
    let pool = builder().build().unwrap();
    let full = Queue::<u32>::bounded(1).unwrap();
    full.send(1).unwrap();
    let empty = Queue::<u32>::unbounded().unwrap();
    let closed = Queue::<u32>::unbounded().unwrap();
    closed.close();
    let soon = Duration::from_millis(1);
    let said = [
        (builder().workers(0).build().unwrap_err().to_string(), "`workers` must be at least 1"),
        (builder().max_pending(0).build().unwrap_err().to_string(), "leave it out for no limit"),
        (
            builder().max_calls_per_worker(0).build().unwrap_err().to_string(),
            "`max_calls_per_worker` must be at least 1",
        ),
        (builder().env("A=B", "").build().map(|pool| pool.call(square, 1)).unwrap_err().to_string(), "holds `=`"),
        (pool.resize(0).unwrap_err().to_string(), "`close` ends all workers"),
        (pool.wait_ended().unwrap_err().to_string(), "call `close` first"),
        (square.retries(1).spawn(1).join().unwrap_err().to_string(), "`.retries(0)`"),
        (
            Queue::<u32>::bounded(0).unwrap_err().to_string(),
            "must be at least 1 item, not 0 items; use `unbounded` for no limit",
        ),
        (
            Queue::<u32>::with_limits(QueueLimits { items: 1, bytes: 0 }).unwrap_err().to_string(),
            "must be at least 1 byte, not 0 bytes",
        ),
        (full.try_send(2).unwrap_err().to_string(), "is full"),
        (full.send_timeout(2, soon).unwrap_err().to_string(), "timed out"),
        (empty.try_recv().unwrap_err().to_string(), "is empty"),
        (empty.recv_timeout(soon).unwrap_err().to_string(), "timed out"),
        (closed.send(1).unwrap_err().to_string(), "the queue is closed"),
        (closed.recv().unwrap_err().to_string(), "the queue is closed"),
        (
            SharedMut::<[u8]>::zeroed(10).unwrap().split(0).unwrap_err().to_string(),
            "length of a range must be at least 1",
        ),
    ];
    for (sentence, right) in said {
        assert!(sentence.contains(right), "`{sentence}` does not say `{right}`");
    }
}
