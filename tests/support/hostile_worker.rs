//! What hostile workers do to their own links: each attack is a value that travels to the worker as an argument.
//!
//! Runs in: workers. Never: touches another process.
#![expect(unsafe_code, reason = "descriptors known by their numbers alone, and memory that is given back")]

use std::fs::File;
use std::io::IoSlice;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::thread;
use std::time::Duration;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MmapAdvise, madvise};
use nix::sys::signal::{Signal, raise};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use process_task::process_task;
use serde::{Deserialize, Serialize};

use crate::support::file_barrier::wait_for;
use crate::support::link_memory::frame::FrameKind;
use crate::support::link_memory::{Forged, Half, LEN, RING, TAIL, WINDOW, WORDS, descriptors, own_serial};

/// What an attack does before its task returns.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Act {
    Tail(u64),
    /// Relative to where it stands.
    TailBy(i64),
    Window {
        limit: u32,
        claimed: u32,
    },
    /// Relative to what stands there.
    WindowBy {
        limit: u32,
        claimed: u32,
    },
    /// Says that the running call was not claimed, and dies.
    UnclaimAndDie,
    Reply(Vec<Lie>),
    Garbage {
        seed: u64,
        at: u64,
        len: u64,
    },
    GarbageForEver(u64),
    /// Sends until the control socket is full, and once more and again if `for_ever`.
    Flood {
        message: Vec<u8>,
        with_memory: bool,
        for_ever: bool,
    },
    /// Announces memory of a size under a name, and says that the result lies there.
    Parcel {
        message: Vec<u8>,
        memory: Option<u64>,
        sealed: bool,
        lie: Lie,
    },
    /// Gives the memory below the reply half back.
    Remove,
}

/// A frame that was not written by the runtime.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Lie {
    pub(crate) kind: u8,
    pub(crate) slot: u8,
    /// Relative to the call that is running.
    pub(crate) serial: i64,
    pub(crate) len: u64,
    pub(crate) parcel: u32,
    /// By how much the tail moves behind the head.
    pub(crate) payload: u64,
}

/// The answer to the running call that the runtime would give.
pub(crate) const TRUTH: Lie = Lie { kind: FrameKind::Done as u8, slot: 0, serial: 0, len: 0, parcel: 0, payload: 0 };

#[process_task]
pub(crate) fn attack(act: Act, gate: &str, lent: &[u8]) {
    match act {
        Act::Tail(tail) => Half::reply().set_word(TAIL, tail),
        Act::TailBy(by) => {
            let half = Half::reply();
            half.set_word(TAIL, half.word(TAIL).wrapping_add_signed(by));
        }
        Act::Window { limit, claimed } => {
            Half::reply().set_word(WINDOW, u64::from(limit) << 32 | u64::from(claimed));
        }
        Act::WindowBy { limit, claimed } => {
            let half = Half::reply();
            let [was_claimed, was_limit] =
                [0, 4].map(|at| u32::from_le_bytes(half.read(WINDOW + at, 4).try_into().expect("four bytes")));
            let claimed = was_claimed.wrapping_add(claimed);
            half.set_word(WINDOW, u64::from(was_limit.wrapping_add(limit)) << 32 | u64::from(claimed));
        }
        Act::UnclaimAndDie => {
            let half = Half::reply();
            half.set_word(WINDOW, half.word(WINDOW) - 1);
            raise(Signal::SIGKILL).expect("a signal that can be raised");
        }
        Act::Reply(lies) => {
            let own = own_serial(lent);
            for lie in lies {
                publish_after(own, lie);
            }
        }
        Act::Garbage { seed, at, len } => scribble(seed, at, len),
        Act::GarbageForEver(seed) => {
            thread::spawn(move || {
                for seed in seed.. {
                    scribble(seed, 0, WORDS + RING);
                }
            });
        }
        Act::Flood { message, with_memory, for_ever: false } => {
            while send(&message, with_memory.then_some((4096, true))) {}
        }
        Act::Flood { message, with_memory, for_ever: true } => {
            thread::spawn(move || {
                loop {
                    send(&message, with_memory.then_some((4096, true)));
                }
            });
            // The parent looks for this parcel among those that come.
            thread::sleep(Duration::from_millis(5));
            publish_after(own_serial(lent), Lie { parcel: 0x00ff_ffff, ..TRUTH });
        }
        Act::Parcel { message, memory, sealed, lie } => {
            assert!(message.is_empty() || send(&message, memory.map(|size| (size, sealed))));
            publish_after(own_serial(lent), lie);
        }
        Act::Remove => {
            let start =
                std::ptr::with_exposed_provenance_mut(usize::try_from(Half::reply().start).expect("an address"));
            let start = NonNull::new(start).expect("an address");
            // SAFETY: everything in this memory is read as numbers, for which zero is as good as anything.
            unsafe { madvise(start, LEN, MmapAdvise::MADV_REMOVE) }.expect("memory that can be removed");
        }
    }
    if !gate.is_empty() {
        for bell in descriptors("anon_inode:[eventfd]") {
            // SAFETY: the worker has it open for as long as it lives.
            let bell = unsafe { BorrowedFd::borrow_raw(bell) };
            nix::unistd::write(bell, &1u64.to_ne_bytes()).expect("a bell that rings");
        }
        wait_for(gate);
    }
}

fn publish_after(own: u64, Lie { kind, slot, serial, len, parcel, payload }: Lie) {
    let serial = own.wrapping_add_signed(serial);
    Half::reply().publish(&Forged { kind, slot, serial, len, parcel, payload });
}

/// Sends on the control socket, without waiting, with new memory of that size beside it; says whether it could.
fn send(message: &[u8], memory: Option<(u64, bool)>) -> bool {
    let memory = memory.map(|(size, sealed)| {
        let memory = memfd_create("forged", MFdFlags::MFD_ALLOW_SEALING).expect("memory");
        let memory = File::from(memory);
        memory.set_len(size).expect("memory of that size");
        if sealed {
            fcntl(&memory, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK)).expect("a seal");
        }
        memory
    });
    // More of them than any honest message has.
    let beside: Vec<_> = memory.iter().flat_map(|memory| [memory.as_raw_fd(); 20]).collect();
    let rights = [ControlMessage::ScmRights(&beside)];
    let rights = if beside.is_empty() { &rights[..0] } else { &rights[..] };
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let sockets = descriptors("socket:");
    assert!(!sockets.is_empty(), "the control socket is somewhere else");
    sockets.iter().all(|socket| sendmsg::<()>(*socket, &[IoSlice::new(message)], rights, flags, None).is_ok())
}

pub(crate) fn scribble(seed: u64, at: u64, len: u64) {
    let mut random = Random(seed);
    let mut garbage: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| random.next().to_le_bytes()).collect();
    garbage.truncate(usize::try_from(len).expect("a length"));
    Half::reply().write(at, &garbage).expect("the worker's own half");
}

/// Numbers that are the same for the same seed: xorshift64*.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 16) % end
    }
}
