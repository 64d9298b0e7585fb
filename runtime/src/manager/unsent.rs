//! Answers that wait for room in a client's queue of replies, and the thread that sends them.
//!
//! Runs in: the manager.
//! Invariant: a thread that answers the call of another client than its own never waits for the one that it answers.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::leader;
use super::server::Server;
use super::tables::{Peer, PeerLink};
use super::wire::CallReply;
use crate::channel::SendTimeoutError;
use crate::sys::mutex::MutexExt as _;

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct UnsentReplies(Mutex<UnsentState>);

#[derive(Debug, Default)]
struct UnsentState {
    replies: VecDeque<CallReply>,
    /// A thread sends them.
    is_sending: bool,
}

impl UnsentReplies {
    /// One more. True: there is no thread that will send it.
    fn push(&self, reply: CallReply) -> bool {
        let mut waiting = self.0.lock_unpoisoned();
        waiting.replies.push_back(reply);
        !std::mem::replace(&mut waiting.is_sending, true)
    }

    /// The next one. `None`: there is none, and the thread that asks sends no more.
    fn pop(&self) -> Option<CallReply> {
        let mut waiting = self.0.lock_unpoisoned();
        let next = waiting.replies.pop_front();
        waiting.is_sending = next.is_some();
        next
    }

    fn send_all(&self, server: &Server, peer: &Peer) {
        while let Some(reply) = self.pop() {
            leader::send_reply(server, peer, reply);
        }
    }
}

/// Sends an answer, or has it sent by a thread of its own. Waits only where there is no thread to be had.
pub(super) fn send_soon(server: &Arc<Server>, peer: &Arc<Peer>, reply: CallReply) {
    let reply = match peer.send(reply, Duration::ZERO) {
        Ok(()) | Err(SendTimeoutError::Disconnected(_)) => return,
        Err(SendTimeoutError::Timeout(reply) | SendTimeoutError::Failed(reply, _)) => reply,
    };
    let PeerLink::Local { unsent, .. } = &peer.link else { return };
    if !unsent.push(reply) {
        return;
    }
    let (of_server, of_peer) = (Arc::clone(server), Arc::clone(peer));
    let runs = move || {
        if let PeerLink::Local { unsent, .. } = &of_peer.link {
            unsent.send_all(&of_server, &of_peer);
        }
    };
    if thread::Builder::new().name("process-task".to_owned()).spawn(runs).is_err() {
        unsent.send_all(server, peer);
    }
}
