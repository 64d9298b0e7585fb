//! One process for one call, against a thread, a program, and a process of procspawn's or Python's.
//!
//! Runs in: the parent. Never: counts the end of a process, which comes after its result.

use std::hint::black_box;
use std::process::Command;
use std::thread;

use process_task::process_task;

use crate::measure::{check, each, isolated};
use crate::python::Library;
use crate::race::{Measured, Race};
use crate::table::{Row, Unit};
use crate::{Outcome, python};

pub(crate) const ROWS: &[Row] = &[
    Row { name: "spawn + join, 2 ms apart", unit: Unit::Seconds, run: apart },
    Row { name: "spawn + join, back to back", unit: Unit::Seconds, run: back_to_back },
    Row { name: "spawn + join, 2 ms apart, parent of 1 GiB", unit: Unit::Seconds, run: big_parent_apart },
    Row { name: "spawn + join, back to back, parent of 1 GiB", unit: Unit::Seconds, run: big_parent_back_to_back },
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

fn thread(number: u32) -> Outcome<()> {
    let thread = thread::spawn(move || next(black_box(number)));
    check(thread.join().map_err(|_| "the thread panicked")?, number + 1)
}

fn program(_: u32) -> Outcome<()> {
    check(Command::new("/bin/true").status()?.code(), Some(0))
}

fn procspawn_process(number: u32) -> Outcome<()> {
    check(procspawn::spawn(number, *next).join()?, number + 1)
}

fn apart() -> Outcome<Measured> {
    Race::new(15, || isolated(40, process))
        .against("thread spawn + join", || isolated(40, thread))
        .aim(1.0)
        .against("procspawn", || isolated(10, procspawn_process))
        .beside(python::peer("Python Process and Pipe", Library::Process, "call_apart")?)
        .run()
}

fn back_to_back() -> Outcome<Measured> {
    const COUNT: u32 = 50;
    const FEW: u32 = 10;
    Race::new(15, || processes(COUNT))
        .against("/bin/true, start + wait", || each(COUNT, || (0..COUNT).try_for_each(program)))
        .aim(0.4)
        .against("procspawn", || each(FEW, || (0..FEW).try_for_each(procspawn_process)))
        .beside(python::peer("Python Process and Pipe", Library::Process, "few_calls")?)
        .run()
}

fn big_parent_apart() -> Outcome<Measured> {
    Race::new(7, || beside_a_gibibyte(|| isolated(40, process)))
        .against("the same, small parent", || isolated(40, process))
        .aim(1.1)
        .run()
}

fn big_parent_back_to_back() -> Outcome<Measured> {
    Race::new(7, || beside_a_gibibyte(|| processes(50)))
        .against("the same, small parent", || processes(50))
        .aim(1.1)
        .run()
}

/// Does `work` while this process holds 1 GiB whose every page was written.
fn beside_a_gibibyte(work: impl FnOnce() -> Outcome<f64>) -> Outcome<f64> {
    let memory = vec![1u8; 1 << 30];
    let result = work();
    check(black_box(&memory)[memory.len() - 1], 1)?;
    result
}
