//! Handles of shared memory travel wherever values do, and are what they were when they arrive, or a clear error.
//!
//! Runs in: the test process; the tasks in children. Never: believes an answer that did not come through the memory.

use std::collections::{BTreeMap, HashSet};
use std::fmt::{self, Write as _};
use std::marker::PhantomData;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use crate::support;
use process_task::sync::Mutex;
use process_task::{
    Direction, Error, ErrorKind, Pool, ProcessBuilder, Shareable, Shared, SharedMut, SharedRanges, StartMethod, Task,
    process_task, worker_state,
};
use serde::de::IntoDeserializer;
use serde::de::value::Error as PlainError;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

under_every_start_method! { within 120 seconds;
    one_memory_is_seen_by_all_and_comes_back_as_itself,
    a_handle_travels_inside_anything,
    more_handles_than_one_message_carries_travel_with_a_call,
    a_result_outlives_the_process_that_made_it,
    values_of_no_size_and_of_every_alignment_travel,
    every_item_of_a_map_has_its_handle,
    a_call_that_is_repeated_has_its_handles_again,
    an_initializer_takes_handles_and_workers_keep_them,
    a_handle_that_lies_about_its_type_is_refused_in_words,
    ranges_that_lie_about_their_locks_are_refused,
}

fn run<T: Task>(method: StartMethod, task: T, args: T::Args<'_>) -> process_task::Result<T::Output> {
    ProcessBuilder::new().start_method(method).spawn(task, args)?.join()
}

fn pool(method: StartMethod, workers: usize) -> Pool {
    Pool::builder().start_method(method).workers(workers).build().expect("a pool")
}

#[derive(Debug, Shareable)]
struct Board {
    marks: [AtomicU64; 3],
    width: u8,
}

#[process_task]
fn mark(board: Shared<Board>, by: u64) -> Shared<Board> {
    board.marks[usize::from(board.width)].fetch_add(by, Relaxed);
    board
}

fn one_memory_is_seen_by_all_and_comes_back_as_itself(method: StartMethod) {
    let board = Shared::new(Board { marks: [0, 5, 0].map(AtomicU64::new), width: 1 }).unwrap();
    let same = run(method, mark, (board.clone(), 20)).unwrap();
    assert_eq!(board.marks[1].load(Relaxed), 25);
    assert!(same == board && Shared::ptr_eq(&same, &board) && std::ptr::eq(&raw const *same, &raw const *board));
    same.marks[0].store(7, Relaxed);
    assert_eq!(board.marks[0].load(Relaxed), 7);
    let other = Shared::new(Board { marks: [0, 5, 0].map(AtomicU64::new), width: 1 }).unwrap();
    assert_ne!(board, other);
    assert_eq!(HashSet::from([board, same, other]).len(), 2);
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Job {
    name: String,
    inputs: Vec<Option<Shared<[f32]>>>,
    totals: BTreeMap<String, Shared<AtomicU64>>,
    same: Result<(Shared<[f32]>, u8), String>,
}

#[process_task]
fn work(mut job: Job, numbers: &[u16], again: &Shared<[f32]>) -> Result<Job, String> {
    let total = job.totals.get(&job.name).ok_or("no such total")?;
    let input = job.inputs[1].as_ref().ok_or("no input")?;
    let (same, _) = job.same.as_ref()?;
    if same != input || again != input || !std::ptr::eq(&raw const **again, &raw const **input) {
        return Err("one memory was mapped twice".to_owned());
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small whole numbers")]
    let sum = input.iter().map(|value| *value as u64).sum();
    total.fetch_add(sum, Relaxed);
    total.fetch_add(numbers.iter().copied().map(u64::from).sum(), Relaxed);
    job.inputs.push(Some(Shared::<[f32]>::from_iter([0.5; 3]).map_err(|error| error.to_string())?));
    Ok(job)
}

fn a_handle_travels_inside_anything(method: StartMethod) {
    let input = Shared::<[f32]>::from_slice(&[1.0, 2.0, 3.0]).unwrap();
    let total = Shared::new(AtomicU64::new(0)).unwrap();
    let totals = BTreeMap::from([("x".to_owned(), total.clone()), ("y".to_owned(), total.clone())]);
    let inputs = vec![None, Some(input.clone())];
    let job = Job { name: "x".to_owned(), inputs, totals, same: Ok((input.clone(), 3)) };
    let job = run(method, work, (job, &[10, 20], &input)).unwrap().unwrap();
    assert_eq!(total.load(Relaxed), 36);
    assert_eq!(job.inputs.len(), 3);
    assert_eq!(job.inputs[1].as_ref(), Some(&input));
    assert_eq!(job.inputs[2].as_ref().unwrap()[..], [0.5; 3]);
}

#[process_task]
fn add_to_all(counters: Vec<Shared<AtomicU64>>) -> Vec<Shared<AtomicU64>> {
    for (counter, by) in counters.iter().zip(0..) {
        counter.fetch_add(by, Relaxed);
    }
    counters
}

fn more_handles_than_one_message_carries_travel_with_a_call(method: StartMethod) {
    let counters: Vec<_> = (0..300).map(|_| Shared::new(AtomicU64::new(1)).unwrap()).collect();
    assert_eq!(run(method, add_to_all, counters.clone()).unwrap(), counters);
    assert!(counters.iter().zip(1..).all(|(counter, value)| counter.load(Relaxed) == value));
}

type Made = Result<Shared<[u32]>, String>;

#[process_task]
fn primes(below: u32) -> Made {
    let is_prime = |number: &u32| (2..*number).take_while(|d| d * d <= *number).all(|d| !number.is_multiple_of(d));
    Shared::<[u32]>::from_iter((2..below).filter(is_prime)).map_err(|error| error.to_string())
}

fn a_result_outlives_the_process_that_made_it(method: StartMethod) {
    let mut process = ProcessBuilder::new().start_method(method).spawn(primes, 50_000).unwrap();
    process.wait().unwrap();
    let found = process.join().unwrap().unwrap();
    assert_eq!((found.len(), found[5132]), (5133, 49_999));
}

#[derive(Clone, Copy, Debug, PartialEq, Shareable)]
#[repr(align(4096))]
struct Page(u8);

type Odd = (Shared<()>, Shared<[u64]>, Shared<[()]>, Shared<[PhantomData<u8>; 9]>, Shared<Page>, Shared<[Page]>);

#[process_task]
fn look_at(odd: Odd) -> (usize, usize, usize, [u8; 3]) {
    let (unit, none, units, nothing, page, pages) = &odd;
    assert!(std::ptr::from_ref(&**page).addr() % 4096 == 0 && pages.as_ptr().addr() % 4096 == 0);
    assert!(none.as_ptr().is_aligned() && (**unit, nothing.len()) == ((), 9));
    (none.len(), units.len(), pages.len(), [page.0, pages[0].0, pages[1].0])
}

fn values_of_no_size_and_of_every_alignment_travel(method: StartMethod) {
    let odd: Odd = (
        Shared::new(()).unwrap(),
        Shared::<[u64]>::from_slice(&[]).unwrap(),
        Shared::<[()]>::from_iter(std::iter::repeat_n((), 1_000_000)).unwrap(),
        Shared::new([PhantomData; 9]).unwrap(),
        Shared::new(Page(4)).unwrap(),
        Shared::<[Page]>::from_slice(&[Page(5), Page(6)]).unwrap(),
    );
    assert_eq!(run(method, look_at, odd).unwrap(), (0, 1_000_000, 2, [4, 5, 6]));
    assert!(Shared::<[u8]>::zeroed(0).unwrap().is_empty());
    assert!(SharedMut::<[u8]>::zeroed(0).unwrap().freeze().unwrap().is_empty());
    let none = SharedMut::<[u8]>::zeroed(0).unwrap().split(7).unwrap();
    assert!(none.is_empty() && none.freeze().unwrap().is_empty());
}

#[process_task]
fn add(counter: Shared<AtomicU64>, values: Shared<[u64]>, index: usize) -> u64 {
    counter.fetch_add(values[index], Relaxed);
    values[index]
}

fn every_item_of_a_map_has_its_handle(method: StartMethod) {
    let pool = pool(method, 2);
    let counters = [0, 0, 0].map(|zero| Shared::new(AtomicU64::new(zero)).unwrap());
    let values = Shared::<[u64]>::from_iter((0..2_000).map(|index| index * index)).unwrap();
    let items = (0..2_000).map(|index| (counters[index % 3].clone(), values.clone(), index));
    assert_eq!(pool.map(add, items).unwrap(), values[..]);
    for (which, counter) in counters.iter().enumerate() {
        let expected: u64 = values.iter().skip(which).step_by(3).sum();
        assert_eq!(counter.load(Relaxed), expected, "counter {which}");
    }
    let later: Vec<_> = (0..50).map(|index| pool.submit(add, (counters[0].clone(), values.clone(), index))).collect();
    for (index, call) in later.into_iter().enumerate() {
        assert_eq!(call.join().unwrap(), values[index]);
    }
}

#[process_task]
fn die_twice(tries: &Shared<Mutex<u64>>) -> u64 {
    let count = {
        let mut tries = tries.lock().unwrap();
        *tries += 1;
        *tries
    };
    if count < 3 {
        let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
    }
    count
}

fn a_call_that_is_repeated_has_its_handles_again(method: StartMethod) {
    let tries = Shared::new(Mutex::new(0)).unwrap();
    assert_eq!(pool(method, 2).call(die_twice.retries(4), &tries).unwrap(), 3);
    assert_eq!(*tries.lock().unwrap(), 3);
}

#[process_task]
fn keep(table: Shared<[u64]>, entered: Shared<AtomicU64>) {
    entered.fetch_add(1, Relaxed);
    *worker_state::<Option<Shared<[u64]>>>() = Some(table);
}

#[process_task]
fn from_table(index: usize) -> Option<u64> {
    worker_state::<Option<Shared<[u64]>>>().as_ref().map(|table| table[index])
}

fn an_initializer_takes_handles_and_workers_keep_them(method: StartMethod) {
    let table = Shared::<[u64]>::from_iter((0..1_000).map(|index| index ^ 5)).unwrap();
    let entered = Shared::new(AtomicU64::new(0)).unwrap();
    let builder = Pool::builder().start_method(method).workers(3);
    let pool = builder.initializer(keep, (table, entered.clone())).build().unwrap();
    // The parent has let go of the table: what keeps it is that new workers need it.
    assert_eq!(pool.map(from_table, 0..1_000).unwrap(), (0..1_000).map(|index| Some(index ^ 5)).collect::<Vec<_>>());
    pool.call(die.retries(0), ()).unwrap_err();
    let once_more = pool.map(from_table, 0..1_000).unwrap();
    assert_eq!(once_more[999], Some(0x3e7 ^ 5));
    pool.close();
    pool.wait_ended().unwrap();
    assert!((1..=4).contains(&entered.load(Relaxed)));
}

#[process_task]
fn die() {
    let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
}

/// Written as an `A`, read as a `B`.
struct Lie<A, B>(Option<A>, PhantomData<B>);

impl<A, B> Lie<A, B> {
    fn of(given: A) -> Self {
        Self(Some(given), PhantomData)
    }
}

impl<A: Serialize, B> Serialize for Lie<A, B> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_ref().expect("something to write").serialize(serializer)
    }
}

impl<'de, A, B: Deserialize<'de>> Deserialize<'de> for Lie<A, B> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        B::deserialize(deserializer).map(|_| Self(None, PhantomData))
    }
}

macro_rules! lies {
    ($($task:ident: $A:ty => $B:ty),+ $(,)?) => { $(
        #[process_task]
        fn $task(lie: Lie<$A, $B>) {
            let _ = lie;
        }
    )+ };
}

#[derive(Shareable)]
struct Metres {
    _value: f64,
}

lies! {
    other_numbers: Shared<[u64]> => Shared<[f64]>,
    one_of_many: Shared<[u64]> => Shared<u64>,
    many_of_one: Shared<u64> => Shared<[u64]>,
    same_layout: Shared<f64> => Shared<Metres>,
    frozen_as_changing: Shared<[u64]> => Shared<[AtomicU64]>,
    changing_as_frozen: Shared<[AtomicU64]> => Shared<[u64]>,
    ranges_as_frozen: SharedRanges<u64> => (Shared<[u64]>, u32),
    frozen_as_ranges: (Shared<[u64]>, Shared<[Mutex<()>]>) => SharedRanges<u64>,
    other_locks: (SharedRanges<u64>, SharedRanges<u64>, (u32, u32)) => ((u32, u32), (u32, u32), SharedRanges<u64>),
    an_index: u32 => Shared<u64>,
}

fn a_handle_that_lies_about_its_type_is_refused_in_words(method: StartMethod) {
    let pool = pool(method, 1);
    let numbers = || Shared::<[u64]>::from_slice(&[1, 2, 3]).unwrap();
    let counters = || Shared::<[AtomicU64]>::zeroed(3).unwrap();
    refused(pool.call(other_numbers, Lie::of(numbers())), &["`[u64]`", "`[f64]`"]);
    refused(pool.call(one_of_many, Lie::of(numbers())), &["`[u64]`", "`u64`"]);
    refused(pool.call(many_of_one, Lie::of(Shared::new(1).unwrap())), &["`u64`", "`[u64]`"]);
    refused(pool.call(same_layout, Lie::of(Shared::new(1.0).unwrap())), &["`f64`", "Metres`"]);
    refused(pool.call(frozen_as_changing, Lie::of(numbers())), &["`[u64]`", "AtomicU64]`"]);
    refused(pool.call(changing_as_frozen, Lie::of(counters())), &["AtomicU64]`", "`[u64]`"]);
    refused(pool.call(an_index, Lie::of(0)), &["names a handle that did not come with it"]);
    refused(run(method, an_index, Lie::of(7)), &["names a handle that did not come with it"]);
    assert_eq!(pool.call(add, (Shared::new(AtomicU64::new(0)).unwrap(), numbers(), 2)), Ok(3));
}

fn ranges_that_lie_about_their_locks_are_refused(method: StartMethod) {
    let pool = pool(method, 1);
    let ranges = || SharedMut::<[u64]>::zeroed(10).unwrap().split(5).unwrap();
    refused(pool.call(ranges_as_frozen, Lie::of(ranges())), &["`[u64]`", "no process can write"]);
    let numbers = Shared::<[u64]>::zeroed(10).unwrap();
    let locks = Shared::<[Mutex<()>]>::from_iter([Mutex::new(()), Mutex::new(())]).unwrap();
    refused(pool.call(frozen_as_ranges, Lie::of((numbers, locks))), &["`[u64]`", "`SharedRanges<[u64]>`"]);
    // Beside the payload are the first's values and locks, then the second's. The lie: values 0 with locks 3.
    let lie = |values, locks| Lie::of((ranges(), ranges(), (values, locks)));
    refused(pool.call(other_locks, lie(0, 3)), &["`[u64]`", "`SharedRanges<[u64]>`"]);
    pool.call(other_locks, lie(2, 3)).expect("this is no lie");
}

#[track_caller]
fn refused(result: Result<(), Error>, words: &[&str]) {
    let error = result.expect_err("a lie was believed");
    assert!(matches!(error.kind(), ErrorKind::CannotDecode { direction: Direction::Arguments, .. }), "{error}");
    let text = error.to_string();
    assert!(words.iter().all(|word| text.contains(word)), "{words:?} are not all in: {text}");
}

/// What some other format makes of it.
struct Elsewhere<'a>(&'a Shared<u8>);

impl fmt::Display for Elsewhere<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.serialize(f)
    }
}

#[test]
fn a_handle_outside_a_call_is_an_error() {
    support::promise(|| {
        let shared = Shared::new(5_u8).unwrap();
        assert!(write!(String::new(), "{}", Elsewhere(&shared)).is_err());
        let error = Shared::<u8>::deserialize(IntoDeserializer::<PlainError>::into_deserializer(0_u32)).unwrap_err();
        assert!(error.to_string().contains("part of an argument or a result of a task"), "{error}");
    });
}
