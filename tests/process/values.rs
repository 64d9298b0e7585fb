//! What can travel to a task and back, and that it arrives as it was sent.
//!
//! Runs in: the test process; the tasks in children. Never: sends a value that both sides could have made up.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use process_task::{ErrorKind, ProcessBuilder, StartMethod, Task, process_task};
use serde::{Deserialize, Serialize};

under_every_start_method! { within 180 seconds;
    borrowed_arguments_are_lent_to_the_task,
    numbers_arrive_to_the_last_bit,
    values_of_serde_arrive_whole,
    text_that_is_no_utf8_arrives_as_it_is,
    nothing_at_all_can_be_sent_and_returned,
    a_task_that_returns_a_result_gives_two,
    twelve_arguments_arrive_in_their_order,
    payloads_of_every_size_around_the_rings_arrive_whole,
    a_quarter_of_a_gibibyte_travels_both_ways,
    a_value_far_too_deep_for_the_stack_costs_its_own_call,
}

fn run<T: Task>(method: StartMethod, task: T, args: T::Args<'_>) -> process_task::Result<T::Output> {
    ProcessBuilder::new().start_method(method).spawn(task, args)?.join()
}

#[process_task]
fn invert_ends(mut bytes: Vec<u8>) -> Vec<u8> {
    for at in [0, bytes.len() - 1] {
        bytes[at] = !bytes[at];
    }
    bytes
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Point,
    Circle(f64),
    Polygon { corners: Vec<(i16, i16)>, label: Option<String> },
}

#[process_task]
fn describe(text: &str, bytes: &[u8], numbers: &[f64], shape: &Shape, shapes: &[Shape]) -> String {
    format!("{text} {bytes:?} {numbers:?} {shape:?} {}", shapes.len())
}

fn borrowed_arguments_are_lent_to_the_task(method: StartMethod) {
    let owned = (String::from("große Wörter 🦀"), vec![0, 255], vec![0.1, f64::INFINITY]);
    let shapes = [Shape::Point, Shape::Circle(2.5)];
    let text = run(method, describe, (&owned.0, &owned.1, &owned.2, &shapes[1], &shapes)).unwrap();
    assert_eq!(text, "große Wörter 🦀 [0, 255] [0.1, inf] Circle(2.5) 2");
    assert_eq!(run(method, describe, ("", &[], &[], &shapes[0], &[])).unwrap(), " [] [] Point 0");
}

type Numbers = (i128, u128, u64, i8, char, bool, [f32; 3], usize);

#[process_task]
fn echo_numbers(numbers: Numbers, floats: Vec<f64>) -> (Numbers, Vec<f64>) {
    (numbers, floats)
}

fn numbers_arrive_to_the_last_bit(method: StartMethod) {
    let numbers = (i128::MIN + 1, u128::MAX - 2, u64::MAX, i8::MIN, '\u{10FFFF}', true, [0.1, -0.0, 1e-45], usize::MAX);
    let bits = [0x7FF8_0000_DEAD_BEEF, 0xFFF0_0000_0000_0000, 0x8000_0000_0000_0000, 1, 0x3FB9_9999_9999_999A];
    let floats: Vec<f64> = bits.iter().map(|bits| f64::from_bits(*bits)).collect();
    assert!(floats[0].is_nan());
    let (back, floats) = run(method, echo_numbers, (numbers, floats)).unwrap();
    assert_eq!(back, numbers);
    assert!(back.6[1].is_sign_negative());
    assert_eq!(floats.iter().map(|float| float.to_bits()).collect::<Vec<_>>(), bits);
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Drawing {
    shapes: Vec<Shape>,
    by_name: BTreeMap<String, Option<Shape>>,
    counts: HashMap<char, u64>,
    took: Duration,
    nested: Vec<Vec<Vec<u8>>>,
    choice: Result<(), String>,
    unit: (),
    boxed: Box<Option<Drawing>>,
}

#[process_task]
fn redraw(mut drawing: Drawing) -> Drawing {
    drawing.shapes.reverse();
    drawing
}

fn values_of_serde_arrive_whole(method: StartMethod) {
    let polygon = Shape::Polygon { corners: vec![(-1, 2), (i16::MAX, i16::MIN)], label: Some("ß".to_owned()) };
    let empty = Drawing {
        shapes: vec![],
        by_name: BTreeMap::new(),
        counts: HashMap::new(),
        took: Duration::ZERO,
        nested: vec![],
        choice: Ok(()),
        unit: (),
        boxed: Box::new(None),
    };
    let mut drawing = Drawing {
        shapes: vec![Shape::Point, Shape::Circle(f64::MIN_POSITIVE), polygon.clone()],
        by_name: [("a".to_owned(), None), (String::new(), Some(polygon))].into(),
        counts: "hello".chars().zip(1..).collect(),
        took: Duration::MAX,
        nested: vec![vec![], vec![vec![1], vec![]]],
        choice: Err("no".to_owned()),
        unit: (),
        boxed: Box::new(Some(empty)),
    };
    let redrawn = run(method, redraw, drawing.clone()).unwrap();
    drawing.shapes.reverse();
    assert_eq!(redrawn, drawing);
}

#[process_task]
fn echo_os(text: OsString) -> OsString {
    text
}

#[process_task]
fn parent_of(path: &Path) -> Option<PathBuf> {
    path.parent().map(Path::to_owned)
}

fn text_that_is_no_utf8_arrives_as_it_is(method: StartMethod) {
    let odd = OsString::from_vec(b"caf\xE9 \x00 \xFF".to_vec());
    assert_eq!(run(method, echo_os, odd.clone()).unwrap(), odd);
    let path = Path::new(OsStr::from_bytes(b"/tmp/\xFF\xFE/file"));
    match run(method, parent_of, path) {
        Ok(parent) => assert_eq!(parent.unwrap().as_os_str().as_bytes(), b"/tmp/\xFF\xFE"),
        // serde has no way to write such a path; then it says so, and nothing else arrives in its place.
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::CannotEncode { .. }), "{error}");
            assert!(error.to_string().contains("UTF-8"), "{error}");
        }
    }
}

#[process_task]
fn nothing() {}

#[process_task]
fn nothing_much((): (), empty: &str, none: Option<u8>) -> (String, Option<u8>, [u64; 0], Vec<()>) {
    (empty.to_owned(), none, [], vec![(); 3])
}

fn nothing_at_all_can_be_sent_and_returned(method: StartMethod) {
    let () = run(method, nothing, ()).unwrap();
    let empty = run(method, nothing_much, ((), "", None)).unwrap();
    assert_eq!(empty, (String::new(), None, [], vec![(); 3]));
}

#[process_task]
fn parse(text: &str) -> Result<u16, String> {
    text.parse().map_err(|error: std::num::ParseIntError| error.to_string())
}

fn a_task_that_returns_a_result_gives_two(method: StartMethod) {
    fn doubled(method: StartMethod, text: &str) -> Result<u16, Box<dyn std::error::Error>> {
        Ok(ProcessBuilder::new().start_method(method).spawn(parse, text)?.join()?? * 2)
    }
    assert_eq!(doubled(method, "21").unwrap(), 42);
    assert_eq!(doubled(method, "no").unwrap_err().to_string(), "invalid digit found in string");
}

#[process_task]
#[expect(clippy::too_many_arguments, reason = "as many as there may be")]
fn in_order(a: u8, b: u16, c: u32, d: u64, e: i8, f: i16, g: i32, h: i64, i: &str, j: char, k: bool, l: ()) -> String {
    format!("{a} {b} {c} {d} {e} {f} {g} {h} {i} {j} {k} {l:?}")
}

fn twelve_arguments_arrive_in_their_order(method: StartMethod) {
    let text = run(method, in_order, (1, 2, 3, 4, -5, -6, -7, -8, "9", 'j', false, ())).unwrap();
    assert_eq!(text, "1 2 3 4 -5 -6 -7 -8 9 j false ()");
    assert_eq!(in_order.spawn(1, 2, 3, 4, -5, -6, -7, -8, "9", 'j', false, ()).join().unwrap(), text);
}

#[process_task]
fn successors(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|byte| byte.wrapping_add(1)).collect()
}

#[process_task]
fn echo_words(words: Vec<String>) -> Vec<String> {
    words
}

fn payloads_of_every_size_around_the_rings_arrive_whole(method: StartMethod) {
    for power in 0..=20 {
        for size in [(1 << power) - 1, 1 << power, (1 << power) + 1] {
            let bytes: Vec<u8> = (0..size).map(|at: usize| at.to_le_bytes()[0] ^ at.to_le_bytes()[1]).collect();
            let expected: Vec<u8> = bytes.iter().map(|byte| byte.wrapping_add(1)).collect();
            assert!(run(method, successors, &bytes).unwrap() == expected, "{size} bytes");
        }
    }
    let words: Vec<String> = (0..100_000).map(|at| format!("word {at}")).collect();
    assert!(run(method, echo_words, words.clone()).unwrap() == words);
}

fn a_quarter_of_a_gibibyte_travels_both_ways(method: StartMethod) {
    let size = 256 << 20;
    let mut bytes = vec![0x5A_u8; size];
    bytes[size / 2] = 1;
    let back = run(method, invert_ends, bytes.clone()).unwrap();
    bytes[0] = 0xA5;
    bytes[size - 1] = 0xA5;
    assert!(back == bytes, "{} bytes came back changed", back.len());
}

#[derive(Debug, Serialize, Deserialize)]
struct Chain(Option<Box<Chain>>);

#[process_task]
fn deep(length: usize) -> Chain {
    let mut chain = Chain(None);
    for _ in 0..length {
        chain = Chain(Some(Box::new(chain)));
    }
    chain
}

fn a_value_far_too_deep_for_the_stack_costs_its_own_call(method: StartMethod) {
    assert!(run(method, deep, 10).unwrap().0.is_some());
    let process = ProcessBuilder::new().start_method(method).stderr(process_task::Stdio::null()).spawn(deep, 5_000_000);
    let error = process.unwrap().join().unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::StackOverflow, "{error}");
}
