//! What is said of a mistake: each sentence names what was asked for, and what would be right.
//!
//! Runs in: the test process; tasks in children.

use std::time::Duration;

use process_task::channel::{Queue, QueueLimits};
use process_task::{Pool, SharedMut, StartMethod, process_task};

under_every_start_method! {
    sentence_about_a_mistake_says_what_would_be_right,
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
        (pool.resize(0).unwrap_err().to_string(), "`workers` must be at least 1"),
        (pool.wait_ended().unwrap_err().to_string(), "call `close` first"),
        (square.retries(1).spawn(1).join().unwrap_err().to_string(), "`.retries(0)`"),
        (Queue::<u32>::bounded(0).unwrap_err().to_string(), "use `unbounded` for no limit"),
        (
            Queue::<u32>::with_limits(QueueLimits { items: 1, bytes: 0 }).unwrap_err().to_string(),
            "not 1 items and 0 bytes",
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
