//! A listener of either family, and a process that connects to it.
//!
//! Runs in: the test process. Never: leaves a name behind.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;

use process_task::Result;
use process_task::channel::{Connection, Key, Listener, connect_tcp, connect_unix};

use crate::support::scratch::Scratch;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Unix,
    Tcp,
}

pub(crate) const FAMILIES: [Family; 2] = [Family::Unix, Family::Tcp];

/// Where to connect to.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    Path(PathBuf),
    Port(SocketAddr, Key),
}

/// A listener, and where it is.
pub(crate) struct Meeting {
    pub(crate) listener: Listener,
    pub(crate) place: Place,
    _scratch: Scratch,
}

impl Meeting {
    pub(crate) fn new(family: Family) -> Self {
        let scratch = Scratch::new();
        let (listener, place) = match family {
            Family::Unix => {
                let path = scratch.path().join("ours").join("socket");
                (Listener::unix(&path).unwrap(), Place::Path(path))
            }
            Family::Tcp => {
                let key = Key::random().unwrap();
                let listener = Listener::tcp("127.0.0.1:0", key.clone()).unwrap();
                let address = listener.local_addr().unwrap();
                (listener, Place::Port(address, key))
            }
        };
        Self { listener, place, _scratch: scratch }
    }

    /// Another pair: the end that connected, and the one that was accepted.
    pub(crate) fn pair<A, B>(&self) -> (Connection<A, B>, Connection<B, A>)
    where
        A: Send + 'static,
        B: Send + 'static,
    {
        thread::scope(|scope| {
            let client = scope.spawn(|| self.place.connect().unwrap());
            let server = self.listener.accept().unwrap();
            (client.join().unwrap(), server)
        })
    }
}

impl Place {
    pub(crate) fn connect<A, B>(&self) -> Result<Connection<A, B>> {
        match self {
            Self::Path(path) => connect_unix(path),
            Self::Port(address, key) => connect_tcp(address, key),
        }
    }
}

/// Two ends over a family, and nothing listens any more.
pub(crate) fn pair<A: Send + 'static, B: Send + 'static>(family: Family) -> (Connection<A, B>, Connection<B, A>) {
    Meeting::new(family).pair()
}
