//! Types that ask what comes next, parts that come later, paths, and bytes of which nothing is known.
//!
//! Runs in: the test process. Never: starts a process.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsString;
use std::fmt::Debug;
use std::net::IpAddr;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{Skips, Sparse, arrives, by_name, by_place, read, refused, sent};
use crate::check;
use crate::codec::Encoded;
use crate::codec::NoSpill;
use crate::codec::handles::Received;
use crate::codec::message_format::{of_message, to_message};
use crate::codec::named::Tag;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Flat {
    id: u8,
    #[serde(flatten)]
    inner: Inner,
    #[serde(flatten)]
    more: BTreeMap<String, Loose>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Inner {
    address: IpAddr,
    kind: Tagged,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Tagged {
    Unit,
    Struct { address: IpAddr, list: Vec<Option<u8>> },
    Newtype(Point),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "t", content = "c")]
enum Adjacent {
    Unit,
    #[serde(skip)]
    #[expect(dead_code, reason = "it is there to be skipped")]
    Never,
    Newtype(u8),
    Tuple(u8, String),
    Struct {
        x: Option<u8>,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Point {
    x: i32,
    y: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Loose {
    Nothing,
    Flag(bool),
    Whole(i64),
    Half(f64),
    Text(String),
    List(Vec<Loose>),
    Point(Point),
    Map(BTreeMap<String, Loose>),
}

fn loose() -> Loose {
    let map = BTreeMap::from([("a".to_owned(), Loose::Nothing), ("b".to_owned(), Loose::List(vec![Loose::Half(0.5)]))]);
    Loose::List(vec![
        Loose::Nothing,
        Loose::Flag(true),
        Loose::Whole(i64::MIN),
        Loose::Half(-0.0),
        Loose::Text("text".to_owned()),
        Loose::Point(Point { x: 1, y: 2.5 }),
        Loose::Map(map),
        Loose::List(vec![]),
    ])
}

#[test]
fn what_asks_what_comes_next_arrives() {
    by_name(&loose());
    let address: IpAddr = "2001:db8::7".parse().unwrap();
    let tagged = [
        Tagged::Unit,
        Tagged::Struct { address, list: vec![None, Some(3)] },
        Tagged::Newtype(Point { x: -1, y: 0.25 }),
    ];
    tagged.iter().for_each(by_name);
    for kind in tagged {
        by_name(&Flat { id: 1, inner: Inner { address, kind }, more: [("z".to_owned(), loose())].into() });
    }
    for value in [
        Adjacent::Newtype(3),
        Adjacent::Tuple(1, "one".to_owned()),
        Adjacent::Struct { x: None },
        Adjacent::Struct { x: Some(1) },
        Adjacent::Unit,
    ] {
        by_name(&value);
    }
}

#[test]
fn parts_that_come_later_are_tried_then() {
    #[derive(Clone, Debug, Serialize, Deserialize)]
    struct Late {
        option: Option<Loose>,
        list: Vec<Skips>,
        map: HashMap<u8, Sparse>,
    }
    let none = Late { option: None, list: vec![], map: HashMap::new() };
    by_place(&none);
    by_place(&Late { list: vec![Skips::A], ..none.clone() });
    by_name(&Late { list: vec![Skips::A, Skips::C], ..none.clone() });
    by_name(&Late { option: Some(Loose::Whole(1)), ..none.clone() });
    by_name(&Late { map: [(1, Sparse { first: None, second: 1, third: vec![] })].into(), ..none });
}

#[test]
fn nested_options_and_units_stay_apart() {
    type Deep = Option<Option<Option<()>>>;
    #[derive(Clone, Debug, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Kept {
        Deep { deep: Deep, bytes: (char, u8) },
    }
    for deep in [None, Some(None), Some(Some(None)), Some(Some(Some(())))] {
        by_place(&deep);
        by_name(&Kept::Deep { deep, bytes: ('ß', 3) });
    }
    #[derive(Clone, Debug, Serialize, Deserialize)]
    struct Patch {
        #[serde(default, skip_serializing_if = "Option::is_none", with = "double")]
        value: Option<Option<u8>>,
    }
    mod double {
        use serde::{Deserialize, Deserializer, Serialize, Serializer};

        #[expect(clippy::ref_option, clippy::trivially_copy_pass_by_ref, reason = "as serde passes it")]
        pub(super) fn serialize<S: Serializer>(value: &Option<Option<u8>>, to: S) -> Result<S::Ok, S::Error> {
            value.flatten().serialize(to)
        }

        pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<u8>>, D::Error> {
            Option::deserialize(from).map(Some)
        }
    }
    for value in [Some(Some(1)), Some(None), None, Some(None)] {
        let arrived = arrives(&Patch { value }).unwrap().0;
        assert_eq!(arrived.value, value);
    }
}

#[test]
fn untagged_variants_that_look_alike_are_refused() {
    #[derive(Clone, Debug, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Number {
        Float(f64),
        Small(u8),
        Large(u16),
        Text(String),
        Kind(Kind),
    }
    #[derive(Clone, Debug, Serialize, Deserialize)]
    enum Kind {
        X,
    }
    by_name(&Number::Float(1.0));
    by_name(&Number::Text("x".to_owned()));
    assert!(refused(&Number::Small(3)).contains("a `u8` would be read as an `f64`"));
    assert!(refused(&Number::Large(3)).contains("a `u16` would be read as an `f64`"));
    assert!(refused(&Number::Kind(Kind::X)).contains("the variant `X` would be read as a string"));
    by_name(&Number::Float(f64::MAX));
}

#[test]
fn other_kinds_than_are_read_are_never_taken_for_them() {
    #[derive(Clone, Debug)]
    struct Wide(u32);
    impl Serialize for Wide {
        fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            to.serialize_u32(self.0)
        }
    }
    impl<'de> Deserialize<'de> for Wide {
        fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            u16::deserialize(from).map(|number| Self(number.into()))
        }
    }
    by_name(&Wide(7));
    refused(&Wide(70_000));
}

#[test]
fn paths_arrive_whatever_their_bytes_and_place() {
    let odd = PathBuf::from(OsString::from_vec(b"a\xff".to_vec()));
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Paths {
        path: PathBuf,
        option: Option<PathBuf>,
        result: Result<PathBuf, u8>,
        boxed: Box<Path>,
        shared: Box<PathBuf>,
        map: HashMap<PathBuf, u8>,
        tuple: (PathBuf, u8),
        kind: Kind,
    }
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Kind {
        At(PathBuf),
    }
    let paths = |path: &PathBuf| Paths {
        path: path.clone(),
        option: Some(path.clone()),
        result: Ok(path.clone()),
        boxed: path.clone().into(),
        shared: Box::new(path.clone()),
        map: [(path.clone(), 1)].into(),
        tuple: (path.clone(), 2),
        kind: Kind::At(path.clone()),
    };
    for path in [&odd, &PathBuf::from("a/ß"), &PathBuf::new()] {
        by_place(&paths(path));
        by_place(path);
    }
    #[derive(Clone, Debug, Serialize, Deserialize)]
    struct Hidden {
        #[serde(flatten)]
        more: HashMap<u8, Named>,
    }
    #[derive(Clone, Debug, Serialize, Deserialize)]
    struct Named {
        path: PathBuf,
        #[serde(skip_serializing_if = "Option::is_none")]
        option: Option<u8>,
    }
    by_name(&Named { path: odd.clone(), option: None });
    #[derive(Clone, Debug, Serialize, Deserialize)]
    #[serde(transparent)]
    struct Inside(PathBuf);
    by_place(&Inside("a".into()));
    let error = sent(&Inside(odd.clone())).unwrap_err().to_string();
    assert!(error.contains("OsString"), "{error}");
    assert!(sent(&Hidden { more: [(1, Named { path: odd.clone(), option: None })].into() }).is_err());
    let message = to_message(&Some(odd.clone()), Vec::new(), (usize::MAX, &mut NoSpill)).unwrap().0;
    let Encoded::Small(bytes) = message else { unreachable!("there is no spill") };
    assert_eq!(of_message::<Option<PathBuf>>(&bytes, &Received::default()).unwrap(), Some(odd));
}

#[test]
fn sets_and_shared_values_are_the_same_in_any_order() {
    let set: HashSet<String> = (0..100).map(|at| at.to_string()).collect();
    for _ in 0..2 {
        let bytes = sent(&set).unwrap();
        assert_eq!((read::<HashSet<String>>(&bytes).unwrap(), bytes[0]), (set.clone(), 0));
    }
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Held {
        #[serde(flatten)]
        more: HashMap<String, HashSet<String>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        none: Option<u8>,
    }
    let held = Held { more: (0..50).map(|at| (at.to_string(), set.clone())).collect(), none: None };
    for _ in 0..2 {
        let bytes = sent(&held).unwrap();
        assert_eq!((&read::<Held>(&bytes).unwrap(), bytes[0]), (&held, 1));
    }
    let shared: Arc<str> = "shared".into();
    assert_eq!(sent(&shared.to_string()).unwrap().len(), 1 + 8 + 6);
}

#[test]
fn big_first_value_is_tried_in_part_only() {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Counted {
        count: usize,
        values: Vec<Skips2>,
    }
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Skips2 {
        A(u32),
        #[serde(skip)]
        #[expect(dead_code, reason = "it is there to be skipped")]
        B,
        C,
    }
    let mut values: Vec<_> = (0..10_000).map(Skips2::A).collect();
    assert_eq!(sent(&Counted { count: values.len(), values: values.clone() }).unwrap()[0], 0);
    values[9_000] = Skips2::C;
    let counted = Counted { count: values.len(), values };
    let bytes = sent(&counted).unwrap();
    assert_eq!((bytes[0], read::<Counted>(&bytes).unwrap()), (1, counted));
}

#[test]
fn type_that_refuses_what_it_wrote_is_its_readers_error() {
    #[derive(Clone, Debug, Serialize)]
    struct Even(u8);
    impl<'de> Deserialize<'de> for Even {
        fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            match u8::deserialize(from)? {
                number if number % 2 == 0 => Ok(Self(number)),
                _ => Err(serde::de::Error::custom("it is odd")),
            }
        }
    }
    assert!(read::<Even>(&sent(&Even(1)).unwrap()).unwrap_err().to_string().contains("it is odd"));
    by_place(&Even(2));
    assert!(check(&Even(1)).unwrap_err().to_string().contains("it is odd"));
}

#[test]
fn no_bytes_make_a_reader_by_names_panic() {
    fn spoil<T: Serialize + DeserializeOwned + Debug>(value: &T) {
        let whole = sent(value).unwrap();
        for len in 0..whole.len() {
            assert!(read::<T>(&whole[..len]).is_err(), "cut to {len}");
        }
        assert!(read::<T>(&[&whole[..], &[0]].concat()).is_err(), "a byte too many");
        let mut bytes = whole.clone();
        for at in 0..whole.len() {
            for byte in (0..32).chain([0x7f, 0x80, 0xff]) {
                bytes[at] = byte;
                // Any outcome but a panic or an abort.
                drop(read::<T>(&bytes));
                drop(read::<Loose>(&bytes));
            }
            bytes[at] = whole[at];
        }
    }
    let address: IpAddr = "127.0.0.1".parse().unwrap();
    spoil(&loose());
    spoil(&Flat { id: 1, inner: Inner { address, kind: Tagged::Unit }, more: [("z".to_owned(), loose())].into() });
    spoil(&vec![Some(Skips::C), None, Some(Skips::E { x: 1 })]);
    spoil(&Sparse { first: None, second: 2, third: vec![1, 2, 3] });
    assert!(read::<Loose>(&[2, 1]).unwrap_err().to_string().contains("way to write a value"));
    assert!(read::<Loose>(&[3]).is_err() && read::<Loose>(&[]).is_err());
}

#[test]
fn depth_and_counts_of_hostile_bytes_are_bounded() {
    let deep = |tag: Tag, count: usize| [vec![1], vec![tag as u8; count]].concat();
    for tag in [Tag::Some, Tag::Tuple, Tag::Struct] {
        assert!(read::<Loose>(&deep(tag, 1_000_000)).is_err());
        assert!(read::<serde::de::IgnoredAny>(&deep(tag, 1_000_000)).is_err());
    }
    let lists: Vec<u8> = [1].into_iter().chain([Tag::Seq as u8, 0].repeat(1_000_000)).collect();
    let error = read::<Loose>(&lists).unwrap_err().to_string();
    assert!(error.contains("one inside the other"), "{error}");
    // A count is no reason to reserve memory.
    let many = [1, Tag::Seq as u8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    assert!(read::<Vec<[u64; 32]>>(&many).is_err());
    assert_eq!(read::<Vec<[u64; 32]>>(&[&many[..], &[0]].concat()).unwrap().len(), 0);
}

/// Numbers that look random, the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn list<T>(&mut self, depth: u64, one: impl Fn(&mut Self) -> T) -> Vec<T> {
        (0..self.below(depth + 1)).map(|_| one(self)).collect()
    }

    fn byte(&mut self) -> u8 {
        self.below(256).to_le_bytes()[0]
    }

    fn text(&mut self) -> String {
        ["", "a", "ß🦀", "text"][usize::from(self.byte() % 4)].to_owned()
    }

    fn loose(&mut self, depth: u64) -> Loose {
        match self.below(if depth == 0 { 5 } else { 8 }) {
            0 => Loose::Nothing,
            1 => Loose::Flag(self.below(2) == 0),
            2 => Loose::Whole(self.below(u64::MAX).cast_signed()),
            3 => Loose::Half(f64::from_bits(self.below(u64::MAX))),
            4 => Loose::Text(self.text()),
            5 => Loose::List(self.list(depth, |dice| dice.loose(depth - 1))),
            6 => Loose::Point(Point { x: -1, y: 0.5 }),
            _ => Loose::Map(self.list(depth, |dice| (dice.text(), dice.loose(depth - 1))).into_iter().collect()),
        }
    }

    fn skips(&mut self) -> Skips {
        match self.below(4) {
            0 => Skips::A,
            1 => Skips::C,
            2 => Skips::D(7),
            _ => Skips::E { x: 9 },
        }
    }

    fn rich(&mut self, depth: u64) -> Rich {
        let odd = |dice: &mut Self| PathBuf::from(OsString::from_vec(vec![b'a', 0x80 | dice.byte()]));
        let sparse = |dice: &mut Self| Sparse {
            first: (dice.below(2) == 0).then_some(1),
            second: 2,
            third: dice.list(2, Self::byte),
        };
        Rich {
            loose: (self.below(2) == 0).then(|| self.loose(depth)),
            skips: self.list(3, Self::skips),
            sparse: self.list(2, |dice| (u16::from(dice.byte() % 9), Some(Ok(sparse(dice))))).into_iter().collect(),
            path: (odd(self), [None, Some(None), Some(Some(odd(self)))][usize::from(self.byte() % 3)].clone()),
            nested: if depth == 0 { vec![] } else { self.list(2, |dice| dice.rich(depth - 1)) },
            numbers: (i128::MIN, 'ß', f32::NAN, ()),
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Rich {
    loose: Option<Loose>,
    skips: Vec<Skips>,
    sparse: BTreeMap<u16, Option<Result<Sparse, String>>>,
    path: (PathBuf, Option<Option<PathBuf>>),
    nested: Vec<Rich>,
    numbers: (i128, char, f32, ()),
}

#[test]
fn random_values_arrive_as_they_were_sent() {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for _ in 0..500 {
        let rich = dice.rich(2);
        let arrived: Rich = read(&sent(&rich).unwrap()).unwrap();
        assert_eq!(format!("{arrived:?}"), format!("{rich:?}"));
        check(&rich).unwrap();
    }
}

#[test]
fn random_bytes_are_values_or_errors() {
    let mut dice = Dice(7);
    for _ in 0..20_000 {
        let (len, named) = (dice.below(40), dice.below(2) == 0);
        // Half of them are mostly kinds of values.
        let most = if dice.below(2) == 0 { 32 } else { 255 };
        let bytes: Vec<u8> = (0..len).map(|_| dice.byte() % most).collect();
        crate::codec::message_format::any(&[&[u8::from(named)], &bytes[..]].concat());
    }
}
