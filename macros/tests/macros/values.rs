//! What `#[process_task]` promises about values: which types cross, in which format, by value and lent, and what is
//! dropped when.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{CStr, OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::task_call;
use process_task::__private::{CodecError, StubError};
use process_task::{Task, process_task};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

fn round_trip<T: Task>(task: T, args: T::Args<'_>) -> T::Output {
    task_call::call(&task, args).expect("the call works")
}

type Bytes = Vec<u8>;

#[process_task]
fn reverse(mut bytes: Bytes) -> Bytes {
    bytes.reverse();
    bytes
}

#[process_task]
fn grid(cells: [[f64; 3]; 2], corners: Vec<[u16; 2]>) -> (f64, Box<[u16]>) {
    (cells.iter().flatten().sum(), corners.iter().map(|corner| corner[0]).collect())
}

#[test]
fn an_alias_takes_the_format_of_what_it_stands_for() {
    assert_eq!(round_trip(reverse, vec![1, 2, 3]), [3, 2, 1]);
    let bytes = task_call::bytes(|writer| <reverse_type as Task>::encode(vec![7; 3], writer)).unwrap();
    assert_eq!(bytes.len(), 16 + 3, "a count, up to the alignment, and one copy");
}

/// The type behind [`reverse`], which no program should name.
#[expect(non_camel_case_types, reason = "it looks like a task")]
type reverse_type = __task_reverse;

#[test]
fn arrays_of_arrays_of_numbers_are_plain() {
    let (sum, firsts) = round_trip(grid, ([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], vec![[7, 0], [8, 0]]));
    assert!((sum - 21.0).abs() < f64::EPSILON);
    assert_eq!(*firsts, [7, 8]);
}

#[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
enum Shape {
    Unit,
    Tuple(u8, String),
    Struct { name: String, tags: BTreeMap<String, Option<f32>> },
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Names<'a> {
    first: &'a str,
    #[serde(borrow)]
    rest: Vec<Cow<'a, str>>,
}

#[process_task]
#[expect(clippy::too_many_arguments, reason = "every kind of borrow is there")]
fn borrows(
    odd: u8,
    text: &str,
    bytes: &[u8],
    odder: bool,
    floats: &[f64],
    wide: &[i128],
    path: &Path,
    os: &OsStr,
) -> String {
    assert_eq!(floats.as_ptr().align_offset(align_of::<f64>()), 0);
    assert_eq!(wide.as_ptr().align_offset(align_of::<i128>()), 0);
    format!("{odd} {text} {bytes:?} {odder} {floats:?} {wide:?} {} {}", path.display(), os.display())
}

#[test]
fn lent_numbers_are_aligned_wherever_they_stand() {
    for len in 0..20 {
        let text = "x".repeat(len);
        let os = OsStr::from_bytes(b"\xff\xfe");
        let arguments = (1, &*text, &[1, 2][..], true, &[f64::MAX, -0.0][..], &[][..], Path::new("/"), os);
        assert_eq!(
            round_trip(borrows, arguments),
            borrows(1, &text, &[1, 2], true, &[f64::MAX, -0.0], &[], Path::new("/"), os)
        );
    }
}

#[process_task]
#[expect(clippy::ptr_arg, reason = "borrowed owners are what is tested")]
fn targets(shapes: &[Shape], shape: &Shape, strings: &[&str], vec: &Vec<u8>, string: &String, flags: &[bool]) -> usize {
    shapes.len() + usize::from(*shape == Shape::Unit) + strings.concat().len() + vec.len() + string.len() + flags.len()
}

#[test]
fn a_reference_to_anything_that_travels_is_lent() {
    let shape = Shape::Struct { name: "s".to_owned(), tags: BTreeMap::from([("t".to_owned(), Some(0.5))]) };
    let (vec, string) = (vec![1, 2, 3], "four".to_owned());
    let count = round_trip(targets, (&[Shape::Unit, shape], &Shape::Unit, &["five", "6"], &vec, &string, &[true]));
    assert_eq!(count, 2 + 1 + 5 + 3 + 4 + 1);
}

#[process_task]
fn lifetimes<'a, 'b>(x: &'a str, y: &'b str, elided: Option<&str>, pair: (&'a [u8], u32), names: Names<'_>) -> String {
    format!("{x}{y}{elided:?}{pair:?}{names:?}")
}

#[process_task]
fn one_lifetime<'a>(x: &'a str, y: &'a Names<'a>) -> bool {
    x == y.first
}

#[test]
fn lifetimes_may_be_written_elided_or_inside_a_type() {
    let names = || Names { first: "first", rest: vec!["rest".into()] };
    let owned = String::from("owned");
    let sent = round_trip(lifetimes, (&owned, "y", Some("elided"), (b"bytes", 3), names()));
    assert_eq!(sent, lifetimes(&owned, "y", Some("elided"), (b"bytes", 3), names()));
    assert!(round_trip(one_lifetime, ("first", &names())));
    // References of different lives, and results that outlive them all.
    let length = {
        let inner = String::from("inner");
        round_trip(borrowed_length, &inner)
    };
    assert_eq!(length, 5);
    let function: fn(&str) -> usize = *borrowed_length;
    assert_eq!(["a", "bb"].map(function), [1, 2]);
}

type StaticText = Cow<'static, str>;

#[process_task]
fn owned_inside(
    text: Cow<'static, str>,
    bytes: Option<Cow<'static, [u8]>>,
    more: Cow<'_, [u16]>,
    fail: bool,
) -> Result<(Cow<'static, str>, usize), Cow<'static, str>> {
    let sum = bytes.map_or(0, |bytes| bytes.len()) + more.len();
    if fail { Err(text) } else { Ok((text, sum)) }
}

#[process_task]
fn aliased(text: StaticText) -> StaticText {
    text
}

#[test]
fn cow_with_static_lifetime_arrives_owned() {
    let local = vec![1_u16, 2];
    let arguments = |fail| ("text".into(), Some(Cow::Borrowed(&b"bytes"[..])), Cow::Borrowed(&*local), fail);
    assert_eq!(round_trip(owned_inside, arguments(false)), Ok(("text".into(), 7)));
    let refused = round_trip(owned_inside, arguments(true)).unwrap_err();
    assert!(matches!(refused, Cow::Owned(text) if text == "text"));
    assert!(matches!(round_trip(aliased, "text".into()), Cow::Owned(text) if text == "text"));
}

#[process_task]
fn c_length(text: &CStr, more: Option<&str>) -> usize {
    text.to_bytes().len() + more.map_or(0, str::len)
}

#[test]
fn c_string_is_lent_and_a_broken_one_is_an_error() {
    assert_eq!(round_trip(c_length, (c"", None)), 0);
    assert_eq!(round_trip(c_length, (c"five.", Some("two"))), 8);
    let mut bytes = task_call::bytes(|writer| <__task_c_length as Task>::encode((c"five.", None), writer)).unwrap();
    let middle = bytes.len() - 4;
    bytes[middle] = 0;
    let broken = task_call::Aligned::new(&bytes);
    let refused = task_call::bytes(|writer| c_length.registration().run(broken.bytes(), writer)).unwrap_err();
    assert!(matches!(refused, StubError::Decode(_)), "{refused:?}");
}

#[process_task]
fn borrowed_length(text: &str) -> usize {
    text.len()
}

#[process_task]
fn results(fail: bool) -> Result<Vec<f64>, String> {
    if fail { Err("failed".to_owned()) } else { Ok(vec![f64::NAN, 1.0]) }
}

#[process_task]
fn nested(path: Option<Result<PathBuf, Option<char>>>, os: OsString) -> (Shape, usize) {
    (Shape::Tuple(u8::from(path.is_some()), format!("{path:?}")), os.len())
}

#[test]
fn options_and_results_cross() {
    assert_eq!(round_trip(results, true), Err("failed".to_owned()));
    assert!(round_trip(results, false).unwrap()[0].is_nan());
    let expected = (Shape::Tuple(1, "Some(Err(Some('x')))".to_owned()), 2);
    assert_eq!(round_trip(nested, (Some(Err(Some('x'))), OsStr::from_bytes(b"a\xff").to_owned())), expected);
}

thread_local! {
    static EVENTS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Tells when it is encoded, decoded and dropped.
struct Noisy(String);

impl Serialize for Noisy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 == "refuses" {
            return Err(serde::ser::Error::custom("it refuses to be written"));
        }
        EVENTS.with_borrow_mut(|events| events.push(format!("encode {}", self.0)));
        self.0.serialize(serializer)
    }
}

impl<'a> Deserialize<'a> for Noisy {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        if name == "unreadable" {
            return Err(serde::de::Error::custom("it refuses to be read"));
        }
        EVENTS.with_borrow_mut(|events| events.push(format!("decode {name}")));
        Ok(Self(name))
    }
}

impl Drop for Noisy {
    fn drop(&mut self) {
        EVENTS.with_borrow_mut(|events| events.push(format!("drop {}", self.0)));
    }
}

#[process_task]
fn noisy(lent: &Noisy, given: Noisy) -> Noisy {
    EVENTS.with_borrow_mut(|events| events.push(format!("call {} {}", lent.0, given.0)));
    Noisy("result".to_owned())
}

#[test]
fn result_is_encoded_before_what_outlives_the_call_is_dropped() {
    let lent = Noisy("lent".to_owned());
    // The first value of a type is also read where it is sent.
    drop(task_call::call(&noisy, (&lent, Noisy("first".to_owned()))).unwrap());
    EVENTS.take();
    let result = task_call::call(&noisy, (&lent, Noisy("given".to_owned()))).unwrap();
    let events = EVENTS.take();
    let expected = [
        "encode lent",
        "encode given",
        "drop given",
        "decode lent",
        "decode given",
        "call lent given",
        "drop given",
        "encode result",
        "drop result",
        "drop lent",
        "decode result",
    ];
    assert_eq!(events, expected);
    assert_eq!(result.0, "result");
}

#[process_task]
fn returns_noisy(name: &str) -> Noisy {
    Noisy(name.to_owned())
}

#[process_task]
fn takes_noisy(_noisy: Noisy) {
    panic!("it is never called");
}

#[test]
fn an_error_keeps_the_words_of_the_type_that_made_it() {
    let refuses = task_call::call(&returns_noisy, "refuses").err();
    assert_eq!(refuses, Some(StubError::Encode(CodecError::new("it refuses to be written"))));
    let unreadable = task_call::call(&takes_noisy, Noisy("unreadable".to_owned())).err();
    assert_eq!(unreadable, Some(StubError::Decode(CodecError::new("it refuses to be read"))));
}

#[test]
fn a_stub_refuses_arguments_that_are_not_its_own() {
    let run = |bytes: &[u8]| {
        let payload = task_call::Aligned::new(bytes);
        task_call::bytes(|writer| reverse.registration().run(payload.bytes(), writer))
    };
    assert!(run(&[]).is_err());
    assert!(run(&[0xff; 64]).is_err());
    assert!(run(&[0; 17]).is_err(), "a byte too many");
    assert!(run(&[0; 16]).is_ok(), "an empty vector");
}
