//! Pipes and queues: how processes talk while they run.
//!
//! | here | in Python's `multiprocessing` | what it is |
//! |---|---|---|
//! | [`pipe`], [`one_way`] | `Pipe` | two typed ends of a socket |
//! | [`Connection`] | `Connection` | one of these ends |
//! | [`wait`] | `connection.wait` | waiting for several at once |

mod error;

pub use self::error::{GetError, PutError, PutErrorKind, RecvError, SendError, SendErrorKind};
pub use crate::codec::Message;
