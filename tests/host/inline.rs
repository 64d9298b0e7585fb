//! What `PROCESS_TASK_INLINE=1` promises: tasks of pools run in the calling process, and nothing else is different.
//!
//! Runs in: the test process, which plays the same scene twice in copies of itself, with the variable and without.
//! Never: has the variable set itself.

use std::process::Command;
use std::thread::{self, ThreadId};

use crate::support;
use crate::support::scratch::Scratch;
use process_task::{Error, JoinHandle, Pool, ShutdownMode, active_children, process_task};
use serde::{Deserialize, Serialize};

const VARIABLE: &str = "PROCESS_TASK_INLINE";
const SCENE: &str = "PROCESS_TASK_TEST_SCENE";

#[process_task]
fn square(x: i64) -> i64 {
    x * x
}

#[process_task]
fn length(text: &str, numbers: &[f64]) -> usize {
    text.len() + numbers.len()
}

/// Panics on multiples of five.
#[process_task]
fn picky(x: u32) -> u32 {
    assert!(!x.is_multiple_of(5), "{x} is a multiple of five");
    x
}

#[process_task]
fn panics_oddly() {
    std::panic::panic_any(17);
}

#[process_task]
fn fails(x: u32) -> Result<u32, String> {
    Err(format!("{x} is refused"))
}

#[process_task]
fn zeroes(len: usize) -> Vec<u8> {
    vec![0; len]
}

#[process_task]
fn pid() -> u32 {
    std::process::id()
}

#[process_task]
fn thread_of_task() -> String {
    format!("{:?}", thread::current().id())
}

#[process_task]
fn nested(x: i64) -> i64 {
    let pool = Pool::builder().workers(1).build().unwrap();
    pool.map(square, 0..x).unwrap().into_iter().sum()
}

/// Notes in a file which process is there, for initializers and finalizers.
#[process_task]
fn note(path: &str, line: &str) {
    assert!(line != "bad", "a bad line");
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).unwrap();
    std::io::Write::write_all(&mut file, format!("{line}\n").as_bytes()).unwrap();
}

/// A number that cannot be written if it is 1, nor read if it is 2.
#[derive(Debug, Deserialize)]
struct Odd(#[serde(deserialize_with = "read_odd")] u32);

impl Serialize for Odd {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if self.0 == 1 { Err(serde::ser::Error::custom("1 is not written")) } else { self.0.serialize(to) }
    }
}

fn read_odd<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let number = u32::deserialize(from)?;
    if number == 2 { Err(serde::de::Error::custom("2 is not read")) } else { Ok(number) }
}

#[process_task]
fn takes_odd(number: Odd) -> u32 {
    number.0
}

#[process_task]
fn gives_odd(number: u32) -> Odd {
    Odd(number)
}

/// What is the same for every process: the sentence without the process that it happened in, and what programs look at.
fn told(error: &Error) -> String {
    // An initializer's error is told in another one.
    let sentence = error.to_string();
    let (subject, rest) = sentence.split_once(" panicked ").unwrap_or(("", &sentence));
    assert!(subject.is_empty() || subject.contains("(pid "), "{sentence}");
    format!("{rest} | {:?} | {:?} | {}", error.execution(), error.task(), error.process().is_some())
}

fn line<R: std::fmt::Debug>(result: Result<R, Error>) -> String {
    result.map_or_else(|error| told(&error), |value| format!("{value:?}"))
}

/// Everything that one can do with a pool, written down.
fn transcript() -> Vec<String> {
    let mut lines = Vec::new();
    let pool = Pool::builder().workers(2).build().unwrap();
    lines.push(format!("{} workers", pool.workers()));
    lines.push(line(pool.call(square, 12)));
    lines.push(line(pool.call(length, ("four", &[1.0, 2.0]))));
    lines.push(line(pool.map(square, 0..20)));
    lines.push(line(pool.map(picky, [1, 2, 10, 3, 15])));
    lines.extend(pool.imap(picky, 1..12).map(line));
    let mut unordered: Vec<_> = pool.imap_unordered(picky, 1..12).map(line).collect();
    unordered.sort();
    lines.extend(unordered);
    lines.push(line(pool.call(panics_oddly, ())));
    lines.push(line(pool.call(fails, 4)));
    lines.push(line(pool.call(zeroes, 1_000_000).map(|bytes| bytes.len())));
    lines.push(line(pool.call(length, ("x".repeat(300_000).as_str(), &vec![0.5; 100_000]))));
    for number in 0..4 {
        lines.push(line(pool.call(takes_odd, Odd(number))));
        lines.push(line(pool.call(gives_odd, number)));
    }
    lines.push(line(pool.call(nested, 10)));
    let handles: Vec<JoinHandle<i64>> = (0..5).map(|x| pool.submit(square, x)).collect();
    lines.extend(handles.into_iter().map(|handle| line(handle.join())));
    let last = pool.submit(square, 9);
    pool.close();
    lines.push(line(pool.call(square, 1)));
    lines.push(line(last.join()));
    drop(pool);
    let pool = Pool::builder().workers(1).build().unwrap();
    pool.kill();
    lines.push(line(pool.call(square, 1)));
    drop(pool);
    let scratch = Scratch::new();
    let (path, builder) = (scratch.file("notes"), || Pool::builder().workers(1));
    let pool = builder().initializer(note, (&path, "begin")).finalizer(note, (&path, "end")).build().unwrap();
    lines.push(line(pool.call(note, (&path, "call"))));
    drop(pool);
    lines.extend(std::fs::read_to_string(&path).unwrap().lines().map(str::to_owned));
    lines.push(line(builder().initializer(note, (&path, "bad")).build().map(|pool| pool.workers())));
    let failing = builder().finalizer(note, (&path, "bad")).build();
    lines.push(line(failing.and_then(|pool| pool.shutdown(ShutdownMode::Finish))));
    lines
}

/// Where tasks ran: whether in this process, on this thread, with no other process.
fn places() -> Vec<String> {
    let pool = Pool::builder().workers(2).build().unwrap();
    let own: ThreadId = thread::current().id();
    let here = pool.call(pid, ()).unwrap() == std::process::id();
    let on_this_thread = pool.call(thread_of_task, ()).unwrap() == format!("{own:?}");
    let alone = active_children().is_empty() && pool.stats().workers.iter().all(|worker| worker.pid.is_none());
    assert_eq!(pool.stats().settled, 2);
    vec![format!("here: {here}, on this thread: {on_this_thread}, alone: {alone}")]
}

/// Not a test of its own: what the copies of this process do.
#[test]
fn scene() {
    let Some(path) = std::env::var_os(SCENE) else { return };
    let lines = [places(), transcript()].concat();
    std::fs::write(path, lines.join("\n")).unwrap();
}

/// Plays the scene, and returns where the tasks ran, and what came of them.
fn play(value: Option<&str>) -> (String, String) {
    let scratch = Scratch::new();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "inline::scene", "--nocapture", "--test-threads=1"]).env(SCENE, scratch.file("lines"));
    match value {
        Some(value) => command.env(VARIABLE, value),
        None => command.env_remove(VARIABLE),
    };
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = std::fs::read_to_string(scratch.file("lines")).unwrap();
    let (places, transcript) = lines.split_once('\n').unwrap();
    (places.to_owned(), transcript.to_owned())
}

#[test]
fn tasks_run_in_the_calling_process_and_else_as_ever() {
    support::promise(|| {
        let (elsewhere, expected) = play(None);
        assert_eq!(elsewhere, "here: false, on this thread: false, alone: false");
        assert!(expected.lines().count() > 40, "{expected}");
        for value in ["1", "true"] {
            let (here, same) = play(Some(value));
            assert_eq!(here, "here: true, on this thread: true, alone: true");
            assert_eq!(same, expected);
        }
    });
}

#[test]
fn other_values_of_the_variable_change_nothing() {
    support::promise(|| assert_eq!(play(Some("0")).0, "here: false, on this thread: false, alone: false"));
}
