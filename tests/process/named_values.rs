//! Values whose types need names, or ask what comes next, arrive as they were sent, wherever they stand; or the sender is told.
//!
//! Runs in: the test process; the tasks in children. Never: takes another value for an answer.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt::Debug;
use std::net::IpAddr;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use process_task::channel::{Queue, QueueReceiver, pipe};
use process_task::{Direction, ErrorKind, Pool, ProcessBuilder, StartMethod, Task, check, process_task};
use serde::{Deserialize, Serialize};

under_every_start_method! { within 180 seconds;
    variants_behind_skipped_ones_arrive,
    fields_of_one_direction_arrive_as_json_has_them,
    fields_left_out_for_their_value_arrive,
    flattened_and_tagged_values_arrive,
    json_arrives,
    toml_arrives,
    decimals_arrive,
    paths_that_are_no_utf8_arrive_in_anything,
    borrowed_values_with_names_arrive,
    value_that_would_not_arrive_is_its_senders_error,
    first_values_without_a_part_do_not_hide_it,
}

fn run<T: Task>(method: StartMethod, task: T, args: T::Args<'_>) -> process_task::Result<T::Output> {
    ProcessBuilder::new().start_method(method).spawn(task, args)?.join()
}

/// Tasks for one type, and a function that sends its values everywhere.
macro_rules! tasks_for {
    ($($module:ident: $T:ty;)*) => { $(
        mod $module {
            use super::*;

            // Not every type has values of every sort.
            const _: fn(StartMethod, &[$T]) = arrive;
            const _: fn(StartMethod, &[$T], &[$T]) = arrive_as;
            const _: fn(StartMethod, &$T) -> String = refused;

            #[process_task]
            fn alone(value: $T) -> $T {
                value
            }

            #[process_task]
            fn held(values: Vec<$T>, pair: (u8, Option<$T>)) -> Result<(Vec<$T>, BTreeMap<u8, $T>), String> {
                Ok((values, pair.1.map(|value| (pair.0, value)).into_iter().collect()))
            }

            #[process_task]
            fn lent(value: &$T, values: &[$T]) -> String {
                format!("{value:?} {values:?}")
            }

            #[process_task]
            fn got(queue: QueueReceiver<$T>) -> Vec<$T> {
                queue.iter().collect()
            }

            /// Sends each value alone and in others, as argument, result and item, through queues and pipes.
            #[track_caller]
            pub(super) fn arrive(method: StartMethod, values: &[$T]) {
                arrive_as(method, values, values);
            }

            #[track_caller]
            pub(super) fn arrive_as(method: StartMethod, values: &[$T], expected: &[$T]) {
                let text = |value: &dyn Debug| format!("{value:?}");
                for (value, expected) in values.iter().zip(expected) {
                    assert_eq!(text(&run(method, alone, value.clone()).unwrap()), text(expected));
                    check(value).unwrap();
                }
                let (list, map) = run(method, held, (values.to_vec(), (7, values.last().cloned()))).unwrap().unwrap();
                assert_eq!((text(&list), text(&map.get(&7))), (text(&expected), text(&expected.last())));
                let said = run(method, lent, (&values[0], values)).unwrap();
                assert_eq!(said, format!("{:?} {expected:?}", expected[0]));
                let pool = Pool::builder().workers(1).start_method(method).build().unwrap();
                assert_eq!(text(&pool.map(alone, values.to_vec()).unwrap()), text(&expected));
                drop(pool);
                let (producer, consumer) = Queue::unbounded().unwrap().split();
                for value in values {
                    producer.send(value.clone()).unwrap();
                }
                drop(producer);
                assert_eq!(text(&run(method, got, consumer).unwrap()), text(&expected));
                let (one, other) = pipe::<$T, Option<Vec<$T>>>().unwrap();
                one.send(values[0].clone()).unwrap();
                other.send(Some(values.to_vec())).unwrap();
                assert_eq!((text(&other.recv().unwrap()), text(&one.recv().unwrap())), (text(&expected[0]), text(&Some(expected))));
            }

            /// What the sender is told, wherever it sends the value. Nothing is read.
            pub(super) fn refused(method: StartMethod, value: &$T) -> String {
                let error = run(method, alone, value.clone()).unwrap_err();
                let ErrorKind::CannotEncode { direction: Direction::Arguments, reason, .. } = error.kind() else {
                    panic!("{error}")
                };
                let error = run(method, held, (vec![value.clone()], (7, None))).unwrap_err();
                assert!(matches!(error.kind(), ErrorKind::CannotEncode { .. }), "{error}");
                let queue = Queue::unbounded().unwrap();
                assert!(queue.send(value.clone()).is_err() && queue.is_empty());
                let (one, _other) = pipe::<$T, ()>().unwrap();
                assert!(one.send(value.clone()).is_err());
                let error = check(value).unwrap_err().to_string();
                assert!(error.contains(reason.as_str()), "{error}: {reason}");
                reason.clone()
            }
        }
    )* };
}

tasks_for! {
    skips: Skips;
    half: Half;
    fields_in: In;
    fields_out: Out;
    crossed: Crossed;
    sparse: Sparse;
    flat: Flat;
    tagged: Tagged;
    adjacent: Adjacent;
    loose: Loose;
    json: Json;
    tables: Tables;
    decimals: Decimals;
    paths: Paths;
    option_path: Option<PathBuf>;
    result_path: Result<PathBuf, u8>;
    late: Late;
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Skips {
    A,
    #[serde(skip)]
    B,
    C,
    D,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
enum Half {
    A,
    #[serde(skip_deserializing)]
    B,
    C(u8),
}

fn variants_behind_skipped_ones_arrive(method: StartMethod) {
    skips::arrive(method, &[Skips::A, Skips::C, Skips::D]);
    skips::arrive(method, &[Skips::D]);
    half::arrive(method, &[Half::A, Half::C(3)]);
    let error = run(method, return_skipped, ()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::CannotEncode { direction: Direction::Result, .. }), "{error}");
    assert_eq!(format!("{:?}", run(method, return_behind, ()).unwrap()), "[C, D]");
}

#[process_task]
fn return_skipped() -> Skips {
    Skips::B
}

#[process_task]
fn return_behind() -> [Skips; 2] {
    [Skips::C, Skips::D]
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct In {
    #[serde(skip_serializing, default)]
    #[expect(dead_code, reason = "`Debug` reads it")]
    password: u32,
    name: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Out {
    id: u32,
    #[serde(skip_deserializing)]
    balance: u32,
}

#[process_task]
fn both(one: In, other: Out) -> String {
    format!("{one:?} {other:?}")
}

fn fields_of_one_direction_arrive_as_json_has_them(method: StartMethod) {
    let (one, other) = (In { password: 1, name: 2 }, Out { id: 3, balance: 4 });
    let text = run(method, both, (one.clone(), other.clone())).unwrap();
    assert_eq!(text, "In { password: 0, name: 2 } Out { id: 3, balance: 0 }");
    fields_in::arrive_as(method, &[one], &[In { password: 0, name: 2 }]);
    fields_out::arrive_as(method, &[other], &[Out { id: 3, balance: 0 }]);
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Crossed {
    #[serde(skip_serializing)]
    #[expect(dead_code, reason = "`Debug` reads it")]
    a: u32,
    #[serde(skip_deserializing)]
    b: u32,
    c: u32,
}

fn value_that_would_not_arrive_is_its_senders_error(method: StartMethod) {
    let reason = crossed::refused(method, &Crossed { a: 1, b: 2, c: 3 });
    assert!(reason.contains("Crossed") && reason.contains("`b`") && reason.contains("#[serde(skip)]"), "{reason}");
    let reason = half::refused(method, &Half::B);
    assert!(reason.contains("Half") && reason.contains("`B`"), "{reason}");
    let reason = loose::refused(method, &Loose::List(vec![Loose::Unlike(3)]));
    assert!(reason.contains("Loose") && reason.contains("would be read as"), "{reason}");
    let pool = Pool::builder().workers(1).start_method(method).build().unwrap();
    let error = pool.map(crossed_name, &[Crossed { a: 0, b: 1, c: 2 }]).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::CannotEncode { .. }), "{error}");
}

#[process_task]
fn crossed_name(value: &Crossed) -> String {
    format!("{value:?}")
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Sparse {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    first: Option<u8>,
    #[serde(rename = "2nd", alias = "zweite")]
    second: u8,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    third: Vec<Sparse>,
}

fn fields_left_out_for_their_value_arrive(method: StartMethod) {
    let leaf = Sparse { first: None, second: 1, third: vec![] };
    let full = Sparse { first: Some(1), second: 2, third: vec![leaf.clone()] };
    sparse::arrive(method, &[full.clone(), leaf.clone(), Sparse { third: vec![full, leaf.clone()], ..leaf }]);
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Flat {
    id: u8,
    #[serde(flatten)]
    inner: Inner,
    #[serde(flatten)]
    more: BTreeMap<String, Loose>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Inner {
    kind: Tagged,
    bytes: [u8; 3],
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Tagged {
    Unit,
    Struct { address: IpAddr, list: Vec<Option<u8>> },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "t", content = "c")]
enum Adjacent {
    Unit,
    Newtype(u8),
    Tuple(u8, String),
    Struct { x: Option<u8> },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Loose {
    Nothing,
    Whole(i64),
    Half(f64),
    Text(String),
    List(Vec<Loose>),
    Map(BTreeMap<String, Loose>),
    Unlike(u8),
}

fn flattened_and_tagged_values_arrive(method: StartMethod) {
    let half = |text: &str| (text.to_owned(), Loose::Half(0.5));
    let list = Loose::List(vec![Loose::Nothing, Loose::Whole(-1), Loose::Text(String::new()), Loose::List(vec![])]);
    let address: IpAddr = "2001:db8::7".parse().unwrap();
    let kinds = [Tagged::Unit, Tagged::Struct { address, list: vec![None, Some(3)] }];
    loose::arrive(method, &[Loose::Nothing, list.clone(), Loose::Map([half("a")].into())]);
    tagged::arrive(method, &kinds);
    let more = BTreeMap::from([half("b"), ("list".to_owned(), list)]);
    let inner = |kind: &Tagged| Inner { kind: kind.clone(), bytes: [0, 1, 255] };
    let flat = |kind: &Tagged| Flat { id: 1, inner: inner(kind), more: BTreeMap::from([half("x")]) };
    flat::arrive(method, &[flat(&kinds[0]), Flat { more, ..flat(&kinds[0]) }, flat(&kinds[1])]);
    let adjacent = [
        Adjacent::Unit,
        Adjacent::Newtype(3),
        Adjacent::Tuple(1, "one".to_owned()),
        Adjacent::Struct { x: None },
        Adjacent::Struct { x: Some(1) },
    ];
    adjacent::arrive(method, &adjacent);
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Json {
    id: u64,
    value: serde_json::Value,
    number: Option<serde_json::Number>,
    map: serde_json::Map<String, serde_json::Value>,
}

fn json_arrives(method: StartMethod) {
    let value = serde_json::json!({
        "null": null, "list": [true, -1, 1.5, u64::MAX, i64::MIN, 1.0, "text"], "empty": {}, "deep": [[[{"x": []}]]],
    });
    let map = value.as_object().unwrap().clone();
    let none = Json { id: 1, value: serde_json::Value::Null, number: None, map: serde_json::Map::new() };
    json::arrive(method, &[none.clone(), Json { value, number: serde_json::Number::from_f64(-0.0), ..none }]);
    let text = serde_json::from_str(r#"{"a": 1e300, "b": 18446744073709551615, "c": -0.0}"#).unwrap();
    json::arrive(method, &[Json { id: 2, value: serde_json::json!(7), number: Some(3.into()), map: text }]);
    drop(map);
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Tables {
    value: toml::Value,
    table: toml::Table,
}

fn toml_arrives(method: StartMethod) {
    let text = "x = 1\ny = 1.5\nlist = ['a', 2, {b = true}]\n[t]\nat = 1979-05-27T07:32:00Z\nday = 1979-05-27\n";
    let table: toml::Table = toml::from_str(text).unwrap();
    tables::arrive(
        method,
        &[
            Tables { value: toml::Value::Integer(-3), table: toml::Table::new() },
            Tables { value: toml::Value::Table(table.clone()), table },
        ],
    );
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Decimals {
    price: rust_decimal::Decimal,
    other: Option<rust_decimal::Decimal>,
}

fn decimals_arrive(method: StartMethod) {
    let price = rust_decimal::Decimal::new(-12_345_600, 4);
    decimals::arrive(
        method,
        &[Decimals { price, other: None }, Decimals { price, other: Some(rust_decimal::Decimal::MAX) }],
    );
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Paths {
    path: PathBuf,
    boxed: Box<Path>,
    shared: Box<PathBuf>,
    list: Vec<PathBuf>,
    map: BTreeMap<PathBuf, Option<PathBuf>>,
    result: Result<(PathBuf, u8), PathBuf>,
}

fn paths_that_are_no_utf8_arrive_in_anything(method: StartMethod) {
    let odd = PathBuf::from(OsString::from_vec(b"a\xff".to_vec()));
    let in_all = |path: &Path| Paths {
        path: path.to_owned(),
        boxed: path.into(),
        shared: path.to_owned().into(),
        list: vec![path.to_owned(), PathBuf::from("a")],
        map: [(path.to_owned(), Some(path.to_owned())), ("b".into(), None)].into(),
        result: Ok((path.to_owned(), 1)),
    };
    paths::arrive(method, &[in_all(Path::new("plain")), in_all(&odd)]);
    let failed = Paths { result: Err(odd.clone()), ..in_all(&odd) };
    paths::arrive(method, &[failed]);
    option_path::arrive(method, &[None, Some(odd.clone()), Some("a".into())]);
    result_path::arrive(method, &[Ok(odd.clone()), Err(1)]);
    let path = Path::new(OsStr::from_bytes(b"/tmp/\xFF\xFE/file"));
    assert_eq!(run(method, parent_of, path).unwrap().unwrap().as_os_str().as_bytes(), b"/tmp/\xFF\xFE");
}

#[process_task]
fn parent_of(path: &Path) -> Option<PathBuf> {
    path.parent().map(Path::to_owned)
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Borrowed<'a> {
    #[serde(borrow)]
    text: &'a str,
    #[serde(borrow, flatten)]
    word: Word<'a>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Word<'a> {
    #[serde(skip)]
    Never,
    Kept(&'a str),
}

#[process_task]
fn words(one: Borrowed<'_>, more: &[Word<'_>], option: Option<&str>) -> String {
    format!("{one:?} {more:?} {option:?}")
}

fn borrowed_values_with_names_arrive(method: StartMethod) {
    let (text, long) = ("text".to_owned(), "long".repeat(10_000));
    for (text, option) in [(&text, None), (&long, Some(text.as_str()))] {
        let one = Borrowed { text, word: Word::Kept(text) };
        let more = [Word::Kept(text), Word::Kept("")];
        let said = run(method, words, (one.clone(), &more, option)).unwrap();
        assert_eq!(said, format!("{one:?} {more:?} {option:?}"));
    }
    assert!(run(method, words, (Borrowed { text: "", word: Word::Never }, &[], None)).is_err());
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Late {
    value: Option<serde_json::Value>,
    skips: Vec<Skips>,
    nested: Option<Box<Late>>,
}

fn first_values_without_a_part_do_not_hide_it(method: StartMethod) {
    let none = Late { value: None, skips: vec![], nested: None };
    let skips = Late { skips: vec![Skips::A, Skips::D], ..none.clone() };
    let some = Late { value: Some(serde_json::json!([1, null])), ..none.clone() };
    let nested = Late { nested: Some(Box::new(some.clone())), ..none.clone() };
    late::arrive(method, &[none, skips, nested, some]);
}
