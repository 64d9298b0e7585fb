//! One process for one call, against a thread and against a program.
//!
//! Runs in: the parent. Never: counts the end of a process, which comes after its result.

use std::hint::black_box;
use std::process::Command;
use std::thread;

use process_task::process_task;

use crate::Outcome;
use crate::measure::{Comparison, alternately, check, each, isolated};
use crate::table::Row;

pub(crate) const ROWS: &[Row] = &[
    Row { name: "spawn + join, 2 ms apart", yardstick: "thread spawn + join", aim: Some(1.0), run: against_a_thread },
    Row {
        name: "spawn + join, back to back",
        yardstick: "/bin/true, start + wait",
        aim: Some(0.4),
        run: against_a_program,
    },
    Row {
        name: "spawn + join, 2 ms apart, parent of 1 GiB",
        yardstick: "the same, small parent",
        aim: Some(1.1),
        run: big_parent_apart,
    },
    Row {
        name: "spawn + join, back to back, parent of 1 GiB",
        yardstick: "the same, small parent",
        aim: Some(1.1),
        run: big_parent_back_to_back,
    },
];

#[process_task]
fn next(number: u32) -> u32 {
    number + 1
}

fn process(number: u32) -> Outcome<()> {
    check(next.spawn(number).join()?, number + 1)
}

fn processes(count: u32) -> Outcome<f64> {
    each(count, || (0..count).try_for_each(process))
}

fn against_a_thread() -> Outcome<Comparison> {
    let thread = |number| {
        let thread = thread::spawn(move || next(black_box(number)));
        check(thread.join().map_err(|_| "the thread panicked")?, number + 1)
    };
    alternately(15, || isolated(40, process), || isolated(40, thread))
}

fn against_a_program() -> Outcome<Comparison> {
    const COUNT: u32 = 50;
    let program = |_| check(Command::new("/bin/true").status()?.code(), Some(0));
    alternately(15, || processes(COUNT), || each(COUNT, || (0..COUNT).try_for_each(program)))
}

fn big_parent_apart() -> Outcome<Comparison> {
    alternately(7, || beside_a_gibibyte(|| isolated(40, process)), || isolated(40, process))
}

fn big_parent_back_to_back() -> Outcome<Comparison> {
    alternately(7, || beside_a_gibibyte(|| processes(50)), || processes(50))
}

/// Does `work` while this process holds 1 GiB whose every page was written.
fn beside_a_gibibyte(work: impl FnOnce() -> Outcome<f64>) -> Outcome<f64> {
    let memory = vec![1u8; 1 << 30];
    let result = work();
    check(black_box(&memory)[memory.len() - 1], 1)?;
    result
}
