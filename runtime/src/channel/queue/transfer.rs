//! Sending a queue to another process.
//!
//! Owns: the order of what travels: the memory, then the ends. Runs in: any process that has an end of the queue.
//! Never: believes that what came is a queue, or one of this type.

use std::sync::Arc;

use super::core::QueueCore;
use super::endpoint::{EndKind, Endpoint};
use super::memory::QueueMemory;
use crate::codec::CodecError;
use crate::codec::handles::{self, Handle};

/// How the queue goes to another process: its memory, and the ends.
pub(crate) type Travelling = (u32, Option<u32>, Option<u32>);

impl QueueCore {
    /// Puts it beside the payload that this thread encodes.
    pub(super) fn travelling(&self) -> std::result::Result<Travelling, CodecError> {
        let put =
            |end: &Option<Arc<Endpoint>>| end.as_ref().map(|end| handles::attach(Arc::clone(end) as _)).transpose();
        Ok((handles::attach(Arc::clone(&self.memory) as _)?, put(&self.puts)?, put(&self.gets)?))
    }

    /// The handles that it travels as.
    pub(super) fn handles(&self) -> impl Iterator<Item = Arc<dyn Handle>> {
        let ends = [&self.puts, &self.gets].map(|end| end.as_ref().map(|end| Arc::clone(end) as Arc<dyn Handle>));
        let memory: Arc<dyn Handle> = Arc::clone(&self.memory) as _;
        [Some(memory)].into_iter().chain(ends).flatten()
    }

    /// The queue of type `Q` that came beside the payload that this thread decodes, with these ends.
    pub(super) fn arrived<Q: 'static>(
        (memory, puts, gets): Travelling,
        expected: (bool, bool),
        lends: bool,
    ) -> std::result::Result<Self, CodecError> {
        let memory = handles::open(memory, QueueMemory::open)?;
        memory.check::<Q>()?;
        let take = |end: Option<u32>, side| {
            let open = |fd| Ok(Arc::new(Endpoint::of(fd, side, &memory)));
            let end = end.map(|end| handles::open(end, open)).transpose()?;
            let fits = end.as_ref().is_none_or(|end| end.side() == side && Arc::ptr_eq(end.memory(), &memory));
            if fits {
                Ok(end)
            } else {
                Err(CodecError::new(
                    "an end of a queue was read as another one; does the receiver expect the type that was sent?",
                ))
            }
        };
        let (puts, gets) = (take(puts, EndKind::Puts)?, take(gets, EndKind::Gets)?);
        if (puts.is_some(), gets.is_some()) != expected {
            return Err(CodecError::new(
                "an end of a queue was read as another one; does the receiver expect the type that was sent?",
            ));
        }
        Ok(Self::of(memory, puts, gets, lends))
    }

    /// Whether both are the same queue.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.memory.identity() == other.memory.identity()
    }
}
