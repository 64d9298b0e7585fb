//! How many handles of shared memory may travel, and what happens where a process may not have so many descriptors: an
//! error that says what is missing, and nothing that is kept of those that came.
//!
//! Runs in: victims, whose limits are theirs alone. Never: lowers a limit of the test process.

use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use crate::support::regions::{self, builder, descriptors, inode, pool, workers};
use crate::support::restore;
use crate::support::subprocess::{self, Victim, plays, reached};
use crate::support::{self, PATIENCE, eventually};
use nix::errno::Errno;
use nix::sys::resource::Resource;
use nix::unistd::{Uid, setuid};
use process_task::{
    Direction, Error, ErrorKind, Pool, ProcessBuilder, Shared, StartMethod, process_task, worker_state,
};
use serde::de::IntoDeserializer as _;
use serde::ser::Impossible;
use serde::{Deserialize, Serialize, Serializer};

under_every_start_method! {
    within 240 seconds;
    a_thousand_handles_travel_and_one_more_is_refused,
    a_worker_with_few_descriptors_says_so_and_goes_on,
    a_parent_with_few_descriptors_says_so_and_goes_on,
    memory_that_has_no_descriptor_is_an_error,
    a_user_with_few_descriptors_under_way_waits_for_those_before,
    as_many_handles_as_fit_travel_again_and_again,
    handles_are_the_same_where_tasks_run_in_the_calling_process,
}

fn a_thousand_handles_travel_and_one_more_is_refused(method: StartMethod) {
    plays("counts", method);
}

fn a_worker_with_few_descriptors_says_so_and_goes_on(method: StartMethod) {
    plays("few in workers", method);
}

fn a_parent_with_few_descriptors_says_so_and_goes_on(method: StartMethod) {
    plays("few in the parent", method);
}

fn memory_that_has_no_descriptor_is_an_error(method: StartMethod) {
    plays("none to make one", method);
}

fn a_user_with_few_descriptors_under_way_waits_for_those_before(method: StartMethod) {
    plays("few under way", method);
}

fn as_many_handles_as_fit_travel_again_and_again(method: StartMethod) {
    plays("again and again", method);
}

fn handles_are_the_same_where_tasks_run_in_the_calling_process(method: StartMethod) {
    let elsewhere = transcript_of(None, method);
    assert!(elsewhere.lines().count() > 10, "{elsewhere}");
    assert_eq!(transcript_of(Some("PROCESS_TASK_INLINE=1 exec \"$@\""), method), elsewhere);
}

fn transcript_of(shell: Option<&str>, method: StartMethod) -> String {
    Victim::start_by(shell, "transcript", method).plays_to_the_end()
}

/// Plays a scene, in a process that a test of this file has started.
#[test]
fn scene() {
    let Some((scene, method)) = subprocess::scene() else { return };
    subprocess::say_panics();
    support::promise_within(Duration::from_secs(200), || match scene.as_str() {
        "counts" => counts(method),
        "few in workers" => few_in_workers(method),
        "few in the parent" => few_in_the_parent(method),
        "none to make one" => none_to_make_one(),
        "again and again" => again_and_again(method),
        "few under way" => few_under_way(method),
        "transcript" => std::fs::write(subprocess::stage().join("said"), transcript(method).join("\n")).unwrap(),
        other => unreachable!("no scene {other}"),
    });
    reached("played");
}

type Handle = Shared<AtomicU64>;

fn some(how_many: usize) -> Vec<Handle> {
    (0..how_many as u64).map(|at| Shared::new(AtomicU64::new(at)).expect("a little memory")).collect()
}

/// Runs with so many descriptors at the most, or with as many as there may be.
fn with_descriptors<R>(most: Option<usize>, what: impl FnOnce() -> R) -> R {
    let _back = restore::soft_limit(Resource::RLIMIT_NOFILE, most.map_or(16_384, |most| most as u64));
    what()
}

/// The sum of what is in them, and one more in each.
#[process_task]
fn touch(handles: Vec<Handle>) -> u64 {
    handles.iter().map(|one| one.fetch_add(1, SeqCst)).sum()
}

/// Memory of its own, with `len` numbers beside it.
#[process_task]
fn make(how_many: usize, len: usize) -> (Vec<Handle>, Vec<u64>) {
    (some(how_many), vec![7; len])
}

fn right(made: &process_task::Result<(Vec<Handle>, Vec<u64>)>, how_many: usize) -> bool {
    let are = |made: &Vec<Handle>| made.iter().map(|one| one.load(SeqCst)).eq(0..how_many as u64);
    made.as_ref().is_ok_and(|(made, _)| are(made))
}

fn counts(method: StartMethod) {
    with_descriptors(None, || {
        let pool = pool(method, 2);
        for how_many in [1, 63, 64, 65, 128, 253, 254, 700, 1024] {
            let all = some(how_many);
            let (memory, sum) = (inode(&all[how_many - 1]), (0..how_many as u64).sum::<u64>());
            assert_eq!(pool.call(touch, all.clone()), Ok(sum), "{how_many}");
            let process = ProcessBuilder::new().start_method(method).spawn(touch, all.clone()).expect("a process");
            assert_eq!(process.join(), Ok(sum + how_many as u64), "{how_many}");
            drop(all);
            memory.is_gone();
            // Also where the payload itself is too long for a frame.
            for len in [0, 50_000] {
                let made = pool.call(make, (how_many, len));
                assert!(right(&made, how_many), "{how_many}, {len}: {:?}", made.map(|(made, _)| made.len()));
            }
            let process = ProcessBuilder::new().start_method(method).spawn(make, (how_many, 1)).expect("a process");
            assert!(right(&process.join(), how_many));
        }
        for how_many in [1025, 3000] {
            let all = some(how_many);
            let memory = inode(&all[0]);
            for error in [
                pool.call(touch, all.clone()).expect_err("too many"),
                touch.spawn(all.clone()).join().expect_err("too many"),
                pool.map(touch, [all.clone()]).expect_err("too many"),
            ] {
                too_many(&error, Direction::Arguments);
            }
            assert!((0..).zip(&all).all(|(at, one)| one.load(SeqCst) == at), "a process has touched them");
            too_many(&pool.call(make, (how_many, 0)).expect_err("too many"), Direction::Result);
            too_many(&make.spawn(how_many, 0).join().expect_err("too many"), Direction::Result);
            drop(all);
            memory.is_gone();
        }
    });
}

#[track_caller]
fn too_many(error: &Error, expected: Direction) {
    let ErrorKind::CannotEncode { direction, reason, .. } = error.kind() else { panic!("{error}") };
    assert_eq!(*direction, expected);
    assert!(reason.contains("1024 handles"), "{error}");
}

#[track_caller]
fn no_room(error: &Error, expected: Direction) {
    let ErrorKind::CannotDecode { direction, reason, .. } = error.kind() else { panic!("{error}") };
    assert_eq!(*direction, expected);
    assert!(reason.contains("could not be received: Too many open files"), "{error}");
    assert!(reason.contains("RLIMIT_NOFILE") && reason.contains("raise it, or have fewer"), "{error}");
}

fn few_in_workers(method: StartMethod) {
    let pool = builder(method, 1).open_files_limit(64).build().expect("a pool");
    assert_eq!(pool.call(touch, some(3)), Ok(3));
    let worker = workers()[0];
    let before = descriptors(worker);
    for how_many in [100, 10, 64, 40, 63, 1000, 2] {
        let all = some(how_many);
        let memory = inode(&all[how_many - 1]);
        match pool.call(touch, all) {
            Ok(sum) => assert!(how_many <= 40 && sum == (0..how_many as u64).sum::<u64>(), "{how_many}"),
            Err(error) => {
                assert!(how_many > 40, "{how_many}: {error}");
                no_room(&error, Direction::Arguments);
            }
        }
        memory.is_gone();
        eventually("the worker has closed what came", PATIENCE, || descriptors(worker) <= before);
    }
    // What a map sends in one frame is too much as well; the same process goes on.
    let own = some(60);
    no_room(&pool.map(touch, [own.clone()]).expect_err("too many"), Direction::Arguments);
    assert_eq!(pool.map(touch, own.iter().map(|one| vec![one.clone()])).map(|all| all.len()), Ok(60));
    assert_eq!(workers(), [worker]);
    let process = ProcessBuilder::new().start_method(method).open_files_limit(40).spawn(touch, own).expect("a process");
    no_room(&process.join().expect_err("too many"), Direction::Arguments);
}

#[process_task]
fn sizes(regions: Vec<Shared<[u8]>>, padding: &[u8]) -> usize {
    regions.iter().map(|one| one.len()).sum::<usize>() + padding.len()
}

/// More than half of what the worker may have open: what one call leaves mapped makes room for the next one.
fn again_and_again(method: StartMethod) {
    for (limit, how_many) in [(64, 40), (1024, 900)] {
        let pool = builder(method, 1).open_files_limit(limit).build().expect("a pool");
        let regions = || (0..how_many).map(|_| Shared::<[u8]>::from_slice(&[1; 100]).expect("a little memory"));
        let (own, others) = with_descriptors(None, || (regions().collect::<Vec<_>>(), regions().collect::<Vec<_>>()));
        let padding = vec![0; 100_000];
        let worker = workers()[0];
        for round in 0..20 {
            // The same once more, others, and with a parcel, which takes a descriptor too.
            let regions = if round % 3 == 2 { others.clone() } else { own.clone() };
            let padding = &padding[..if round % 4 < 2 { 0 } else { 5_000 * round }];
            let sum = with_descriptors(None, || pool.call(sizes, (regions, padding)));
            assert_eq!(sum, Ok(100 * how_many + padding.len()), "round {round} of {how_many}");
        }
        assert_eq!(workers(), [worker]);
    }
}

fn few_in_the_parent(method: StartMethod) {
    let pool = pool(method, 1);
    assert!(right(&pool.call(make, (3, 0)), 3));
    if method == StartMethod::ForkServer {
        support::spares_are_ready(1);
    }
    let own = std::process::id();
    let before = descriptors(own);
    for len in [0, 20_000] {
        for how_many in [100, 10, 64, 1000, 2, 1000, 1000, 1] {
            let made = with_descriptors(Some(before + 25), || pool.call(make, (how_many, len)));
            match made {
                Ok(made) => assert!(how_many <= 10 && right(&Ok(made), how_many), "{how_many}"),
                Err(error) => {
                    assert!(how_many > 10, "{how_many}: {error}");
                    let ErrorKind::CannotDecode { direction, reason, .. } = error.kind() else { panic!("{error}") };
                    assert!(*direction == Direction::Result && reason.contains("Too many open files"), "{error}");
                }
            }
            eventually("what came is closed", PATIENCE, || descriptors(own) <= before);
        }
    }
    let mapped = with_descriptors(Some(before + 25), || pool.map(make, [(1, 0), (90, 0)]));
    no_room(&mapped.expect_err("too many"), Direction::Result);
    assert!(right(&pool.call(make, (1000, 0)), 1000));
}

fn none_to_make_one() {
    let values = [1.5; 1000];
    let before = descriptors(std::process::id());
    // So few that there is not one more.
    let (one, many) = with_descriptors(Some(3), || (Shared::new(5), Shared::<[f64]>::from_slice(&values)));
    for (error, name) in [(one.expect_err("no descriptor"), "i32"), (many.expect_err("no descriptor"), "f64")] {
        let ErrorKind::CannotShare { step, errno, .. } = error.kind() else { panic!("{error}") };
        assert!(*errno == Errno::EMFILE as i32 && step.contains(name), "{error}");
        assert!(error.to_string().contains("oo many open files"), "{error}");
    }
    assert_eq!(descriptors(std::process::id()), before);
    let shared = Shared::<[f64]>::from_slice(&values).expect("there are some now");
    assert_eq!(shared[999].to_bits(), 1.5_f64.to_bits());
}

#[process_task]
fn keep(how_many: usize) {
    *worker_state::<Vec<Handle>>() = some(how_many);
    if Uid::effective().is_root() {
        setuid(restore::lone_user()).expect("a user without rights");
    }
}

#[process_task]
fn give(len: usize) -> (Vec<Handle>, Vec<u64>) {
    (worker_state::<Vec<Handle>>().clone(), vec![7; len])
}

#[process_task]
fn leave_a_mark(path: &str) {
    std::fs::write(path, "").expect("a directory that can be written to");
}

/// The kernel lets those without rights have so many descriptors on their way as they may have open.
fn few_under_way(method: StartMethod) {
    std::fs::set_permissions(subprocess::stage(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    // More answers than may be on their way.
    let pool = builder(method, 1).open_files_limit(50).initializer(keep, 25).build().expect("a pool");
    let path = subprocess::stage().join("mark").into_os_string().into_string().expect("a path of plain characters");
    let calls: Vec<_> = (0..6).map(|at| pool.submit(give, if at == 2 { 10_000 } else { 0 })).collect();
    let last = pool.submit(leave_a_mark, &path);
    eventually("all are answered", PATIENCE, || Path::new(&path).exists());
    for call in calls {
        assert_eq!(call.join().expect("it had to wait for those before it").0.len(), 25);
    }
    assert_eq!(last.join(), Ok(()));
    for len in [0, 10_000, 0, 10_000] {
        let given = pool.call(give, len).expect("nothing is on its way any more");
        assert_eq!((given.0.len(), given.1.len()), (25, len));
    }
    drop(pool);
    let pool = regions::pool(method, 4);
    let own = some(30);
    // One that is asked for while this process may have few descriptors under way is not made, and then one is missing.
    if method == StartMethod::ForkServer {
        support::spares_are_ready(4);
    }
    let back = restore::no_longer_root();
    with_descriptors(Some(descriptors(std::process::id()) + 20), || {
        for call in (0..300).map(|_| pool.submit(touch, own.clone())).collect::<Vec<_>>() {
            call.join().expect("it had to wait for those before it, and no more");
        }
    });
    drop(back);
    let memory = inode(&own[7]);
    drop(own);
    memory.is_gone();
    assert!(pool.call(touch, some(2)).is_ok());
}

/// A serialiser that people might use themselves: of numbers.
struct Plain;

macro_rules! refuse {
    ($($name:ident($($argument:ty),*) -> $ok:ty,)*) => { $(
        fn $name(self, $(_: $argument),*) -> Result<$ok, Self::Error> {
            Err(serde::ser::Error::custom("no number"))
        }
    )* };
}

type No = Impossible<u32, serde::de::value::Error>;

impl Serializer for Plain {
    type Ok = u32;
    type Error = serde::de::value::Error;
    type SerializeSeq = No;
    type SerializeTuple = No;
    type SerializeTupleStruct = No;
    type SerializeTupleVariant = No;
    type SerializeMap = No;
    type SerializeStruct = No;
    type SerializeStructVariant = No;

    fn serialize_u32(self, number: u32) -> Result<u32, Self::Error> {
        Ok(number)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<u32, Self::Error> {
        value.serialize(self)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<u32, Self::Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<u32, Self::Error> {
        value.serialize(self)
    }

    refuse! {
        serialize_bool(bool) -> u32,
        serialize_i8(i8) -> u32,
        serialize_i16(i16) -> u32,
        serialize_i32(i32) -> u32,
        serialize_i64(i64) -> u32,
        serialize_u8(u8) -> u32,
        serialize_u16(u16) -> u32,
        serialize_u64(u64) -> u32,
        serialize_f32(f32) -> u32,
        serialize_f64(f64) -> u32,
        serialize_char(char) -> u32,
        serialize_str(&str) -> u32,
        serialize_bytes(&[u8]) -> u32,
        serialize_none() -> u32,
        serialize_unit() -> u32,
        serialize_unit_struct(&'static str) -> u32,
        serialize_unit_variant(&'static str, u32, &'static str) -> u32,
        serialize_seq(Option<usize>) -> No,
        serialize_tuple(usize) -> No,
        serialize_tuple_struct(&'static str, usize) -> No,
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> No,
        serialize_map(Option<usize>) -> No,
        serialize_struct(&'static str, usize) -> No,
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> No,
    }
}

/// What comes of writing and reading a handle by oneself.
#[process_task]
fn by_oneself(handle: Handle) -> [String; 3] {
    let read: Result<Handle, serde::de::value::Error> = Handle::deserialize(0_u32.into_deserializer());
    let written = handle.serialize(Plain);
    let wrapped = Some(&handle).serialize(Plain);
    [read.map(drop).unwrap_err(), written.unwrap_err(), wrapped.unwrap_err()].map(|error| error.to_string())
}

#[process_task]
fn swap(pair: (Handle, Handle), same: &Handle) -> (Handle, Handle, bool) {
    let is_same = *same == pair.0;
    same.fetch_add(1, SeqCst);
    (pair.1, pair.0, is_same)
}

#[process_task]
fn panic_with(handle: Handle) {
    panic!("it holds {}", handle.load(SeqCst));
}

/// Without the process that it happened in.
fn told<R: std::fmt::Debug>(result: process_task::Result<R>) -> String {
    result.map_or_else(
        |error| {
            let sentence = error.to_string();
            let rest = sentence.split_once(" panicked ").map_or(sentence.as_str(), |(_, rest)| rest);
            format!("{rest} | {:?}", error.execution())
        },
        |value| format!("{value:?}"),
    )
}

fn transcript(method: StartMethod) -> Vec<String> {
    with_descriptors(None, || {
        let own = some(4);
        let counted = Shared::new(AtomicU64::new(0)).expect("a little memory");
        let pool = pool(method, 1);
        let mut lines = vec![told(pool.call(touch, own.clone())), told(pool.map(touch, vec![own.clone(); 40]))];
        lines.push(format!("{own:?}"));
        let swapped = pool.call(swap, ((own[0].clone(), own[3].clone()), &own[0]));
        let same = swapped.as_ref().is_ok_and(|(one, other, _)| *one == own[3] && *other == own[0]);
        lines.extend([told(swapped), format!("the same: {same}")]);
        lines.push(told(pool.call(make, (5, 10_000)).map(|(made, beside)| (made, beside.len()))));
        lines.push(told(pool.call(touch, some(1025))));
        lines.push(told(pool.call(make, (1025, 0)).map(|(made, _)| made.len())));
        lines.push(told(pool.call(panic_with, own[2].clone())));
        lines.push(told(pool.call(by_oneself, own[0].clone())));
        let here = by_oneself(own[0].clone());
        assert!(here.iter().all(|error| error.contains("as part of an argument or a result of a task")), "{here:?}");
        lines.push(format!("{here:?}"));
        let waiting: Vec<_> = own.iter().map(|one| pool.submit(touch, vec![one.clone(), counted.clone()])).collect();
        lines.push(format!("{}", waiting.into_iter().map(|one| one.join().expect("a sum")).sum::<u64>()));
        drop(pool);
        let count = || Pool::builder().workers(1).start_method(method);
        let pool = count().initializer(add, (&counted, 100)).finalizer(add, (&counted, 1000)).build().expect("a pool");
        lines.push(told(pool.call(touch, vec![counted.clone()])));
        drop(pool);
        lines.push(format!("{counted:?}"));
        let memory = own.iter().map(inode).collect::<Vec<_>>();
        drop(own);
        memory.into_iter().for_each(regions::Inode::is_gone);
        lines
    })
}

#[process_task]
fn add(to: &Handle, number: u64) {
    to.fetch_add(number, SeqCst);
}
