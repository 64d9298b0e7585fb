//! Many at once, and many after each other: what is made is given back, and no process waits for the lock of another.
//!
//! Runs in: the test process. Never: measures time.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use crate::support;
use process_task::{Pool, Process, ProcessBuilder, StartMethod, process_task};

under_every_start_method! {
    within 240 seconds;
    many_pools_leave_nothing,
    thirty_two_threads_start_processes_at_once,
    starts_work_while_sixty_four_threads_allocate,
}

fn many_pools_leave_nothing(method: StartMethod) {
    // The census around this test compares descriptors, threads, mappings and processes.
    for round in 0..support::rounds(200) {
        let pool = Pool::builder().workers(1).start_method(method).build().unwrap();
        if round % 10 == 0 {
            assert_eq!(pool.call(square, 3), Ok(9));
        }
    }
}

fn thirty_two_threads_start_processes_at_once(method: StartMethod) {
    thread::scope(|scope| {
        for number in 0..32 {
            scope.spawn(move || {
                for x in 0..5 {
                    let process = ProcessBuilder::new().start_method(method).spawn(square, number + x);
                    assert_eq!(process.and_then(Process::join), Ok((number + x) * (number + x)));
                }
            });
        }
    });
}

fn starts_work_while_sixty_four_threads_allocate(method: StartMethod) {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for number in 0..64_usize {
            let over = &over;
            scope.spawn(move || {
                while !over.load(Relaxed) {
                    let memory: Vec<Vec<usize>> = (0..50).map(|size| vec![number; size * 40]).collect();
                    assert!(memory.iter().all(|part| part.iter().all(|word| *word == number)));
                    thread::sleep(std::time::Duration::from_micros(200));
                }
            });
        }
        for round in 0..i64::try_from(support::rounds(25)).unwrap() {
            let process = ProcessBuilder::new().start_method(method).spawn(square, round);
            let squared = process.and_then(Process::join);
            over.fetch_or(squared != Ok(round * round), Relaxed);
            assert_eq!(squared, Ok(round * round));
        }
        over.store(true, Relaxed);
    });
}

#[process_task]
fn square(x: i64) -> i64 {
    x * x
}
