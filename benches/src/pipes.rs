//! `channel::pipe` between two processes, against a bare socket pair, copying, ipc-channel, and Python's pipe: a number there
//! and back, and 16 MiB on the way from one to the other.
//!
//! A turn there and back needs one core at a time. Where the two sides are is up to the kernel, which sometimes puts them on one
//! core and sometimes on two, where a core that has nothing to do has to be woken in each turn, at a price of several turns: hence
//! the row whose sides are held on one core, where only what they do is measured.
//!
//! Runs in: the parent, which asks; the answering tasks in another process. Never: counts the start of the other side, which has
//! answered once when the time begins; nor the making of a long message, since what arrives is what is sent back.

use std::hint::black_box;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};

use ipc_channel::ipc::{IpcBytesReceiver, IpcBytesSender, IpcReceiver, IpcSender, bytes_channel, channel};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use nix::unistd::Pid;
use process_task::channel::{Connection, pipe};
use process_task::{ProcessBuilder, process_task};

use crate::ipc::{hand_over, take_over};
use crate::measure::{check, each};
use crate::python::Library;
use crate::race::{Measured, Race};
use crate::table::{Row, Unit};
use crate::{Outcome, python};

pub(crate) const ROWS: &[Row] = &[
    Row { name: "pipe, u64 there and back", unit: Unit::Seconds, run: numbers },
    Row { name: "pipe, u64 there and back, on one core", unit: Unit::Seconds, run: numbers_on_one_core },
    Row { name: "pipe, 16 MiB Vec<u8>", unit: Unit::Seconds, run: bytes },
];

/// How often a number goes there and back, in a round.
const TURNS: u32 = 2_000;
/// How often the long message does: each time it is sent twice.
const LONG_TURNS: u32 = 8;
const LENGTH: usize = 16 << 20;
const ROUNDS: u32 = 9;
/// Many and short: where the sides are changes from round to round.
const SHORT_ROUNDS: u32 = 45;

#[process_task]
fn answer(asked: Connection<u64, u64>) {
    while let Ok(number) = asked.recv() {
        asked.send(number + 1).expect("the asking end waits for the answer");
    }
}

/// Answers at its standard input, which is one end of a pair.
#[process_task]
fn answer_bare() {
    let asked = io::stdin();
    while let Some(number) = receive(asked.as_fd()) {
        tell(asked.as_fd(), number + 1);
    }
}

#[process_task]
fn answer_by_ipc(name: String) {
    let (asked, back): (IpcReceiver<u64>, IpcSender<u64>) = take_over(name);
    while let Ok(number) = asked.recv() {
        back.send(number + 1).expect("the asking end waits for the answer");
    }
}

/// One number as a message of a bare socket.
fn tell(socket: BorrowedFd<'_>, number: u64) {
    send(socket.as_raw_fd(), &number.to_ne_bytes(), MsgFlags::MSG_NOSIGNAL).expect("the other end is there");
}

/// Nothing when the other end is gone.
fn receive(socket: BorrowedFd<'_>) -> Option<u64> {
    let mut bytes = [0; 8];
    let length = recv(socket.as_raw_fd(), &mut bytes, MsgFlags::empty()).expect("a socket");
    (length == bytes.len()).then_some(u64::from_ne_bytes(bytes))
}

/// Seconds for one turn with a peer that answers with the next number.
fn ask_all(mut ask: impl FnMut(u64) -> Outcome<u64>) -> Outcome<f64> {
    check(ask(0)?, 1)?;
    each(TURNS, || (0..u64::from(TURNS)).try_for_each(|number| check(ask(number)?, number + 1)))
}

fn numbers() -> Outcome<Measured> {
    numbers_on(None)
}

fn numbers_on_one_core() -> Outcome<Measured> {
    // The last one: the first has most of the machine's interrupts.
    let core = Core::last()?;
    let measured = numbers_on(Some(core.number));
    core.leave()?;
    measured
}

/// A core on which this thread is held.
struct Core {
    number: usize,
    before: CpuSet,
}

impl Core {
    fn last() -> Outcome<Self> {
        let this = Pid::from_raw(0);
        let before = sched_getaffinity(this)?;
        let mut usable = (0..CpuSet::count()).filter(|core| before.is_set(*core).unwrap_or(false));
        let number = usable.next_back().ok_or("there is no core")?;
        let mut only = CpuSet::new();
        only.set(number)?;
        sched_setaffinity(this, &only)?;
        Ok(Self { number, before })
    }

    fn leave(self) -> Outcome<()> {
        Ok(sched_setaffinity(Pid::from_raw(0), &self.before)?)
    }
}

/// How the other side is started.
fn other_on(core: Option<usize>) -> ProcessBuilder {
    let mut builder = ProcessBuilder::new();
    if let Some(core) = core {
        builder.cpus([core]);
    }
    builder
}

fn numbers_on(core: Option<usize>) -> Outcome<Measured> {
    Race::new(SHORT_ROUNDS, || our_numbers(core))
        .against("bare SOCK_SEQPACKET pair", || bare_numbers(core))
        .aim(1.15)
        .against("ipc-channel", || ipc_numbers(core))
        .aim(1.0)
        // Held on a core too: it is started by this thread.
        .beside(python::peer("Python multiprocessing.Pipe", Library::Process, "pipe_of_numbers")?)
        .run()
}

fn our_numbers(core: Option<usize>) -> Outcome<f64> {
    let (ours, theirs) = pipe::<u64, u64>()?;
    let other = other_on(core).spawn(answer, theirs)?;
    let seconds = ask_all(|number| {
        ours.send(number)?;
        Ok(ours.recv()?)
    })?;
    drop(ours);
    other.join()?;
    Ok(seconds)
}

fn bare_numbers(core: Option<usize>) -> Outcome<f64> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    let other = other_on(core).stdin(theirs).spawn(answer_bare, ())?;
    let seconds = ask_all(|number| {
        tell(ours.as_fd(), number);
        receive(ours.as_fd()).ok_or_else(|| "the other end is gone".into())
    })?;
    drop(ours);
    other.join()?;
    Ok(seconds)
}

fn ipc_numbers(core: Option<usize>) -> Outcome<f64> {
    let ((there, asked), (back, answers)) = (channel::<u64>()?, channel::<u64>()?);
    let other = hand_over((asked, back), |name| other_on(core).spawn(answer_by_ipc, name))?;
    let seconds = ask_all(|number| {
        there.send(number)?;
        Ok(answers.recv()?)
    })?;
    drop(there);
    other.join()?;
    Ok(seconds)
}

#[process_task]
fn return_bytes(asked: Connection<Vec<u8>, Vec<u8>>) {
    while let Ok(bytes) = asked.recv() {
        asked.send(next(bytes)).expect("the asking end waits for the answer");
    }
}

#[process_task]
fn return_bytes_by_ipc(name: String) {
    let (asked, back): (IpcBytesReceiver, IpcBytesSender) = take_over(name);
    while let Ok(bytes) = asked.recv() {
        back.send(&next(bytes)).expect("the asking end waits for the answer");
    }
}

/// Where a long message differs from the one before.
const PLACES: [usize; 3] = [0, LENGTH / 2, LENGTH - 1];

fn next(mut bytes: Vec<u8>) -> Vec<u8> {
    for place in PLACES {
        bytes[place] = bytes[place].wrapping_add(1);
    }
    bytes
}

/// Seconds for one way of a long message, which goes there and back again and again.
fn send_all(mut there_and_back: impl FnMut(Vec<u8>) -> Outcome<Vec<u8>>) -> Outcome<f64> {
    let mut bytes = there_and_back(vec![0; LENGTH])?;
    let seconds = each(2 * LONG_TURNS, || {
        for turn in 2..=LONG_TURNS + 1 {
            bytes = there_and_back(std::mem::take(&mut bytes))?;
            check((bytes.len(), PLACES.map(|place| u32::from(bytes[place]))), (LENGTH, [turn; 3]))?;
        }
        Ok(())
    })?;
    Ok(seconds)
}

fn bytes() -> Outcome<Measured> {
    let (mut source, mut copy) = (vec![1; LENGTH], vec![0; LENGTH]);
    Race::new(ROUNDS, our_bytes)
        .against("warm copy of 16 MiB", || copy_all(&mut source, &mut copy))
        .aim(4.0)
        .against("ipc-channel, bytes", ipc_bytes)
        .aim(1.0)
        .beside(python::peer("Python multiprocessing.Pipe, bytes", Library::Process, "pipe_of_bytes")?)
        .run()
}

fn our_bytes() -> Outcome<f64> {
    let (ours, theirs) = pipe::<Vec<u8>, Vec<u8>>()?;
    let other = return_bytes.spawn(theirs);
    let seconds = send_all(|bytes| {
        ours.send(bytes)?;
        Ok(ours.recv()?)
    })?;
    drop(ours);
    other.join()?;
    Ok(seconds)
}

fn ipc_bytes() -> Outcome<f64> {
    let ((there, asked), (back, answers)) = (bytes_channel()?, bytes_channel()?);
    let other = hand_over((asked, back), |name| Ok(return_bytes_by_ipc.spawn(name)))?;
    let seconds = send_all(|bytes| {
        there.send(&bytes)?;
        Ok(answers.recv()?)
    })?;
    drop(there);
    other.join()?;
    Ok(seconds)
}

/// Seconds for one copy, to and fro.
fn copy_all(source: &mut [u8], copy: &mut [u8]) -> Outcome<f64> {
    let fill = source[0];
    let seconds = each(2 * LONG_TURNS, || {
        for _ in 0..LONG_TURNS {
            black_box(&mut *copy).copy_from_slice(black_box(source));
            black_box(&mut *source).copy_from_slice(black_box(copy));
        }
        Ok(())
    })?;
    check(PLACES.map(|place| copy[place]), [fill; 3])?;
    Ok(seconds)
}
