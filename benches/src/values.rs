//! Values of a program's own types to bytes and back, against bincode 2 alone, which is what they are written with. The figures are
//! for one value.
//!
//! A value travels as the places of its parts where that is enough. That it is enough is looked up for each part of a type: this
//! is what a row shows beside the byte that says how a value was written.
//!
//! Runs in: the parent, on one thread. Never: starts a process, or counts the making of the values.

use std::fmt::Debug;
use std::hint::black_box;
use std::io;

use bincode::config::{Configuration, Fixint, LittleEndian};
use process_task::__private::{Encoded, Spill, Writer};
use process_task::{Task, process_task};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Outcome;
use crate::measure::{check, timed};
use crate::race::{Measured, Race};
use crate::table::{Row, Unit};

pub(crate) const ROWS: &[Row] = &[
    Row { name: "encode + decode, struct", unit: Unit::Seconds, run: || one_by_one(point, Point::new) },
    Row { name: "encode + decode, enum", unit: Unit::Seconds, run: || one_by_one(shape, Shape::new) },
    Row { name: "encode + decode, struct of many parts", unit: Unit::Seconds, run: || one_by_one(part, Part::new) },
    Row { name: "encode + decode, 100,000 structs at once", unit: Unit::Seconds, run: || at_once(points, Point::new) },
    Row { name: "encode + decode, 100,000 enums at once", unit: Unit::Seconds, run: || at_once(shapes, Shape::new) },
    Row {
        name: "encode + decode, 100,000 of many parts at once",
        unit: Unit::Seconds,
        run: || at_once(parts, Part::new),
    },
];

const COUNT: u32 = 100_000;
const ROUNDS: u32 = 45;

/// As the payloads of calls are written.
const CONFIGURATION: Configuration<LittleEndian, Fixint> = bincode::config::standard().with_fixed_int_encoding();

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Point {
    number: u32,
    x: f64,
    y: f64,
    visible: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Nothing,
    Circle(f64),
    Rectangle { width: u32, height: u32 },
    Pair(u8, i64),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Part {
    name: String,
    shape: Shape,
    words: Vec<String>,
    center: Option<Point>,
    place: (u32, char),
}

impl Point {
    fn new(number: u32) -> Self {
        Self { number, x: f64::from(number), y: 0.5, visible: number.is_multiple_of(2) }
    }
}

impl Shape {
    fn new(number: u32) -> Self {
        match number % 4 {
            0 => Self::Nothing,
            1 => Self::Circle(f64::from(number)),
            2 => Self::Rectangle { width: number, height: 7 },
            _ => Self::Pair(7, -i64::from(number)),
        }
    }
}

impl Part {
    fn new(number: u32) -> Self {
        Self {
            name: format!("part {number}"),
            shape: Shape::new(number),
            words: vec!["one".to_owned(), "another".to_owned()],
            center: number.is_multiple_of(2).then(|| Point::new(number)),
            place: (number, 'p'),
        }
    }
}

/// Tasks whose argument and result are of these types. They are not called: only their encoding is used.
#[process_task]
fn point(value: &Point) -> Point {
    value.clone()
}

#[process_task]
fn shape(value: &Shape) -> Shape {
    value.clone()
}

#[process_task]
fn part(value: &Part) -> Part {
    value.clone()
}

#[process_task]
fn points(values: &[Point]) -> Vec<Point> {
    values.to_vec()
}

#[process_task]
fn shapes(values: &[Shape]) -> Vec<Shape> {
    values.to_vec()
}

#[process_task]
fn parts(values: &[Part]) -> Vec<Part> {
    values.to_vec()
}

/// Types of these rows.
trait Value: Clone + Debug + PartialEq + Serialize + DeserializeOwned + 'static {}

impl<T: Clone + Debug + PartialEq + Serialize + DeserializeOwned + 'static> Value for T {}

fn one_by_one<K, T: Value>(task: K, make: fn(u32) -> T) -> Outcome<Measured>
where
    K: for<'a> Task<Args<'a> = &'a T, Output = T>,
{
    let values: Vec<T> = (0..COUNT).map(make).collect();
    let (mut ours, mut theirs) = (Vec::new(), vec![0; 1024]);
    Race::new(ROUNDS, || measured(&values, || values.iter().map(|value| by_task(task, value, &mut ours)).collect()))
        .against("bincode, one thread", || {
            measured(&values, || values.iter().map(|value| by_bincode(value, &mut theirs)).collect())
        })
        .run()
}

fn at_once<K, T: Value>(task: K, make: fn(u32) -> T) -> Outcome<Measured>
where
    K: for<'a> Task<Args<'a> = &'a [T], Output = Vec<T>>,
{
    let values: Vec<T> = (0..COUNT).map(make).collect();
    let (mut ours, mut theirs) = (Vec::new(), vec![0; 256 * values.len()]);
    Race::new(ROUNDS, || measured(&values, || by_task(task, &values, &mut ours)))
        .against("bincode, one thread", || measured(&values, || by_bincode(&values, &mut theirs)))
        .run()
}

/// Writes what a call of the task would send, and reads what would come back of it: the same.
fn by_task<K: Task>(_: K, value: K::Args<'_>, buffer: &mut Vec<u8>) -> Outcome<K::Output> {
    let mut spill = NoSpill;
    let mut writer = Writer::new(std::mem::take(buffer), usize::MAX, &mut spill);
    K::encode(value, &mut writer)?;
    let Encoded::Small(bytes) = writer.finish()? else { return Err("there is no other memory".into()) };
    *buffer = bytes;
    Ok(K::decode_output(black_box(buffer))?)
}

fn by_bincode<T: Serialize + ToOwned + ?Sized>(value: &T, buffer: &mut [u8]) -> Outcome<T::Owned>
where
    T::Owned: DeserializeOwned,
{
    let length = bincode::serde::encode_into_slice(value, buffer, CONFIGURATION)?;
    Ok(bincode::serde::borrow_decode_from_slice(black_box(&buffer[..length]), CONFIGURATION)?.0)
}

/// Seconds for one of the values, which all have to come back.
fn measured<T: Value>(values: &[T], work: impl FnOnce() -> Outcome<Vec<T>>) -> Outcome<f64> {
    let (seconds, arrived) = timed(COUNT, work)?;
    check(arrived.len(), values.len())?;
    check(values.iter().zip(&arrived).position(|(sent, arrived)| sent != arrived), None)?;
    Ok(seconds)
}

/// For payloads that have all of their bytes in one buffer.
#[derive(Debug)]
struct NoSpill;

impl Spill for NoSpill {
    fn grow(&mut self, _: usize, _: usize) -> io::Result<()> {
        Err(io::ErrorKind::FileTooLarge.into())
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut []
    }
}
