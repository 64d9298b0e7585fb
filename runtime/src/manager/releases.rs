//! What a client says that needs no answer: above all, that it lets go of objects, many at once where they come faster than its
//! manager takes them.
//!
//! Runs in: each process that has proxies, on the threads that drop them.

use std::sync::Mutex;
use std::time::Instant;

use super::client::{Client, ClientLink, LocalLink};
use super::released::{self, BUFFER_OBJECTS, ReleaseOrder};
use super::wire::ClientRequest;
use crate::channel::SendTimeoutError;
use crate::sync::futex_wait::MAX_SLEEP;
use crate::sys::mutex::MutexExt as _;

/// What a client of the manager's tree knows of the buffers in its memory.
#[derive(Debug)]
pub(super) struct Releases {
    order: ReleaseOrder,
    open: Mutex<Option<OpenBuffer>>,
}

/// The buffer whose request was put last.
#[derive(Clone, Copy, Debug)]
struct OpenBuffer {
    at: usize,
    count: u32,
    /// See [`ReleaseOrder::number`].
    order: u64,
}

impl Releases {
    pub(super) fn new() -> Self {
        Self { order: ReleaseOrder::new(), open: Mutex::new(None) }
    }

    /// Another request is in the queue.
    pub(super) fn close(&self) {
        self.order.close();
    }
}

impl LocalLink {
    /// Puts the object into a buffer. Returns the request that is to be put into the queue, if that takes one: the buffer is a new
    /// one, or none is free.
    fn gather(&self, open: &mut Option<OpenBuffer>, client: u32, object: u64) -> Option<ClientRequest> {
        let order = self.releases.order.number();
        let words = &self.memory.words().released;
        if let Some(buffer) = open.as_mut().filter(|buffer| buffer.order == order && buffer.count < BUFFER_OBJECTS) {
            self.memory.write_released(buffer.at, buffer.count, object);
            if released::add(&words[buffer.at], buffer.count) {
                buffer.count += 1;
                return None;
            }
        }
        let Some(at) = words.iter().position(released::is_free) else {
            return Some(ClientRequest::Release { client, object });
        };
        self.memory.write_released(at, 0, object);
        released::begin(&words[at]);
        *open = Some(OpenBuffer { at, count: 1, order });
        Some(ClientRequest::Released { client, buffer: u32::try_from(at).unwrap_or(u32::MAX) })
    }
}

impl Client {
    /// Sends a request that needs no answer. If the manager is gone, there is nothing to tell it.
    pub(super) fn tell(&self, request: ClientRequest) {
        // Counting depends on it, so it is not given up while the manager lives.
        self.tell_until(request, None);
    }

    /// As [`tell`](Self::tell), but gives up at `deadline`.
    pub(super) fn tell_until(&self, request: ClientRequest, deadline: Option<Instant>) {
        if self.is_foreign() {
            return;
        }
        self.put_until(request, deadline);
        self.close_releases();
    }

    fn put_until(&self, mut request: ClientRequest, deadline: Option<Instant>) {
        while let Err(SendTimeoutError::Timeout(again)) = self.send(request, MAX_SLEEP) {
            let is_late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if is_late || self.inbox.is_over() || !self.is_manager_alive() {
                return;
            }
            request = again;
        }
        self.announce();
    }

    /// No object that a request in the queue may hold is let go of by one that stands before it.
    pub(super) fn close_releases(&self) {
        if let ClientLink::Local(local) = &self.link {
            local.releases.close();
        }
    }

    /// Tells the manager that no thread waits for this call any more.
    pub(super) fn cancel(&self, call: u64) {
        match &self.link {
            ClientLink::Connected(link) if !self.is_foreign() => link.cancel(call),
            _ => self.tell(ClientRequest::Cancel { client: self.number, call }),
        }
    }

    /// Lets go of one reference to `object`.
    pub(super) fn release(&self, object: u64) {
        if self.is_foreign() {
            return;
        }
        let client = self.number;
        match &self.link {
            ClientLink::Connected(link) => link.release(object),
            ClientLink::Local(local) => {
                // Locked until the request is in the queue, or another thread might add to a buffer whose request stands behind
                // its own.
                let mut open = local.releases.open.lock_unpoisoned();
                if let Some(request) = local.gather(&mut open, client, object) {
                    self.put_until(request, None);
                }
            }
        }
    }

    /// An answer came that no thread waits for: the object that it may have brought is let go of.
    pub(super) fn unclaimed(&self, _call: u64, object: u64) {
        if object != 0 {
            self.release(object);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::channel::Queue;
    use crate::manager::connection_limits::ConnectionLimits;
    use crate::manager::instance::Instance;
    use crate::manager::memory::ManagerMemory;
    use crate::manager::released::BUFFERS;
    use crate::manager::server::Server;
    use crate::manager::wire::ManagerId;
    use crate::process_object;

    struct Plain;

    #[process_object(crate = crate)]
    impl Plain {
        pub(crate) fn new() -> Self {
            Self
        }
    }

    /// A manager without a leader, so that requests stay in its queue, and a client that has `objects` objects there, from 1 on.
    fn with_objects(objects: u64) -> (Server, Arc<Client>) {
        let (shared, id) = (Arc::new(ManagerMemory::create().unwrap()), ManagerId::random());
        let (requests, receiver) = Queue::unbounded().unwrap().split();
        let ends = (receiver, requests.clone());
        let limits = ConnectionLimits::default();
        let server = Server::new((id, "unled".to_owned()), Arc::clone(&shared), ends, limits).unwrap();
        let client = Client::connect((id, "unled"), || Ok((requests, shared))).unwrap();
        drop(server.control(server.receive().unwrap()));
        for object in 1..=objects {
            let made = server.tables.lock_unpoisoned().add_object(Some(client.number), Instance::new(Plain));
            assert_eq!(made.unwrap(), object);
        }
        (server, client)
    }

    #[test]
    fn releases_are_gathered_and_each_is_made() {
        const MOST: u64 = BUFFERS as u64 * BUFFER_OBJECTS as u64;
        const BEYOND: u64 = 10;
        let (server, client) = with_objects(3 * MOST);
        let mut next = 1..;
        for round in 0..3 {
            // What has no buffer goes alone.
            let more = if round == 1 { BEYOND } else { 0 };
            next.by_ref().take((MOST + more).try_into().unwrap()).for_each(|object| client.release(object));
            assert_eq!(server.receiver.len() as u64, BUFFERS as u64 + more);
            let mut dropped = 0;
            while let Some(request) = server.receive() {
                dropped += server.control(request).len() as u64;
            }
            assert_eq!(dropped, if round == 2 { MOST - BEYOND } else { MOST + more });
        }
        assert_eq!(server.tables.lock_unpoisoned().objects_of(client.number), 0);
    }

    #[test]
    fn release_is_handled_behind_what_may_hold_the_object() {
        let (server, client) = with_objects(3);
        client.release(1);
        client.tell(ClientRequest::Claim { client: client.number, object: 2 });
        // Both references: the second one is there once the claim was handled.
        client.release(2);
        client.release(2);
        client.release(3);
        let handled = std::iter::from_fn(|| server.receive()).map(|request| {
            let is_claim = matches!(request, ClientRequest::Claim { .. });
            (is_claim, server.control(request).len())
        });
        assert_eq!(handled.collect::<Vec<_>>(), [(false, 1), (true, 0), (false, 2)]);
    }
}
