//! Collections in a manager: what each operation does, and that each is one.
//!
//! Runs in: the test process, the processes that it starts, and managers.

use std::collections::{BTreeSet, HashMap};

use crate::objects::{manager, until_objects};
use crate::support::{PATIENCE, eventually};
use process_task::channel::{Queue, QueueSender, RecvError};
use process_task::managed::{Array, Dict, List, Namespace, Set, Value};
use process_task::{Direction, ErrorKind, ManagerHandle, Pool, StartMethod, process_task};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Point {
    x: i32,
    name: String,
}

fn point(x: i32, name: &str) -> Point {
    Point { x, name: name.to_owned() }
}

/// Waits until the manager has so many objects. Values that hold some count as messages on their way.
#[track_caller]
fn until_objects_kept(manager: &ManagerHandle, count: usize) {
    eventually("the objects that no proxy is left of are dropped", PATIENCE, || {
        manager.stats().unwrap().objects().values().sum::<usize>() == count
    });
}

#[process_task]
#[expect(clippy::unnecessary_wraps, reason = "an update may take the value out")]
fn plus(old: Option<u64>, more: u64) -> Option<u64> {
    Some(old.unwrap_or(0) + more)
}

#[process_task]
#[expect(clippy::unnecessary_wraps, reason = "an update may take the value out")]
fn append(old: Option<String>, more: &str) -> Option<String> {
    Some(old.unwrap_or_default() + more)
}

#[process_task]
#[expect(clippy::unnecessary_wraps, reason = "an update may take the value out")]
fn moved(old: Option<Point>, (by, name): (i32, String)) -> Option<Point> {
    Some(Point { x: old.map_or(0, |old| old.x) + by, name })
}

/// Takes an odd number out, and doubles an even one.
#[process_task]
fn doubled_if_even(old: Option<u64>, _: ()) -> Option<u64> {
    old.filter(|old| old % 2 == 0).map(|old| old * 2)
}

/// Adds numbers that lie in the payload as they are.
#[process_task]
fn scaled(old: Option<Vec<f64>>, by: &[f64]) -> Option<Vec<f64>> {
    old.map(|old| old.iter().zip(by).map(|(old, by)| old * by).collect())
}

#[process_task]
fn fails(_: Option<u64>, why: String) -> Option<u64> {
    panic!("{why}")
}

fn dict_has_the_operations_of_a_map(method: StartMethod) {
    let manager = manager(method);
    let dict: Dict<String, u64> = Dict::new(&manager).unwrap();
    assert!(dict.is_empty().unwrap());
    assert_eq!(dict.insert("a", 1).unwrap(), None);
    assert_eq!(dict.insert("a", 2).unwrap(), Some(1));
    assert_eq!(dict.get("a").unwrap(), Some(2));
    assert_eq!(dict.get(&"b".to_owned()).unwrap(), None);
    assert!(dict.contains_key("a").unwrap() && !dict.contains_key("b").unwrap());
    assert_eq!(dict.get_or_insert("b", 7).unwrap(), 7);
    assert_eq!(dict.get_or_insert("b", 8).unwrap(), 7);
    dict.extend((0..600).map(|number| (format!("n{number}"), number))).unwrap();
    assert_eq!(dict.len().unwrap(), 602);
    assert_eq!(dict.pop("n0").unwrap(), Some(0));
    assert_eq!(dict.pop("n0").unwrap(), None);
    assert_eq!(dict.pop_last().unwrap(), Some(("n599".to_owned(), 599)));
    let all: Vec<_> = dict.iter().collect::<Result<_, _>>().unwrap();
    assert_eq!(all.len(), 600);
    assert_eq!(all[..3], [("a".to_owned(), 2), ("b".to_owned(), 7), ("n1".to_owned(), 1)], "in order of insertion");
    assert_eq!(dict.to_vec().unwrap(), all);
    assert_eq!(dict.keys().map(Result::unwrap).collect::<BTreeSet<_>>().len(), 600);
    assert_eq!(dict.values().map(Result::unwrap).sum::<u64>(), (1..599).sum::<u64>() + 9);
    dict.clear().unwrap();
    assert_eq!((dict.len().unwrap(), dict.pop_last().unwrap()), (0, None));
}

fn dict_has_keys_and_values_of_any_types(method: StartMethod) {
    let manager = manager(method);
    let dict: Dict<Point, (Option<u8>, Vec<String>)> = Dict::new(&manager).unwrap();
    let value = (Some(3), vec!["a".to_owned()]);
    dict.insert(&point(1, "one"), value.clone()).unwrap();
    dict.insert(&point(2, "two"), (None, Vec::new())).unwrap();
    assert_eq!(dict.get(&point(1, "one")).unwrap(), Some(value));
    assert_eq!(dict.get(&point(1, "two")).unwrap(), None);
    let floats: Dict<f64, ()> = Dict::new(&manager).unwrap();
    floats.insert(&f64::NAN, ()).unwrap();
    floats.insert(&0.0, ()).unwrap();
    assert!(floats.contains_key(&f64::NAN).unwrap(), "a key is compared by its bytes");
    assert!(!floats.contains_key(&-0.0).unwrap());
    let refused: Dict<HashMap<u8, u8>, u8> = Dict::new(&manager).unwrap();
    let error = refused.insert(&HashMap::new(), 1).unwrap_err();
    assert!(error.to_string().contains("cannot be a key"), "{error}");
}

fn dict_update_is_one_call(method: StartMethod) {
    let manager = manager(method);
    let dict: Dict<String, u64> = Dict::new(&manager).unwrap();
    assert_eq!(dict.update("a", plus, 3).unwrap(), Some(3));
    let before = manager.stats().unwrap().calls();
    assert_eq!(dict.update("a", plus, 4).unwrap(), Some(7));
    assert_eq!(manager.stats().unwrap().calls(), before + 1);
    assert_eq!(dict.update("a", doubled_if_even, ()).unwrap(), None, "which takes the entry out");
    assert!(!dict.contains_key("a").unwrap());
    dict.insert("b", 8).unwrap();
    assert_eq!(dict.update("b", doubled_if_even, ()).unwrap(), Some(16));
    let error = dict.update("b", fails, "on purpose".to_owned()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Panicked { message, .. } if message == "on purpose"), "{error}");
    assert_eq!(dict.update("b", plus, 1).unwrap(), Some(17), "a panic changes nothing and locks nothing");
    let texts: Dict<u8, String> = Dict::new(&manager).unwrap();
    texts.update(&1, append, "ab").unwrap();
    assert_eq!(texts.update(&1, append, "cd").unwrap(), Some("abcd".to_owned()));
    let points: Dict<u8, Point> = Dict::new(&manager).unwrap();
    points.insert(&1, point(5, "five")).unwrap();
    assert_eq!(points.update(&1, moved, (2, "seven".to_owned())).unwrap(), Some(point(7, "seven")));
    assert_eq!(points.update(&2, moved, (2, "two".to_owned())).unwrap(), Some(point(2, "two")));
    let rows: Dict<u8, Vec<f64>> = Dict::new(&manager).unwrap();
    rows.insert(&1, vec![1.0, 2.0, 3.0]).unwrap();
    assert_eq!(rows.update(&1, scaled, &[2.0, 3.0, 4.0]).unwrap(), Some(vec![2.0, 6.0, 12.0]));
    assert_eq!(rows.get(&1).unwrap(), Some(vec![2.0, 6.0, 12.0]));
}

#[process_task]
fn count_words(text: &str, counts: &Dict<String, u64>) {
    for word in text.split_whitespace() {
        counts.update(word, plus, 1).unwrap();
    }
}

fn dict_updates_of_many_processes_lose_none(method: StartMethod) {
    let manager = manager(method);
    let counts: Dict<String, u64> = Dict::new(&manager).unwrap();
    let pool = Pool::builder().workers(3).start_method(method).build().unwrap();
    let text = "a b a c ".repeat(50);
    let calls: Vec<_> = (0..6).map(|_| pool.submit(count_words, (&text, &counts))).collect();
    for call in calls {
        call.join().unwrap();
    }
    let mut all = counts.to_vec().unwrap();
    all.sort();
    assert_eq!(all, [("a".to_owned(), 600), ("b".to_owned(), 300), ("c".to_owned(), 300)]);
}

/// Changes the dictionary that it is an update of.
#[process_task]
fn meddles(old: Option<u64>, (dict, key): (Dict<String, u64>, String)) -> Option<u64> {
    match dict.insert(&key, 5) {
        Ok(_) => old,
        Err(error) => panic!("{error}"),
    }
}

fn update_that_waits_for_itself_is_refused(method: StartMethod) {
    let manager = manager(method);
    let dict: Dict<String, u64> = Dict::new(&manager).unwrap();
    dict.insert("a", 1).unwrap();
    assert_eq!(dict.update("a", meddles, (dict.clone(), "b".to_owned())).unwrap(), Some(1));
    assert_eq!(dict.get("b").unwrap(), Some(5), "another entry is free");
    let error = dict.update("a", meddles, (dict.clone(), "a".to_owned())).unwrap_err();
    assert!(error.to_string().contains("would wait for the task"), "{error}");
    assert_eq!(dict.get("a").unwrap(), Some(1));
}

fn dict_iteration_is_a_live_view(method: StartMethod) {
    let manager = manager(method);
    let dict: Dict<u32, u32> = Dict::new(&manager).unwrap();
    dict.extend((0..1000).map(|number| (number, 0))).unwrap();
    let mut entries = dict.iter();
    assert_eq!(entries.next().unwrap().unwrap(), (0, 0));
    for number in 500..600 {
        dict.pop(&number).unwrap();
    }
    dict.insert(&700, 7).unwrap();
    dict.insert(&2000, 0).unwrap();
    let rest: Vec<_> = entries.map(Result::unwrap).collect();
    assert_eq!(rest.iter().filter(|(number, _)| (500..600).contains(number)).count(), 0);
    assert!(rest.contains(&(700, 7)));
    assert_eq!(rest.last(), Some(&(2000, 0)));
    assert_eq!(rest.len(), 900);
}

fn list_has_the_operations_of_a_sequence(method: StartMethod) {
    let manager = manager(method);
    let list: List<i64> = List::new(&manager, 0..5).unwrap();
    list.push(5).unwrap();
    list.extend(6..9).unwrap();
    assert_eq!(list.to_vec().unwrap(), (0..9).collect::<Vec<_>>());
    assert_eq!(list.set(0, 100).unwrap(), 0);
    list.insert(1, 50).unwrap();
    list.insert(10, 9).unwrap();
    assert_eq!(list.to_vec().unwrap(), [100, 50, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(
        (list.pop().unwrap(), list.pop_front().unwrap(), list.remove(1).unwrap()),
        (Some(9), Some(100), Some(1))
    );
    assert_eq!((list.get(0).unwrap(), list.get(99).unwrap(), list.remove(99).unwrap()), (Some(50), None, None));
    list.swap(0, 1).unwrap();
    list.reverse().unwrap();
    assert_eq!(list.to_vec().unwrap(), [8, 7, 6, 5, 4, 3, 50, 2]);
    list.sort().unwrap();
    assert_eq!(list.to_vec().unwrap(), [2, 3, 4, 5, 6, 7, 8, 50]);
    assert_eq!(list.slice(2, 3).unwrap(), [4, 5, 6]);
    assert!(list.contains(50).unwrap() && !list.contains(51).unwrap());
    list.extend([3, 3]).unwrap();
    assert_eq!((list.index_of(3).unwrap(), list.count(3).unwrap(), list.index_of(51).unwrap()), (Some(1), 3, None));
    assert!(list.remove_value(3).unwrap() && !list.remove_value(51).unwrap());
    list.truncate(3).unwrap();
    assert_eq!(list.iter().map(Result::unwrap).collect::<Vec<_>>(), [2, 4, 5]);
    assert_eq!(list.len().unwrap(), 3);
    list.repeat(2).unwrap();
    assert_eq!(list.to_vec().unwrap(), [2, 4, 5, 2, 4, 5]);
    list.repeat(1).unwrap();
    assert_eq!(list.len().unwrap(), 6);
    list.repeat(0).unwrap();
    assert!(list.is_empty().unwrap());
    list.push(1).unwrap();
    list.clear().unwrap();
    assert_eq!((list.is_empty().unwrap(), list.pop().unwrap(), list.pop_front().unwrap()), (true, None, None));
}

fn list_repeated_beyond_memory_says_so(method: StartMethod) {
    let manager = manager(method);
    let list: List<u64> = List::new(&manager, [1, 2]).unwrap();
    for times in [usize::MAX, usize::MAX / 2, 1 << 50] {
        let error = list.repeat(times).unwrap_err();
        assert!(error.to_string().contains("no memory"), "{error}");
    }
    assert_eq!(list.to_vec().unwrap(), [1, 2]);
    let empty: List<u64> = List::new(&manager, []).unwrap();
    empty.repeat(usize::MAX).unwrap();
    assert!(empty.is_empty().unwrap());
}

fn list_index_out_of_range_says_so(method: StartMethod) {
    let manager = manager(method);
    let list: List<u64> = List::new(&manager, [1, 2]).unwrap();
    let outcomes = [list.set(2, 0).map(drop), list.insert(3, 0), list.swap(0, 2), list.update(7, plus, 1).map(drop)];
    for outcome in outcomes {
        let error = outcome.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error:?}");
        assert!(error.to_string().contains("there are 2 elements"), "{error}");
    }
    assert_eq!(list.to_vec().unwrap(), [1, 2]);
}

fn list_update_is_one_call(method: StartMethod) {
    let manager = manager(method);
    let list: List<u64> = List::new(&manager, [1, 2, 3]).unwrap();
    let before = manager.stats().unwrap().calls();
    assert_eq!(list.update(1, plus, 5).unwrap(), Some(7));
    assert_eq!(manager.stats().unwrap().calls(), before + 1);
    assert_eq!(list.update(0, doubled_if_even, ()).unwrap(), None);
    assert_eq!(list.to_vec().unwrap(), [7, 3], "an element without a value is gone");
    let many: List<u64> = List::new(&manager, 0..1000).unwrap();
    assert_eq!(many.iter().map(Result::unwrap).sum::<u64>(), 499_500);
}

fn proxies_beyond_one_message_are_iterated(method: StartMethod) {
    let manager = manager(method);
    let dict: Dict<u64, Value<u64>> = Dict::new(&manager).unwrap();
    let list = List::new(&manager, []).unwrap();
    for number in 0..100_u64 {
        let value = Value::new(&manager, number).unwrap();
        dict.insert(&number, value.clone()).unwrap();
        list.push(value).unwrap();
    }
    let of_dict: Vec<_> = dict.iter().map(|entry| entry.unwrap().1.get().unwrap()).collect();
    let of_list: Vec<_> = list.iter().map(|value| value.unwrap().get().unwrap()).collect();
    assert_eq!((of_dict, of_list), ((0..100).collect(), (0..100).collect()));
    let error = list.to_vec().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::CannotEncode { .. }), "{error:?}");
}

fn nested_collections_are_proxies(method: StartMethod) {
    let manager = manager(method);
    let inner: List<u64> = List::new(&manager, [1]).unwrap();
    let outer: List<List<u64>> = List::new(&manager, [inner.clone(), List::new(&manager, [2]).unwrap()]).unwrap();
    inner.push(10).unwrap();
    assert_eq!(outer.get(0).unwrap().unwrap().to_vec().unwrap(), [1, 10]);
    outer.get(1).unwrap().unwrap().push(20).unwrap();
    assert_eq!(outer.get(1).unwrap().unwrap().to_vec().unwrap(), [2, 20]);
    assert_eq!(inner.to_vec().unwrap(), [1, 10], "only the right one has changed");
    until_objects_kept(&manager, 3);
    drop(inner);
    assert_eq!(outer.get(0).unwrap().unwrap().len().unwrap(), 2, "the outer one holds the inner one");
    outer.pop().unwrap();
    until_objects_kept(&manager, 2);
    drop(outer);
    until_objects(&manager, 0);
}

fn list_that_contains_itself_can_be_emptied_and_dropped(method: StartMethod) {
    let manager = manager(method);
    let list: List<Node> = List::new(&manager, []).unwrap();
    list.push(Node::List(list.clone())).unwrap();
    let Node::List(again) = list.get(0).unwrap().unwrap() else { panic!("another node") };
    assert_eq!(again, list);
    list.push(Node::Leaf(3)).unwrap();
    assert_eq!(again.len().unwrap(), 2);
    drop(again);
    list.clear().unwrap();
    drop(list);
    until_objects(&manager, 0);
}

#[derive(Serialize, Deserialize)]
enum Node {
    Leaf(u8),
    List(List<Node>),
}

fn set_has_the_operations_of_a_set(method: StartMethod) {
    let manager = manager(method);
    let set: Set<String> = Set::new(&manager).unwrap();
    assert!(set.insert("a").unwrap() && !set.insert("a").unwrap());
    set.extend(["b".to_owned(), "c".to_owned(), "b".to_owned()]).unwrap();
    assert_eq!(set.to_vec().unwrap(), ["a", "b", "c"]);
    assert!(set.contains("b").unwrap() && set.remove("b").unwrap());
    assert!(!set.contains("b").unwrap() && !set.remove("b").unwrap());
    assert_eq!(set.iter().collect::<Result<BTreeSet<_>, _>>().unwrap(), BTreeSet::from(["a".into(), "c".into()]));
    assert_eq!((set.pop().unwrap(), set.len().unwrap()), (Some("c".to_owned()), 1));
    set.clear().unwrap();
    assert_eq!((set.is_empty().unwrap(), set.pop().unwrap()), (true, None));
}

fn set_has_the_operators_and_comparisons_of_sets(method: StartMethod) {
    let manager = manager(method);
    let set: Set<u32> = Set::new(&manager).unwrap();
    set.extend(0..6).unwrap();
    assert_eq!(set.remove_all([0, 1, 9]).unwrap(), 2);
    assert_eq!(set.retain_all([2, 3, 4, 9]).unwrap(), 1);
    assert_eq!(set.to_vec().unwrap(), [2, 3, 4]);
    set.toggle_all([4, 5]).unwrap();
    assert_eq!(set.to_vec().unwrap(), [2, 3, 5]);
    assert!(set.is_subset([5, 3, 2, 1]).unwrap() && !set.is_subset([2, 3]).unwrap());
    assert!(set.is_superset([3, 3, 2]).unwrap() && !set.is_superset([3, 4]).unwrap());
    assert!(set.is_disjoint([7, 8]).unwrap() && !set.is_disjoint([7, 5]).unwrap());
    let here: BTreeSet<u32> = set.to_vec().unwrap().into_iter().collect();
    assert_eq!(&here | &BTreeSet::from([9]), BTreeSet::from([2, 3, 5, 9]), "what it is here has Rust's operators");
}

fn value_is_read_replaced_and_updated(method: StartMethod) {
    let manager = manager(method);
    let value: Value<u64> = Value::new(&manager, 1).unwrap();
    assert_eq!(value.get().unwrap(), 1);
    value.set(2).unwrap();
    assert_eq!(value.replace(3).unwrap(), 2);
    assert_eq!(value.compare_exchange(2, 9).unwrap(), Err(3));
    assert_eq!(value.compare_exchange(3, 4).unwrap(), Ok(3));
    assert_eq!(value.update(plus, 3).unwrap(), Some(7));
    assert_eq!(value.update(doubled_if_even, ()).unwrap(), None);
    assert_eq!(value.get().unwrap(), 7, "no value leaves the one that is there");
    let state: Value<Point> = Value::new(&manager, point(1, "one")).unwrap();
    assert_eq!(state.update(moved, (1, "two".to_owned())).unwrap(), Some(point(2, "two")));
    assert_eq!(state.get().unwrap(), point(2, "two"));
}

fn array_keeps_its_length(method: StartMethod) {
    let manager = manager(method);
    let array: Array<u64> = Array::new(&manager, 0..4).unwrap();
    assert_eq!((array.len().unwrap(), array.get(3).unwrap(), array.get(4).unwrap()), (4, Some(3), None));
    assert_eq!(array.set(0, 9).unwrap(), 0);
    assert_eq!(array.update(1, plus, 5).unwrap(), Some(6));
    assert_eq!(array.update(3, doubled_if_even, ()).unwrap(), None);
    array.swap(0, 1).unwrap();
    assert_eq!(array.to_vec().unwrap(), [6, 9, 2, 3]);
    assert_eq!(array.slice(1, 2).unwrap(), [9, 2]);
    assert_eq!(array.iter().map(Result::unwrap).sum::<u64>(), 20);
    assert!(array.set(4, 0).unwrap_err().to_string().contains("there are 4 elements"));
}

fn namespace_has_values_of_any_types_by_name(method: StartMethod) {
    let manager = manager(method);
    let names = Namespace::new(&manager).unwrap();
    names.set("depth", 3_u32).unwrap();
    names.set("numbers", vec![1.5, 2.5]).unwrap();
    names.set("point", point(1, "p")).unwrap();
    assert_eq!(names.get::<u32>("depth").unwrap(), Some(3));
    assert_eq!(names.get::<Vec<f64>>("numbers").unwrap(), Some(vec![1.5, 2.5]));
    assert_eq!(names.get::<Point>("point").unwrap(), Some(point(1, "p")));
    assert_eq!(names.get::<u32>("absent").unwrap(), None);
    let error = names.get::<u64>("depth").unwrap_err();
    assert!(error.to_string().contains("`depth` was not set as a `u64`"), "{error}");
    names.set("depth", "deep".to_owned()).unwrap();
    assert_eq!(names.get::<String>("depth").unwrap(), Some("deep".to_owned()));
    assert_eq!(names.names().unwrap(), ["depth", "numbers", "point"]);
    assert!(names.remove("depth").unwrap() && !names.remove("depth").unwrap() && !names.contains("depth").unwrap());
    names.clear().unwrap();
    assert!(names.names().unwrap().is_empty());
}

#[process_task]
fn send_on(queues: &Dict<String, QueueSender<u64>>, name: &str, item: u64) {
    queues.get(name).unwrap().unwrap().send(item).unwrap();
}

fn values_with_descriptors_are_kept_and_copied(method: StartMethod) {
    let manager = manager(method);
    let (sender, receiver) = Queue::<u64>::unbounded().unwrap().split();
    let queues: Dict<String, QueueSender<u64>> = Dict::new(&manager).unwrap();
    queues.insert("main", sender).unwrap();
    for item in 0..3 {
        send_on.spawn(&queues, "main", item).join().unwrap();
        assert_eq!(receiver.recv().unwrap(), item);
    }
    queues.pop("main").unwrap();
    assert!(matches!(receiver.recv(), Err(RecvError::Disconnected)), "no copy is left behind");
}

fn collection_is_not_read_as_one_of_another_type(method: StartMethod) {
    let manager = manager(method);
    let list: List<u64> = List::new(&manager, [1]).unwrap();
    let numbers: Dict<u8, List<u64>> = Dict::new(&manager).unwrap();
    numbers.insert(&1, list).unwrap();
    let names = Namespace::new(&manager).unwrap();
    names.set("list", numbers.get(&1).unwrap().unwrap()).unwrap();
    assert!(names.get::<List<u32>>("list").is_err());
    assert!(names.get::<List<u64>>("list").unwrap().is_some());
}

fn value_that_refuses_is_the_callers_error(method: StartMethod) {
    #[derive(Debug, Deserialize)]
    struct Odd(u8);

    impl Serialize for Odd {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            if self.0.is_multiple_of(2) {
                Err(serde::ser::Error::custom("it is even"))
            } else {
                serializer.serialize_u8(self.0)
            }
        }
    }

    let manager = manager(method);
    let dict: Dict<u8, Odd> = Dict::new(&manager).unwrap();
    dict.insert(&1, Odd(1)).unwrap();
    let error = dict.insert(&1, Odd(2)).unwrap_err();
    let is_refused = |kind: &ErrorKind| matches!(kind, ErrorKind::CannotEncode { direction: Direction::Arguments, reason, .. } if reason.contains("it is even"));
    assert!(is_refused(error.kind()), "{error:?}");
    let error = dict.extend([(2, Odd(3)), (3, Odd(4))]).unwrap_err();
    assert!(is_refused(error.kind()), "{error:?}");
    assert_eq!((dict.len().unwrap(), dict.get(&1).unwrap().unwrap().0), (1, 1), "nothing was put in");
}

under_every_start_method! {
    dict_has_the_operations_of_a_map,
    dict_has_keys_and_values_of_any_types,
    dict_update_is_one_call,
    dict_updates_of_many_processes_lose_none,
    update_that_waits_for_itself_is_refused,
    dict_iteration_is_a_live_view,
    list_has_the_operations_of_a_sequence,
    list_repeated_beyond_memory_says_so,
    list_index_out_of_range_says_so,
    list_update_is_one_call,
    nested_collections_are_proxies,
    proxies_beyond_one_message_are_iterated,
    list_that_contains_itself_can_be_emptied_and_dropped,
    set_has_the_operations_of_a_set,
    set_has_the_operators_and_comparisons_of_sets,
    value_is_read_replaced_and_updated,
    array_keeps_its_length,
    namespace_has_values_of_any_types_by_name,
    values_with_descriptors_are_kept_and_copied,
    collection_is_not_read_as_one_of_another_type,
    value_that_refuses_is_the_callers_error,
}
