//! Threads that the fork server did not start. With them it must not fork: a lock that one holds would stay locked.
//!
//! Runs in: the fork server.

use crate::link::StartMethod;
use crate::link::message::FromServer;
use crate::sys::process;

/// The most names that are told, so that they fit into a message.
const MAX_THREAD_NAMES: usize = 8;

/// What runs beside the one thread of the fork server.
pub(super) struct ForeignThreads {
    /// Those that were there before a preload ran: constructors started them.
    early: Vec<u32>,
    told: bool,
}

impl ForeignThreads {
    /// Called before the preloads run.
    pub(super) fn before_preloads() -> Self {
        let early = if process::thread_count() > 1 { process::other_threads() } else { Vec::new() };
        Self { early: early.into_iter().map(|(number, _)| number).collect(), told: false }
    }

    /// How a child that was asked for by `method` can be made safely; and the first time that it is not by `method`, what to
    /// tell the parent.
    pub(super) fn safe(&mut self, method: StartMethod) -> (StartMethod, Option<FromServer>) {
        if method == StartMethod::Exec || process::thread_count() <= 1 {
            return (method, None);
        }
        let first = !std::mem::replace(&mut self.told, true);
        (StartMethod::Exec, first.then(|| self.tell()))
    }

    fn tell(&self) -> FromServer {
        let others = process::other_threads();
        let (of_constructors, of_preloads): (Vec<_>, Vec<_>) =
            others.into_iter().partition(|(number, _)| self.early.contains(number));
        let names = |threads: Vec<(u32, String)>| {
            threads.into_iter().map(|(_, name)| name).take(MAX_THREAD_NAMES).collect::<Vec<_>>()
        };
        FromServer::NotAlone { of_constructors: names(of_constructors), of_preloads: names(of_preloads) }
    }
}
