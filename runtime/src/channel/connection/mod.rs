//! Connections: typed ends of a socket.
//!
//! Owns: [`Connection`], and what carries its messages. Runs in: any process.
//! Never: lets a message arrive in part.

mod end;
mod future;
mod iter;
mod local;
mod parcel;
mod scratch;
mod several;
pub(crate) mod transport;

pub use self::end::{Connection, Nothing, Receiver, Sender, one_way, pipe};
pub use self::iter::Messages;
pub use self::several::wait;
