//! A task whose arguments are encoded already, and whose result stays encoded: a manager passes both on as they are.
//!
//! Runs in: the manager, which has a pool run it. Workers run the task as any other.

use crate::codec::{CodecError, Writer};
use crate::manager::managed::stored::Stored;
use crate::task::{Options, Registration, Task};

/// See the [module](self).
#[derive(Clone, Copy, Debug)]
pub(super) struct EncodedTask {
    pub(super) registration: &'static Registration,
    pub(super) options: Options,
}

impl Task for EncodedTask {
    type Args<'a> = &'a Stored;
    type Output = Stored;

    fn registration(&self) -> &'static Registration {
        self.registration
    }

    fn options(&self) -> Options {
        self.options
    }

    fn encode(args: &Stored, writer: &mut Writer<'_>) -> Result<(), CodecError> {
        args.put(writer)
    }

    fn decode_output(bytes: &[u8]) -> Result<Stored, CodecError> {
        Stored::arrived(bytes)
    }
}
