//! Processes that are killed at random and started again, for as long as is asked.
//!
//! Runs in: the test process. Never: signals a process that it did not start.

use std::thread;
use std::time::{Duration, Instant};

use process_task::{Process, ProcessBuilder, StartMethod, Task};

use crate::support::rounds;

/// Starts a process for one call.
pub(crate) fn start<T: Task>(method: StartMethod, task: T, args: T::Args<'_>) -> Process<T::Output> {
    ProcessBuilder::new().start_method(method).spawn(task, args).expect("a process")
}

/// One after the other, each number is as good as any.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) | 1)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 20).expect("44 bits") % end
    }
}

/// How long a herd is hunted: 0.6 seconds, times `PROCESS_TASK_ROUNDS`, or as many as `PROCESS_TASK_SOAK_SECONDS` says.
pub(crate) fn seconds() -> Duration {
    let seconds = std::env::var("PROCESS_TASK_SOAK_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    seconds.map_or_else(|| Duration::from_millis(rounds(600) as u64), Duration::from_secs_f64)
}

/// A machine that has much else to do may kill few in the time of a hunt.
const MIN_KILLS: usize = 10;

/// Processes that do the same, each with a number.
pub(crate) struct Herd<F> {
    start: F,
    living: Vec<Process<()>>,
}

impl<F: Fn(usize) -> Process<()>> Herd<F> {
    pub(crate) fn new(size: usize, start: F) -> Self {
        let living = (0..size).map(&start).collect();
        Self { start, living }
    }

    /// Kills one after the other, each after up to some milliseconds, and says how many. `doomed` is told of it before, and `buried`
    /// between the death and the start of the next process of that number.
    pub(crate) fn hunt(&mut self, doomed: impl FnMut(usize), buried: impl FnMut(usize)) -> usize {
        self.hunt_for(seconds(), doomed, buried)
    }

    /// [`hunt`](Self::hunt), for so long, and until more than a few were killed.
    pub(crate) fn hunt_for(
        &mut self,
        time: Duration,
        mut doomed: impl FnMut(usize),
        mut buried: impl FnMut(usize),
    ) -> usize {
        let mut random = Random::new(7);
        let (mut kills, end) = (0, Instant::now() + time);
        while Instant::now() < end || kills <= MIN_KILLS {
            thread::sleep(Duration::from_micros(100 * random.below(80) as u64));
            let number = random.below(self.living.len());
            let victim = self.living.swap_remove(number);
            doomed(number);
            victim.kill().expect("a process to kill");
            victim.join().expect_err("it was killed, and does not end by itself");
            buried(number);
            self.living.push((self.start)(number));
            let last = self.living.len() - 1;
            self.living.swap(number, last);
            kills += 1;
        }
        kills
    }

    /// Kills all.
    pub(crate) fn kill(self) {
        for process in self.living {
            process.kill().expect("a process to kill");
            process.join().expect_err("it was killed, and does not end by itself");
        }
    }

    /// Waits for the end of all, which comes by itself.
    pub(crate) fn go_home(self) {
        for process in self.living {
            process.join().expect("nothing kills them any more");
        }
    }
}
