//! What a worker can reach of its own link: the memory of both halves, the bell, and the control socket.
//!
//! Runs in: workers, called by hostile tasks. Never: touches another process's memory.
//!
//! Everything goes through `/proc/self`, as a task that was taken over could do it too. The places of the words are
//! those of the runtime's `link/control.rs`; [`look_around`] checks them against what it finds, so that they cannot rot.

#[path = "../../runtime/src/link/checksum.rs"]
mod checksum;
#[expect(dead_code, reason = "an attack needs no more than the numbers")]
#[path = "../../runtime/src/link/frame.rs"]
pub(crate) mod frame;
#[expect(dead_code, reason = "an attack writes to the window as it likes")]
#[path = "../../runtime/src/link/window.rs"]
mod window;

/// What these files take from their neighbour in the runtime.
mod atomic {
    pub(super) use std::sync::atomic::{AtomicU64, Ordering};
}

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::RawFd;
use std::os::unix::fs::FileExt as _;

use frame::FrameKind;

/// `limit << 32 | claimed`.
pub(crate) const WINDOW: u64 = 0;
/// How many bytes of frames the worker has written since the link was made.
pub(crate) const TAIL: u64 = 128;
/// Where the words end and the ring begins.
pub(crate) const WORDS: u64 = 4096;
/// How much the ring holds.
pub(crate) const RING: u64 = 128 << 10;
/// Both, as lengths of memory are counted.
pub(crate) const LEN: usize = 4096 + (128 << 10);
/// The length of a frame's head.
pub(crate) const HEAD: u64 = 32;

/// One half, as this process sees it.
pub(crate) struct Half {
    pub(crate) start: u64,
    memory: File,
}

impl Half {
    /// The half that the worker writes.
    pub(crate) fn reply() -> Self {
        Self::named("memfd:process-task-reply")
    }

    /// The half that the worker may only read.
    pub(crate) fn request() -> Self {
        Self::named("memfd:process-task-request")
    }

    fn named(name: &str) -> Self {
        let maps = fs::read_to_string("/proc/self/maps").expect("the list of mappings");
        let line = maps.lines().find(|line| line.contains(name)).expect("a half that is mapped");
        let (start, end) = line.split(' ').next().and_then(|range| range.split_once('-')).expect("a range");
        let number = |text| u64::from_str_radix(text, 16).expect("an address");
        assert_eq!(number(end) - number(start), WORDS + RING, "a half has another size");
        let memory = OpenOptions::new().read(true).write(true).open("/proc/self/mem").expect("one's own memory");
        Self { start: number(start), memory }
    }

    pub(crate) fn read(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read_exact_at(&mut bytes, self.start + at).expect("memory that is mapped");
        bytes
    }

    /// Writes by way of the kernel, which refuses where this process could not write itself.
    pub(crate) fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.memory.write_all_at(bytes, self.start + at)
    }

    pub(crate) fn word(&self, at: u64) -> u64 {
        u64::from_le_bytes(self.read(at, 8).try_into().expect("eight bytes"))
    }

    pub(crate) fn set_word(&self, at: u64, value: u64) {
        self.write(at, &value.to_le_bytes()).expect("a word that can be written");
    }

    /// Puts `frame` where the next reply goes, and says that it is there.
    pub(crate) fn publish(&self, frame: &Forged) {
        self.put(frame, &frame.bytes(), &[]);
    }

    /// As [`Half::publish`], with a payload behind the head, and handles promised beside it.
    pub(crate) fn publish_with(&self, serial: u64, handles: u16, payload: &[u8]) {
        let len = payload.len() as u64;
        let frame = Forged { kind: FrameKind::Done as u8, slot: 0, serial, len, parcel: 0, payload: len };
        let mut head = frame.bytes();
        head[2..4].copy_from_slice(&handles.to_le_bytes());
        checksum::write(&mut head, payload);
        self.put(&frame, &head, payload);
    }

    fn put(&self, frame: &Forged, head: &[u8; 32], payload: &[u8]) {
        let tail = self.word(TAIL);
        let extent = HEAD + if frame.parcel == 0 { frame.payload.next_multiple_of(HEAD) } else { 0 };
        let left = RING - tail % RING;
        let at = if extent <= left { tail } else { tail.next_multiple_of(RING) };
        if at != tail {
            self.write(WORDS + tail % RING, &[FrameKind::Skip as u8]).expect("the ring");
        }
        self.write(WORDS + at % RING, head).expect("the ring");
        self.write(WORDS + at % RING + HEAD, payload).expect("the ring");
        self.set_word(TAIL, at + extent);
    }
}

/// Panics if the words or the frames of an honest worker lie elsewhere than this file says.
pub(crate) fn look_around(lent: &[u8]) {
    let half = Half::reply();
    let (tail, window) = (half.word(TAIL), half.word(WINDOW));
    assert!(tail > 0 && tail.is_multiple_of(HEAD), "the tail is somewhere else: {tail}");
    let (limit, claimed) = (window >> 32, window & 0xffff_ffff);
    assert!(limit >= claimed && claimed > 0, "the window is somewhere else: {limit}, {claimed}");
    let ring = half.read(WORDS, LEN - 4096);
    let frames = ring.as_chunks::<32>().0;
    assert!(checksum::verify(&frames[0], &[]), "the answer to the setup has another sum");
    assert_eq!(own_serial(lent), claimed, "calls are numbered in another way");
}

/// The number of the call that is running, one of whose arguments is `lent`: it lies in the request half, behind the head
/// of its frame.
pub(crate) fn own_serial(lent: &[u8]) -> u64 {
    let request = Half::request();
    let at = lent.as_ptr() as u64 - request.start - WORDS;
    assert!(at < RING, "the argument lies somewhere else");
    let heads = (0..=at / HEAD).rev().map(|frame| request.read(WORDS + frame * HEAD, 32));
    let head = heads.take(8).find(|head| head[0] == FrameKind::Call as u8 && head[1..4] == [0; 3]);
    let head = head.expect("the head of its frame");
    u64::from_le_bytes(head[8..16].try_into().expect("eight bytes"))
}

/// A head that says what it likes.
#[derive(Clone, Debug)]
pub(crate) struct Forged {
    pub(crate) kind: u8,
    pub(crate) slot: u8,
    pub(crate) serial: u64,
    pub(crate) len: u64,
    pub(crate) parcel: u32,
    /// How much room it takes, as far as the tail says.
    pub(crate) payload: u64,
}

impl Forged {
    /// With the right sum, as a liar would do it, if the payload is empty or in a parcel.
    fn bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[0] = self.kind;
        bytes[1] = self.slot;
        bytes[8..16].copy_from_slice(&self.serial.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.len.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.parcel.to_le_bytes());
        checksum::write(&mut bytes, &[]);
        bytes
    }
}

/// The descriptors whose links in `/proc/self/fd` begin so.
pub(crate) fn descriptors(of: &str) -> Vec<RawFd> {
    let entries = fs::read_dir("/proc/self/fd").expect("the list of descriptors");
    let descriptor = |entry: io::Result<fs::DirEntry>| {
        let entry = entry.ok()?;
        let leads_to = fs::read_link(entry.path()).ok()?;
        let number = entry.file_name().to_str()?.parse().ok()?;
        leads_to.to_string_lossy().starts_with(of).then_some(number)
    };
    entries.filter_map(descriptor).collect()
}

/// The file behind a half, where this process may open it by way of the mapping.
pub(crate) fn file(half: &Half) -> io::Result<File> {
    let range = format!("{:x}-{:x}", half.start, half.start + WORDS + RING);
    OpenOptions::new().read(true).write(true).open(format!("/proc/self/map_files/{range}"))
}
