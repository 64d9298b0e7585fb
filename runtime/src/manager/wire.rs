//! What travels between a manager and its clients through queues, and what each answer means.
//!
//! Runs in: the manager, and each client.
//! Invariant: an item of a client changes nothing before its numbers were looked up.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use serde::de::{Error as _, Visitor};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::connection_limits::ConnectionLimits;
use super::memory::ClientMemory;
use super::published::PublishedValue;
use crate::channel::{Descriptor, QueueSender};
use crate::codec::CodecError;
use crate::codec::handles::{self, Handle, Handles, Received};
use crate::codec::message::from_bytes;
use crate::error::{Direction, Error, ErrorKind, Execution, Result};
use crate::link::message::PanicReport;

/// Which of all managers it is. It is made of random numbers, for a process id comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct ManagerId(u64, u64);

impl ManagerId {
    pub(super) fn random() -> Self {
        use std::hash::{BuildHasher as _, RandomState};
        let number = || RandomState::new().hash_one(std::process::id());
        Self(number(), number())
    }
}

/// What a manager is told. Items of one process are handled in the order in which it sent them.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ClientRequest {
    /// A process is a client from now on.
    Hello(Hello),
    /// The same of one that has connected, which is of this build or is refused.
    Introduce(Introduction),
    /// It lives, and wants to know whether the manager does. Said by one that has connected, while it says nothing else.
    Alive,
    /// It is none any more.
    Goodbye { client: u32 },
    /// Runs a method, a constructor (`object` is 0), or a task (likewise).
    Call { client: u32, call: u64, method: u32, object: u64, body: CallPayload },
    /// Asks the manager itself.
    Ask { client: u32, call: u64, question: ManagerQuestion },
    /// The object is on its way, in a message whose ticket ends when the message is gone. `end` comes with the first object of
    /// the message.
    Hold { ticket: u64, object: u64, end: Option<Descriptor> },
    /// The client has one more reference to the object.
    Claim { client: u32, object: u64 },
    /// The client has one less.
    Release { client: u32, object: u64 },
    /// The client does not wait for this call any more.
    Cancel { client: u32, call: u64 },
    /// A client's process, or its connection, has ended. A thread of the manager says so.
    ClientGone { client: u32 },
    /// A message is gone. A thread of the manager says so.
    TicketGone { ticket: u64 },
    /// The manager is to end.
    Shutdown,
    /// As `Release`, of each of these objects. To a client that has connected the manager says when it has taken them.
    ReleaseMany { client: u32, objects: Vec<u64> },
    /// As `ReleaseMany`, of the objects in that [buffer](super::released) of the client's memory.
    Released { client: u32, buffer: u32 },
}

/// How a process becomes a client.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(super) client: u32,
    pub(super) replies: QueueSender<CallReply>,
    /// Its pidfd.
    pub(super) process: Descriptor,
    /// Where its short calls are.
    pub(super) memory: TravellingHandle<ClientMemory>,
}

/// What the two ends of a connection tell each other first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Introduction {
    /// See [`fingerprint`](crate::task::fingerprint).
    pub(super) fingerprint: u64,
    /// The name of the program.
    pub(super) program: String,
    /// The manager's, of its answer.
    pub(super) manager: Option<ManagerIntroduction>,
}

/// What a client that has connected is told of its manager.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ManagerIntroduction {
    pub(super) id: ManagerId,
    pub(super) name: String,
    pub(super) pid: u32,
    pub(super) limits: ConnectionLimits,
}

/// The number that no call has. An answer with it is about the connection: that the manager lives, or why it ends.
pub(super) const NO_CALL: u64 = 0;

/// What the manager itself is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum ManagerQuestion {
    Stats,
    Addresses,
    IsPoisoned { object: u64 },
    ClearPoison { object: u64 },
    Publish { name: String, value: PublishedValue },
    Find { name: String },
    Unpublish { name: String },
}

/// An answer to a [`ClientRequest::Call`] or [`ClientRequest::Ask`], or one that does not fit where the call was.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CallReply {
    pub(super) call: u64,
    pub(super) status: u32,
    /// The object that a constructor made, which the client has one reference to; 0 if none was made.
    pub(super) object: u64,
    pub(super) body: CallPayload,
}

/// How a call went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Status {
    Done = 1,
    Panicked,
    BadArguments,
    BadResult,
    UnknownTask,
    Poisoned,
    /// The method is not one of this object's type.
    WrongType,
    /// There is no such object.
    NoObject,
    /// It would wait for its own thread.
    Reentered,
    /// The process at the other end of the connection is of another build.
    OtherBuild,
    /// The connection has as much as it may have, of what the answer says.
    Refused,
    /// To no call: the process cannot become a client, since the manager has no descriptors left.
    NoDescriptors,
    /// The answer does not fit, and comes through the queue of replies.
    Elsewhere,
}

impl Status {
    pub(super) fn from_number(number: u32) -> Option<Self> {
        const ALL: [Status; 13] = [
            Status::Done,
            Status::Panicked,
            Status::BadArguments,
            Status::BadResult,
            Status::UnknownTask,
            Status::Poisoned,
            Status::WrongType,
            Status::NoObject,
            Status::Reentered,
            Status::OtherBuild,
            Status::Refused,
            Status::NoDescriptors,
            Status::Elsewhere,
        ];
        ALL.into_iter().find(|status| *status as u32 == number)
    }
}

/// What came of a call, as its caller has it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(super) status: Status,
    pub(super) object: u64,
    pub(super) bytes: AlignedBytes,
    pub(super) received: Received,
}

impl Answer {
    /// The result's bytes and handles.
    ///
    /// # Errors
    /// There is no result, for this reason.
    pub(super) fn checked(&self) -> Result<(&[u8], &Received)> {
        let bytes = self.bytes.as_slice();
        let text = || String::from_utf8_lossy(bytes).into_owned();
        let (kind, execution) = match self.status {
            Status::Done => return Ok((bytes, &self.received)),
            Status::Panicked => {
                let PanicReport { message, location, backtrace } = from_bytes(bytes).unwrap_or_default();
                (ErrorKind::Panicked { message, location, backtrace }, Execution::Finished)
            }
            Status::BadArguments => {
                let kind = ErrorKind::CannotDecode { direction: Direction::Arguments, reason: text() };
                (kind, Execution::NotStarted)
            }
            Status::BadResult => {
                let kind = ErrorKind::CannotEncode { direction: Direction::Result, reason: text() };
                (kind, Execution::Finished)
            }
            Status::UnknownTask => (ErrorKind::UnknownTask, Execution::NotStarted),
            Status::Poisoned => (ErrorKind::Poisoned, Execution::NotStarted),
            Status::WrongType => return Err(Error::invalid("the object has another type than its proxy")),
            Status::NoObject => return Err(Error::invalid("the manager has no such object any more")),
            Status::Reentered => {
                return Err(Error::invalid(
                    "the object is in use by the method that makes this call, and one of them has `&mut self`, so the call \
                     would wait for itself; call the object's own methods directly",
                ));
            }
            Status::OtherBuild => (ErrorKind::BinaryMismatch, Execution::NotStarted),
            Status::Refused => return Err(Error::new(ErrorKind::Full, Execution::NotStarted).with_note(text())),
            Status::Elsewhere | Status::NoDescriptors => {
                let reason = "an answer of a kind that is no call's".to_owned();
                (ErrorKind::ProtocolViolation { reason }, Execution::Unknown)
            }
        };
        Err(Error::new(kind, execution))
    }
}

/// Bytes that begin where a payload has to.
#[derive(Clone, Default)]
pub(crate) struct AlignedBytes {
    words: Vec<u128>,
    len: usize,
}

impl AlignedBytes {
    pub(crate) fn as_slice(&self) -> &[u8] {
        bytemuck::cast_slice(&self.words).get(..self.len).unwrap_or_default()
    }

    /// Makes place for `len` bytes, and returns it. What was there is gone.
    pub(super) fn of_len(&mut self, len: usize) -> &mut [u8] {
        let words = len.div_ceil(size_of::<u128>());
        if self.words.len() < words {
            self.words.resize(words, 0);
        }
        self.len = len;
        bytemuck::cast_slice_mut(&mut self.words).get_mut(..len).unwrap_or_default()
    }

    pub(crate) fn copied(bytes: &[u8]) -> Self {
        let mut copy = Self::default();
        copy.of_len(bytes.len()).copy_from_slice(bytes);
        copy
    }
}

impl fmt::Debug for AlignedBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len)
    }
}

impl Serialize for AlignedBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.as_slice())
    }
}

impl<'de> Deserialize<'de> for AlignedBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Copies;

        impl Visitor<'_> for Copies {
            type Value = AlignedBytes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> std::result::Result<AlignedBytes, E> {
                Ok(AlignedBytes::copied(bytes))
            }
        }

        deserializer.deserialize_bytes(Copies)
    }
}

/// A payload inside an item: its bytes, and the handles beside it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct CallPayload {
    bytes: AlignedBytes,
    handles: Vec<TravellingHandle<Carrier>>,
    /// How many handles came, and were let go of again.
    #[serde(skip)]
    lost: usize,
}

impl CallPayload {
    pub(super) fn new(bytes: &[u8], handles: &Handles) -> Self {
        let carried = handles.each().map(|handle| TravellingHandle(Arc::new(Carrier::Own(handle))));
        Self { bytes: AlignedBytes::copied(bytes), handles: carried.collect(), lost: 0 }
    }

    /// Lets go of the handles, since this process has no room for them: decoding the payload fails with that.
    pub(super) fn lose_handles(&mut self) {
        self.lost += std::mem::take(&mut self.handles).len();
    }

    /// How many bytes there are.
    pub(super) fn len(&self) -> usize {
        self.bytes.len
    }

    /// The bytes, and the handles that came beside them.
    pub(super) fn unpack(self) -> (AlignedBytes, Received) {
        if self.lost > 0 {
            let lost = Received::lost(self.lost, "the manager has no descriptors left for it");
            return (self.bytes, lost);
        }
        let count = self.handles.len();
        let carriers = self.handles.into_iter().filter_map(|carried| Arc::into_inner(carried.0));
        let descriptors = carriers.filter_map(|carrier| match carrier {
            Carrier::Came(descriptor) => Some(descriptor),
            Carrier::Own(_) => None,
        });
        let descriptors: Vec<_> = descriptors.collect();
        let whole = descriptors.len() == count;
        (self.bytes, if whole { Received::new(descriptors) } else { Received::lost(count, "it was taken before") })
    }
}

/// A handle of a payload that is inside an item.
#[derive(Debug)]
enum Carrier {
    /// One that is sent.
    Own(Arc<dyn Handle>),
    /// One that came.
    Came(OwnedFd),
}

impl Handle for Carrier {
    fn descriptor(&self) -> BorrowedFd<'_> {
        match self {
            Self::Own(handle) => handle.descriptor(),
            Self::Came(descriptor) => descriptor.as_fd(),
        }
    }

    fn is_cacheable(&self) -> bool {
        false
    }

    /// It belongs to the payload inside, and to nothing else.
    fn is_end(&self) -> bool {
        true
    }
}

impl FromDescriptor for Carrier {
    fn from_descriptor(descriptor: OwnedFd) -> std::result::Result<Self, CodecError> {
        Ok(Self::Came(descriptor))
    }
}

/// A handle that is made of nothing but the descriptor that came.
pub(crate) trait FromDescriptor: Handle + Sized {
    /// Makes one of a descriptor that another process sent.
    ///
    /// # Errors
    /// It is of something else.
    fn from_descriptor(descriptor: OwnedFd) -> std::result::Result<Self, CodecError>;
}

/// A handle that travels beside the payload in which this stands.
pub(crate) struct TravellingHandle<H>(pub(super) Arc<H>);

impl<H> Clone for TravellingHandle<H> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<H: fmt::Debug> fmt::Debug for TravellingHandle<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<H: Handle> Serialize for TravellingHandle<H> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        handles::attach(Arc::clone(&self.0) as Arc<dyn Handle>).map_err(S::Error::custom)?.serialize(serializer)
    }
}

impl<'de, H: FromDescriptor> Deserialize<'de> for TravellingHandle<H> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let index = u32::deserialize(deserializer)?;
        handles::open(index, |fd| H::from_descriptor(fd).map(Arc::new)).map(Self).map_err(D::Error::custom)
    }
}
