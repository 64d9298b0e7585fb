//! Types whose first values do not show what later ones need, and values that come first from several sides.
//!
//! Runs in: the test process; the tasks in workers. Never: takes another value for an acceptable end.

use std::collections::BTreeMap;
use std::sync::Barrier;

use process_task::channel::{Queue, QueueReceiver, QueueSender};
use process_task::{Pool, StartMethod, process_task};
use process_task_types::{arrives, pool};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

under_every_start_method! { within 300 seconds;
    a_first_value_without_need_hides_nothing,
    types_of_one_name_are_two_types,
    one_odd_element_at_the_end_arrives,
    items_of_map_that_differ_arrive,
    a_large_value_that_needs_names_late_arrives,
    results_that_begin_with_none_arrive,
    argument_and_item_of_one_type_arrive,
    first_values_from_many_threads_arrive,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Generic<A, B = ()> {
    Left(A),
    Right { right: B },
    Both(A, Box<Generic<B, A>>),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(i64),
    Text(String),
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Late {
    Plain(u32),
    Json(Value),
    Bytes(Vec<u8>),
    Sparse {
        #[serde(skip_serializing_if = "Option::is_none")]
        maybe: Option<u32>,
        after: u32,
    },
}

fn a_first_value_without_need_hides_nothing(method: StartMethod) {
    let pool = pool(method);
    let sparse = |maybe| Late::Sparse { maybe, after: 2 };
    let json = Late::Json(json!({"a": [1, null]}));
    arrives!(
        &pool,
        Late,
        [Late::Plain(1), sparse(Some(1)), Late::Plain(2), sparse(None), json.clone(), Late::Plain(3)]
    );
    arrives!(&pool, Option<Late>, [None, Some(Late::Plain(1)), Some(json.clone()), None, Some(sparse(Some(3)))]);
    arrives!(
        &pool,
        Generic<Option<Value>, Vec<Value>>,
        [
            Generic::Left(None),
            Generic::Right { right: vec![] },
            Generic::Right { right: vec![Value::Null] },
            Generic::Left(Some(json!(1))),
        ]
    );
    arrives!(&pool, BTreeMap<u8, Result<u8, Late>>, [
        BTreeMap::new(),
        [(0, Ok(1)), (1, Err(Late::Plain(2)))].into(),
        [(0, Ok(1)), (1, Err(json))].into(),
    ]);
}

mod one {
    #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    pub(super) struct Same {
        pub(super) a: Option<u8>,
        pub(super) b: Option<u8>,
    }
}

mod other {
    #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    pub(super) struct Same {
        #[serde(skip_serializing_if = "Option::is_none")]
        pub(super) a: Option<u8>,
        pub(super) b: serde_json::Value,
    }
}

fn types_of_one_name_are_two_types(method: StartMethod) {
    let pool = pool(method);
    let first = [one::Same { a: None, b: None }, one::Same { a: Some(1), b: Some(2) }];
    let second = [other::Same { a: Some(1), b: json!(2) }, other::Same { a: None, b: Value::Null }];
    let [a, b] = first.clone();
    let [c, d] = second.clone();
    arrives!(&pool, Generic<one::Same>, first.map(Generic::Left));
    arrives!(&pool, Generic<other::Same>, second.map(Generic::Left));
    arrives!(&pool, Generic<one::Same, other::Same>, [
        Generic::Both(a.clone(), Box::new(Generic::Left(c.clone()))),
        Generic::Both(b, Box::new(Generic::Both(d, Box::new(Generic::Both(a, Box::new(Generic::Left(c))))))),
    ]);
}

#[process_task]
fn last_of(list: Vec<Late>) -> (usize, Option<Late>) {
    (list.len(), list.into_iter().next_back())
}

fn one_odd_element_at_the_end_arrives(method: StartMethod) {
    let pool = pool(method);
    let odds = [Late::Json(json!(["ß", 0.5])), Late::Sparse { maybe: None, after: 7 }, Late::Bytes(vec![7; 3])];
    for odd in odds {
        let many: Vec<Late> = (0..3_000).map(Late::Plain).chain([odd.clone()]).collect();
        let (len, last) = pool.call(last_of, many).unwrap();
        assert_eq!((len, last), (3_001, Some(odd)));
    }
}

#[process_task]
fn echo_late(late: Late, value: Option<Value>) -> (Option<Value>, Late) {
    (value, late)
}

fn items_of_map_that_differ_arrive(method: StartMethod) {
    let item = |at: u32| match at {
        0..150 => (Late::Plain(at), None),
        150..240 => (Late::Sparse { maybe: (!at.is_multiple_of(7)).then_some(at), after: at }, Some(json!(at))),
        _ => (Late::Json(json!({"at": at})), Some(json!([at, null]))),
    };
    let items: Vec<_> = (0..300).map(item).collect();
    let back = pool(method).map(echo_late, items.clone()).unwrap();
    assert!(back.into_iter().map(|(value, late)| (late, value)).eq(items));
}

fn a_large_value_that_needs_names_late_arrives(method: StartMethod) {
    let pool = pool(method);
    let large = |len| (Late::Bytes(vec![7; len]), Some(json!("ß".repeat(len / 2))));
    for (late, value) in [large(10), large(200_000), large(10)] {
        let back = pool.call(echo_late, (late.clone(), value.clone())).unwrap();
        assert!(back == (value, late));
    }
    let (late, text) = (Late::Json(json!(vec!["a"; 30_000])), Some(json!("ß")));
    assert!(pool.call(echo_late, (late.clone(), text.clone())).unwrap() == (text, late));
}

#[process_task]
fn maybe_json(have: Option<u8>) -> Option<Value> {
    have.map(|have| json!({"have": have}))
}

#[process_task]
fn nested_json(have: Option<u8>) -> Result<Vec<Option<Value>>, NumberOrText> {
    match have {
        None => Ok(Vec::new()),
        Some(0) => Err(NumberOrText::Text("ß".to_owned())),
        Some(have) => Ok(vec![None, Some(json!(have))]),
    }
}

fn results_that_begin_with_none_arrive(method: StartMethod) {
    let pool = pool(method);
    for have in [None, Some(1), None, Some(2)] {
        assert_eq!(pool.call(maybe_json, have).unwrap(), have.map(|have| json!({"have": have})));
    }
    assert_eq!(pool.call(nested_json, None).unwrap(), Ok(vec![]));
    assert_eq!(pool.call(nested_json, Some(1)).unwrap(), Ok(vec![None, Some(json!(1))]));
    assert_eq!(pool.call(nested_json, Some(0)).unwrap(), Err(NumberOrText::Text("ß".to_owned())));
}

#[process_task]
fn pass_late(from: QueueReceiver<Late>, to: QueueSender<Late>, late: Late) -> Late {
    for late in &from {
        to.send(late).map_err(|error| error.to_string()).unwrap();
    }
    late
}

fn argument_and_item_of_one_type_arrive(method: StartMethod) {
    let pool = pool(method);
    let json = Late::Json(json!(["ß"]));
    for (item, argument) in [(Late::Plain(1), json.clone()), (json, Late::Plain(2)), (Late::Plain(3), Late::Plain(4))] {
        let (to, from) = Queue::unbounded().unwrap().split();
        let (back_to, back) = Queue::unbounded().unwrap().split();
        let running = pool.submit(pass_late, (from, back_to, argument.clone()));
        to.send(item.clone()).unwrap();
        assert_eq!(back.recv().unwrap(), item);
        drop(to);
        assert_eq!(running.join().unwrap(), argument);
    }
}

#[process_task]
fn echo_first(first: First) -> First {
    first
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum First {
    A(u32),
    B(Late),
    C(Option<Box<First>>),
    D { list: Vec<First> },
}

fn first_values_from_many_threads_arrive(method: StartMethod) {
    let pool = Pool::builder().workers(2).start_method(method).build().unwrap();
    let start = Barrier::new(8);
    let value = |thread: u32, round: u32| match (thread + round) % 5 {
        0 => First::A(round),
        1 => First::B(Late::Json(json!({"thread": thread}))),
        2 => First::C(Some(Box::new(First::B(Late::Sparse { maybe: None, after: round })))),
        3 => First::D { list: vec![First::A(thread), First::C(None), First::B(Late::Plain(round))] },
        _ => First::B(Late::Sparse { maybe: Some(thread), after: round }),
    };
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (pool, start) = (&pool, &start);
            scope.spawn(move || {
                start.wait();
                for round in 0..15 {
                    let value = value(thread, round);
                    assert_eq!(pool.call(echo_first, value.clone()).unwrap(), value);
                }
            });
        }
    });
}
