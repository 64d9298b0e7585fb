//! What errors say: which process, what, while doing what, and whether the task may have run.
//!
//! Runs in: the test process; the tasks in children. Never: asks less of a text than the whole of it.

use std::error::Error as _;
use std::fs::OpenOptions;
use std::hint::black_box;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::thread::sleep;
use std::time::Duration;

use process_task::{
    Direction, Error, ErrorKind, Execution, Pool, Process, ProcessBuilder, StartMethod, Stdio, process_task,
};
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

under_every_start_method! {
    an_overflow_of_the_stack_is_told_apart_from_other_faults,
    a_value_that_cannot_travel_says_which_task_and_which_way,
    a_start_that_fails_says_the_step_and_the_reason,
    a_failed_process_can_be_asked_everything,
    a_child_that_scribbles_over_its_link_is_killed_and_named,
    an_error_knows_its_task_and_its_process,
    the_text_of_a_panic_that_aborts_is_not_lost,
    a_limit_on_memory_ends_the_task_with_an_error,
}

fn builder(method: StartMethod) -> ProcessBuilder {
    let mut builder = ProcessBuilder::new();
    builder.start_method(method).stderr(Stdio::null());
    builder
}

#[process_task]
fn square(x: i64) -> i64 {
    x * x
}

#[process_task]
fn overflow(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    if depth == u64::MAX { 0 } else { overflow(depth + 1) + frame[0] }
}

#[process_task]
fn overflow_elsewhere() -> u64 {
    std::thread::spawn(|| overflow(0)).join().unwrap()
}

fn an_overflow_of_the_stack_is_told_apart_from_other_faults(method: StartMethod) {
    let mut process = builder(method).spawn(overflow, 0).unwrap();
    let id = process.pid().unwrap();
    assert_eq!(process.wait().unwrap().signal(), Some(nix::libc::SIGABRT));
    let error = process.join().unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::StackOverflow);
    assert_eq!(error.execution(), Execution::Unknown);
    let text = format!("process `overflow` (pid {id}) overflowed its stack while running `process::errors::overflow`");
    assert!(error.to_string().starts_with(&text), "{error}");
    assert!(error.to_string().contains("RLIMIT_STACK"), "{error}");

    // On a thread of the task's own it ends the process all the same.
    let error = builder(method).spawn(overflow_elsewhere, ()).unwrap().join().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Killed { .. } | ErrorKind::StackOverflow), "{error}");
}

/// Refuses to travel at the point it names: `encode` or `decode`, in the `parent` or the `child`.
#[derive(Clone, Debug, PartialEq)]
struct Reluctant(String);

fn refuses(at: &str, what: &str) -> bool {
    let here = if process_task::parent().is_some() { "child" } else { "parent" };
    at == format!("{what} in {here}")
}

impl Serialize for Reluctant {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if refuses(&self.0, "encode") { Err(S::Error::custom("I stay")) } else { to.serialize_str(&self.0) }
    }
}

impl<'de> Deserialize<'de> for Reluctant {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let at = String::deserialize(from)?;
        if refuses(&at, "decode") { Err(D::Error::custom("I did not come")) } else { Ok(Self(at)) }
    }
}

#[process_task]
fn pass(value: Reluctant) -> Reluctant {
    value
}

fn a_value_that_cannot_travel_says_which_task_and_which_way(method: StartMethod) {
    let join = |at: &str| {
        let started = builder(method).spawn(pass, Reluctant(at.to_owned()));
        started.and_then(Process::join)
    };
    assert_eq!(join("never").unwrap(), Reluctant("never".to_owned()));

    let expected = [
        ("encode in parent", "cannot encode the arguments of `process::errors::pass`: I stay", Execution::NotStarted),
        (
            "decode in child",
            "cannot decode the arguments of `process::errors::pass`: I did not come",
            Execution::NotStarted,
        ),
        ("encode in child", "cannot encode the result of `process::errors::pass`: I stay", Execution::Finished),
        (
            "decode in parent",
            "cannot decode the result of `process::errors::pass`: I did not come",
            Execution::Finished,
        ),
    ];
    for (at, text, execution) in expected {
        let error = join(at).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.execution()), (text, execution), "{at}");
        let direction = match error.kind() {
            ErrorKind::CannotEncode { direction, .. } if at.starts_with("encode") => *direction,
            ErrorKind::CannotDecode { direction, .. } if at.starts_with("decode") => *direction,
            other => panic!("{at}: {other:?}"),
        };
        let arguments = text.contains("arguments");
        assert_eq!(direction, if arguments { Direction::Arguments } else { Direction::Result });
    }
}

fn started_with(started: process_task::Result<Process<i64>>) -> Error {
    started.and_then(Process::join).unwrap_err()
}

fn a_start_that_fails_says_the_step_and_the_reason(method: StartMethod) {
    let error = started_with(builder(method).current_dir("/nowhere/at/all").spawn(square, 3));
    assert_eq!(
        error.to_string(),
        "could not start process `square` for `process::errors::square`: open the working directory /nowhere/at/all: \
         No such file or directory"
    );
    assert_eq!(error.execution(), Execution::NotStarted);
    let is_enoent =
        |kind: &ErrorKind| matches!(kind, ErrorKind::CouldNotStart { errno, .. } if *errno == nix::libc::ENOENT);
    assert!(is_enoent(error.kind()));

    let error = started_with(builder(method).current_dir("/dev/null").spawn(square, 3));
    assert!(error.to_string().ends_with(": open the working directory /dev/null: Not a directory"), "{error}");

    // What the process itself is refused comes with `join`, and names the process.
    let process = builder(method).name("far away").cpus([1_000]).spawn(square, 3).unwrap();
    let id = process.pid().unwrap();
    let error = process.join().unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "could not start process `far away` (pid {id}) for `process::errors::square`: choose its processors: Invalid argument"
        )
    );
    assert_eq!(error.execution(), Execution::NotStarted);
    let error = builder(method).cpus([]).spawn(square, 3).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error}");
    let error = started_with(builder(method).cpus([usize::MAX]).spawn(square, 3));
    assert!(error.to_string().ends_with(": choose its processors: Invalid argument"), "{error}");
}

/// Its argument stays behind, so every start of it fails.
#[process_task]
fn never_starts(value: Reluctant) -> String {
    value.0
}

fn a_failed_process_can_be_asked_everything(_: StartMethod) {
    let mut process = never_starts.spawn(Reluctant("encode in parent".to_owned()));
    assert_eq!(process.pid(), None);
    assert_eq!(process.name(), "never_starts");
    assert!(process.is_finished());
    let text = "cannot encode the arguments of `process::errors::never_starts`: I stay";
    assert_eq!(process.wait().unwrap_err().to_string(), text);
    assert_eq!(process.try_wait().unwrap_err().to_string(), text);
    assert_eq!(process.wait_timeout(Duration::MAX).unwrap().unwrap_err().to_string(), text);
    assert_eq!(process.terminate().unwrap_err().to_string(), text);
    assert_eq!(process.kill().unwrap_err().to_string(), text);
    assert_eq!(process.interrupt().unwrap_err().to_string(), text);
    assert!(process.take_stdin().is_none() && process.take_stdout().is_none() && process.take_stderr().is_none());
    assert!(format!("{process:?}").contains(text));
    assert_eq!(process.join().unwrap_err().to_string(), text);
    never_starts.spawn(Reluctant("encode in parent".to_owned())).detach();
}

/// Writes nonsense over all shared memory that it may write to, and ends before an honest reply can mend it.
#[process_task]
#[expect(clippy::exit, reason = "a task may do that")]
fn scribble() {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mut memory = OpenOptions::new().write(true).open("/proc/self/mem").unwrap();
    let shared = maps.lines().filter(|line| line.contains("rw-s") && line.contains("memfd:"));
    let mut found = 0;
    for line in shared {
        let (start, _) = line.split_once('-').unwrap();
        memory.seek(SeekFrom::Start(u64::from_str_radix(start, 16).unwrap())).unwrap();
        memory.write_all(&[0xAB; 4096]).unwrap();
        found += 1;
    }
    assert!(found > 0, "no shared memory in {maps}");
    std::process::exit(0);
}

fn a_child_that_scribbles_over_its_link_is_killed_and_named(method: StartMethod) {
    let mut process = builder(method).spawn(scribble, ()).unwrap();
    let id = process.pid().unwrap();
    process.wait().unwrap();
    let error = process.join().unwrap_err();
    let ErrorKind::ProtocolViolation { reason, .. } = error.kind() else { panic!("{error}") };
    let subject = format!("process `scribble` (pid {id})");
    assert_eq!(
        error.to_string(),
        format!("{subject} broke the protocol while running `process::errors::scribble` and was killed: {reason}")
    );
    assert_eq!(error.execution(), Execution::Unknown);
}

fn an_error_knows_its_task_and_its_process(method: StartMethod) {
    let process = builder(method).name("sleeper").spawn(sleep_long, ()).unwrap();
    let id = process.pid().unwrap();
    process.kill().unwrap();
    let error = process.join().unwrap_err();
    assert_eq!(error.task(), Some("process::errors::sleep_long"));
    assert_eq!(error.process(), Some(("sleeper", id)));
    assert!(error.source().is_none());
    assert_eq!(format!("{error:?}"), error.to_string(), "`main` prints the sentence");
    assert_eq!(error.clone(), error);
    let _: Box<dyn std::error::Error + Send + Sync> = error.into();
}

#[process_task]
fn sleep_long() {
    sleep(Duration::from_secs(1_000));
}

/// Panics once more while it unwinds.
struct PanicsAgain;

impl Drop for PanicsAgain {
    fn drop(&mut self) {
        panic!("second");
    }
}

#[process_task]
fn panic_twice() {
    let _again = PanicsAgain;
    panic!("first");
}

#[process_task]
fn panic_across_c() {
    extern "C" fn callback() {
        panic!("inside a callback");
    }
    callback();
}

fn the_text_of_a_panic_that_aborts_is_not_lost(method: StartMethod) {
    let cases = [
        (builder(method).spawn(panic_twice, ()).unwrap(), &["first", "second"][..]),
        (builder(method).spawn(panic_across_c, ()).unwrap(), &["inside a callback"]),
    ];
    for (process, words) in cases {
        let error = process.join().unwrap_err();
        let ErrorKind::Killed { signal: nix::libc::SIGABRT, message: Some(message), .. } = error.kind() else {
            panic!("{error}");
        };
        for word in words {
            assert!(message.contains(word), "{word} in {message}");
        }
        assert!(error.to_string().ends_with(message), "{error}");
        assert!(message.contains("tests/process/errors.rs:"), "{message}");
        assert_eq!(error.execution(), Execution::Unknown);
    }
}

#[process_task]
fn fill_memory(bytes: usize) -> u8 {
    let memory = black_box(vec![1_u8; bytes]);
    memory[bytes / 2]
}

fn a_limit_on_memory_ends_the_task_with_an_error(method: StartMethod) {
    let limited = |bytes| builder(method).memory_limit(1 << 30).spawn(fill_memory, bytes).unwrap();
    assert_eq!(limited(1 << 20).join().unwrap(), 1);
    let error = limited(2 << 30).join().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Killed { signal: nix::libc::SIGABRT, .. }), "{error}");
    assert!(error.to_string().contains("its memory was limited to 1073741824 bytes"), "{error}");
    assert_eq!(error.execution(), Execution::Unknown);
    // A call with a limit of its own, and then one without, in one worker.
    let pool = Pool::builder().workers(1).start_method(method).build().unwrap();
    assert_eq!(pool.call(fill_memory.memory_limit(1 << 30), 1 << 20), Ok(1));
    let error = pool.call(abort_after, 1 << 20).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Killed { message: None, .. }), "{error}");
    let error = pool.call(fill_memory.memory_limit(1 << 30), 2 << 30).unwrap_err();
    assert!(
        error.to_string().ends_with("limited to 1073741824 bytes, and an allocation beyond that aborts the process")
    );
    drop(pool);
    // Items that travel many at a time, in a pool whose workers have a limit.
    let pool = Pool::builder().workers(1).start_method(method).memory_limit(1 << 30).build().unwrap();
    let error = pool.map(fill_memory, [1 << 20, 1 << 20, 2 << 30]).unwrap_err();
    assert!(error.to_string().contains("limited to 1073741824 bytes"), "{error}");
}

#[process_task]
fn abort_after(bytes: usize) -> u8 {
    black_box(vec![1_u8; bytes]);
    std::process::abort()
}
