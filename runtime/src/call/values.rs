//! Encodes a task's arguments into a payload, and decodes its result.
//!
//! Runs in: the parent, on the thread that calls or joins.

use crate::codec::handles::{self, Handles};
use crate::codec::{CodecError, Writer};
use crate::error::{Direction, Error, ErrorKind, Execution, Result, why};
use crate::link::frame::INLINE;
use crate::link::{Body, BufferWriter, Payload, SharedBufferPool};
use crate::task::Task;

/// The arguments as a payload; long ones in a parcel of `stock`.
pub(crate) fn encode<T: Task>(args: T::Args<'_>, stock: &SharedBufferPool) -> Result<Payload> {
    let bad = |reason: String| {
        let kind = ErrorKind::CannotEncode { direction: Direction::Arguments, reason };
        Error::new(kind, Execution::NotStarted)
    };
    let mut filling = BufferWriter::new(stock);
    let mut writer = Writer::new(Vec::new(), INLINE, &mut filling);
    let mut handles = Handles::default();
    let encoded = handles::collect(&mut handles, || T::encode(args, &mut writer)).and_then(|()| writer.finish());
    let encoded = encoded.map_err(|error| bad(error.to_string()))?;
    Payload::new(encoded, filling, handles).ok_or_else(|| bad("their parcel is gone".to_owned()))
}

/// The result that a reply holds, or the error that there is instead.
pub(crate) fn decode<R>(outcome: &Result<Body>, decode: fn(&[u8]) -> std::result::Result<R, CodecError>) -> Result<R> {
    let bad = |reason: String| {
        let kind = ErrorKind::CannotDecode { direction: Direction::Result, reason };
        Error::new(kind, Execution::Finished)
    };
    let body = outcome.as_ref().map_err(Clone::clone)?;
    let bytes = body.bytes().map_err(|errno| bad(why(errno).to_owned()))?;
    handles::provide(&body.received(), || decode(bytes)).map_err(|error| bad(error.to_string()))
}
