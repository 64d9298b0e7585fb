//! A call without its processes: arguments to bytes, the stub, the result back. The stubs are all that is tested here.

use process_task::__private::{CodecError, Encoded, Spill, StubError, Writer};
use process_task::Task;

/// Encodes `args`, runs the stub of `task` on the bytes, and decodes its result.
pub(crate) fn call<T: Task>(task: &T, args: T::Args<'_>) -> Result<T::Output, StubError> {
    let request = Aligned::new(&bytes(|writer| T::encode(args, writer)).map_err(StubError::Encode)?);
    let reply = Aligned::new(&bytes(|writer| task.registration().run(request.bytes(), writer))?);
    T::decode_output(reply.bytes()).map_err(StubError::Decode)
}

/// What `write` writes.
pub(crate) fn bytes<E>(write: impl FnOnce(&mut Writer<'_>) -> Result<(), E>) -> Result<Vec<u8>, E> {
    let mut heap = Heap(Vec::new());
    let mut writer = Writer::new(Vec::new(), 64, &mut heap);
    write(&mut writer)?;
    Ok(match writer.finish().unwrap_or_else(|error: CodecError| panic!("{error}")) {
        Encoded::Small(bytes) => bytes,
        Encoded::Spilled(len) => heap.0[..len].to_vec(),
    })
}

/// A spill in ordinary memory.
struct Heap(Vec<u8>);

impl Spill for Heap {
    fn grow(&mut self, _written: usize, capacity: usize) -> std::io::Result<()> {
        self.0.resize(capacity, 0);
        Ok(())
    }

    fn bytes(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// Bytes whose address is a multiple of 16, as payloads are.
pub(crate) struct Aligned {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    /// A copy of `bytes`.
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let mut memory = vec![0; bytes.len() + 16];
        let start = memory.as_ptr().align_offset(16);
        memory[start..][..bytes.len()].copy_from_slice(bytes);
        Self { memory, start, len: bytes.len() }
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory[self.start..][..self.len]
    }
}
