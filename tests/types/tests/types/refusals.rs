//! Values that serde itself would read as others, or not at all: the sender is told.
//!
//! Runs in: the test process; the tasks in workers. Never: takes another value, or an error at the reader, for an acceptable end.

use process_task::{StartMethod, process_task};
use process_task_types::{arrives, pool, reason, refused};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

under_every_start_method! { within 300 seconds;
    deep_values_arrive_or_are_refused,
    lookalikes_are_refused_or_arrive,
    wide_integers_without_names_are_refused_or_arrive,
    names_given_twice_are_refused,
    one_sided_code_is_refused,
    borrowed_bytes_beside_a_field_left_out_are_refused,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Deep(Option<Box<Deep>>, Option<Value>);

fn deep(depth: usize, end: Option<Value>) -> Deep {
    (0..depth).fold(Deep(None, end), |inner, _| Deep(Some(Box::new(inner)), None))
}

fn deep_json(depth: usize) -> Value {
    (0..depth).fold(json!(7), |inner, _| json!([inner]))
}

fn deep_values_arrive_or_are_refused(method: StartMethod) {
    let pool = pool(method);
    arrives!(&pool, Deep, [deep(1, None), deep(1_000, None)]);
    arrives!(&pool, Deep, [deep(20, Some(json!([0.5])))]);
    arrives!(&pool, Value, [deep_json(100)]);
    let reason = refused!(&pool, Value, deep_json(1_000));
    assert!(reason.contains("one inside the other") || reason.contains("deep"), "{reason}");
    // And the pool goes on.
    arrives!(&pool, Value, [deep_json(3)]);
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Alike {
    Float(f64),
    Integer(i64),
    Named { a: u8 },
    Longer { a: u8, b: u8 },
}

/// Serde reads the first variant that fits, as it does from JSON; then another value would arrive.
fn lookalikes_are_refused_or_arrive(method: StartMethod) {
    let pool = pool(method);
    arrives!(&pool, Alike, [Alike::Float(0.5), Alike::Named { a: 1 }]);
    for value in [Alike::Integer(3), Alike::Longer { a: 1, b: 2 }] {
        let reason = refused!(&pool, Alike, value.clone());
        assert!(reason.contains("Alike") && reason.contains("would not arrive"), "{value:?}: {reason}");
    }
    arrives!(&pool, Alike, [Alike::Float(1.5)]);
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Wide {
    Signed(i128),
    Text(String),
}

/// Serde's own memory of a value whose type is not known yet has no numbers of 128 bits.
fn wide_integers_without_names_are_refused_or_arrive(method: StartMethod) {
    let pool = pool(method);
    arrives!(&pool, Wide, [Wide::Text("ß".to_owned())]);
    let reason = refused!(&pool, Wide, Wide::Signed(i128::MIN));
    assert!(reason.contains("Wide") || reason.contains("i128"), "{reason}");
    arrives!(&pool, i128, [i128::MIN]);
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Twice {
    id: u8,
    #[serde(flatten)]
    inner: Inside,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Inside {
    id: u8,
    other: u8,
}

fn names_given_twice_are_refused(method: StartMethod) {
    let pool = pool(method);
    let reason = refused!(&pool, Twice, Twice { id: 1, inner: Inside { id: 2, other: 3 } });
    assert!(reason.contains("Twice") && reason.contains("id"), "{reason}");
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct OneSided {
    #[serde(serialize_with = "as_text")]
    number: u32,
    after: u8,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for this form")]
fn as_text<S: Serializer>(value: &u32, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Shorter {
    #[serde(deserialize_with = "pair")]
    numbers: (u8, u8, u8),
    after: u8,
}

fn pair<'de, D: Deserializer<'de>>(from: D) -> Result<(u8, u8, u8), D::Error> {
    <(u8, u8)>::deserialize(from).map(|(a, b)| (a, b, 0))
}

fn one_sided_code_is_refused(method: StartMethod) {
    let pool = pool(method);
    let reason = refused!(&pool, OneSided, OneSided { number: 1, after: 2 });
    assert!(reason.contains("OneSided"), "{reason}");
    let reason = refused!(&pool, Shorter, Shorter { numbers: (1, 2, 3), after: 4 });
    assert!(reason.contains("Shorter"), "{reason}");
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Lent<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<u8>,
    bytes: &'a [u8],
}

#[process_task]
fn sum(lent: Lent<'_>) -> u32 {
    lent.bytes.iter().map(|byte| u32::from(*byte)).sum()
}

/// Serde writes them as a sequence of numbers, and reads them as bytes: by name that does not meet, as in JSON.
fn borrowed_bytes_beside_a_field_left_out_are_refused(method: StartMethod) {
    let pool = pool(method);
    assert_eq!(pool.call(sum, Lent { number: Some(1), bytes: &[255, 1] }).unwrap(), 256);
    let reason = reason(pool.call(sum, Lent { number: None, bytes: &[255, 1] }));
    assert!(reason.contains("Lent") && reason.contains("byte array"), "{reason}");
    assert_eq!(pool.call(sum, Lent { number: Some(1), bytes: &[] }).unwrap(), 0);
}
