//! Updates of values of many types: the task takes the value as it lies in the manager, beside an argument.
//!
//! Runs in: the test process, and managers.

#![expect(
    clippy::unnecessary_wraps,
    clippy::float_cmp,
    clippy::needless_pass_by_value,
    reason = "tasks of updates return options, and what was written is read as it was"
)]

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt::Debug;
use std::num::NonZeroU16;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::objects::{CounterProxy, manager};
use process_task::managed::Dict;
use process_task::{ErrorKind, StartMethod, process_task};

under_every_start_method! {
    dict_update_takes_values_of_many_types,
    dict_update_takes_arguments_of_many_types,
    dict_update_takes_proxies,
    dict_update_refuses_values_that_tasks_write_otherwise,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Mixed {
    small: u8,
    wide: u128,
    name: String,
    flag: bool,
    parts: Vec<(u8, f64)>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Nothing,
    Circle(f32),
    Named { name: String, sides: Vec<u16> },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Metres(f64);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Nothing;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Around<T>(T, u8);

fn mixed(small: u8) -> Mixed {
    Mixed {
        small,
        wide: u128::MAX - u128::from(small),
        name: "n".repeat(small.into()),
        flag: true,
        parts: vec![(small, 0.5)],
    }
}

/// A task for each type: it gives its argument if there is no value, else the value that there is.
macro_rules! for_types {
    ($($name:ident: $V:ty = $values:expr;)*) => {
        $(
            #[process_task]
            fn $name(old: Option<$V>, new: $V) -> Option<$V> {
                match old {
                    None => Some(new),
                    Some(old) if old == new => None,
                    Some(_) => Some(new),
                }
            }
        )*

        fn dict_update_takes_values_of_many_types(method: StartMethod) {
            let manager = manager(method);
            $({
                let dict: Dict<u8, $V> = Dict::new(&manager).unwrap();
                let values: Vec<$V> = $values.into();
                for (value, key) in values.iter().zip(0..) {
                    let updated = dict.update(&key, $name, value.clone());
                    check(updated.unwrap_or_else(|error| panic!("{}: {error}", stringify!($V))), Some(value), stringify!($V));
                    check(dict.get(&key).unwrap(), Some(value), stringify!($V));
                }
                let turned = values.iter().rev().chain(values.iter().rev().take(1));
                let mut last = values[0].clone();
                for value in turned {
                    let expected = (last != *value).then_some(value);
                    check(dict.update(&0, $name, value.clone()).unwrap(), expected, stringify!($V));
                    if expected.is_none() {
                        dict.insert(&0, value.clone()).unwrap();
                    }
                    last = value.clone();
                }
            })*
        }
    };
}

fn check<V: Debug + PartialEq>(found: Option<V>, expected: Option<&V>, of: &str) {
    assert_eq!(found.as_ref(), expected, "{of}");
}

for_types! {
    of_u8: u8 = [0, 255];
    of_i16: i16 = [-1, i16::MAX];
    of_i128: i128 = [i128::MIN, 5];
    of_bool: bool = [false, true];
    of_char: char = ['a', '\u{10ffff}'];
    of_f32: f32 = [0.5, f32::INFINITY];
    of_nothing: () = [()];
    of_unit: Nothing = [Nothing];
    of_string: String = [String::new(), "x".repeat(10_000)];
    of_boxed: Box<str> = ["a".into(), "".into()];
    of_array: [u16; 3] = [[1, 2, 3], [0; 3]];
    of_tuple: (u8, u64, String) = [(1, 2, "a".to_owned()), (0, u64::MAX, String::new())];
    of_bytes: Vec<u8> = [vec![], vec![7; 5], vec![1; 9000]];
    of_numbers: Vec<f64> = [vec![0.5; 3], vec![]];
    of_wide_numbers: Vec<u128> = [vec![u128::MAX; 2], vec![1; 3]];
    of_strings: Vec<String> = [vec!["a".to_owned(), String::new()], vec![]];
    of_nested: Vec<Vec<u32>> = [vec![vec![1], vec![], vec![2, 3]], vec![]];
    of_queue: VecDeque<u16> = [VecDeque::from([1, 2]), VecDeque::new()];
    of_map: BTreeMap<String, Vec<u8>> = [BTreeMap::from([("a".to_owned(), vec![1])]), BTreeMap::new()];
    of_hash_map: HashMap<u8, String> = [HashMap::from([(1, "a".to_owned())]), HashMap::new()];
    of_set: BTreeSet<char> = [BTreeSet::from(['a', 'b']), BTreeSet::new()];
    of_mixed: Mixed = [mixed(0), mixed(200)];
    of_enum: Shape = [Shape::Nothing, Shape::Circle(0.5), Shape::Named { name: "n".to_owned(), sides: vec![1, 2] }];
    of_newtype: Metres = [Metres(0.5), Metres(-0.5)];
    of_generic: Around<Vec<u64>> = [Around(vec![1, 2], 3), Around(vec![], 0)];
    of_duration: Duration = [Duration::ZERO, Duration::new(5, 7)];
    of_path: PathBuf = [PathBuf::from("/tmp"), PathBuf::new()];
    of_range: Range<u32> = [0..5, 7..7];
    of_option: Option<Mixed> = [None, Some(mixed(3))];
    of_non_zero: NonZeroU16 = [NonZeroU16::MIN, NonZeroU16::MAX];
}

#[process_task]
fn join(old: Option<Mixed>, (more, shape): (&str, Shape)) -> Option<Mixed> {
    let mut value = old.unwrap_or_else(|| mixed(1));
    value.name.push_str(more);
    if let Shape::Named { sides, .. } = shape {
        value.parts.extend(sides.into_iter().map(|side| (1, f64::from(side))));
    }
    Some(value)
}

#[process_task]
fn sum_of(old: Option<u8>, numbers: &[u128]) -> Option<u8> {
    Some(old.unwrap_or(0) + u8::try_from(numbers.iter().sum::<u128>()).unwrap())
}

#[process_task]
fn append_all(old: Option<String>, more: (u8, Vec<String>, Option<u64>)) -> Option<String> {
    Some(old.unwrap_or_default() + &more.1.join(&more.0.to_string()) + &format!("{:?}", more.2))
}

fn dict_update_takes_arguments_of_many_types(method: StartMethod) {
    let manager = manager(method);
    let dict: Dict<String, Mixed> = Dict::new(&manager).unwrap();
    let named = |sides| Shape::Named { name: "s".to_owned(), sides };
    dict.update("a", join, ("x", Shape::Nothing)).unwrap();
    let value = dict.update("a", join, ("yz", named(vec![3]))).unwrap().unwrap();
    assert_eq!((&*value.name, value.parts), ("nxyz", vec![(1, 0.5), (1, 3.0)]));
    let sums: Dict<String, u8> = Dict::new(&manager).unwrap();
    for (numbers, sum) in [(vec![1, 2], 3), (vec![], 3), (vec![5; 20], 103)] {
        assert_eq!(sums.update("b", sum_of, &numbers).unwrap(), Some(sum));
    }
    // The argument begins behind a value of any length.
    let texts: Dict<u8, String> = Dict::new(&manager).unwrap();
    for key in 0..40 {
        texts.insert(&key, "t".repeat(key.into())).unwrap();
        let more = (7, vec!["a".to_owned(), "b".to_owned()], Some(u64::MAX));
        let expected = "t".repeat(key.into()) + "a7bSome(18446744073709551615)";
        assert_eq!(texts.update(&key, append_all, more).unwrap(), Some(expected));
    }
}

#[process_task]
fn first_or(old: Option<CounterProxy>, new: CounterProxy) -> Option<CounterProxy> {
    Some(old.unwrap_or(new))
}

#[process_task]
fn add_through(old: Option<CounterProxy>, more: i64) -> Option<CounterProxy> {
    let counter = old?;
    counter.add(more).unwrap();
    Some(counter)
}

fn dict_update_takes_proxies(method: StartMethod) {
    let manager = manager(method);
    let dict: Dict<u8, CounterProxy> = Dict::new(&manager).unwrap();
    let counter = CounterProxy::new(&manager, 5).unwrap();
    assert_eq!(dict.update(&1, first_or, counter.clone()).unwrap(), Some(counter.clone()));
    assert_eq!(dict.update(&1, add_through, 7).unwrap(), Some(counter.clone()));
    assert_eq!(counter.get().unwrap(), 12);
    assert_eq!(dict.update(&2, add_through, 7).unwrap(), None);
}

macro_rules! refused_types {
    ($($name:ident: $V:ty = $value:expr;)*) => {
        $(
            #[process_task]
            fn $name(old: Option<$V>, _: ()) -> Option<$V> {
                old
            }
        )*

        fn dict_update_refuses_values_that_tasks_write_otherwise(method: StartMethod) {
            let manager = manager(method);
            $({
                let dict: Dict<u8, $V> = Dict::new(&manager).unwrap();
                let value: $V = $value;
                dict.insert(&1, value.clone()).unwrap();
                let error = dict.update(&1, $name, ()).unwrap_err();
                assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error}");
                assert!(error.to_string().contains("put a struct around it"), "{error}");
                assert_eq!(dict.get(&1).unwrap(), Some(value), "nothing has changed");
            })*
        }
    };
}

refused_types! {
    no_option: Option<u16> = Some(7);
    no_nested_option: Option<Option<String>> = Some(None);
    no_result: Result<u8, String> = Err("why".to_owned());
    no_result_of_options: Result<Option<u8>, Vec<u8>> = Ok(Some(1));
    no_long_array: [u16; 5] = [1; 5];
}
