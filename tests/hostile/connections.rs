//! Whatever bytes and descriptors come through the socket of a connection, its reader gets messages and errors: it does not
//! crash, asks for no memory on the word of a number, keeps nothing, and goes on.
//!
//! Runs in: the test process, and in children whose memory is limited. Never: maps what it has forged.
#![expect(clippy::cast_possible_truncation, reason = "random bytes, and small numbers")]

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{IoSlice, Write as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use crate::support::rounds;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::eventfd::EventFd;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::socket::{ControlMessage, MsgFlags, SockFlag, SockType, sendmsg, socketpair};
use process_task::channel::{Connection, Message, Receiver, RecvError, Sender, one_way};
use process_task::{ErrorKind, ProcessBuilder, Shared, StartMethod, process_task};
use serde::{Deserialize, Serialize};

under_every_start_method! {
    within 100 seconds;
    what_is_no_packet_of_ours_is_an_error,
    memory_that_is_not_what_it_should_be_is_an_error,
    no_length_makes_a_reader_ask_for_memory,
    unrequested_descriptors_are_closed,
    what_is_no_end_is_no_connection,
    random_packets_are_messages_or_errors,
    a_message_of_another_type_is_an_error,
    no_depth_overflows_a_stack,
}

const WHOLE: [u8; 8] = *b"pt whole";
const PARCEL: [u8; 8] = *b"ptparcel";

fn packet(kind: [u8; 8], len: u64, bytes: &[u8]) -> Vec<u8> {
    [&kind[..], &len.to_ne_bytes(), bytes].concat()
}

/// Sends bytes past the connection whose socket this is.
fn forge(socket: BorrowedFd<'_>, bytes: &[u8], beside: &[BorrowedFd<'_>]) {
    let raw: Vec<_> = beside.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let beside = if raw.is_empty() { &rights[..0] } else { &rights[..] };
    sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], beside, MsgFlags::empty(), None).expect("it is sent");
}

/// The connection goes on.
fn goes_on(sender: &Sender<Vec<u8>>, receiver: &Receiver<Vec<u8>>) {
    for len in [10, 100_000] {
        sender.send(vec![7; len]).unwrap();
        assert!(receiver.recv().unwrap() == vec![7; len]);
    }
}

fn is_broken(outcome: &Result<Vec<u8>, RecvError>) -> bool {
    matches!(outcome, Err(RecvError::Failed(_)))
}

fn what_is_no_packet_of_ours_is_an_error(_: StartMethod) {
    let (sender, receiver) = one_way::<Vec<u8>>().unwrap();
    let good = packet(WHOLE, 19, &[&3u64.to_ne_bytes()[..], &[0; 8], b"abc"].concat());
    forge(sender.as_fd(), &good, &[]);
    assert_eq!(receiver.recv().unwrap(), b"abc", "this is how one looks");
    let mut bad: Vec<Vec<u8>> = (1..good.len()).map(|len| good[..len].to_vec()).collect();
    bad.push([&good[..], b"x"].concat());
    bad.extend((0..16).map(|at| {
        let mut other = good.clone();
        other[at] ^= 0x41;
        other
    }));
    bad.extend([u64::MAX, 1 << 63, 1 << 32, 0].map(|len| packet(WHOLE, len, &good[16..])));
    bad.push(packet(PARCEL, 100, b""));
    bad.push(packet(PARCEL, 3, b"abc"));
    bad.push(vec![0; 40_000]);
    bad.push(vec![0xff; 100_000]);
    for bytes in bad {
        forge(sender.as_fd(), &bytes, &[]);
        let outcome = receiver.recv();
        assert!(is_broken(&outcome), "{:?} for {} bytes {:?}", outcome, bytes.len(), &bytes[..bytes.len().min(40)]);
        goes_on(&sender, &receiver);
    }
    // The inside of a packet that is whole: lengths, and what is left over.
    for inside in [&[][..], &[9; 7], &u64::MAX.to_ne_bytes(), &[&4u64.to_ne_bytes()[..], &[0; 11]].concat(), &[0; 17]] {
        forge(sender.as_fd(), &packet(WHOLE, inside.len() as u64, inside), &[]);
        assert!(
            matches!(receiver.recv(), Err(RecvError::Failed(error)) if matches!(error.kind(), ErrorKind::CannotDecode { .. })),
            "{inside:?}"
        );
    }
    goes_on(&sender, &receiver);
}

const SIZE: SealFlag = SealFlag::F_SEAL_GROW.union(SealFlag::F_SEAL_SHRINK);

/// Memory of that size, with bytes at its start and its end or none at all, sealed so.
fn memory(len: u64, written: bool, seals: SealFlag) -> OwnedFd {
    let memory = File::from(memfd_create("forged", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).unwrap());
    memory.set_len(len).unwrap();
    if written {
        (&memory).write_all(&vec![0; usize::try_from(len).unwrap()]).unwrap();
    }
    fcntl(&memory, FcntlArg::F_ADD_SEALS(seals)).unwrap();
    memory.into()
}

fn memory_that_is_not_what_it_should_be_is_an_error(_: StartMethod) {
    let (sender, receiver) = one_way::<Vec<u8>>().unwrap();
    let event = OwnedFd::from(EventFd::new().unwrap());
    let file = OwnedFd::from(File::open("/dev/null").unwrap());
    let (stream, _) = UnixStream::pair().unwrap();
    let everything = SIZE | SealFlag::F_SEAL_WRITE;
    let bad = [
        (event, 10),
        (file, 10),
        (stream.into(), 10),
        (memory(8192, true, SealFlag::empty()), 10),
        (memory(8192, true, SealFlag::F_SEAL_GROW), 10),
        (memory(8192, true, SealFlag::F_SEAL_SHRINK), 10),
        (memory(8192, true, everything), 10),
        (memory(8192, true, SIZE | SealFlag::F_SEAL_FUTURE_WRITE), 10),
        (memory(8192, false, SIZE), 10),
        (memory(1 << 40, false, SIZE), 1 << 39),
        (memory(0, true, SIZE), 0),
        (memory(100, true, SIZE), 10),
        (memory(100, true, SIZE), 0),
        (memory(4095, true, SIZE), 0),
        (memory(8192, true, SIZE), 4097),
        (memory(8192, true, SIZE), u64::MAX),
    ];
    for (at, (descriptor, len)) in bad.iter().enumerate() {
        forge(sender.as_fd(), &packet(PARCEL, *len, b""), &[descriptor.as_fd()]);
        let outcome = receiver.recv();
        assert!(is_broken(&outcome), "{outcome:?} for number {at}");
        goes_on(&sender, &receiver);
    }
    // What is as it should be, but holds nothing that could be decoded.
    for len in [0, 1, 8, 100, 4096] {
        forge(sender.as_fd(), &packet(PARCEL, len, b""), &[memory(8192, true, SIZE).as_fd()]);
        let outcome = receiver.recv();
        assert!(
            matches!(&outcome, Err(RecvError::Failed(error)) if matches!(error.kind(), ErrorKind::CannotDecode { .. })),
            "{outcome:?} for {len}"
        );
    }
    goes_on(&sender, &receiver);
}

/// Receives with little memory to have. What went wrong with each.
#[process_task]
fn receive_with_little_memory(numbers: Receiver<Vec<u64>>, texts: Receiver<Vec<String>>) -> (u32, u32) {
    let used = std::fs::read_to_string("/proc/self/statm").expect("its own size");
    let used: u64 = used.split(' ').next().and_then(|pages| pages.parse().ok()).expect("a number of pages");
    setrlimit(Resource::RLIMIT_AS, used * 4096 + (64 << 20), used * 4096 + (64 << 20)).expect("a limit");
    let refused = |outcome: Option<RecvError>| {
        u32::from(
            matches!(outcome, Some(RecvError::Failed(error)) if matches!(error.kind(), ErrorKind::CannotDecode { .. })),
        )
    };
    (
        numbers.iter().map(|outcome| refused(outcome.err())).sum(),
        texts.iter().map(|outcome| refused(outcome.err())).sum(),
    )
}

fn no_length_makes_a_reader_ask_for_memory(method: StartMethod) {
    let (numbers, theirs) = one_way::<Vec<u64>>().unwrap();
    let (texts, other) = one_way::<Vec<String>>().unwrap();
    let lengths = [1 << 20, 1 << 28, 1 << 40, 1 << 60, (1 << 61) + 1, u64::MAX];
    for count in lengths {
        let inside = [&count.to_ne_bytes()[..], &[0; 24]].concat();
        for end in [numbers.as_fd(), texts.as_fd()] {
            forge(end, &packet(WHOLE, inside.len() as u64, &inside), &[]);
            let parcel = memory(16384, true, SIZE);
            std::os::unix::fs::FileExt::write_all_at(&File::from(parcel.try_clone().unwrap()), &inside, 4096).unwrap();
            forge(end, &packet(PARCEL, inside.len() as u64, b""), &[parcel.as_fd()]);
        }
    }
    drop((numbers, texts));
    let each = 2 * lengths.len() as u32;
    let process =
        ProcessBuilder::new().start_method(method).spawn(receive_with_little_memory, (theirs, other)).unwrap();
    assert_eq!(process.join().unwrap(), (each, each));
}

fn unrequested_descriptors_are_closed(_: StartMethod) {
    let (sender, receiver) = one_way::<Vec<u8>>().unwrap();
    let file = File::open("/dev/null").unwrap();
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    for count in [1, 2, 63, 253] {
        let beside = vec![file.as_fd(); count];
        let good = packet(WHOLE, 16, &[0; 16]);
        forge(sender.as_fd(), &good, &beside);
        assert_eq!(receiver.recv(), Ok(vec![]));
        forge(sender.as_fd(), b"bad", &beside);
        assert!(is_broken(&receiver.recv()));
        forge(sender.as_fd(), &vec![0; 100_000], &beside);
        assert!(is_broken(&receiver.recv()));
        assert_eq!(open(), before, "{count} came");
    }
}

fn what_is_no_end_is_no_connection(_: StartMethod) {
    let (sender, receiver) = one_way::<Sender<u32>>().unwrap();
    let unix = nix::sys::socket::AddressFamily::Unix;
    let (datagram, _) = socketpair(unix, SockType::Datagram, None, SockFlag::empty()).unwrap();
    let (stream, _) = UnixStream::pair().unwrap();
    let others: [OwnedFd; 4] =
        [datagram, stream.into(), File::open("/dev/null").unwrap().into(), memory(4096, true, SIZE)];
    let index = |index: u32| packet(WHOLE, 5, &by_place(&index.to_ne_bytes()));
    for other in &others {
        forge(sender.as_fd(), &index(0), &[other.as_fd()]);
        assert!(
            matches!(receiver.recv(), Err(RecvError::Failed(error)) if matches!(error.kind(), ErrorKind::CannotDecode { .. }))
        );
    }
    let (good, numbers) = one_way::<u32>().unwrap();
    for (at, beside) in [(1, vec![good.as_fd()]), (0, vec![]), (u32::MAX, vec![good.as_fd()])] {
        forge(sender.as_fd(), &index(at), &beside);
        assert!(
            matches!(receiver.recv(), Err(RecvError::Failed(error)) if matches!(error.kind(), ErrorKind::CannotDecode { .. }))
        );
    }
    forge(sender.as_fd(), &index(0), &[good.as_fd()]);
    receiver.recv().unwrap().send(7).unwrap();
    assert_eq!(numbers.recv(), Ok(7));
}

#[derive(Debug, Serialize, Deserialize)]
struct Anything {
    texts: Vec<String>,
    maybe: Option<Box<Anything>>,
    number: u16,
    ends: Vec<Connection<u8, u8>>,
    region: Option<Shared<u64>>,
}

fn random_packets_are_messages_or_errors(_: StartMethod) {
    let (sender, receiver) = one_way::<Anything>().unwrap();
    let (bytes, numbers) = one_way::<Vec<u8>>().unwrap();
    let (file, parcel) = (File::open("/dev/null").unwrap(), memory(16384, true, SIZE));
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: u64| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed % below
    };
    for _ in 0..rounds(1000) {
        let len = next(200) as usize;
        let inside: Vec<u8> = (0..len).map(|_| if next(3) == 0 { next(256) as u8 } else { next(3) as u8 }).collect();
        let mut forged = match next(3) {
            0 => packet(PARCEL, next(9000), b""),
            _ => packet(WHOLE, len as u64, &inside),
        };
        for _ in 0..next(3) {
            let at = next(forged.len() as u64) as usize;
            forged[at] = next(256) as u8;
        }
        let beside: Vec<_> = (0..next(4)).map(|_| if next(2) == 0 { file.as_fd() } else { parcel.as_fd() }).collect();
        forge(sender.as_fd(), &forged, &beside);
        forge(bytes.as_fd(), &forged, &beside);
        assert!(!matches!(receiver.recv(), Err(RecvError::Disconnected)));
        assert!(!matches!(numbers.recv(), Err(RecvError::Disconnected)));
    }
    goes_on(&bytes, &numbers);
}

fn a_message_of_another_type_is_an_error(_: StartMethod) {
    let (sender, receiver) = one_way::<Sender<String>>().unwrap();
    let (numbers, expected) = one_way::<u64>().unwrap();
    let (texts, refused) = one_way::<String>().unwrap();
    // An end of one type that arrives as one of another: the types are the program's word alone.
    forge(sender.as_fd(), &packet(WHOLE, 5, &by_place(&0u32.to_ne_bytes())), &[numbers.as_fd()]);
    receiver.recv().unwrap().send("no number".to_owned()).unwrap();
    assert!(
        matches!(expected.recv(), Err(RecvError::Failed(error)) if matches!(error.kind(), ErrorKind::CannotDecode { .. }))
    );
    forge(texts.as_fd(), &packet(WHOLE, 8, &u64::MAX.to_ne_bytes()), &[]);
    assert!(
        matches!(refused.recv(), Err(RecvError::Failed(error)) if matches!(error.kind(), ErrorKind::CannotDecode { .. }))
    );
    numbers.send(7).unwrap();
    assert_eq!(expected.recv(), Ok(7));
}

#[derive(Serialize, Deserialize)]
enum List {
    End,
    More(Box<List>),
}

#[derive(Serialize, Deserialize)]
struct Chain(Option<Box<Chain>>);

#[derive(Serialize, Deserialize)]
struct Tree(Vec<Tree>);

#[derive(Serialize, Deserialize)]
struct Folders(BTreeMap<u8, Folders>);

/// What serde writes of a value by the places of its parts, as it goes.
fn by_place(inside: &[u8]) -> Vec<u8> {
    [&[0], inside].concat()
}

/// Something is said that holds itself, and so on, of which `step` is one, by a peer that need not make it. It says first whether it
/// goes by places or by names.
fn goes_deep<T: Message>(how: u8, step: &[u8], deep: impl Fn(usize) -> T) {
    let (sender, receiver) = one_way::<T>().unwrap();
    sender.send(deep(100)).unwrap();
    assert!(receiver.recv().is_ok(), "that is nothing");
    let inside = [&[how], &step.repeat(1_000_000)[..]].concat();
    let parcel = memory(4096 + inside.len() as u64, true, SIZE);
    std::os::unix::fs::FileExt::write_all_at(&File::from(parcel.try_clone().unwrap()), &inside, 4096).unwrap();
    forge(sender.as_fd(), &packet(PARCEL, inside.len() as u64, b""), &[parcel.as_fd()]);
    match receiver.recv() {
        Err(RecvError::Failed(error)) => assert!(error.to_string().contains("deeper than the stack"), "{error}"),
        other => panic!("{:?}", other.err()),
    }
    sender.send(deep(1)).unwrap();
    assert!(receiver.recv().is_ok());
}

fn no_depth_overflows_a_stack(_: StartMethod) {
    goes_deep(0, &[1, 0, 0, 0], |steps| (0..steps).fold(List::End, |list, _| List::More(Box::new(list))));
    for (how, step) in [(0, 1), (1, 20)] {
        goes_deep(how, &[step], |steps| (0..steps).fold(Chain(None), |chain, _| Chain(Some(Box::new(chain)))));
    }
    for (how, step) in [(0, &1u64.to_ne_bytes()[..]), (1, &[21, 0])] {
        goes_deep(how, step, |steps| (0..steps).fold(Tree(vec![]), |tree, _| Tree(vec![tree])));
    }
    let inside = [&1u64.to_ne_bytes()[..], &[7]].concat();
    goes_deep(0, &inside, |steps| {
        (0..steps).fold(Folders(BTreeMap::new()), |one, _| Folders(BTreeMap::from([(7, one)])))
    });
}
