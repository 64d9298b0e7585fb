//! What `map` promises of values, whatever way they travel in: results of any size, in order, errors of the item that they
//! belong to, and word of how far it has come.
//!
//! Runs in: the test process; its tasks run in workers. Never: depends on how many items share a frame, or how fast
//! anything is.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use crate::support::print_task::print;
use crate::support::scratch::Scratch;
use process_task::{Execution, Pool, StartMethod, process_task};
use serde::{Deserialize, Serialize, Serializer, ser};

under_every_start_method! {
    within 120 seconds;
    trivial_items_are_exact_in_any_number,
    results_of_wildly_different_sizes_are_exact,
    arguments_of_wildly_different_sizes_are_exact,
    arguments_that_refuse_are_an_error_of_their_item,
    a_slow_input_does_not_hold_items_back,
    a_panicking_input_or_hook_leaves_the_pool_usable,
    progress_is_told_to_the_end,
    threads_may_map_at_once,
    what_items_print_is_there_before_their_results,
    lazy_maps_read_as_far_ahead_as_told,
}

#[process_task]
fn square(x: u32) -> u64 {
    u64::from(x) * u64::from(x)
}

#[process_task]
fn nothing(_: ()) {}

#[process_task]
fn filled(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at ^ len) % 251).unwrap_or(0)).collect()
}

#[process_task]
fn floats(text: &str, numbers: &[f64]) -> (usize, Vec<f64>) {
    (text.len(), numbers.to_vec())
}

fn pool(method: StartMethod, workers: usize) -> Pool {
    Pool::builder().workers(workers).start_method(method).build().expect("a pool")
}

fn trivial_items_are_exact_in_any_number(method: StartMethod) {
    let pool = pool(method, 2);
    for count in [0, 1, 2, 3, 7, 100, 1_000, 30_000, 5, 1] {
        let expected: Vec<u64> = (0..count).map(*square).collect();
        assert_eq!(pool.map(square, 0..count), Ok(expected.clone()), "{count} items");
        // The number of items is not known here.
        assert_eq!(
            pool.map(square, (0..2 * count).filter(|x| *x < count)),
            Ok(expected),
            "{count} items of twice as many"
        );
        assert_eq!(pool.map(nothing, vec![(); count as usize]), Ok(vec![(); count as usize]));
    }
}

fn results_of_wildly_different_sizes_are_exact(method: StartMethod) {
    let pool = pool(method, 2);
    let sizes = [0, 1, 3, 8, 100, 1_000, 3_000, 4_040, 4_048, 4_056, 4_064, 5_000, 70_000, 3 << 20];
    let small = |at: usize| at * 7 % 40;
    // Small ones first, so that many share a frame when the others come.
    let lens: Vec<usize> =
        (0..600).map(small).chain((0..1_500).map(|at| if at % 50 == 7 { sizes[at % 14] } else { small(at) })).collect();
    let results = pool.map(filled, lens.iter().copied()).expect("bytes");
    assert!(results.iter().zip(&lens).all(|(result, len)| *result == filled(*len)) && results.len() == lens.len());
    let big = pool.map(filled, [5 << 20, 2, 6 << 20, 0]).expect("bytes");
    assert_eq!(big.iter().map(Vec::len).collect::<Vec<_>>(), [5 << 20, 2, 6 << 20, 0]);
}

fn arguments_of_wildly_different_sizes_are_exact(method: StartMethod) {
    let pool = pool(method, 2);
    let text = "x".repeat(200_000);
    let numbers: Vec<f64> = (0..9_000).map(f64::from).collect();
    let items = (0..1_200usize).map(|at| match at % 100 {
        50 => (&text[..1_001], &numbers[..500]),
        51 => (&text[..990], &numbers[..0]),
        52 => (&text[..], &numbers[..]),
        53 => (&text[..4_000], &numbers[..1]),
        at => (&text[..at * 3], &numbers[at..2 * at]),
    });
    let results = pool.map(floats, items.clone()).expect("floats");
    assert!(results.into_iter().eq(items.map(|(text, numbers)| floats(text, numbers))));
}

/// An argument that refuses to be written, or to be read, by its number.
#[derive(Debug)]
struct Stubborn(u32);

impl Serialize for Stubborn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 == 1_000 { Err(ser::Error::custom("not this one")) } else { self.0.serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for Stubborn {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u32::deserialize(deserializer)?;
        if number == 2_000 { Err(serde::de::Error::custom("unreadable")) } else { Ok(Self(number)) }
    }
}

#[process_task]
fn number_of(stubborn: Stubborn) -> u32 {
    stubborn.0
}

fn arguments_that_refuse_are_an_error_of_their_item(method: StartMethod) {
    let pool = pool(method, 2);
    for (bad, text) in [(1_000, "not this one"), (2_000, "unreadable")] {
        for at in [0u32, 1, 313, 499] {
            let mut done = 0;
            let items = (0..500).map(|item| Stubborn(if item == at { bad } else { item }));
            let error = pool.on_progress(|now, _| done = now).map(number_of, items).expect_err("it refuses");
            assert!(error.to_string().contains(text), "{error}");
            assert_eq!((error.execution(), done), (Execution::NotStarted, at as usize), "{error}");
        }
    }
    assert_eq!(pool.map(number_of, (0..300).map(Stubborn)), Ok((0..300).collect()));
}

fn a_slow_input_does_not_hold_items_back(method: StartMethod) {
    let pool = pool(method, 2);
    let told = Cell::new(None);
    // Fast at first, so that frames become long; then far slower than the items are. How many come is not known.
    let items = (0..3_012).filter(|item| {
        if *item >= 3_000 {
            thread::sleep(Duration::from_millis(40));
        }
        true
    });
    let results = pool
        .on_progress(|done, _| {
            if done > 3_000 && told.get().is_none() {
                told.set(Some(done));
            }
        })
        .map(square, items);
    assert_eq!(results.expect("results").len(), 3_012);
    let done = told.get().expect("told of those that were late");
    assert!(done < 3_012, "results of a slow input were told of at its end only");
}

fn a_panicking_input_or_hook_leaves_the_pool_usable(method: StartMethod) {
    let pool = pool(method, 2);
    for at in [0, 1, 5, 999] {
        let bad = (0..2_000).inspect(|item| assert!(*item < at, "input"));
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| pool.map(square, bad)));
        assert_eq!(*caught.expect_err("it panics").downcast::<&str>().expect("a text"), "input");
        let hook = |done: usize, _| assert!(done <= at as usize, "hook");
        let caught =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| pool.on_progress(hook).map(square, 0..2_000)));
        assert_eq!(*caught.expect_err("it panics").downcast::<&str>().expect("a text"), "hook");
        assert_eq!(pool.map(square, 0..500), Ok((0..500).map(*square).collect()));
    }
}

fn progress_is_told_to_the_end(method: StartMethod) {
    let pool = pool(method, 2);
    let tell = |items: &mut dyn Iterator<Item = u32>| {
        let mut told = Vec::new();
        pool.on_progress(|done, total| told.push((done, total))).map(square, items).expect("squares");
        assert!(told.is_sorted() && told.windows(2).all(|pair| pair[0] != pair[1]), "{told:?}");
        told
    };
    let told = tell(&mut (0..20_000));
    assert!(told.len() > 10 && told.iter().all(|(_, total)| *total == Some(20_000)));
    assert_eq!(told.last(), Some(&(20_000, Some(20_000))));
    let told = tell(&mut (0..300).filter(|item| item % 3 == 0));
    assert_eq!(told.last(), Some(&(100, Some(100))));
    assert!(told.iter().rev().skip(1).all(|(_, total)| total.is_none()));
    assert_eq!(tell(&mut std::iter::empty()), [(0, Some(0))]);
    assert_eq!(tell(&mut std::iter::once(7)), [(1, Some(1))]);
}

fn threads_may_map_at_once(method: StartMethod) {
    let pool = pool(method, 3);
    thread::scope(|scope| {
        for thread in 0..4u32 {
            let pool = &pool;
            scope.spawn(move || {
                for _ in 0..3 {
                    let range = thread * 10_000..thread * 10_000 + 4_000;
                    assert_eq!(pool.map(square, range.clone()), Ok(range.map(*square).collect()));
                    assert_eq!(pool.call(square, thread), Ok(square(thread)));
                }
            });
        }
    });
}

fn what_items_print_is_there_before_their_results(method: StartMethod) {
    let scratch = Scratch::new();
    let pool = pool(method, 2);
    let directory = scratch.file("");
    let printed = || {
        let files = std::fs::read_dir(scratch.path()).expect("the directory");
        let texts = files.map(|file| std::fs::read_to_string(file.expect("a file").path()).expect("a text"));
        let numbers: Vec<u32> = texts
            .flat_map(|text| text.split_whitespace().map(|n| n.parse().expect("a number")).collect::<Vec<_>>())
            .collect();
        numbers.into_iter().collect::<BTreeSet<_>>()
    };
    let results = pool
        .on_progress(|done, _| {
            let (printed, done) = (printed(), u32::try_from(done).expect("few items"));
            assert!(
                (0..done).all(|item| printed.contains(&item)),
                "results of {done} items, and not what they printed"
            );
        })
        .map(print, (0..1_200).map(|item| (directory.as_str(), item)));
    assert_eq!(results, Ok((0..1_200).collect()));
}

fn lazy_maps_read_as_far_ahead_as_told(method: StartMethod) {
    let pool = pool(method, 2);
    let read = Cell::new(0);
    let endless = || {
        read.set(0);
        (0..).inspect(|_| read.set(read.get() + 1))
    };
    for ahead in [1, 2, 5, 100] {
        let mut ordered = pool.imap(square, endless()).buffer(ahead);
        let taken = |asked| {
            assert_eq!(read.get(), asked + ahead - 1, "{ahead} ahead, and asked for {asked}");
        };
        for asked in 1..20 {
            assert_eq!(ordered.next(), Some(Ok(square(u32::try_from(asked - 1).expect("a small number")))));
            taken(asked);
        }
        drop(ordered);
        let mut unordered = pool.imap_unordered(square, endless()).buffer(ahead);
        for asked in 1..20 {
            unordered.next().expect("an endless input").expect("a square");
            taken(asked);
        }
    }
    let all = pool.imap(square, 0..9).buffer(usize::MAX);
    assert_eq!(all.len(), 9);
    assert!(all.map(Result::unwrap).eq((0..9).map(*square)));
    let mut refused = pool.imap_unordered(square, 0..9).buffer(0);
    let error = refused.next().expect("one result for each item").expect_err("it is refused");
    assert!(error.to_string().contains("`buffer` must be at least 1, not 0"), "{error}");
    assert_eq!(refused.count(), 8);
}
