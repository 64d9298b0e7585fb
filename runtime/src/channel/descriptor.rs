//! An open file, socket or pipe on its way to another process.
//!
//! Owns: [`Descriptor`]. Runs in: any process. Never: looks at what it is a descriptor of.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::error::channel_failed;
use crate::codec::handles::{self, Handle};
use crate::error::Result;
use crate::sys::fd;

/// Something open that travels: a file, a socket, an end of the kernel's pipes.
///
/// It can be an argument or a result of a task, and in a message of a [`Connection`](super::Connection). The process that
/// gets it has the same open file, with the same place in it; each side closes its own.
///
/// # Examples
/// ```
/// use std::io::{Read, Write, pipe};
/// use process_task::channel::Descriptor;
/// use process_task::process_task;
///
/// #[process_task]
/// fn shout(into: Descriptor) {
///     let mut pipe = std::fs::File::from(into.into_owned().unwrap());
///     pipe.write_all(b"HELLO").unwrap();
/// }
///
/// let (mut from, into) = pipe().unwrap();
/// shout.spawn(Descriptor::new(into)).join()?;
/// let mut heard = String::new();
/// from.read_to_string(&mut heard).unwrap();                // to its end: no process has the other side any more
/// assert_eq!(heard, "HELLO");
/// # process_task::Result::Ok(())
/// ```
///
/// # If the other process dies
/// The kernel closes what it had.
#[derive(Clone)]
#[doc(alias = "File")]
#[doc(alias = "send_handle")]
pub struct Descriptor(Arc<OpenDescriptor>);

/// A descriptor that travels, of whatever kind.
#[derive(Debug)]
struct OpenDescriptor(OwnedFd);

impl Descriptor {
    /// Of a `File`, a `TcpStream`, and whatever else owns one.
    #[must_use]
    pub fn new(of: impl Into<OwnedFd>) -> Self {
        Self(Arc::new(OpenDescriptor(of.into())))
    }

    /// The descriptor itself, from which a `File`, a `TcpStream` and so on can be made.
    ///
    /// # Errors
    /// [`ChannelFailed`](crate::ErrorKind::ChannelFailed): there are clones of it, so that another descriptor is needed, and
    /// there is none.
    pub fn into_owned(self) -> Result<OwnedFd> {
        match Arc::try_unwrap(self.0) {
            Ok(open) => Ok(open.0),
            Err(shared) => {
                fd::duplicate(shared.0.as_fd()).map_err(|errno| channel_failed("duplicate a descriptor", errno))
            }
        }
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.0.as_fd()
    }
}

impl fmt::Debug for Descriptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Descriptor").field(&self.0.0).finish()
    }
}

impl Handle for OpenDescriptor {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    fn is_cacheable(&self) -> bool {
        false
    }

    /// It may be an end, or hold an object: no forgotten copy may stay.
    fn is_end(&self) -> bool {
        true
    }
}

impl Serialize for Descriptor {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        handles::attach(Arc::clone(&self.0) as Arc<dyn Handle>).map_err(S::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Descriptor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let open =
            handles::open(u32::deserialize(deserializer)?, |descriptor| Ok(Arc::new(OpenDescriptor(descriptor))));
        open.map(Self).map_err(D::Error::custom)
    }
}
