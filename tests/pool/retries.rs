//! What a task's `retries` promises in a pool: a call whose process died is made again, as often as was said, and only
//! then is anything run twice.
//!
//! Runs in: the test process; the tasks in workers, where each run leaves a line in a file.
//! Never: counts runs by anything else than what they left behind.

use std::collections::BTreeSet;
use std::fs;
use std::hint::black_box;
use std::io::Write as _;
use std::time::Duration;

use crate::support::scratch::Scratch;
use crate::support::{PATIENCE, eventually};
use process_task::{Error, ErrorKind, Execution, JoinHandle, Pool, StartMethod, process_task};

under_every_start_method! {
    within 120 seconds;
    a_poison_task_fails_with_every_attempt,
    a_call_that_works_in_the_end_is_a_result,
    a_panic_is_never_repeated,
    values_that_cannot_travel_are_never_repeated,
    a_call_that_took_too_long_is_repeated_too,
    what_ends_the_last_attempt_is_the_error,
    nothing_else_is_ever_run_twice,
    calls_beside_and_behind_a_poison_task_are_made_once,
    a_killed_pool_repeats_nothing,
    a_dropped_pool_waits_for_the_last_attempt,
    maps_repeat_too,
}

fn pool(method: StartMethod, workers: usize) -> Pool {
    Pool::builder().workers(workers).start_method(method).build().unwrap()
}

/// Leaves a line in the file `path`, and says how many there are now.
fn mark(path: &str) -> usize {
    let mut file = fs::File::options().create(true).append(true).open(path).unwrap();
    file.write_all(b"x\n").unwrap();
    runs(path)
}

/// How many runs left a line in the file `path`.
fn runs(path: &str) -> usize {
    fs::read_to_string(path).unwrap_or_default().lines().count()
}

#[expect(clippy::exit, reason = "what is tested is what a task does that does")]
fn leave(code: i32) -> ! {
    std::process::exit(code)
}

/// Ends its process in the first `times` runs, each time with the number of the run as its code.
#[process_task]
fn fail_first(path: &str, times: usize) -> usize {
    let run = mark(path);
    if run <= times { leave(i32::try_from(run).unwrap()) } else { run }
}

/// The codes with which the attempts ended, the last one too.
fn codes(error: &Error) -> Vec<i32> {
    let code = |error: &Error| match error.kind() {
        ErrorKind::Exited { code, .. } => *code,
        other => panic!("{other:?}"),
    };
    error.attempts().iter().chain([error]).map(code).collect()
}

fn a_poison_task_fails_with_every_attempt(method: StartMethod) {
    for size in [1, 3] {
        let (scratch, pool) = (Scratch::new(), pool(method, size));
        let path = scratch.file("runs");
        let error = pool.call(fail_first.retries(3), (&path, 9)).unwrap_err();
        assert_eq!(codes(&error), [1, 2, 3, 4]);
        assert_eq!(runs(&path), 4);
        assert_eq!(error.execution(), Execution::Unknown);
        let all: Vec<_> = error.attempts().iter().chain([&error]).collect();
        assert_eq!(all.iter().map(|error| error.process().unwrap().1).collect::<BTreeSet<_>>().len(), 4);
        assert!(all.iter().all(|error| error.task().unwrap().ends_with("::fail_first")));
        assert!(error.attempts().iter().all(|earlier| earlier.attempts().is_empty()));
        assert!(error.to_string().ends_with("(the last of 4 attempts)"), "{error}");
        let told = format!("{error:?}");
        assert!((1..4).all(|number| told.contains(&format!("attempt {number}: "))), "{told}");
    }
}

fn a_call_that_works_in_the_end_is_a_result(method: StartMethod) {
    let (scratch, pool) = (Scratch::new(), pool(method, 2));
    for times in 0..4 {
        let path = scratch.file(&format!("runs-{times}"));
        assert_eq!(pool.call(fail_first.retries(3), (&path, times)), Ok(times + 1));
        assert_eq!(runs(&path), times + 1);
    }
}

#[process_task]
fn panic_after(path: &str, exits: usize) {
    let run = mark(path);
    if run <= exits {
        leave(7);
    }
    panic!("run {run}");
}

fn a_panic_is_never_repeated(method: StartMethod) {
    let (scratch, pool) = (Scratch::new(), pool(method, 2));
    let path = scratch.file("runs");
    let error = pool.call(panic_after.retries(5), (&path, 0)).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Panicked { .. }), "{error}");
    assert_eq!((runs(&path), error.attempts().len(), error.execution()), (1, 0, Execution::Finished));
    assert!(!error.to_string().contains("attempt"), "{error}");
}

fn what_ends_the_last_attempt_is_the_error(method: StartMethod) {
    let (scratch, pool) = (Scratch::new(), pool(method, 2));
    let path = scratch.file("runs");
    let error = pool.call(panic_after.retries(5), (&path, 2)).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Panicked { message, .. } if message == "run 3"), "{error}");
    assert_eq!(error.attempts().iter().flat_map(codes).collect::<Vec<_>>(), [7, 7]);
    assert_eq!((runs(&path), error.execution()), (3, Execution::Finished));
}

/// Can be written, and not be read.
#[derive(Debug)]
struct OneWay;

impl serde::Serialize for OneWay {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(1)
    }
}

impl<'de> serde::Deserialize<'de> for OneWay {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("one way only"))
    }
}

#[process_task]
fn send_back(path: &str) -> OneWay {
    mark(path);
    OneWay
}

#[process_task]
fn take(path: &str, _thing: OneWay) {
    mark(path);
}

fn values_that_cannot_travel_are_never_repeated(method: StartMethod) {
    let (scratch, pool) = (Scratch::new(), pool(method, 2));
    let path = scratch.file("runs");
    let error = pool.call(send_back.retries(5), &path).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::CannotDecode { .. }), "{error}");
    assert_eq!((runs(&path), error.attempts().len()), (1, 0));
    let error = pool.call(take.retries(5), (&path, OneWay)).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::CannotDecode { .. }), "{error}");
    assert_eq!((runs(&path), error.attempts().len()), (1, 0));
}

/// Never returns from the first `times` runs.
#[process_task(retries = 2)]
fn hang_first(path: &str, times: usize) -> usize {
    let run = mark(path);
    loop {
        if black_box(run) > times {
            return run;
        }
    }
}

fn a_call_that_took_too_long_is_repeated_too(method: StartMethod) {
    let (scratch, pool) = (Scratch::new(), pool(method, 2));
    let limit = Duration::from_millis(50);
    let hang = hang_first.timeout(limit);
    let error = pool.call(hang, (&scratch.file("always"), 9)).unwrap_err();
    let all: Vec<_> = error.attempts().iter().chain([&error]).collect();
    assert_eq!(all.len(), 3);
    for attempt in all {
        let ErrorKind::TimedOut { limit: told, elapsed, .. } = attempt.kind() else { panic!("{error:?}") };
        assert!(*told == limit && *elapsed >= limit, "{error:?}");
    }
    // An attempt that had not begun before its time was over has left nothing.
    assert!(runs(&scratch.file("always")) <= 3);
    // Even if some attempt takes too long for no reason, there are enough.
    let path = scratch.file("once");
    assert!(pool.call(hang.timeout(Duration::from_secs(1)).retries(50), (&path, 1)).unwrap() >= 2);
}

/// Leaves a line in its own file; every third one ends its process.
#[process_task]
fn once(directory: &str, number: u32) -> u32 {
    mark(&format!("{directory}/{number}"));
    if number % 3 == 1 { leave(1) } else { number }
}

/// Makes calls of which many end their processes, and checks that each is run as often as it may be.
fn run_many(pool: &Pool, retries: u32) {
    let scratch = Scratch::new();
    let directory = scratch.path().to_str().unwrap();
    let calls: Vec<_> = (0..90).map(|number| pool.submit(once.retries(retries), (directory, number))).collect();
    for (number, call) in (0..).zip(calls) {
        let outcome = call.join();
        let expected = if number % 3 == 1 { 1 + retries } else { 1 };
        assert_eq!(runs(&scratch.file(&number.to_string())), expected as usize, "call {number}: {outcome:?}");
        match outcome {
            Ok(same) => assert!(same == number && number % 3 != 1),
            Err(error) => assert_eq!((error.attempts().len(), number % 3), (retries as usize, 1), "{error}"),
        }
    }
}

fn nothing_else_is_ever_run_twice(method: StartMethod) {
    for size in [1, 3] {
        run_many(&pool(method, size), 0);
    }
}

fn calls_beside_and_behind_a_poison_task_are_made_once(method: StartMethod) {
    for size in [1, 3] {
        run_many(&pool(method, size), 2);
    }
}

fn a_killed_pool_repeats_nothing(method: StartMethod) {
    let (scratch, pool) = (Scratch::new(), pool(method, 2));
    let paths: Vec<_> = (0..6).map(|number| scratch.file(&format!("runs-{number}"))).collect();
    let for_ever = fail_first.retries(u32::MAX);
    let calls: Vec<_> = paths.iter().map(|path| pool.submit(for_ever, (path, usize::MAX))).collect();
    eventually("some have been repeated", PATIENCE, || paths.iter().any(|path| runs(path) > 2));
    pool.kill();
    for call in calls {
        let error = call.join().unwrap_err();
        let kind = error.kind();
        assert!(
            matches!(
                kind,
                ErrorKind::Exited { .. } | ErrorKind::Killed { .. } | ErrorKind::Cancelled | ErrorKind::Closed { .. }
            ),
            "{error}"
        );
    }
    drop(pool);
    let before: Vec<_> = paths.iter().map(|path| runs(path)).collect();
    std::thread::sleep(Duration::from_millis(30));
    assert_eq!(paths.iter().map(|path| runs(path)).collect::<Vec<_>>(), before);
}

fn a_dropped_pool_waits_for_the_last_attempt(method: StartMethod) {
    let (scratch, pool) = (Scratch::new(), pool(method, 2));
    let path = scratch.file("runs");
    let call: JoinHandle<usize> = pool.submit(fail_first.retries(4), (&path, 4));
    drop(pool);
    assert_eq!(runs(&path), 5);
    assert_eq!(call.join(), Ok(5));
}

fn maps_repeat_too(method: StartMethod) {
    let (scratch, pool) = (Scratch::new(), pool(method, 2));
    let paths: Vec<_> = (0..40).map(|number| scratch.file(&format!("runs-{number}"))).collect();
    let items = || paths.iter().enumerate().map(|(number, path)| (path.as_str(), number % 3));
    let expected: Vec<_> = (0..40).map(|number| number % 3 + 1).collect();
    assert_eq!(pool.map(fail_first.retries(2), items()), Ok(expected.clone()));
    let done: Vec<_> = paths.iter().map(|path| runs(path)).collect();
    assert_eq!(done, expected);
    for path in &paths {
        fs::remove_file(path).unwrap();
    }
    let each: Result<Vec<_>, _> = pool.imap(fail_first.retries(2), items()).collect();
    assert_eq!(each, Ok(expected));
}
