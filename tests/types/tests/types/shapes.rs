//! Shapes of types that are hard to carry without names.
//!
//! Runs in: the test process; the tasks in workers. Never: takes another value for an acceptable end: a value arrives, or it is
//! refused where it is sent.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use process_task::channel::{Queue, QueueReceiver, QueueSender};
use process_task::{Shared, StartMethod, process_task};
use process_task_types::{arrives, pool, refused};
use serde::ser::{SerializeMap as _, SerializeSeq as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

under_every_start_method! { within 300 seconds;
    generic_enums_arrive,
    numbers_as_names_are_names,
    a_variant_without_names_after_others_arrives,
    flatten_in_a_variant_arrives,
    untagged_in_flatten_arrives,
    tags_in_tags_arrive,
    empty_types_arrive,
    sequences_of_unknown_length_arrive,
    text_for_people_and_numbers_for_others_arrive,
    maps_with_any_keys_next_to_flatten_arrive,
    untagged_keys_arrive,
    raw_json_in_a_struct_arrives,
    unordered_maps_and_sets_arrive,
    borrowed_parts_of_named_values_are_lent,
    handles_go_beside_named_values,
    errors_that_need_names_arrive,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Generic<A, B = ()> {
    None,
    Left(A),
    Right { right: B },
    Both(A, Box<Generic<B, A>>),
}

fn generic_enums_arrive(method: StartMethod) {
    let pool = pool(method);
    let swapped = Box::new(Generic::Both(json!({"a": null}), Box::new(Generic::Right { right: json!(0.5) })));
    let both = Generic::Both(1, swapped);
    arrives!(&pool, Generic<u8, Value>, [Generic::None, Generic::Left(7), both, Generic::Right { right: json!([]) }]);
    arrives!(&pool, Generic<Option<u8>>, [Generic::None, Generic::Left(None), Generic::Right { right: () }]);
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Swapped {
    #[serde(rename = "2")]
    Zero(u8),
    #[serde(skip)]
    Gap,
    #[serde(rename = "0")]
    One(u8),
    #[serde(rename = "1")]
    Two(u8),
    #[serde(rename = "Zero")]
    Three(u8),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Numbered {
    #[serde(rename = "1")]
    first: u8,
    #[serde(rename = "0")]
    second: u8,
    #[serde(flatten)]
    rest: BTreeMap<String, Swapped>,
}

fn numbers_as_names_are_names(method: StartMethod) {
    let pool = pool(method);
    let all = [Swapped::Two(2), Swapped::Zero(0), Swapped::Three(3), Swapped::One(1)];
    arrives!(&pool, Swapped, all.clone());
    let rest = ["2", "first", ""].map(str::to_owned).into_iter().zip(all).collect();
    arrives!(&pool, Numbered, [Numbered { first: 1, second: 0, rest }]);
    let refused = refused!(&pool, Swapped, Swapped::Gap);
    assert!(refused.contains("Gap"), "{refused}");
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum LastBare {
    Named(u8),
    Unit,
    #[serde(untagged)]
    Bare(String),
    #[serde(untagged)]
    Pair(u8, Option<u8>),
}

fn a_variant_without_names_after_others_arrives(method: StartMethod) {
    let values = [LastBare::Unit, LastBare::Named(0), LastBare::Pair(1, None), LastBare::Bare("ß".to_owned())];
    arrives!(&pool(method), LastBare, values);
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Page {
    offset: u64,
    size: Option<u8>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Request {
    Ping,
    List {
        folder: String,
        #[serde(flatten)]
        page: Page,
        #[serde(flatten)]
        more: More,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct More {
    deep: i8,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

fn flatten_in_a_variant_arrives(method: StartMethod) {
    let list = |size, rest: Value| Request::List {
        folder: "ß".to_owned(),
        page: Page { offset: u64::MAX, size },
        more: More { deep: -1, rest: rest.as_object().cloned().unwrap() },
    };
    arrives!(
        &pool(method),
        Request,
        [Request::Ping, list(None, json!({})), list(Some(0), json!({"a": [1, {"b": 0.5}]}))]
    );
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Form {
    File { path: String },
    Bytes { bytes: Vec<u8>, name: Option<char> },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Upload {
    id: u8,
    #[serde(flatten)]
    form: Form,
    after: u8,
}

fn untagged_in_flatten_arrives(method: StartMethod) {
    let forms = [Form::File { path: String::new() }, Form::Bytes { bytes: vec![255, 0], name: Some('ß') }];
    arrives!(&pool(method), Upload, forms.map(|form| Upload { id: 1, form, after: 2 }));
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outer")]
enum Outer {
    Inner(Inner),
    Page(Page),
    Unit,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "inner", content = "content")]
enum Inner {
    Unit,
    Empty {},
    Pair(u8, Box<Outer>),
    One(Option<Box<Outer>>),
}

fn tags_in_tags_arrive(method: StartMethod) {
    let pair = Outer::Inner(Inner::Pair(1, Box::new(Outer::Page(Page { offset: 0, size: Some(7) }))));
    let one = Outer::Inner(Inner::One(Some(Box::new(pair.clone()))));
    let others = [Inner::Unit, Inner::Empty {}, Inner::One(None)].map(Outer::Inner);
    arrives!(&pool(method), Outer, [&[Outer::Unit][..], &others, &[pair, one]].concat());
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Unit;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct NoFields {}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Empties {
    A {},
    B(),
    C(Unit, NoFields, ()),
    #[serde(rename = "")]
    D(Vec<Unit>, [NoFields; 2]),
}

fn empty_types_arrive(method: StartMethod) {
    let lists = Empties::D(vec![Unit; 3], [NoFields {}, NoFields {}]);
    arrives!(&pool(method), Empties, [Empties::B(), Empties::C(Unit, NoFields {}, ()), lists, Empties::A {}]);
}

/// Writes its elements without saying how many there are.
#[derive(Clone, Debug, PartialEq)]
struct Lazy(Vec<(u8, Option<char>)>);

impl Serialize for Lazy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(None)?;
        self.0.iter().try_for_each(|element| seq.serialize_element(element))?;
        seq.end()
    }
}

impl<'de> Deserialize<'de> for Lazy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Deserialize::deserialize(deserializer).map(Self)
    }
}

/// Writes its entries without saying how many there are.
#[derive(Clone, Debug, PartialEq)]
struct LazyMap(BTreeMap<(u8, u8), f32>);

impl Serialize for LazyMap {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        self.0.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for LazyMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Deserialize::deserialize(deserializer).map(Self)
    }
}

fn sequences_of_unknown_length_arrive(method: StartMethod) {
    let pool = pool(method);
    arrives!(&pool, Lazy, [Lazy(vec![]), Lazy(vec![(1, None), (2, Some('ß'))])]);
    arrives!(&pool, LazyMap, [LazyMap(BTreeMap::new()), LazyMap([((1, 2), -0.5)].into())]);
}

/// A text for people, and a number for others, as many crates have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Id(u32);

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if to.is_human_readable() { to.collect_str(&format_args!("#{}", self.0)) } else { to.serialize_u32(self.0) }
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        if !from.is_human_readable() {
            return u32::deserialize(from).map(Self);
        }
        let text = Cow::<'_, str>::deserialize(from)?;
        text.trim_start_matches('#').parse().map(Self).map_err(serde::de::Error::custom)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Ids {
    by_id: BTreeMap<Id, Option<Id>>,
    #[serde(flatten)]
    rest: BTreeMap<String, Id>,
}

fn text_for_people_and_numbers_for_others_arrive(method: StartMethod) {
    let pool = pool(method);
    arrives!(&pool, Id, [Id(0), Id(u32::MAX)]);
    let by_id: BTreeMap<_, _> = [(Id(1), None), (Id(2), Some(Id(3)))].into();
    arrives!(&pool, Ids, [Ids { by_id, rest: [("a".to_owned(), Id(7))].into() }]);
    arrives!(&pool, Generic<Id, Value>, [Generic::Left(Id(1)), Generic::Right { right: json!("#2") }, Generic::Left(Id(3))]);
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Mixed {
    pairs: BTreeMap<(u8, Option<char>), BTreeMap<bool, i64>>,
    by_variant: HashMap<Key, BTreeSet<Key>>,
    #[serde(flatten)]
    by_number: BTreeMap<u32, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
enum Key {
    A,
    B(u8),
    C { c: String },
}

fn maps_with_any_keys_next_to_flatten_arrive(method: StartMethod) {
    let pairs = [((0, None), BTreeMap::new()), ((1, Some('ß')), [(true, i64::MIN)].into())];
    let by_variant = [(Key::A, [Key::B(1), Key::A].into()), (Key::C { c: "ß".to_owned() }, BTreeSet::new())];
    let full = Mixed { pairs: pairs.into(), by_variant: by_variant.into(), by_number: [(7, String::new())].into() };
    let empty = Mixed { pairs: BTreeMap::new(), by_variant: HashMap::new(), by_number: BTreeMap::new() };
    arrives!(&pool(method), Mixed, [empty, full]);
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(i64),
    Text(String),
}

fn untagged_keys_arrive(method: StartMethod) {
    use NumberOrText::{Number, Text};
    let map: BTreeMap<_, _> = [(Number(-1), Text("1".to_owned())), (Text("1".to_owned()), Number(1))].into();
    arrives!(&pool(method), BTreeMap<NumberOrText, NumberOrText>, [BTreeMap::new(), map]);
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Raw {
    before: u8,
    maybe: Option<Box<RawValue>>,
    after: Vec<Box<RawValue>>,
}

impl PartialEq for Raw {
    fn eq(&self, other: &Self) -> bool {
        format!("{self:?}") == format!("{other:?}")
    }
}

fn raw_json_in_a_struct_arrives(method: StartMethod) {
    let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
    let full = Raw { before: 3, maybe: Some(raw("{ \"a\":1e400 }")), after: vec![raw("\"ß\""), raw("[ ]")] };
    arrives!(&pool(method), Raw, [Raw { before: 1, maybe: None, after: vec![] }, full]);
}

fn unordered_maps_and_sets_arrive(method: StartMethod) {
    let pool = pool(method);
    for round in 0..3 {
        let map: HashMap<String, Value> = (0..50).map(|at| (format!("{at}"), json!({"at": at * round}))).collect();
        arrives!(&pool, HashMap<String, Value>, [map]);
        let set: HashSet<NumberOrText> = (0..50)
            .map(|at| if at % 2 == 0 { NumberOrText::Number(at) } else { NumberOrText::Text(format!("{at}")) })
            .collect();
        arrives!(&pool, HashSet<NumberOrText>, [set]);
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<u32>,
    text: &'a str,
    #[serde(borrow)]
    cow: Cow<'a, str>,
    maybe: Option<&'a str>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Word<'a> {
    Number(i64),
    Text(&'a str),
}

#[process_task]
fn describe(line: Line<'_>, lines: &[Line<'_>], words: Vec<Word<'_>>) -> String {
    format!("{line:?} {lines:?} {words:?} {}", matches!(line.cow, Cow::Borrowed(_)))
}

fn borrowed_parts_of_named_values_are_lent(method: StartMethod) {
    let pool = pool(method);
    let (text, words) = ("größer".to_owned(), [Word::Number(1), Word::Text("ß")]);
    for number in [Some(1), None, Some(2)] {
        let line = Line { number, text: &text, cow: Cow::Borrowed(&text[..2]), maybe: number.map(|_| "") };
        let lines = [line.clone(), Line { number: None, ..line.clone() }];
        let expected = format!("{line:?} {lines:?} {words:?} {}", number.is_some());
        let described = pool.call(describe, (line, &lines, words.to_vec())).unwrap();
        // A cow may own its text, where its type asks what comes next.
        assert_eq!(described.rsplit_once(' ').unwrap().0, expected.rsplit_once(' ').unwrap().0);
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Job {
    json: Value,
    numbers: Shared<[u64]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<u8>,
    answer: QueueSender<Job>,
    #[serde(flatten)]
    rest: BTreeMap<String, Shared<[u64]>>,
}

#[process_task]
fn answer(jobs: QueueReceiver<Job>, mut first: Job) -> Job {
    for job in &jobs {
        let back = job.answer.clone();
        back.send(Job { json: json!([job.json, job.numbers[0]]), ..job }).map_err(|error| error.to_string()).unwrap();
    }
    first.json = json!({"was": first.json, "sum": first.rest.values().map(|numbers| numbers[0]).sum::<u64>()});
    first
}

fn handles_go_beside_named_values(method: StartMethod) {
    let pool = pool(method);
    let (to, jobs) = Queue::unbounded().unwrap().split();
    let (answer_to, answers) = Queue::unbounded().unwrap().split();
    let job = |at: u64| {
        let [numbers, one, two] = [at, at + 1, at + 2].map(|at| Shared::<[u64]>::from_slice(&[at]).unwrap());
        let rest = [("one".to_owned(), one), ("two".to_owned(), two)].into();
        Job { json: json!(at), numbers, missing: None, answer: answer_to.clone(), rest }
    };
    let running = pool.submit(answer, (jobs, job(100)));
    for at in 0..20 {
        to.send(Job { missing: (at % 3 == 0).then_some(1), ..job(at) }).unwrap();
        let back = answers.recv().unwrap();
        assert_eq!((back.json, back.numbers[0]), (json!([at, at]), at));
        assert_eq!(back.rest.values().map(|numbers| numbers[0]).collect::<Vec<_>>(), [at + 1, at + 2]);
    }
    drop(to);
    let first = running.join().unwrap();
    assert_eq!((first.json, first.numbers[0]), (json!({"was": 100, "sum": 203}), 100));
}

#[process_task]
fn fail(how: u8) -> Result<u8, NumberOrText> {
    match how {
        0 => Ok(0),
        1 => Err(NumberOrText::Number(-1)),
        _ => Err(NumberOrText::Text("ß".to_owned())),
    }
}

fn errors_that_need_names_arrive(method: StartMethod) {
    let pool = pool(method);
    let outcomes = [Ok(0), Err(NumberOrText::Number(-1)), Err(NumberOrText::Text("ß".to_owned())), Ok(0)];
    for (how, outcome) in [0, 1, 2, 0].into_iter().zip(outcomes) {
        assert_eq!(pool.call(fail, how).unwrap(), outcome);
    }
}
