//! Serde's attributes: each row of `docs/types.md` is a test here that sends values and compares what comes back.
//!
//! Runs in: the test process; the tasks in workers. Never: tries what serde itself cannot read back from JSON.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use process_task::StartMethod;
use process_task_types::{pool, refused, travels};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

under_every_start_method! { within 300 seconds;
    flattened_fields_arrive,
    flattened_maps_arrive,
    untagged_enums_arrive,
    internally_tagged_enums_arrive,
    adjacently_tagged_enums_arrive,
    fields_left_out_arrive_as_their_default,
    skipped_fields_arrive_as_their_default,
    skipped_variants_move_no_others,
    fields_of_one_direction_arrive_as_their_default,
    renamed_fields_and_variants_arrive,
    names_that_differ_by_direction_arrive,
    aliases_change_nothing,
    variants_for_all_others_arrive,
    double_options_arrive,
    values_written_by_hand_arrive,
    remote_types_arrive,
    converted_types_arrive,
    transparent_types_arrive,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Page {
    offset: u64,
    size: Option<u8>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Query {
    text: String,
    #[serde(flatten)]
    page: Page,
    #[serde(flatten)]
    maybe: Option<Order>,
    last: char,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    by: String,
    descending: bool,
}

fn flattened_fields_arrive(method: StartMethod) {
    let order = Order { by: "größe".to_owned(), descending: true };
    let query = Query { text: String::new(), page: Page { offset: 0, size: None }, maybe: None, last: 'a' };
    let page = Page { offset: u64::MAX, size: Some(0) };
    travels! { &pool(method);
        query: Query = [query.clone(), Query { maybe: Some(order), page, ..query }];
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Open {
    id: i128,
    by_place: BTreeMap<(u8, char), f32>,
    #[serde(flatten)]
    rest: HashMap<String, Vec<i64>>,
}

fn flattened_maps_arrive(method: StartMethod) {
    let rest = [("ß".to_owned(), vec![]), (String::new(), vec![i64::MIN])];
    travels! { &pool(method);
        open: Open = [
            Open { id: 0, by_place: BTreeMap::new(), rest: HashMap::new() },
            Open { id: i128::MIN, by_place: [((1, 'ß'), -0.0)].into(), rest: rest.into() },
        ];
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Bare {
    Nothing,
    Number(i64),
    Float(f64),
    Text(String),
    Pair(u8, bool),
    Named { place: u16, mark: Option<char> },
    List(Vec<Bare>),
    Map(BTreeMap<String, Bare>),
}

fn untagged_enums_arrive(method: StartMethod) {
    let named = Bare::Named { place: 0, mark: Some('ß') };
    let list = Bare::List(vec![Bare::Nothing, Bare::List(vec![]), named.clone(), Bare::Text("ß".to_owned())]);
    let map = Bare::Map([("a".to_owned(), Bare::Pair(255, true)), ("b".to_owned(), list.clone())].into());
    travels! { &pool(method);
        bare: Bare = [Bare::Number(i64::MIN), Bare::Nothing, Bare::Float(0.5), Bare::Text(String::new()), named, list, map];
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum Event {
    Opened,
    ResizedTo { width: u32, height: Option<u32> },
    Ordered(Order),
    Counted(BTreeMap<String, u8>),
}

fn internally_tagged_enums_arrive(method: StartMethod) {
    let order = Order { by: "ß".to_owned(), descending: false };
    travels! { &pool(method);
        event: Event = [
            Event::Opened,
            Event::ResizedTo { width: u32::MAX, height: None },
            Event::Ordered(order),
            Event::Counted([("ß".to_owned(), 255)].into()),
        ];
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "t", content = "c")]
enum Reply {
    Unit,
    Number(i128),
    Pair(f32, Option<()>),
    Named { list: Vec<u8> },
}

fn adjacently_tagged_enums_arrive(method: StartMethod) {
    travels! { &pool(method);
        reply: Reply = [Reply::Unit, Reply::Number(i128::MIN), Reply::Pair(-0.5, Some(())), Reply::Named { list: vec![0] }];
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Sparse {
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<u32>,
    between: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    list: Vec<u32>,
    #[serde(skip_serializing_if = "String::is_empty", default = "String::new")]
    last: String,
}

fn fields_left_out_arrive_as_their_default(method: StartMethod) {
    let full = Sparse { first: Some(1), between: 2, list: vec![3], last: "ß".to_owned() };
    travels! { &pool(method);
        sparse: Sparse = [
            full.clone(),
            Sparse::default(),
            Sparse { first: None, ..full.clone() },
            Sparse { list: vec![], ..full.clone() },
            Sparse { last: String::new(), ..full },
        ];
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Cached {
    #[serde(skip)]
    first: Option<u32>,
    kept: u32,
    #[serde(skip, default = "seven")]
    last: u32,
}

fn seven() -> u32 {
    7
}

fn skipped_fields_arrive_as_their_default(method: StartMethod) {
    travels! { &pool(method);
        cached: Cached = [Cached { first: Some(1), kept: 2, last: 3 }], |one, other| {
            one.kept == other.kept && [one, other].contains(&&Cached { first: None, kept: one.kept, last: 7 })
        };
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Gaps {
    #[serde(skip)]
    First,
    A,
    #[serde(skip)]
    Between,
    B(u32),
    C {
        number: u32,
    },
    D(u32),
    #[serde(skip_deserializing)]
    Last,
}

fn skipped_variants_move_no_others(method: StartMethod) {
    let pool = pool(method);
    for skipped in [Gaps::First, Gaps::Between, Gaps::Last] {
        let reason = refused!(&pool, Gaps, skipped.clone());
        assert!(reason.contains("Gaps") || reason.contains("cannot be serialized"), "{skipped:?}: {reason}");
    }
    travels! { &pool;
        gaps: Gaps = [Gaps::A, Gaps::B(1), Gaps::C { number: 2 }, Gaps::D(3)];
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct NotSent {
    #[serde(skip_serializing, default)]
    password: u32,
    name: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct NotRead {
    id: u32,
    #[serde(skip_deserializing)]
    balance: u32,
    name: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Crossed {
    #[serde(skip_serializing, default)]
    password: u32,
    #[serde(skip_deserializing)]
    balance: u32,
}

fn fields_of_one_direction_arrive_as_their_default(method: StartMethod) {
    let pool = pool(method);
    travels! { &pool;
        not_sent: NotSent = [NotSent { password: 1, name: 2 }], |one, other| {
            one.name == other.name && [one.password, other.password].contains(&0)
        };
        not_read: NotRead = [NotRead { id: 1, balance: 2, name: "n".to_owned() }], |one, other| {
            (one.id, &one.name) == (other.id, &other.name) && [one.balance, other.balance].contains(&0)
        };
    }
    let reason = refused!(&pool, Crossed, Crossed { password: 1, balance: 2 });
    assert!(reason.contains("`balance`"), "{reason}");
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING-KEBAB-CASE")]
struct Renamed {
    first_field: u8,
    #[serde(rename = "größe")]
    second_field: Numbered,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Numbered {
    #[serde(rename = "1")]
    Zero,
    #[serde(rename = "0")]
    One(u8),
    #[serde(rename = "")]
    Two { field: u8 },
}

fn renamed_fields_and_variants_arrive(method: StartMethod) {
    let values = [Numbered::Zero, Numbered::One(0), Numbered::Two { field: 1 }];
    travels! { &pool(method);
        renamed: Renamed = values.map(|second_field| Renamed { first_field: 7, second_field });
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct TwoNames {
    #[serde(rename(serialize = "out", deserialize = "in"))]
    one: u8,
    two: u8,
}

fn names_that_differ_by_direction_arrive(method: StartMethod) {
    #[process_task::process_task]
    fn echo(value: TwoNames) -> TwoNames {
        value
    }
    let value = TwoNames { one: 1, two: 2 };
    assert_eq!(pool(method).call(echo, value.clone()).unwrap(), value);
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Aliased {
    #[serde(alias = "b", alias = "old")]
    a: u8,
    #[serde(alias = "c")]
    d: Letters,
    #[serde(default, skip_serializing_if = "Option::is_none", alias = "e")]
    f: Option<u8>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Letters {
    #[serde(alias = "X")]
    A,
    B(u8),
}

fn aliases_change_nothing(method: StartMethod) {
    travels! { &pool(method);
        aliased: Aliased = [Aliased { a: 1, d: Letters::A, f: Some(2) }, Aliased { a: 3, d: Letters::B(4), f: None }];
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
enum Known {
    One {
        number: u8,
    },
    #[serde(other)]
    Others,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Level {
    Low,
    #[serde(other)]
    Others,
}

fn variants_for_all_others_arrive(method: StartMethod) {
    travels! { &pool(method);
        known: Known = [Known::One { number: 1 }, Known::Others];
        level: Level = [Level::Low, Level::Others];
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Patch {
    #[serde(default, skip_serializing_if = "Option::is_none", with = "double_option")]
    #[expect(clippy::option_option, reason = "unchanged, unset, or set")]
    comment: Option<Option<String>>,
    after: u8,
}

mod double_option {
    use super::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::option_option, clippy::ref_option, reason = "serde asks for this form")]
    pub(super) fn serialize<T: Serialize, S: Serializer>(value: &Option<Option<T>>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            None => to.serialize_unit(),
            Some(inner) => inner.serialize(to),
        }
    }

    #[expect(clippy::option_option, reason = "serde asks for this form")]
    pub(super) fn deserialize<'a, T, D>(from: D) -> Result<Option<Option<T>>, D::Error>
    where
        T: Deserialize<'a>,
        D: Deserializer<'a>,
    {
        Option::deserialize(from).map(Some)
    }
}

fn double_options_arrive(method: StartMethod) {
    travels! { &pool(method);
        patch: Patch = [Some(Some("ß".to_owned())), Some(None), None].map(|comment| Patch { comment, after: 7 });
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct ByHand {
    #[serde(with = "seconds")]
    took: Duration,
    #[serde(serialize_with = "hex", deserialize_with = "of_hex")]
    bytes: Vec<u8>,
}

mod seconds {
    use super::{Deserialize, Deserializer, Duration, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(value.as_secs())
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_secs)
    }
}

fn hex<S: Serializer>(value: &[u8], to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("{value:02x?}"))
}

fn of_hex<'a, D: Deserializer<'a>>(from: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(from)?;
    Ok(text.split(['[', ']', ',', ' ']).filter_map(|digits| u8::from_str_radix(digits, 16).ok()).collect())
}

fn values_written_by_hand_arrive(method: StartMethod) {
    travels! { &pool(method);
        by_hand: ByHand = [
            ByHand { took: Duration::ZERO, bytes: vec![] },
            ByHand { took: Duration::from_secs(u64::MAX), bytes: vec![0, 255] },
        ];
    }
}

mod elsewhere {
    #[derive(Clone, Debug, PartialEq)]
    pub(super) struct Money {
        cents: i64,
        pub(super) currency: Option<String>,
    }

    impl Money {
        pub(super) fn new(cents: i64, currency: Option<String>) -> Self {
            Self { cents, currency }
        }

        pub(super) fn cents(&self) -> i64 {
            self.cents
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "elsewhere::Money")]
struct MoneyOutside {
    #[serde(getter = "elsewhere::Money::cents")]
    cents: i64,
    currency: Option<String>,
}

impl From<MoneyOutside> for elsewhere::Money {
    fn from(money: MoneyOutside) -> Self {
        Self::new(money.cents, money.currency)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Price {
    #[serde(with = "MoneyOutside")]
    money: elsewhere::Money,
}

fn remote_types_arrive(method: StartMethod) {
    use elsewhere::Money;
    travels! { &pool(method);
        price: Price = [Money::new(0, None), Money::new(i64::MIN, Some("€".to_owned()))].map(|money| Price { money });
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
struct Even(u32);

impl From<Even> for String {
    fn from(even: Even) -> Self {
        even.0.to_string()
    }
}

impl TryFrom<String> for Even {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let number: u32 = text.parse().map_err(|_| format!("{text} is no number"))?;
        if number.is_multiple_of(2) { Ok(Self(number)) } else { Err(format!("{number} is odd")) }
    }
}

fn converted_types_arrive(method: StartMethod) {
    travels! { &pool(method);
        even: Even = [Even(0), Even(u32::MAX - 1)];
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
struct Clear {
    inner: Bare,
}

fn transparent_types_arrive(method: StartMethod) {
    travels! { &pool(method);
        clear: Clear = [Bare::Number(-1), Bare::Text("ß".to_owned())].map(|inner| Clear { inner });
    }
}
