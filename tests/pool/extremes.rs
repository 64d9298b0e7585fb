//! What a pool and a process promise of numbers that are as small or as large as they can be: each acts or is refused, and
//! nothing hangs.
//!
//! Runs in: the test process; its tasks run in workers. Never: depends on how fast anything is.

use std::time::Duration;

use crate::support::process_builder;
use process_task::{ErrorKind, Pool, PoolBuilder, ProcessBuilder, ShutdownMode, StartMethod, process_task};

under_every_start_method! {
    builders_of_pools_take_every_number_that_makes_sense,
    builders_of_processes_take_every_number_that_makes_sense,
    options_of_calls_take_every_number,
    endless_times_are_waited_for,
}

#[process_task]
fn square(x: i64) -> i64 {
    x * x
}

#[process_task]
fn hang() {
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

type Change = fn(PoolBuilder) -> PoolBuilder;

fn builders_of_pools_take_every_number_that_makes_sense(method: StartMethod) {
    let builder = || Pool::builder().workers(2).start_method(method);
    let fine: [(&str, Change); 16] = [
        ("calls", |builder| builder.max_calls_per_worker(u64::MAX)),
        ("one call", |builder| builder.max_calls_per_worker(1)),
        ("no memory", |builder| builder.max_worker_memory(0)),
        ("all memory", |builder| builder.max_worker_memory(u64::MAX)),
        ("no idling", |builder| builder.idle_timeout(Duration::ZERO)),
        ("long idling", |builder| builder.idle_timeout(Duration::MAX)),
        ("no grace", |builder| builder.termination_grace(Duration::ZERO)),
        ("long grace", |builder| builder.termination_grace(Duration::MAX)),
        ("long exit", |builder| builder.exit_timeout(Duration::MAX)),
        ("pending", |builder| builder.max_pending(usize::MAX)),
        ("one pending", |builder| builder.max_pending(1)),
        ("address space", |builder| builder.memory_limit(u64::MAX)),
        ("no time", |builder| builder.cpu_time_limit(Duration::ZERO)),
        ("all time", |builder| builder.cpu_time_limit(Duration::MAX)),
        ("files", |builder| builder.open_files_limit(u64::MAX)),
        ("name", |builder| builder.name("x".repeat(10_000))),
    ];
    for (name, change) in fine {
        let pool = change(builder()).build().unwrap_or_else(|error| panic!("{name}: {error}"));
        let squares = pool.map(square, 0..40).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(squares.into_iter().eq((0..40).map(|x| x * x)), "{name}");
        pool.shutdown(ShutdownMode::Finish).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    // Killed at once where they do not exit at once.
    drop(builder().exit_timeout(Duration::ZERO).build().unwrap());
    let refused: [(&str, Change); 4] = [
        ("workers", |builder| builder.workers(0)),
        ("calls", |builder| builder.max_calls_per_worker(0)),
        ("pending", |builder| builder.max_pending(0)),
        ("files", |builder| builder.open_files_limit(0)),
    ];
    for (name, change) in refused {
        let error = change(builder()).build().expect_err(name);
        assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{name}: {error}");
    }
    for limit in [0, 1, 4096] {
        builder().memory_limit(limit).build().expect_err("less memory than there is program");
    }
}

fn builders_of_processes_take_every_number_that_makes_sense(method: StartMethod) {
    let builder = || process_builder(method);
    let fine: [fn(&mut ProcessBuilder) -> &mut ProcessBuilder; _] = [
        |builder| builder.memory_limit(u64::MAX),
        |builder| builder.cpu_time_limit(Duration::ZERO),
        |builder| builder.cpu_time_limit(Duration::MAX),
        |builder| builder.open_files_limit(u64::MAX),
        |builder| builder.exit_timeout(Duration::MAX),
        |builder| builder.exit_timeout(Duration::ZERO),
    ];
    for set in fine {
        let mut builder = builder();
        set(&mut builder);
        let text = format!("{builder:?}");
        assert_eq!(builder.spawn(square, 3).and_then(process_task::Process::join), Ok(9), "{text}");
    }
    for limit in [0, 1, 4096] {
        builder().memory_limit(limit).spawn(square, 3).and_then(process_task::Process::join).expect_err("no memory");
    }
}

fn options_of_calls_take_every_number(method: StartMethod) {
    let pool = Pool::builder().workers(1).start_method(method).build().unwrap();
    let task = square.timeout(Duration::MAX).retries(u32::MAX).memory_limit(u64::MAX);
    assert_eq!(pool.call(task, 3), Ok(9));
    assert_eq!(pool.map(task, 0..20).unwrap().len(), 20);
    assert_eq!(pool.imap(task, 0..20).buffer(usize::MAX).flatten().count(), 20);
    assert_eq!(pool.imap_unordered(square, 0..20).buffer(usize::MAX).flatten().count(), 20);
    for limit in [0, 1] {
        let error = pool.call(square.memory_limit(limit), 3).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::CouldNotStart { .. }), "{error}");
    }
    let error = pool.call(hang.timeout(Duration::ZERO), ()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::TimedOut { .. }), "{error}");
    assert_eq!(pool.call(square, 4), Ok(16));
}

fn endless_times_are_waited_for(method: StartMethod) {
    let pool = Pool::builder().workers(1).start_method(method).build().unwrap();
    let call = pool.submit(square, 5);
    assert!(call.wait_timeout(Duration::MAX).is_ok() && call.join() == Ok(25));
    pool.close();
    assert!(pool.wait_ended_timeout(Duration::MAX).is_ok_and(|ended| ended.is_ok()));
    let process = ProcessBuilder::new().start_method(method).spawn(square.timeout(Duration::MAX), 5).unwrap();
    assert_eq!(process.join(), Ok(25));
}
