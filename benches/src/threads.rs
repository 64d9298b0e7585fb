//! The peer of our pool: threads that take jobs from one channel and answer each on a channel of its own.
//!
//! Runs in: the parent. Never: spawns a thread after it was made.

use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

/// Threads that run one function on whatever they are given.
#[derive(Debug)]
pub(crate) struct Threads {
    /// `None` once no more jobs will come.
    jobs: Option<Sender<(u64, Sender<u64>)>>,
    threads: Vec<JoinHandle<()>>,
}

impl Threads {
    pub(crate) fn new(count: usize, function: fn(u64) -> u64) -> Self {
        let (jobs, receiver) = unbounded::<(u64, Sender<u64>)>();
        let work = move |receiver: Receiver<(u64, Sender<u64>)>| {
            for (argument, reply) in receiver {
                // The thread that asked may not wait for the answer.
                let _ = reply.send(function(argument));
            }
        };
        let start = |_| {
            let receiver = receiver.clone();
            thread::spawn(move || work(receiver))
        };
        Self { jobs: Some(jobs), threads: (0..count).map(start).collect() }
    }

    /// Where the function's result will be.
    pub(crate) fn submit(&self, argument: u64) -> Receiver<u64> {
        let (reply, answer) = bounded(1);
        if let Some(jobs) = &self.jobs {
            // The threads live as long as we do.
            let _ = jobs.send((argument, reply));
        }
        answer
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
