//! Queues where the kernel refuses what they need: descriptors, addresses, long files. An error that says so, nothing lost, and
//! all as before once there is enough.
//!
//! Runs in: victims, whose limits are theirs alone. Never: lowers a limit of the test process.

use std::fs;
use std::io::Write as _;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use crate::support;
use crate::support::promise;
use crate::support::queue_memory;
use crate::support::restore;
use crate::support::subprocess::{self, reached};
use nix::errno::Errno;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Uid, setuid};
use process_task::channel::{JoinableQueue, Queue, QueueLimits, RecvError, SimpleQueue, TryRecvError};
use process_task::{Error, ErrorKind, Shared, StartMethod, process_task};

#[test]
fn without_descriptors_no_queue_is_made_and_nothing_is_left() {
    promise(|| plays("no descriptors"));
}

#[test]
fn an_item_whose_handles_find_no_room_stays_where_it_is() {
    promise(|| plays("no room for handles"));
}

#[test]
fn without_addresses_items_stay_where_they_are() {
    promise(|| plays("no addresses"));
}

#[test]
fn where_files_may_not_be_long_queues_hold_less() {
    promise(|| plays("short files"));
}

/// As a user that may not have many descriptors on their way.
#[process_task]
fn put_with_few_on_their_way() {
    const FEW: u64 = 40;
    if Uid::effective().is_root() {
        setuid(restore::lone_user()).expect("a user without rights");
    }
    setrlimit(Resource::RLIMIT_NOFILE, FEW, FEW).expect("a limit that is lowered");
    let queue = Queue::unbounded().unwrap();
    let one = Some(Shared::new(7u32).unwrap());
    let mut count = 0;
    let error = loop {
        match queue.try_send(one.clone()) {
            Ok(()) => count += 1,
            Err(error) => break error,
        }
    };
    assert!(error.is_full() && !error.to_string().is_empty());
    assert!((FEW..FEW + 10).contains(&count) && error.into_inner() == one, "{count} were put");
    // What has none goes all the same.
    queue.try_send(None).unwrap();
    let patient = queue.send_timeout(one.clone(), Duration::from_millis(10)).unwrap_err();
    assert!(patient.is_timeout());
    let in_vain = queue.send(one.clone()).expect_err("no consumer for a second");
    assert!(matches!(in_vain.failure().map(Error::kind), Some(ErrorKind::ChannelFailed { .. })), "{in_vain}");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| queue.send(one.clone()).expect("there is room now"));
        (0..count).for_each(|_| assert!(queue.recv().unwrap() == one));
        assert!(queue.recv().unwrap().is_none() && queue.recv().unwrap() == one);
        waiting.join().expect("it was put");
    });
}

#[test]
fn producer_waits_while_too_many_descriptors_are_in_flight() {
    promise(|| put_with_few_on_their_way.spawn().join().unwrap());
}

fn plays(scene: &str) {
    subprocess::plays(scene, StartMethod::ForkServer);
}

/// Plays a scene, in a process that a test of this file has started.
#[test]
fn scene() {
    let Some((scene, _)) = subprocess::scene() else { return };
    let said = std::sync::Mutex::new(fs::File::create(subprocess::stage().join("said")).unwrap());
    std::panic::set_hook(Box::new(move |info| _ = write!(said.lock().unwrap(), "{info}")));
    support::promise_within(Duration::from_mins(2), || match scene.as_str() {
        "no descriptors" => no_descriptors(),
        "no room for handles" => no_room_for_handles(),
        "no addresses" => no_addresses(),
        "short files" => short_files(),
        other => unreachable!("no scene {other}"),
    });
    reached("played");
}

fn with<R>(resource: Resource, most: u64, what: impl FnOnce() -> R) -> R {
    let _back = restore::soft_limit(resource, most);
    what()
}

fn descriptors() -> u64 {
    fs::read_dir("/proc/self/fd").unwrap().count() as u64
}

/// With so many more descriptors than there are.
fn with_more_descriptors<R>(more: usize, what: impl FnOnce() -> R) -> R {
    with(Resource::RLIMIT_NOFILE, descriptors() + 100, || {
        let mut all_others: Vec<_> = std::iter::from_fn(|| fs::File::open("/dev/null").ok()).collect();
        all_others.truncate(all_others.len() - more);
        what()
    })
}

fn no_descriptors() {
    // What a process keeps for ever once it has had a queue.
    drop(Queue::<u8>::unbounded().unwrap());
    let before = descriptors();
    for more in 0..3 {
        with_more_descriptors(more, || {
            let errors = [
                Queue::<u8>::unbounded().map(drop).unwrap_err(),
                Queue::<u8>::with_limits(QueueLimits { items: 3, bytes: 1000 }).map(drop).unwrap_err(),
                SimpleQueue::<u8>::new().map(drop).unwrap_err(),
                JoinableQueue::<u8>::unbounded().map(drop).unwrap_err(),
            ];
            for error in errors {
                let ErrorKind::ChannelFailed { errno, .. } = error.kind() else { panic!("{error}") };
                assert!(*errno == Errno::EMFILE as i32 && error.to_string().contains("oo many open files"), "{error}");
            }
        });
        assert_eq!((descriptors(), queue_memory::backing().0), (before, 0));
    }
    with_more_descriptors(3, || {
        let queue = Queue::unbounded().unwrap();
        // A queue that is there needs no more.
        queue.send(vec![1u8; 100_000]).unwrap();
        let (producer, consumer) = queue.split();
        assert_eq!(consumer.recv().unwrap().len(), 100_000);
        drop(producer);
        assert_eq!(consumer.recv(), Err(RecvError::Disconnected));
    });
    assert_eq!(descriptors(), before);
}

fn no_room_for_handles() {
    let queue = Queue::unbounded().unwrap();
    for round in 0..3 {
        let regions: Vec<_> = (0..4u64).map(|number| Shared::new(AtomicU64::new(number)).unwrap()).collect();
        queue.send(regions).unwrap();
        queue.send(vec![]).unwrap();
        let before = descriptors();
        for more in 0..4 {
            with_more_descriptors(more, || {
                for _ in 0..10 {
                    let error = queue.recv().unwrap_err();
                    assert!(
                        matches!(error.failure().map(Error::kind), Some(ErrorKind::ChannelFailed { errno, .. }) if *errno == Errno::EMFILE as i32),
                        "{error}"
                    );
                }
                assert_eq!(queue.len(), 2);
            });
            assert_eq!(descriptors(), before, "in round {round}");
        }
        let came = queue.recv().unwrap();
        assert!(came.iter().map(|region| region.load(SeqCst)).eq(0..4));
        assert!(queue.recv().unwrap().is_empty());
    }
}

/// Bytes of addresses that this process uses.
fn addresses() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').next().unwrap().parse::<u64>().unwrap() * 4096
}

fn no_addresses() {
    let warm = Queue::unbounded().unwrap();
    warm.send(vec![1u8; 300_000]).unwrap();
    assert_eq!(warm.recv().unwrap().len(), 300_000);
    drop(warm);
    let error = with(Resource::RLIMIT_AS, addresses() + (1 << 20), || Queue::<u8>::unbounded().map(drop).unwrap_err());
    assert!(
        matches!(error.kind(), ErrorKind::ChannelFailed { errno, .. } if *errno == Errno::ENOMEM as i32),
        "{error}"
    );
    assert_eq!(queue_memory::backing().0, 0);

    // What is there is got; what would need more than is mapped is refused, and comes back.
    let queue = Queue::unbounded().unwrap();
    let item = vec![7u8; 60_000];
    // Memory is mapped in stretches, of which the first is.
    queue.send(item.clone()).unwrap();
    let count = with(Resource::RLIMIT_AS, addresses() + (2 << 20), || {
        let mut count = 1;
        loop {
            match queue.send(item.clone()) {
                Ok(()) => count += 1,
                Err(error) => {
                    let refused = matches!(error.failure().map(Error::kind), Some(ErrorKind::ChannelFailed { errno, .. }) if *errno == Errno::ENOMEM as i32);
                    assert!(refused && error.into_inner() == item);
                    break;
                }
            }
            assert!(count < 10_000, "nothing is ever refused");
        }
        for _ in 0..5 {
            assert!(queue.recv().unwrap() == item);
            queue.send(item.clone()).unwrap();
        }
        count
    });
    (0..500).for_each(|_| queue.send(item.clone()).unwrap());
    assert!((0..count + 500).all(|_| queue.recv().unwrap() == item));
    assert_eq!(queue.try_recv(), Err(TryRecvError::Empty));
}

fn short_files() {
    let error = with(Resource::RLIMIT_FSIZE, 1 << 20, || Queue::<u8>::unbounded().map(drop).unwrap_err());
    assert!(matches!(error.kind(), ErrorKind::ChannelFailed { .. }), "{error}");
    let short = || Queue::<Vec<u8>>::unbounded().unwrap();
    let queue = with(Resource::RLIMIT_FSIZE, 16 << 20, short);
    let item = vec![5u8; 20_000];
    for _ in 0..3 {
        let count = (0..2000).take_while(|_| queue.try_send(item.clone()).is_ok()).count();
        assert!((200..2000).contains(&count), "{count}");
        assert!(queue.send_timeout(item.clone(), Duration::from_millis(60)).unwrap_err().is_timeout());
        assert!((0..count).all(|_| queue.recv().unwrap() == item));
    }
    let error = queue.send(vec![1; 20 << 20]).unwrap_err();
    assert!(
        matches!(error.failure().map(Error::kind), Some(ErrorKind::TooLong { bytes, limit, .. }) if *bytes > 20 << 20 && *limit < 16 << 20)
    );
    queue.send(vec![1; 4 << 20]).unwrap();
    assert_eq!(queue.recv().unwrap().len(), 4 << 20);
    // Where a file may not even be written to that is long already.
    let long = short();
    let error = with(Resource::RLIMIT_FSIZE, 1 << 20, || (0..2000).find_map(|_| long.try_send(item.clone()).err()));
    let error = error.expect("it may not be so long");
    assert!(
        matches!(error.failure().map(Error::kind), Some(ErrorKind::ChannelFailed { errno, .. }) if *errno == Errno::EFBIG as i32),
        "{error}"
    );
    long.send(error.into_inner()).unwrap();
    assert!(std::iter::from_fn(|| long.try_recv().ok()).all(|came| came == item));
}
