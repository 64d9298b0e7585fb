//! What a pool promises about values: whatever their size and shape they arrive unchanged, or one call says why not.
//!
//! Runs in: the test process; its tasks run in workers. Never: blames another call for one value's fault.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::panic::panic_any;
use std::path::PathBuf;
use std::thread;

use crate::support;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use process_task::{Direction, Error, ErrorKind, Execution, Pool, StartMethod, active_children, process_task};
use serde::de::{Deserializer, Error as _};
use serde::ser::{Error as _, Serializer};
use serde::{Deserialize, Serialize};

under_every_start_method! {
    every_length_arrives_unchanged,
    odd_values_arrive_unchanged,
    an_error_that_is_returned_is_a_value,
    every_fault_of_a_value_fails_its_own_call,
    a_result_that_cannot_travel_costs_no_worker,
    every_panic_payload_is_reported,
    a_panic_of_a_megabyte_is_reported_whole,
    many_long_arguments_survive_a_crash,
    untaken_results_stay_as_they_are,
    long_calls_behind_a_dead_worker_move_on,
    pools_are_nested_three_deep,
}

#[test]
fn a_quarter_of_a_gigabyte_goes_there_and_back() {
    support::promise(quarter_of_a_gigabyte);
}

#[test]
fn two_hundred_workers_share_a_thousand_calls() {
    support::promise(two_hundred_workers);
}

#[process_task]
fn echo(bytes: Vec<u8>) -> Vec<u8> {
    bytes
}

#[process_task]
fn fill(len: usize, byte: u8) -> Vec<u8> {
    vec![byte; len]
}

#[process_task]
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(7, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)))
}

#[process_task]
fn own_id() -> u32 {
    std::process::id()
}

#[process_task]
fn square(x: u64) -> u64 {
    x * x
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Odd {
    number: i128,
    huge: u64,
    unit: (),
    empty: Vec<Vec<f64>>,
    text: Option<String>,
    path: PathBuf,
    nested: Vec<(char, Result<u8, String>)>,
}

#[process_task]
fn echo_odd(odd: Odd) -> Odd {
    odd
}

#[process_task]
fn echo_floats(floats: &[f64]) -> Vec<f64> {
    floats.to_vec()
}

#[process_task]
fn echo_os(text: OsString) -> OsString {
    text
}

#[process_task]
fn nothings(unit: ()) -> Vec<()> {
    vec![unit; 3]
}

#[process_task]
fn half(x: u32) -> Result<u32, String> {
    if x.is_multiple_of(2) { Ok(x / 2) } else { Err(format!("{x} is odd")) }
}

/// What is wrong with a value, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Fault {
    None,
    Error,
    Panic,
    Exit,
    Abort,
}

impl Fault {
    /// Commits itself; the text of an error if that is what it is.
    fn commit(self, place: &str) -> Result<(), String> {
        match self {
            Self::None => Ok(()),
            Self::Error => Err(format!("error in {place}")),
            Self::Panic => panic!("panic in {place}"),
            Self::Exit => std::process::exit(5),
            Self::Abort => std::process::abort(),
        }
    }
}

/// A value whose code has faults.
#[derive(Debug)]
struct Faulty {
    encode: Fault,
    decode: Fault,
    dropped: Fault,
}

const SOUND: Faulty = Faulty { encode: Fault::None, decode: Fault::None, dropped: Fault::None };

impl Serialize for Faulty {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.encode.commit("serialize").map_err(S::Error::custom)?;
        (self.decode, self.dropped).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Faulty {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (decode, dropped) = <(Fault, Fault)>::deserialize(deserializer)?;
        // The sender reads a value of a type once, too: the test itself goes on.
        if process_task::parent().is_some() || matches!(decode, Fault::Error | Fault::Panic) {
            decode.commit("deserialize").map_err(D::Error::custom)?;
        }
        Ok(Self { encode: Fault::None, decode, dropped })
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        // Only in a worker: the test itself goes on.
        if process_task::parent().is_some() {
            let _ = self.dropped.commit("drop");
        }
    }
}

#[process_task]
fn take(faulty: Faulty) -> u8 {
    drop(faulty);
    1
}

#[process_task]
fn give(encode: Fault, decode: Fault, dropped: Fault) -> Faulty {
    Faulty { encode, decode, dropped }
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        panic!("a payload's destructor");
    }
}

#[process_task]
fn panic_with(payload: u32) {
    match payload {
        0 => panic!("a literal"),
        1 => panic!("formatted {payload}"),
        2 => panic_any(7i32),
        3 => panic_any(vec![1u8]),
        _ => panic_any(PanicsWhenDropped),
    }
}

#[process_task]
fn panic_at_length(len: usize) {
    // It need not be read on stderr.
    std::panic::set_hook(Box::new(|_| ()));
    panic!("{}", "x".repeat(len));
}

#[process_task]
#[expect(clippy::exit, reason = "what is tested is that a task may")]
fn leave(bytes: &[u8]) -> u64 {
    std::process::exit(i32::from(!bytes.is_empty()))
}

/// Three to the power of `depth`, counted by as many generations of pools; and the processes that counted.
#[process_task]
fn in_pools(depth: u32) -> Result<(u32, u32), String> {
    if depth == 0 {
        return Ok((1, std::process::id()));
    }
    let pool = Pool::builder().workers(2).build().map_err(|error| error.to_string())?;
    let results = pool.map(in_pools, [depth - 1; 3]).map_err(|error| error.to_string())?;
    let sum = results.into_iter().map(|result| result.map(|(leaves, _)| leaves)).sum::<Result<u32, String>>()?;
    Ok((sum, std::process::id()))
}

fn pool(method: StartMethod, workers: usize) -> Pool {
    Pool::builder().workers(workers).start_method(method).build().expect("a pool")
}

fn kill_workers() {
    for worker in active_children() {
        let _ = kill(Pid::from_raw(worker.pid().cast_signed()), Signal::SIGKILL);
    }
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at.wrapping_mul(131) >> 3).to_le_bytes()[0]).collect()
}

fn every_length_arrives_unchanged(method: StartMethod) {
    let pool = pool(method, 2);
    let steps = [0, 1, 4 << 10, 8 << 10, 64 << 10, 128 << 10, 256 << 10, 2 << 20];
    let around = |step: usize| (step.saturating_sub(65)..step + 3).step_by(if step < 10_000 { 1 } else { 17 });
    for len in steps.into_iter().flat_map(around) {
        let bytes = pattern(len);
        assert_eq!(pool.call(checksum, &bytes), Ok(checksum(&bytes)), "{len} bytes");
        assert!(pool.call(echo, bytes.clone()) == Ok(bytes), "{len} bytes");
    }
    let mixed: Vec<_> = (0..300).map(|n| if n % 7 == 0 { 200_000 + n } else { n }).collect();
    let lengths = pool.map(fill, mixed.iter().map(|len| (*len, 3))).expect("bytes");
    assert!(lengths.iter().map(Vec::len).eq(mixed));
}

fn odd_values_arrive_unchanged(method: StartMethod) {
    let pool = pool(method, 1);
    let path = PathBuf::from("/tmp/ä ö");
    let nested = vec![('\u{10ffff}', Err("no".to_owned())), ('\0', Ok(255))];
    let odd = Odd { number: i128::MIN, huge: u64::MAX, unit: (), empty: vec![vec![]], text: None, path, nested };
    assert_eq!(pool.call(echo_odd, odd.clone()), Ok(odd));
    let floats = [f64::NAN, -0.0, f64::INFINITY, f64::MIN_POSITIVE, f64::from_bits(0x7ff4_0000_0000_0001)];
    let back = pool.call(echo_floats, &floats).expect("floats");
    assert!(back.iter().map(|x| x.to_bits()).eq(floats.iter().map(|x| x.to_bits())));
    let text = OsString::from_vec(vec![b'a', 0xff, 0xfe, b'b']);
    assert_eq!(pool.call(echo_os, text.clone()), Ok(text));
    assert_eq!(pool.call(nothings, ()), Ok(vec![(); 3]));
}

fn an_error_that_is_returned_is_a_value(method: StartMethod) {
    let pool = pool(method, 2);
    assert_eq!(pool.call(half, 3), Ok(Err("3 is odd".to_owned())));
    let halves = pool.map(half, 0..4).expect("no call failed");
    assert_eq!(halves, [Ok(0), Err("1 is odd".to_owned()), Ok(1), Err("3 is odd".to_owned())]);
}

fn every_fault_of_a_value_fails_its_own_call(method: StartMethod) {
    let pool = pool(method, 2);
    let argument = |faulty| pool.call(take, faulty).expect_err("a fault");
    let result = |encode, decode, dropped| pool.call(give, (encode, decode, dropped)).expect_err("a fault");

    let error = argument(Faulty { encode: Fault::Error, ..SOUND });
    is_codec(&error, Direction::Arguments, "error in serialize", Execution::NotStarted);
    let error = argument(Faulty { decode: Fault::Error, ..SOUND });
    is_codec(&error, Direction::Arguments, "error in deserialize", Execution::NotStarted);
    let error = result(Fault::Error, Fault::None, Fault::None);
    is_codec(&error, Direction::Result, "error in serialize", Execution::Finished);
    let error = result(Fault::None, Fault::Error, Fault::None);
    is_codec(&error, Direction::Result, "error in deserialize", Execution::Finished);

    let panics = [
        (argument(Faulty { decode: Fault::Panic, ..SOUND }), "panic in deserialize"),
        (argument(Faulty { dropped: Fault::Panic, ..SOUND }), "panic in drop"),
        (result(Fault::Panic, Fault::None, Fault::None), "panic in serialize"),
        (result(Fault::None, Fault::None, Fault::Panic), "panic in drop"),
    ];
    for (error, text) in panics {
        assert!(matches!(error.kind(), ErrorKind::Panicked { message, .. } if message == text), "{error}");
        assert_eq!(error.execution(), Execution::Finished);
    }
    for fault in [Fault::Exit, Fault::Abort] {
        let ends = [
            argument(Faulty { decode: fault, ..SOUND }),
            argument(Faulty { dropped: fault, ..SOUND }),
            result(fault, Fault::None, Fault::None),
            result(Fault::None, Fault::None, fault),
        ];
        for error in ends {
            match error.kind() {
                ErrorKind::Exited { code: 5, .. } => assert_eq!(fault, Fault::Exit),
                ErrorKind::Killed { signal: 6, .. } => assert_eq!(fault, Fault::Abort),
                _ => panic!("{fault:?} was reported as {error}"),
            }
            assert_eq!(error.execution(), Execution::Unknown);
        }
    }
    assert_eq!(pool.call(take, SOUND), Ok(1));
}

fn is_codec(error: &Error, expected: Direction, text: &str, execution: Execution) {
    let (ErrorKind::CannotEncode { direction, reason, .. } | ErrorKind::CannotDecode { direction, reason, .. }) =
        error.kind()
    else {
        panic!("{error}")
    };
    assert_eq!((*direction, error.execution()), (expected, execution), "{error}");
    assert!(reason.contains(text) && error.task().is_some(), "{error}");
}

fn a_result_that_cannot_travel_costs_no_worker(method: StartMethod) {
    let pool = pool(method, 1);
    let before = pool.call(own_id, ()).expect("an id");
    for _ in 0..20 {
        assert!(pool.call(give, (Fault::Error, Fault::None, Fault::None)).is_err());
        assert!(pool.call(take, Faulty { decode: Fault::Error, ..SOUND }).is_err());
        assert!(pool.call(panic_with, 0).is_err());
    }
    assert_eq!(pool.call(own_id, ()), Ok(before));
}

fn every_panic_payload_is_reported(method: StartMethod) {
    let pool = pool(method, 1);
    let before = pool.call(own_id, ()).expect("an id");
    let unknown = "a payload of unknown type";
    for (payload, text) in [(0, "a literal"), (1, "formatted 1"), (2, unknown), (3, unknown), (4, unknown)] {
        let error = pool.call(panic_with, payload).expect_err("a panic");
        let ErrorKind::Panicked { message, location, .. } = error.kind() else { panic!("{error}") };
        assert_eq!(message, text);
        // A payload's own panic is the last one seen, and its place is not the task's.
        assert!(location.as_ref().is_none_or(|at| at.contains("pool/values.rs")), "{error}");
    }
    assert_eq!(pool.call(own_id, ()), Ok(before));
}

fn a_panic_of_a_megabyte_is_reported_whole(method: StartMethod) {
    let pool = pool(method, 2);
    let handles: Vec<_> = (0..4).map(|n| pool.submit(panic_at_length, (1 << 20) + n)).collect();
    for (n, handle) in handles.into_iter().enumerate() {
        let error = handle.join().expect_err("a panic");
        let ErrorKind::Panicked { message, .. } = error.kind() else { panic!("not a panic") };
        assert!(message.len() == (1 << 20) + n && message.bytes().all(|byte| byte == b'x'));
    }
    assert_eq!(pool.call(square, 3), Ok(9));
}

fn many_long_arguments_survive_a_crash(method: StartMethod) {
    let pool = pool(method, 2);
    let long: Vec<Vec<u8>> = (0..10).map(|n| pattern(300_000 + n)).collect();
    for _ in 0..5 {
        let handles: Vec<_> = long
            .iter()
            .enumerate()
            .map(|(n, bytes)| if n % 3 == 1 { pool.submit(leave, bytes) } else { pool.submit(checksum, bytes) })
            .collect();
        for (n, handle) in handles.into_iter().enumerate() {
            match handle.join() {
                Ok(sum) => assert!(n % 3 != 1 && sum == checksum(&long[n])),
                Err(error) => assert!(n % 3 == 1 && error.execution() == Execution::Unknown, "{n}: {error}"),
            }
        }
    }
}

fn untaken_results_stay_as_they_are(method: StartMethod) {
    let pool = pool(method, 1);
    let len = 100_000;
    let first: Vec<_> = (0..30).map(|byte| pool.submit(fill, (len, byte))).collect();
    assert!(pool.map(fill, (100..140).map(|byte| (len, byte))).is_ok());
    kill_workers();
    assert!((0..).zip(first).all(|(byte, handle)| handle.join() == Ok(vec![byte; len])));
}

fn long_calls_behind_a_dead_worker_move_on(method: StartMethod) {
    let pool = pool(method, 1);
    for round in 0..30u8 {
        kill_workers();
        // The worker may be dead, and its end not yet told.
        let bytes = vec![round; 90_000 + 70_000 * usize::from(round)];
        match pool.call(checksum, &bytes) {
            Ok(sum) => assert_eq!(sum, checksum(&bytes)),
            Err(error) => assert!(matches!(error.kind(), ErrorKind::Killed { signal: 9, .. }), "{error}"),
        }
    }
}

fn pools_are_nested_three_deep(method: StartMethod) {
    let pool = pool(method, 2);
    let (leaves, worker) = pool.call(in_pools, 2).expect("a call").expect("pools in workers");
    assert_eq!(leaves, 9);
    assert_ne!(worker, std::process::id());
    let inside = thread::scope(|scope| scope.spawn(|| pool.map(in_pools, [1, 2])).join().expect("a thread"));
    assert!(inside.expect("two calls").into_iter().all(|result| result.is_ok()));
}

fn quarter_of_a_gigabyte() {
    let pool = Pool::builder().workers(1).build().expect("a pool");
    let bytes = || vec![0xa5; 256 << 20];
    assert!(pool.call(echo, bytes()).expect("the same bytes") == bytes());
}

fn two_hundred_workers() {
    let pool = Pool::builder().workers(200).build().expect("a large pool");
    assert_eq!((pool.workers(), active_children().len()), (200, 200));
    let squares = pool.map(square, 0..1000).expect("squares");
    assert_eq!(squares.iter().sum::<u64>(), 332_833_500);
}
