//! A worker that promises handles and sends something else harms itself: the parent takes nothing for shared memory that is
//! none, keeps nothing of what came, and the pool goes on.
//!
//! Runs in: the test process; the attacks are tasks, and run in workers. Never: maps what it has forged.
#![expect(unsafe_code, reason = "descriptors known by their numbers alone")]

use std::fs::File;
use std::io::{IoSlice, Write as _};
use std::os::fd::{AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;

use crate::support::file_barrier::{directory, open_gate, wait_for};
use crate::support::link_memory::{Half, descriptors, own_serial};
use crate::support::regions::pool;
use crate::support::scratch::Scratch;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, raise};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use process_task::{Error, ErrorKind, Pool, Shared, StartMethod, process_task};
use serde::{Deserialize, Serialize};

under_every_start_method! {
    within 240 seconds;
    handles_that_do_not_come_are_a_violation,
    unrequested_handles_are_closed,
    what_is_no_region_is_no_result,
    a_region_that_was_tampered_with_is_no_result,
    a_worker_that_floods_its_parent_with_handles_harms_itself,
}

/// What is beside a forged answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Sent {
    Nothing,
    /// A good region, so many times in one message.
    Good(usize),
    /// A good region, beside the answer of this number, relative to the right one.
    GoodFor(i64),
    Null,
    Bell,
    Socket,
    /// Memory of that size, and whether its size is fixed.
    Memory(u64, bool),
    /// A copy of a good region, of which a word was changed, and cut to so many bytes; sealed as the flag says.
    Copy {
        word: u64,
        value: u64,
        len: u64,
        seals: Seals,
    },
    /// A region of another type.
    Other,
    /// Good regions of another answer, without end.
    Flood,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Seals {
    Size,
    Writes,
    FutureWrites,
}

/// Answers with a promise of handles and an index, and sends beside it what it likes.
///
/// What is before `lent` must not look like the head of a frame.
#[process_task]
fn lie(gate: &str, lent: &[u8], sent: Sent, promised: u16, index: u32) -> Shared<AtomicU64> {
    let serial = own_serial(lent);
    let good = Shared::new(AtomicU64::new(4711)).expect("a little memory");
    let own = own_region();
    let null = || OwnedFd::from(File::open("/dev/null").expect("the null device"));
    match sent {
        Sent::Nothing => {}
        Sent::Good(count) => beside(serial, &vec![own; count]),
        Sent::GoodFor(by) => beside(serial.wrapping_add_signed(by), &[own]),
        Sent::Null => beside(serial, &[null().as_raw_fd()]),
        Sent::Bell => beside(serial, &descriptors("anon_inode:[eventfd]")[..1]),
        Sent::Socket => beside(serial, &descriptors("socket:")[..1]),
        Sent::Memory(len, sealed) => {
            let memory = memory();
            memory.set_len(len).expect("memory of that size");
            if sealed {
                seal(&memory, Seals::Size);
            }
            beside(serial, &[memory.as_raw_fd()]);
        }
        Sent::Copy { word, value, len, seals } => {
            // SAFETY: the region is open for as long as `good` lives.
            let from = File::from(unsafe { BorrowedFd::borrow_raw(own) }.try_clone_to_owned().expect("a descriptor"));
            let mut bytes = [0; 264];
            from.read_exact_at(&mut bytes, 0).expect("a header and a value");
            let at = usize::try_from(word * 8).expect("a place");
            bytes[at..at + 8].copy_from_slice(&value.to_ne_bytes());
            let mut memory = memory();
            memory.write_all(&bytes).expect("memory");
            memory.set_len(len).expect("memory of that size");
            seal(&memory, seals);
            beside(serial, &[memory.as_raw_fd()]);
        }
        Sent::Other => {
            drop(good);
            let _other = Shared::new(7_u32).expect("a little memory");
            beside(serial, &[own_region()]);
        }
        Sent::Flood => {
            for _ in 0..3 {
                thread::spawn(move || {
                    loop {
                        beside(0, &[own]);
                    }
                });
            }
        }
    }
    // A value that goes by its places, and in it the index.
    Half::reply().publish_with(serial, promised, &[&[0], &index.to_le_bytes()[..]].concat());
    for bell in descriptors("anon_inode:[eventfd]") {
        // SAFETY: the worker has it open for as long as it lives.
        let bell = unsafe { BorrowedFd::borrow_raw(bell) };
        nix::unistd::write(bell, &1u64.to_ne_bytes()).expect("a bell that rings");
    }
    wait_for(gate);
    raise(Signal::SIGKILL).expect("a signal that can be raised");
    unreachable!("it is dead")
}

fn own_region() -> i32 {
    *descriptors("/memfd:process-task-shared").last().expect("a region")
}

fn memory() -> File {
    File::from(memfd_create("process-task-shared", MFdFlags::MFD_ALLOW_SEALING).expect("memory"))
}

fn seal(memory: &File, seals: Seals) {
    let size = SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK;
    let seals = match seals {
        Seals::Size => size,
        Seals::Writes => size | SealFlag::F_SEAL_WRITE,
        Seals::FutureWrites => size | SealFlag::F_SEAL_FUTURE_WRITE,
    };
    fcntl(memory, FcntlArg::F_ADD_SEALS(seals)).expect("seals");
}

/// `FromChild::Beside` with these descriptors, on the control socket.
fn beside(serial: u64, sent: &[i32]) {
    let message = [&[3][..], &varint(serial)].concat();
    let rights = [ControlMessage::ScmRights(sent)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    for socket in descriptors("socket:") {
        // It does not matter if there is no room for it.
        let _ = sendmsg::<()>(socket, &[IoSlice::new(&message)], &rights, flags, None);
    }
}

/// A number as it travels in messages.
fn varint(number: u64) -> Vec<u8> {
    match u8::try_from(number) {
        Ok(byte @ 0..=250) => vec![byte],
        _ => [&[253][..], &number.to_le_bytes()].concat(),
    }
}

#[process_task]
fn honest(value: u64) -> Shared<AtomicU64> {
    Shared::new(AtomicU64::new(value)).expect("a little memory")
}

fn goes_on(pool: &Pool) {
    for value in 0..5 {
        assert_eq!(pool.call(honest, value).expect("an honest answer").load(SeqCst), value);
    }
}

/// One attack in a pool, and what the parent makes of it.
fn attack(method: StartMethod, sent: Sent, promised: u16, index: u32) -> process_task::Result<Shared<AtomicU64>> {
    let (scratch, pool) = (Scratch::new(), pool(method, 1));
    goes_on(&pool);
    let gate = format!("{}/gate", directory(&scratch));
    let outcome = pool.call(lie, (&gate, b"lent", sent, promised, index));
    open_gate(&scratch);
    goes_on(&pool);
    outcome
}

#[track_caller]
fn is_violation(error: &Error, sent: Sent) {
    let ErrorKind::ProtocolViolation { reason, .. } = error.kind() else { panic!("{sent:?}: {error}") };
    assert!(reason.contains("handles were promised and did not come"), "{sent:?}: {error}");
}

#[track_caller]
fn is_no_result(error: &Error, why: &str, sent: Sent) {
    let ErrorKind::CannotDecode { reason, .. } = error.kind() else { panic!("{sent:?}: {error}") };
    assert!(reason.contains(why), "{sent:?}: {error}");
}

fn handles_that_do_not_come_are_a_violation(method: StartMethod) {
    let lies = [
        (Sent::Nothing, 1),
        (Sent::Nothing, u16::MAX),
        (Sent::Good(1), 2),
        (Sent::Good(60), 1024),
        (Sent::GoodFor(-1), 1),
        (Sent::GoodFor(1), 1),
        (Sent::GoodFor(i64::MAX), 1),
    ];
    for (sent, promised) in lies {
        is_violation(&attack(method, sent, promised, 0).expect_err("nothing came"), sent);
    }
}

fn unrequested_handles_are_closed(method: StartMethod) {
    for (count, promised) in [(1, 1), (64, 1), (253, 1), (253, 200)] {
        let outcome = attack(method, Sent::Good(count), promised, 0).expect("it is what was promised, and more");
        assert_eq!(outcome.load(SeqCst), 4711);
    }
    // Sent, but not promised.
    let sent = Sent::Good(10);
    is_no_result(&attack(method, sent, 0, 0).expect_err("none was promised"), "did not come with it", sent);
    let error = attack(method, sent, 10, 253).expect_err("there are not so many");
    is_no_result(&error, "did not come with it", sent);
}

fn what_is_no_region_is_no_result(method: StartMethod) {
    const NONE: &str = "no shared memory of this program";
    let lies = [
        (Sent::Null, NONE),
        (Sent::Bell, NONE),
        (Sent::Socket, NONE),
        (Sent::Memory(4096, false), NONE),
        (Sent::Memory(0, true), NONE),
        (Sent::Memory(255, true), NONE),
        (Sent::Memory(4096, true), NONE),
        (Sent::Memory(1 << 50, true), ""),
        (Sent::Other, "a handle of `u32` was read as one of `core::sync::atomic"),
    ];
    for (sent, why) in lies {
        is_no_result(&attack(method, sent, 1, 0).expect_err("it is no region"), why, sent);
    }
}

fn a_region_that_was_tampered_with_is_no_result(method: StartMethod) {
    const NONE: &str = "no shared memory of this program";
    const OTHER: &str = "was read as one of";
    let good = Sent::Copy { word: 32, value: 5, len: 264, seals: Seals::Size };
    let taken = attack(method, good, 1, 0).expect("a copy of a region is one");
    assert_eq!(taken.load(SeqCst), 5);
    let changed = |word, value| Sent::Copy { word, value, len: 264, seals: Seals::Size };
    let sealed = |seals| Sent::Copy { word: 32, value: 5, len: 264, seals };
    let lies = [
        // What it begins with, the type, the size of a value, how many there are, where they begin.
        (changed(0, 1), NONE),
        (changed(1, 1), OTHER),
        (changed(2, 1), OTHER),
        (changed(3, 4), OTHER),
        (changed(3, u64::MAX), NONE),
        (changed(4, 0), OTHER),
        (changed(4, 2), NONE),
        (changed(4, 1 << 61), NONE),
        (changed(5, 0), NONE),
        (changed(5, 255), NONE),
        (changed(5, 257), NONE),
        (changed(5, u64::MAX), NONE),
        (changed(9, 1), OTHER),
        (Sent::Copy { word: 32, value: 5, len: 263, seals: Seals::Size }, NONE),
        // What changes must be writable.
        (sealed(Seals::Writes), "that no process can write"),
        (sealed(Seals::FutureWrites), "cannot map"),
    ];
    for (sent, why) in lies {
        match attack(method, sent, 1, 0) {
            Err(error) => is_no_result(&error, why, sent),
            Ok(_) => panic!("{sent:?} was taken for a region"),
        }
    }
}

fn a_worker_that_floods_its_parent_with_handles_harms_itself(method: StartMethod) {
    for _ in 0..3 {
        is_violation(&attack(method, Sent::Flood, 9, 0).expect_err("none came for this answer"), Sent::Flood);
    }
}
