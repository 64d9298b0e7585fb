//! Types of std: each row of `docs/types.md` is a test here that sends values and compares what comes back.
//!
//! Runs in: the test process; the tasks in workers. Never: compares floats but bit by bit.
#![expect(clippy::zero_sized_map_values, reason = "rare types travel, too")]

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, LinkedList, VecDeque};
use std::ffi::{CString, OsStr, OsString};
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::num::{NonZero, Saturating, Wrapping};
use std::ops::{Bound, Range, RangeFrom, RangeInclusive, RangeTo};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicI8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, SystemTime};

use process_task::{ErrorKind, StartMethod, process_task};
use process_task_types::{pool, travels};
use serde::{Deserialize, Serialize};

under_every_start_method! { within 300 seconds;
    integers_arrive_unchanged,
    floats_arrive_to_the_last_bit,
    characters_and_texts_arrive_unchanged,
    options_and_results_arrive_as_deep_as_they_are,
    tuples_and_arrays_arrive_unchanged,
    sequences_arrive_in_their_order,
    maps_arrive_with_keys_of_any_type,
    sets_arrive_unchanged,
    pointers_arrive_as_what_they_point_to,
    cells_and_locks_arrive_as_what_is_in_them,
    atomics_arrive_as_their_number,
    wrappers_arrive_unchanged,
    ranges_and_bounds_arrive_unchanged,
    durations_and_times_arrive_unchanged,
    a_time_before_1970_is_refused_where_it_is_sent,
    addresses_arrive_unchanged,
    an_ipv6_socket_loses_scope_and_flow,
    texts_of_the_system_arrive_unchanged,
    paths_arrive_unchanged,
}

type Integers = (bool, u8, i16, u32, i64, u64, i128, u128, isize, usize);

fn integers_arrive_unchanged(method: StartMethod) {
    let largest = (true, u8::MAX, i16::MAX, u32::MAX, i64::MAX, u64::MAX, i128::MAX, u128::MAX, isize::MAX, usize::MAX);
    let smallest = (false, 0, i16::MIN, 0, i64::MIN, 0, i128::MIN, 0, isize::MIN, 0);
    let between = (true, 0, -1, 0, -1, (1 << 53) + 1, i128::from(i64::MIN) - 1, u128::from(u64::MAX) + 1, -1, 0);
    travels! { &pool(method);
        integers: Integers = [smallest, between, largest];
    }
}

fn floats_arrive_to_the_last_bit(method: StartMethod) {
    let pool = pool(method);
    let singles = [0x8000_0000, 0x7FC0_BEEF, 0xFF80_0000, 1, 0x7F7F_FFFF, 0x3DCC_CCCD].map(f32::from_bits);
    let doubles =
        [1 << 63, 0x7FF8_0000_DEAD_BEEF, 0xFFF0_0000_0000_0000, 1, 0x7FEF_FFFF_FFFF_FFFF, 0x3FB9_9999_9999_999A];
    travels! { &pool;
        f32: f32 = singles, |one, other| one.to_bits() == other.to_bits();
        f64: f64 = doubles.map(f64::from_bits), |one, other| one.to_bits() == other.to_bits();
    }
}

fn characters_and_texts_arrive_unchanged(method: StartMethod) {
    let pool = pool(method);
    let texts = ["", "\0", "größer 🦀\u{10FFFF}"].map(String::from);
    travels! { &pool;
        char: char = ['a', '\0', 'ß', '\u{D7FF}', '\u{10FFFF}'];
        string: String = texts;
    }
}

type Nested = (Option<()>, Option<Option<()>>, Option<Option<Option<u8>>>);
type Results = Result<Option<u8>, Result<char, ()>>;

fn options_and_results_arrive_as_deep_as_they_are(method: StartMethod) {
    travels! { &pool(method);
        unit: () = [()];
        nested: Nested = [(None, None, None), (None, Some(None), Some(None)), (Some(()), Some(Some(())), Some(Some(None)))];
        list: Vec<Option<()>> = [vec![], vec![None], vec![Some(()), None]];
        results: Results = [Ok(None), Ok(Some(0)), Err(Ok('ß')), Err(Err(()))];
    }
}

type Deep = ((u8, (i16, ((), char))), [(u8, bool); 2]);

type Arrays = ([u8; 0], [u8; 32], [String; 2], [[Option<i8>; 2]; 3]);

fn tuples_and_arrays_arrive_unchanged(method: StartMethod) {
    let strings = [String::new(), "ß".to_owned()];
    travels! { &pool(method);
        deep: Deep = [((1, (-2, ((), 'ß'))), [(3, true), (4, false)])];
        arrays: Arrays = [([], [255; 32], strings, [[None, Some(-1)], [Some(1), None], [None, None]])];
    }
}

type Sequences = (Vec<Vec<String>>, Vec<()>, Box<[i32]>, VecDeque<u16>, LinkedList<i8>);

fn sequences_arrive_in_their_order(method: StartMethod) {
    let mut turned: VecDeque<u16> = (0..9).collect();
    turned.rotate_left(4);
    turned.push_front(u16::MAX);
    let lists = vec![vec!["ß".to_owned()], vec![], vec![String::new()]];
    let full = (lists, vec![(); 3], Box::from([i32::MIN, -1]), turned, LinkedList::from([3, -1, 2]));
    travels! { &pool(method);
        bytes: Vec<u8> = [vec![], vec![255, 0], vec![7; 5_000]];
        sequences: Sequences = [Sequences::default(), full];
        heap: BinaryHeap<u8> = [BinaryHeap::new(), BinaryHeap::from([3, 1, 2])], |one, other| {
            one.clone().into_sorted_vec() == other.clone().into_sorted_vec()
        };
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
struct Place {
    row: i32,
    column: char,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
enum Key {
    Unit,
    One(String),
    Two(u8, Option<bool>),
    Named { place: Place },
}

type Maps = (HashMap<u64, i8>, HashMap<(u8, char), Vec<u8>>, BTreeMap<Place, String>, BTreeMap<Option<bool>, ()>);

fn maps_arrive_with_keys_of_any_type(method: StartMethod) {
    let place = Place { row: -1, column: 'ß' };
    let keys = [Key::Unit, Key::One("ß".to_owned()), Key::Two(0, None), Key::Two(1, Some(true)), Key::Named { place }];
    let full: Maps = (
        [(u64::MAX, -1), (0, 1)].into(),
        [((1, 'a'), vec![]), ((1, 'b'), vec![0])].into(),
        [(place, "ß".to_owned())].into(),
        [(None, ()), (Some(true), ())].into(),
    );
    travels! { &pool(method);
        by_text: BTreeMap<String, u8> = [BTreeMap::new(), [(String::new(), 0), ("ß".to_owned(), 1)].into()];
        by_enum: HashMap<Key, Key> = [HashMap::new(), keys.iter().cloned().zip(keys.iter().rev().cloned()).collect()];
        by_map: BTreeMap<BTreeMap<u8, u8>, BTreeSet<u8>> = [
            BTreeMap::new(),
            [(BTreeMap::new(), BTreeSet::new()), ([(1, 2)].into(), [3].into())].into(),
        ];
        others: Maps = [Maps::default(), full];
    }
}

fn sets_arrive_unchanged(method: StartMethod) {
    travels! { &pool(method);
        sets: (BTreeSet<Option<i8>>, HashSet<Key>) = [
            (BTreeSet::new(), HashSet::new()),
            ([None, Some(-1), Some(1)].into(), [Key::Unit, Key::One(String::new())].into()),
        ];
    }
}

type Pointers = (Box<Option<Box<u8>>>, Arc<[u16]>, Text, Cow<'static, [u16]>, PhantomData<Vec<u8>>);
type Text = Cow<'static, str>;

fn pointers_arrive_as_what_they_point_to(method: StartMethod) {
    let empty = (Box::new(None), Arc::from([]), Text::default(), Cow::Borrowed(&[][..]), PhantomData);
    let text = Cow::Owned("ß".to_owned());
    let full = (Box::new(Some(Box::new(7))), Arc::from([u16::MAX, 0]), text, Cow::Owned(vec![u16::MAX]), PhantomData);
    travels! { &pool(method);
        counted: Rc<String> = [Rc::default(), Rc::new("ß".to_owned())];
        arc_str: Arc<str> = [Arc::from(""), Arc::from("ß")];
        text: Text = [Cow::Borrowed(""), Cow::Owned("ß".to_owned())];
        pointers: Pointers = [empty, full];
    }
}

type Locks = Arc<(Mutex<Option<u8>>, RwLock<Vec<u8>>)>;

fn cells_and_locks_arrive_as_what_is_in_them(method: StartMethod) {
    travels! { &pool(method);
        cells: (Cell<i32>, RefCell<String>) = [Default::default(), (Cell::new(i32::MIN), RefCell::new("ß".to_owned()))];
        locks: Locks = [Locks::default(), Arc::new((Mutex::new(Some(7)), RwLock::new(vec![255])))], |one, other| {
            let option = *one.0.lock().unwrap();
            option == *other.0.lock().unwrap() && *one.1.read().unwrap() == *other.1.read().unwrap()
        };
    }
}

type Atomics = Arc<(AtomicBool, AtomicI8, AtomicU64)>;

fn atomics_arrive_as_their_number(method: StartMethod) {
    let extreme = (AtomicBool::new(true), AtomicI8::new(i8::MIN), AtomicU64::new(u64::MAX));
    travels! { &pool(method);
        atomics: Atomics = [Atomics::default(), Arc::new(extreme)], |one, other| {
            let numbers = |of: &Atomics| (of.0.load(Relaxed), of.1.load(Relaxed), of.2.load(Relaxed));
            numbers(one) == numbers(other)
        };
    }
}

type Wrappers = (NonZero<u8>, Option<NonZero<i128>>, Wrapping<i8>, Saturating<u64>, Reverse<Option<String>>);

fn wrappers_arrive_unchanged(method: StartMethod) {
    let text = Reverse(Some("ß".to_owned()));
    travels! { &pool(method);
        wrappers: Wrappers = [
            (NonZero::<u8>::MIN, None, Wrapping(0), Saturating(0), Reverse(None)),
            (NonZero::<u8>::MAX, NonZero::new(i128::MIN), Wrapping(i8::MIN), Saturating(u64::MAX), text),
        ];
    }
}

type Ranges = (Range<u64>, RangeInclusive<i8>, RangeFrom<char>, RangeTo<usize>);

fn ranges_and_bounds_arrive_unchanged(method: StartMethod) {
    travels! { &pool(method);
        ranges: Ranges = [(0..0, 0..=0, 'a'.., ..0), (3..u64::MAX, i8::MIN..=i8::MAX, 'ß'.., ..usize::MAX)];
        bound: Bound<String> = [Bound::Unbounded, Bound::Included(String::new()), Bound::Excluded("ß".to_owned())];
    }
}

fn durations_and_times_arrive_unchanged(method: StartMethod) {
    let pool = pool(method);
    let moment = SystemTime::UNIX_EPOCH + Duration::new(1 << 33, 999_999_999);
    travels! { &pool;
        duration: Duration = [Duration::ZERO, Duration::from_nanos(1), Duration::MAX];
        system_time: SystemTime = [SystemTime::UNIX_EPOCH, moment];
    }
}

#[process_task]
fn year(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn a_time_before_1970_is_refused_where_it_is_sent(method: StartMethod) {
    let pool = pool(method);
    let refused = pool.call(year, SystemTime::UNIX_EPOCH - Duration::from_secs(1)).unwrap_err();
    assert!(matches!(refused.kind(), ErrorKind::CannotEncode { .. }), "{refused:?}");
    assert!(refused.to_string().contains("SystemTime must be later than UNIX_EPOCH"), "{refused}");
    assert_eq!(pool.call(year, SystemTime::UNIX_EPOCH + Duration::from_secs(7)).unwrap(), 7);
}

fn addresses_arrive_unchanged(method: StartMethod) {
    let pool = pool(method);
    let six = Ipv6Addr::from_bits(0xFE80 << 112 | 1);
    travels! { &pool;
        either: IpAddr = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(six)];
        socket: SocketAddr = [SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 1), SocketAddr::new(six.into(), 65_535)];
    }
}

#[process_task]
fn same_socket(address: SocketAddrV6) -> SocketAddrV6 {
    address
}

/// Serde leaves both out, in every format that is not for people to read.
fn an_ipv6_socket_loses_scope_and_flow(method: StartMethod) {
    let pool = pool(method);
    let back = pool.call(same_socket, SocketAddrV6::new(Ipv6Addr::LOCALHOST, 80, 7, 9)).unwrap();
    assert_eq!(back, SocketAddrV6::new(Ipv6Addr::LOCALHOST, 80, 0, 0));
}

fn texts_of_the_system_arrive_unchanged(method: StartMethod) {
    let pool = pool(method);
    let odd = OsString::from_vec(b"a\xFF\0".to_vec());
    travels! { &pool;
        os_string: OsString = [OsString::new(), "ß".into(), odd.clone()];
        box_os_str: Box<OsStr> = [Box::from(OsStr::new("")), odd.into_boxed_os_str()];
        cstring: CString = [CString::default(), CString::from(c"a\xFF")];
    }
}

fn paths_arrive_unchanged(method: StartMethod) {
    let pool = pool(method);
    let odd = PathBuf::from(OsString::from_vec(b"a/\xFF".to_vec()));
    travels! { &pool;
        path_buf: PathBuf = ["", "a/../ß", "/"].map(PathBuf::from).into_iter().chain([odd.clone()]).collect::<Vec<_>>();
        maybe: Option<PathBuf> = [None, Some(odd.clone())];
        result: Result<PathBuf, u8> = [Ok(odd.clone()), Err(7)];
        box_path: Box<Path> = [PathBuf::new().into_boxed_path(), odd.into_boxed_path()];
    }
}
