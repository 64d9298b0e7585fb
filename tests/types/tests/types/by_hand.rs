//! Types whose own code writes in several forms, or says another number of parts than it writes.
//!
//! Runs in: the test process; the tasks in workers. Never: takes another value, or an error at the reader, for an acceptable end.

use std::collections::BTreeMap;
use std::time::Duration;

use process_task::StartMethod;
use process_task_types::{arrives, pool, reason, refused};
use serde::de::{SeqAccess, Visitor};
use serde::ser::{SerializeMap as _, SerializeSeq as _, SerializeStruct as _, SerializeTuple as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};

under_every_start_method! { within 300 seconds;
    a_form_for_none_and_one_for_some_arrive,
    one_form_that_is_not_read_is_refused,
    tuples_of_several_lengths_arrive,
    structs_that_write_less_than_they_say_arrive,
    lists_that_say_another_length_arrive,
    names_that_change_places_arrive_or_are_refused,
    more_units_than_bytes_arrive,
    values_deeper_than_the_stack_are_refused,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Wait {
    #[serde(with = "maybe_seconds")]
    time: Option<Duration>,
    #[serde(with = "maybe_text")]
    count: Option<u64>,
    after: u32,
}

/// Writes a number or `None`, and reads an `Option`.
mod maybe_seconds {
    use super::{Deserialize, Deserializer, Duration, Serializer};

    #[expect(clippy::ref_option, reason = "serde asks for this form")]
    pub(super) fn serialize<S: Serializer>(value: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(time) => to.serialize_u64(time.as_secs()),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::deserialize(from)?.map(Duration::from_secs))
    }
}

/// Writes a text or `None`, and reads an `Option`.
mod maybe_text {
    use super::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "serde asks for this form")]
    pub(super) fn serialize<S: Serializer>(value: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(count) => to.collect_str(count),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Option<u64>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| text.parse().map_err(serde::de::Error::custom)).transpose()
    }
}

fn a_form_for_none_and_one_for_some_arrive(method: StartMethod) {
    let pool = pool(method);
    let wait = |time: Option<u64>, count| Wait { time: time.map(Duration::from_secs), count, after: 7 };
    arrives!(&pool, Wait, [wait(None, None), wait(Some(1), None), wait(None, Some(0)), wait(Some(0), Some(5))]);
    arrives!(&pool, Option<Wait>, [None, Some(wait(None, None)), Some(wait(None, Some(1)))]);
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Patch {
    #[serde(default, with = "unit_or_option")]
    #[expect(clippy::option_option, reason = "unchanged, unset, or set")]
    comment: Option<Option<u64>>,
    after: u32,
}

/// Writes a unit or an `Option`, and reads an `Option`: from JSON, `None` is `Some(None)`.
mod unit_or_option {
    use super::{Deserialize, Deserializer, Serialize, Serializer};

    #[expect(clippy::option_option, clippy::ref_option, reason = "serde asks for this form")]
    pub(super) fn serialize<S: Serializer>(value: &Option<Option<u64>>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(inner) => inner.serialize(to),
            None => to.serialize_unit(),
        }
    }

    #[expect(clippy::option_option, reason = "serde asks for this form")]
    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Option<Option<u64>>, D::Error> {
        Option::deserialize(from).map(Some)
    }
}

fn one_form_that_is_not_read_is_refused(method: StartMethod) {
    let pool = pool(method);
    let patch = |comment| Patch { comment, after: 7 };
    arrives!(&pool, Patch, [patch(Some(Some(1))), patch(Some(None))]);
    let reason = refused!(&pool, Patch, patch(None));
    assert!(reason.contains("Patch") && reason.contains("`comment`"), "{reason}");
    arrives!(&pool, Patch, [patch(Some(None)), patch(Some(Some(2)))]);
}

/// A tuple of two or of three.
#[derive(Clone, Debug, PartialEq)]
struct Version(u8, u8, Option<u8>);

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut tuple = to.serialize_tuple(2 + usize::from(self.2.is_some()))?;
        tuple.serialize_element(&self.0)?;
        tuple.serialize_element(&self.1)?;
        self.2.iter().try_for_each(|patch| tuple.serialize_element(patch))?;
        tuple.end()
    }
}

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Parts;

        impl<'de> Visitor<'de> for Parts {
            type Value = Version;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("two numbers or three")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut parts: A) -> Result<Version, A::Error> {
                let mut next = || parts.next_element();
                let (major, minor) = (next()?.unwrap_or(0), next()?.unwrap_or(0));
                Ok(Version(major, minor, next()?))
            }
        }

        from.deserialize_tuple(3, Parts)
    }
}

fn tuples_of_several_lengths_arrive(method: StartMethod) {
    let pool = pool(method);
    arrives!(&pool, Version, [Version(1, 2, Some(3)), Version(1, 2, None), Version(4, 5, Some(6))]);
    arrives!(&pool, BTreeMap<u8, Version>, [[(1, Version(1, 2, Some(3)))].into(), [(1, Version(1, 2, None))].into()]);
}

/// Says three fields, and leaves some out.
#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Sparse {
    first: u8,
    second: Option<u8>,
    third: Option<u8>,
}

impl Serialize for Sparse {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut fields = to.serialize_struct("Sparse", 3)?;
        fields.serialize_field("first", &self.first)?;
        for (name, field) in [("second", &self.second), ("third", &self.third)] {
            if field.is_some() {
                fields.serialize_field(name, field)?;
            }
        }
        fields.end()
    }
}

fn structs_that_write_less_than_they_say_arrive(method: StartMethod) {
    let pool = pool(method);
    let sparse = |second, third| Sparse { first: 1, second, third };
    let all = [sparse(Some(1), Some(2)), sparse(Some(1), None), sparse(None, Some(1)), sparse(None, None)];
    arrives!(&pool, Sparse, all);
}

/// Says that it has seven elements, or seven entries.
#[derive(Clone, Debug, PartialEq)]
struct Seven(Vec<u8>, BTreeMap<u8, char>);

impl Serialize for Seven {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        struct Elements<'a>(&'a [u8]);
        struct Entries<'a>(&'a BTreeMap<u8, char>);

        impl Serialize for Elements<'_> {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                let mut elements = to.serialize_seq(Some(7))?;
                self.0.iter().try_for_each(|element| elements.serialize_element(element))?;
                elements.end()
            }
        }

        impl Serialize for Entries<'_> {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                let mut entries = to.serialize_map(Some(7))?;
                self.0.iter().try_for_each(|(key, value)| entries.serialize_entry(key, value))?;
                entries.end()
            }
        }

        (Elements(&self.0), Entries(&self.1)).serialize(to)
    }
}

impl<'de> Deserialize<'de> for Seven {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Deserialize::deserialize(from).map(|(elements, entries)| Self(elements, entries))
    }
}

fn lists_that_say_another_length_arrive(method: StartMethod) {
    let entries = |count: u8| (0..count).map(|key| (key, 'ß')).collect();
    let seven = |elements: u8, count| Seven((0..elements).collect(), entries(count));
    arrives!(&pool(method), Seven, [seven(7, 7), seven(3, 7), seven(7, 9), seven(0, 0), seven(100, 1)]);
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Swapped {
    #[serde(rename(serialize = "b", deserialize = "a"))]
    a: u8,
    #[serde(rename(serialize = "a", deserialize = "b"))]
    b: u8,
}

/// Writes its fields in another order than it reads them.
#[derive(Clone, Debug, PartialEq, Deserialize)]
struct Moved {
    x: u32,
    y: u32,
    #[serde(default)]
    z: u32,
}

impl Serialize for Moved {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut fields = to.serialize_struct("Moved", 2)?;
        fields.serialize_field("y", &self.y)?;
        fields.serialize_field("x", &self.x)?;
        fields.end()
    }
}

fn names_that_change_places_arrive_or_are_refused(method: StartMethod) {
    let (pool, json) = (pool(method), json!("ß"));
    // By place each field stands where it is read; by name, as in JSON, each one is read for the other.
    arrives!(&pool, Swapped, [Swapped { a: 1, b: 2 }, Swapped { a: 3, b: 4 }]);
    for value in [(json.clone(), Swapped { a: 1, b: 2 }), (json!(1), Swapped { a: 0, b: 1 })] {
        let reason = refused!(&pool, (Value, Swapped), value);
        assert!(reason.contains("Swapped") && reason.contains("another value"), "{reason}");
    }
    arrives!(&pool, Moved, [Moved { x: 1, y: 2, z: 0 }]);
    arrives!(&pool, (Value, Moved), [(json, Moved { x: 1, y: 2, z: 0 })]);
}

fn more_units_than_bytes_arrive(method: StartMethod) {
    #[process_task::process_task]
    fn count(units: Vec<()>) -> (usize, Vec<()>) {
        (units.len(), units)
    }
    let pool = pool(method);
    for len in [3, (1 << 20) + 100, 3] {
        let (counted, units) = pool.call(count, vec![(); len]).unwrap();
        assert_eq!((counted, units.len()), (len, len));
    }
}

/// A list that is dropped one by one.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Link(u32, Option<Box<Link>>);

impl Link {
    fn chain(len: u32) -> Self {
        (1..len).fold(Self(0, None), |link, at| Self(at, Some(Box::new(link))))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let mut next = self.1.take();
        while let Some(mut link) = next {
            next = link.1.take();
        }
    }
}

fn values_deeper_than_the_stack_are_refused(method: StartMethod) {
    #[process_task::process_task]
    fn first(link: Link) -> u32 {
        link.0
    }
    #[process_task::process_task]
    fn make(len: u32) -> Link {
        Link::chain(len)
    }
    let pool = pool(method);
    assert_eq!(pool.call(first, Link::chain(100)).unwrap(), 99);
    let reason = reason(pool.call(first, Link::chain(300_000)));
    assert!(reason.contains("one inside the other"), "{reason}");
    let error = pool.call(make, 300_000).unwrap_err().to_string();
    assert!(error.contains("cannot encode the result") && error.contains("one inside the other"), "{error}");
    assert_eq!(pool.call(make, 100).unwrap().0, 99);
}
