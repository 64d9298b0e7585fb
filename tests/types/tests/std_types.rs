//! Types of std: each row of `docs/types.md` is a test here that sends values and compares what comes back.
//!
//! Runs in: the test process; the tasks in workers. Never: compares floats but bit by bit.
#![expect(
    clippy::linkedlist,
    clippy::option_option,
    clippy::unnecessary_box_returns,
    clippy::zero_sized_map_values,
    reason = "rare types travel, too"
)]

#[path = "../../support/mod.rs"]
mod support;

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, LinkedList, VecDeque};
use std::ffi::{CString, OsStr, OsString};
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::num::{NonZero, Saturating, Wrapping};
use std::ops::{Bound, Range, RangeFrom, RangeInclusive, RangeTo};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicI8, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, SystemTime};

use process_task::{ErrorKind, Pool, StartMethod, process_task};
use process_task_types::travels;
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

/// A pool of one worker, so that what it has learnt from one value is there for the next.
fn pool(method: StartMethod) -> Pool {
    Pool::builder().workers(1).start_method(method).build().unwrap()
}

type Integers = (bool, u8, i8, u16, i32, u32, i64, u64, isize, usize);

fn integers_arrive_unchanged(method: StartMethod) {
    let largest = (true, u8::MAX, i8::MAX, u16::MAX, i32::MAX, u32::MAX, i64::MAX, u64::MAX, isize::MAX, usize::MAX);
    let smallest = (false, 0, i8::MIN, 0, i32::MIN, 0, i64::MIN, 0, isize::MIN, 0);
    travels! { &pool(method);
        integers: Integers = [smallest, (true, 0, -1, 0, -1, 0, -1, (1 << 53) + 1, -1, 0), largest];
        signed: i128 = [0, -1, i128::MIN, i128::MAX, i128::from(u64::MAX) + 1, i128::from(i64::MIN) - 1];
        unsigned: u128 = [0, u128::MAX, u128::from(u64::MAX) + 1];
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
        string: String = texts.clone();
        box_str: Box<str> = texts.map(String::into_boxed_str);
    }
}

fn options_and_results_arrive_as_deep_as_they_are(method: StartMethod) {
    let pool = pool(method);
    travels! { &pool;
        unit: () = [()];
        option: Option<()> = [None, Some(())];
        nested: Option<Option<()>> = [None, Some(None), Some(Some(()))];
        deep: Option<Option<Option<u8>>> = [None, Some(None), Some(Some(None)), Some(Some(Some(0)))];
        list: Vec<Option<()>> = [vec![], vec![None], vec![Some(()), None]];
        result: Result<(), String> = [Ok(()), Err(String::new()), Err("ß".to_owned())];
        results: Result<Option<u8>, Result<char, ()>> = [Ok(None), Ok(Some(0)), Err(Ok('ß')), Err(Err(()))];
    }
}

type Deep = ((u8, (i16, ((), char))), [(u8, bool); 2]);

fn tuples_and_arrays_arrive_unchanged(method: StartMethod) {
    let pool = pool(method);
    travels! { &pool;
        single: (u8,) = [(0,), (255,)];
        deep: Deep = [((1, (-2, ((), 'ß'))), [(3, true), (4, false)])];
        none: [u8; 0] = [[]];
        bytes: [u8; 32] = [[0; 32], [255; 32]];
        strings: [String; 2] = [[String::new(), "ß".to_owned()]];
        table: [[Option<i8>; 2]; 3] = [[[None, Some(-1)], [Some(1), None], [None, None]]];
    }
}

fn sequences_arrive_in_their_order(method: StartMethod) {
    let pool = pool(method);
    let mut turned: VecDeque<u16> = (0..9).collect();
    turned.rotate_left(4);
    turned.push_front(u16::MAX);
    travels! { &pool;
        bytes: Vec<u8> = [vec![], vec![255, 0], vec![7; 100_000]];
        lists: Vec<Vec<String>> = [vec![], vec![vec![]], vec![vec!["ß".to_owned()], vec![], vec![String::new()]]];
        units: Vec<()> = [vec![], vec![(); 3]];
        boxed: Box<[i32]> = [Box::from([]), Box::from([i32::MIN, -1])];
        deque: VecDeque<u16> = [VecDeque::new(), turned];
        linked: LinkedList<i8> = [LinkedList::new(), LinkedList::from([3, -1, 2])];
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

fn maps_arrive_with_keys_of_any_type(method: StartMethod) {
    let pool = pool(method);
    let place = Place { row: -1, column: 'ß' };
    let keys = [Key::Unit, Key::One("ß".to_owned()), Key::Two(0, None), Key::Two(1, Some(true)), Key::Named { place }];
    travels! { &pool;
        by_text: BTreeMap<String, u8> = [BTreeMap::new(), [(String::new(), 0), ("ß".to_owned(), 1)].into()];
        by_number: HashMap<u64, i8> = [HashMap::new(), [(u64::MAX, -1), (0, 1)].into()];
        by_tuple: HashMap<(u8, char), Vec<u8>> = [HashMap::new(), [((1, 'a'), vec![]), ((1, 'b'), vec![0])].into()];
        by_struct: BTreeMap<Place, String> = [BTreeMap::new(), [(place, "ß".to_owned())].into()];
        by_enum: HashMap<Key, Key> = [HashMap::new(), keys.iter().cloned().zip(keys.iter().rev().cloned()).collect()];
        by_option: BTreeMap<Option<bool>, ()> = [BTreeMap::new(), [(None, ()), (Some(true), ())].into()];
        by_map: BTreeMap<BTreeMap<u8, u8>, BTreeSet<u8>> = [
            BTreeMap::new(),
            [(BTreeMap::new(), BTreeSet::new()), ([(1, 2)].into(), [3].into())].into(),
        ];
    }
}

fn sets_arrive_unchanged(method: StartMethod) {
    let pool = pool(method);
    travels! { &pool;
        sorted: BTreeSet<Option<i8>> = [BTreeSet::new(), [None, Some(-1), Some(1)].into()];
        hashed: HashSet<Key> = [HashSet::new(), [Key::Unit, Key::One(String::new())].into()];
    }
}

type Text = Cow<'static, str>;
type Numbers = Cow<'static, [u16]>;

fn pointers_arrive_as_what_they_point_to(method: StartMethod) {
    let pool = pool(method);
    travels! { &pool;
        boxed: Box<Option<Box<u8>>> = [Box::new(None), Box::new(Some(Box::new(7)))];
        counted: Rc<String> = [Rc::default(), Rc::new("ß".to_owned())];
        arc_str: Arc<str> = [Arc::from(""), Arc::from("ß")];
        arc_list: Arc<[u16]> = [Arc::from([]), Arc::from([u16::MAX, 0])];
        text: Text = [Cow::Borrowed(""), Cow::Owned("ß".to_owned())];
        numbers: Numbers = [Cow::Borrowed(&[][..]), Cow::Owned(vec![u16::MAX])];
        phantom: PhantomData<Vec<u8>> = [PhantomData];
    }
}

fn cells_and_locks_arrive_as_what_is_in_them(method: StartMethod) {
    let pool = pool(method);
    travels! { &pool;
        cell: Cell<i32> = [Cell::new(0), Cell::new(i32::MIN)];
        ref_cell: RefCell<String> = [RefCell::default(), RefCell::new("ß".to_owned())];
        mutex: Arc<Mutex<Option<u8>>> = [Arc::default(), Arc::new(Mutex::new(Some(7)))], |one, other| {
            let one = *one.lock().unwrap();
            one == *other.lock().unwrap()
        };
        rw_lock: Arc<RwLock<Vec<u8>>> = [Arc::default(), Arc::new(RwLock::new(vec![255]))], |one, other| {
            *one.read().unwrap() == *other.read().unwrap()
        };
    }
}

fn atomics_arrive_as_their_number(method: StartMethod) {
    let pool = pool(method);
    travels! { &pool;
        flag: Arc<AtomicBool> = [Arc::default(), Arc::new(AtomicBool::new(true))], |one, other| {
            one.load(Relaxed) == other.load(Relaxed)
        };
        small: Arc<AtomicI8> = [Arc::default(), Arc::new(AtomicI8::new(i8::MIN))], |one, other| {
            one.load(Relaxed) == other.load(Relaxed)
        };
        large: Arc<AtomicU64> = [Arc::default(), Arc::new(AtomicU64::new(u64::MAX))], |one, other| {
            one.load(Relaxed) == other.load(Relaxed)
        };
    }
}

fn wrappers_arrive_unchanged(method: StartMethod) {
    let pool = pool(method);
    travels! { &pool;
        non_zero: NonZero<u8> = [NonZero::<u8>::MIN, NonZero::<u8>::MAX];
        maybe_non_zero: Option<NonZero<i128>> = [None, NonZero::new(i128::MIN)];
        wrapping: Wrapping<i8> = [Wrapping(0), Wrapping(i8::MIN)];
        saturating: Saturating<u64> = [Saturating(0), Saturating(u64::MAX)];
        reverse: Reverse<Option<String>> = [Reverse(None), Reverse(Some("ß".to_owned()))];
    }
}

fn ranges_and_bounds_arrive_unchanged(method: StartMethod) {
    let pool = pool(method);
    travels! { &pool;
        range: Range<u64> = [0..0, 3..u64::MAX];
        inclusive: RangeInclusive<i8> = [0..=0, i8::MIN..=i8::MAX];
        from: RangeFrom<char> = ['ß'..];
        to: RangeTo<usize> = [..0, ..usize::MAX];
        bound: Bound<String> = [Bound::Unbounded, Bound::Included(String::new()), Bound::Excluded("ß".to_owned())];
        bounds: (Bound<u8>, Bound<u8>) = [(Bound::Unbounded, Bound::Excluded(7))];
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
        four: Ipv4Addr = [Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST];
        six: Ipv6Addr = [Ipv6Addr::UNSPECIFIED, six];
        either: IpAddr = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(six)];
        socket_of_four: SocketAddrV4 = [SocketAddrV4::new(Ipv4Addr::LOCALHOST, u16::MAX)];
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
    travels! { &pool;
        path_buf: PathBuf = ["", "a/../ß", "/"].map(PathBuf::from);
        box_path: Box<Path> = ["", "a/../ß"].map(|path| PathBuf::from(path).into_boxed_path());
    }
}
