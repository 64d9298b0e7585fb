//! What `#[process_object]` makes of a type, in a manager of its own process.
//!
//! Runs in: the test process, which calls, and managers, where the methods run.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use crate::objects::manager;
use process_task::{ErrorKind, Execution, Manager, StartMethod, process_object, process_task};
use serde::{Deserialize, Serialize};

/// A task of a method's name.
#[process_task]
fn push(x: i64) -> i64 {
    x + 1
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    text: String,
    at: u64,
}

struct Journal {
    name: String,
    entries: Vec<Entry>,
    looks: AtomicUsize,
}

#[process_object]
impl Journal {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), entries: Vec::new(), looks: AtomicUsize::new(0) }
    }

    pub(crate) fn reading(name: &str, texts: &[String]) -> Result<Journal, String> {
        let mut journal = Self::new(name);
        for text in texts {
            if text.is_empty() {
                return Err(format!("`{name}` has an empty line"));
            }
            journal.push(text);
        }
        Ok(journal)
    }

    pub(crate) fn push(&mut self, text: &str) -> u64 {
        let at = u64::try_from(self.entries.len()).unwrap();
        self.entries.push(Entry { text: text.to_owned(), at });
        at
    }

    /// Borrows everything that can be borrowed.
    pub(crate) fn find<'a>(&'a self, text: &'a str, among: &[u64], (most, _): (usize, &str)) -> Vec<Entry> {
        self.looks.fetch_add(1, SeqCst);
        let fits = |entry: &&Entry| entry.text.contains(text) && (among.is_empty() || among.contains(&entry.at));
        self.entries.iter().filter(fits).take(most).cloned().collect()
    }

    pub(crate) fn entry(&self, at: u64) -> Result<Entry, String> {
        let found = usize::try_from(at).ok().and_then(|at| self.entries.get(at));
        found.cloned().ok_or_else(|| format!("`{}` has no entry {at}", self.name))
    }

    pub(crate) fn looks(&self) -> usize {
        self.looks.load(SeqCst)
    }

    pub(crate) fn fail(&mut self, why: &str) {
        self.entries.clear();
        panic!("{}: {why}", self.name);
    }

    #[local]
    pub(crate) fn into_entries(self) -> Vec<Entry> {
        self.entries
    }
}

/// What both kinds of stores do.
trait Store {
    type Value;
    const STEP: u64;

    fn made_with(values: Vec<u64>) -> Self;
    fn put(&mut self, key: &str, value: Self::Value) -> Option<Self::Value>;
    fn sum(&self, first: [u64; 2]) -> u64;
    fn consume(self) -> usize;
}

struct Memory(BTreeMap<String, u64>);

#[process_object]
impl Memory {
    pub(crate) fn new() -> Self {
        Self(BTreeMap::new())
    }

    pub(crate) fn merged(&self, other: Plain) -> usize {
        self.0.len() + other.0
    }
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Plain(usize);

mod elsewhere {
    use process_task::process_object;

    #[process_object]
    impl super::Store for super::Memory {
        type Value = u64;
        const STEP: u64 = 10;

        fn made_with(values: Vec<u64>) -> Self {
            Self(values.into_iter().map(|value| (value.to_string(), value)).collect())
        }

        fn put(&mut self, key: &str, value: Self::Value) -> Option<Self::Value> {
            self.0.insert(key.to_owned(), value)
        }

        fn sum(&self, first: [u64; 2]) -> u64 {
            first.iter().chain(self.0.values()).sum::<u64>() + Self::STEP
        }

        #[local]
        fn consume(self) -> usize {
            self.0.len()
        }
    }
}

mod one {
    use process_task::process_object;

    pub(crate) struct Same(u8);

    #[process_object]
    impl Same {
        pub(crate) fn new() -> Self {
            Self(1)
        }

        pub(crate) fn which(&self) -> u8 {
            self.0
        }
    }
}

mod two {
    use process_task::process_object;

    pub(crate) struct Same(u8);

    #[process_object]
    impl Same {
        pub(crate) fn new() -> Self {
            Self(2)
        }

        pub(crate) fn which(&self) -> u8 {
            self.0
        }
    }
}

fn methods_of_proxies_do_what_those_of_the_object_do(method: StartMethod) {
    let manager = manager(method);
    let journal = JournalProxy::new(&manager, "one").unwrap();
    assert_eq!(journal.push("first").unwrap(), 0);
    assert_eq!(journal.push("second").unwrap(), 1);
    assert_eq!((push(1), push.spawn(1).join().unwrap()), (2, 2), "the task of that name is another thing");
    let found = journal.find("s", &[1], (3, "")).unwrap();
    assert_eq!(found, [Entry { text: "second".to_owned(), at: 1 }]);
    assert_eq!(journal.find("s", &[], (1, "")).unwrap().len(), 1);
    assert_eq!(journal.looks().unwrap(), 2);
    assert_eq!(journal.entry(0).unwrap().unwrap().text, "first");
    assert_eq!(journal.entry(9).unwrap(), Err("`one` has no entry 9".to_owned()));
    assert!(Journal::new("here").into_entries().is_empty(), "the type is what it was");
}

fn constructor_that_refuses_makes_no_object(method: StartMethod) {
    let manager = manager(method);
    let texts = ["a".to_owned(), String::new()];
    let refused = JournalProxy::reading(&manager, "two", &texts).unwrap();
    assert_eq!(refused.unwrap_err(), "`two` has an empty line");
    assert_eq!(manager.stats().unwrap().objects().values().sum::<usize>(), 0);
    let journal = JournalProxy::reading(&manager, "two", &texts[..1]).unwrap().unwrap();
    assert_eq!(journal.push("b").unwrap(), 1);
}

fn methods_of_traits_are_those_of_the_proxy(method: StartMethod) {
    let manager = manager(method);
    let memory = MemoryProxy::new(&manager).unwrap();
    assert_eq!(memory.put("a", 1).unwrap(), None);
    assert_eq!(memory.put("a", 2).unwrap(), Some(1));
    assert_eq!(memory.sum([3, 4]).unwrap(), 19);
    assert_eq!(memory.later().sum([0, 0]).join().unwrap(), 12);
    assert_eq!(memory.merged(Plain(4)).unwrap(), 5);
    let made: MemoryProxy = MemoryProxy::made_with(&manager, vec![5, 6]).unwrap();
    assert_eq!(made.sum([0, 0]).unwrap(), 21);
    assert_eq!(Memory::made_with(vec![1]).consume(), 1);
}

fn objects_of_one_name_stay_apart(method: StartMethod) {
    let manager = manager(method);
    let one = one::SameProxy::new(&manager).unwrap();
    let two = two::SameProxy::new(&manager).unwrap();
    assert_eq!((one.which().unwrap(), two.which().unwrap()), (1, 2));
    assert_eq!(manager.stats().unwrap().objects().len(), 2);
}

fn calls_that_do_not_wait_are_all_made(method: StartMethod) {
    let manager = manager(method);
    let journal = JournalProxy::new(&manager, "later").unwrap();
    let handles: Vec<_> = (0..20).map(|number| journal.later().push(&number.to_string())).collect();
    for (number, handle) in handles.into_iter().enumerate() {
        let place = handle.join().unwrap();
        assert_eq!(journal.entry(place).unwrap().unwrap().text, number.to_string());
    }
}

fn panic_is_told_with_its_place_and_poisons(method: StartMethod) {
    let manager = manager(method);
    let journal = JournalProxy::new(&manager, "three").unwrap();
    let error = journal.fail("on purpose").unwrap_err();
    match error.kind() {
        ErrorKind::Panicked { message, location, .. } => {
            assert_eq!(message, "three: on purpose");
            assert!(location.as_ref().unwrap().contains(file!()), "{location:?}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(error.execution(), Execution::Finished);
    assert!(error.task().unwrap().ends_with("::object::Journal::fail"));
    assert!(journal.is_poisoned().unwrap());
    assert!(matches!(journal.looks().unwrap_err().kind(), ErrorKind::Poisoned));
    journal.clear_poison().unwrap();
    assert_eq!(journal.entry(0).unwrap(), Err("`three` has no entry 0".to_owned()), "what it did stays");
}

#[expect(clippy::mutable_key_type, reason = "a proxy is hashed by what does not change")]
fn proxy_is_equal_to_its_clone_alone(method: StartMethod) {
    let manager = manager(method);
    let journal = JournalProxy::new(&manager, "same").unwrap();
    let other = JournalProxy::new(&manager, "same").unwrap();
    let late = journal.with_timeout(Duration::from_secs(9));
    assert!(journal == journal.clone() && journal == late && journal != other);
    assert_eq!(journal.manager(), other.manager());
    assert!(format!("{journal:?}").contains("Journal"), "{journal:?}");
    let all: std::collections::HashSet<_> = [journal.clone(), late, other].into_iter().collect();
    assert_eq!(all.len(), 2);
}

#[process_task]
fn fill(journal: JournalProxy, text: &str, times: u64) -> u64 {
    (0..times).map(|_| journal.push(text).unwrap()).sum()
}

#[process_task]
fn read_both(journals: Vec<JournalProxy>, memory: Option<MemoryProxy>) -> (usize, u64) {
    let lengths = journals.iter().map(|journal| journal.find("", &[], (100, "")).unwrap().len()).sum();
    (lengths, memory.map_or(0, |memory| memory.sum([1, 1]).unwrap()))
}

fn proxies_are_arguments_of_tasks(method: StartMethod) {
    let manager: Manager = manager(method);
    let journal = JournalProxy::new(&manager, "shared").unwrap();
    let processes: Vec<_> = (0..3).map(|_| fill.spawn(journal.clone(), "x", 5)).collect();
    let sum: u64 = processes.into_iter().map(|process| process.join().unwrap()).sum();
    assert_eq!(sum, (0..15).sum());
    let memory = MemoryProxy::made_with(&manager, vec![7]).unwrap();
    let both = read_both.spawn(vec![journal.clone(), journal], Some(memory));
    assert_eq!(both.join().unwrap(), (30, 19));
}

under_every_start_method! {
    methods_of_proxies_do_what_those_of_the_object_do,
    constructor_that_refuses_makes_no_object,
    methods_of_traits_are_those_of_the_proxy,
    objects_of_one_name_stay_apart,
    calls_that_do_not_wait_are_all_made,
    panic_is_told_with_its_place_and_poisons,
    proxy_is_equal_to_its_clone_alone,
    proxies_are_arguments_of_tasks,
}
