//! One object in a manager: the user's value, and which calls may be in it.
//!
//! Runs in: the manager.
//!
//! A call is *admitted* first, and then run. So the thread that is about to wait for another call knows that before it
//! does. Calls of `&self` methods are in an object side by side, those of `&mut self` methods alone.
//!
//! Calls that wait stand in a *line*. A thread that takes calls in an order gives each its [`Place`] in that order, before
//! another thread can take the next one. So calls of `&mut self` methods run in the order in which they were made.
//!
//! A reader waits for a writer before it in the line, but while other readers are in the object for no longer than
//! [`MAX_YIELD`]: a `&self` method may be waiting for a task that calls a `&self` method of the same object, and that must not
//! wait behind a writer that waits for the first.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, TryLockError};
use std::time::{Duration, Instant};

use crate::task::{Object, ObjectRefusal, ObjectType};

/// How long a reader waits for a writer that came before it and waits for other readers.
const MAX_YIELD: Duration = Duration::from_millis(10);

/// An object, of any type.
pub(crate) struct Instance {
    of: &'static ObjectType,
    /// `None` only while it is dropped.
    value: Option<Box<dyn Locked>>,
    inside: Mutex<Inside>,
    /// Notified when a call has left the object or its line, or when a reader has gone in before others.
    left: Condvar,
}

/// How many calls are in an object.
#[derive(Debug, Default)]
struct Inside {
    readers: usize,
    writer: bool,
    /// The calls that wait, in the order in which they came.
    line: VecDeque<LineEntry>,
    last: u64,
}

/// A call that waits.
#[derive(Clone, Copy, Debug)]
struct LineEntry {
    number: u64,
    exclusive: bool,
}

impl Inside {
    fn has_room_for(&self, exclusive: bool) -> bool {
        !self.writer && (!exclusive || self.readers == 0)
    }

    /// Whether a call that waits may go in: no other one goes before it.
    fn is_next(&self, call: LineEntry) -> bool {
        let goes_before = |other: &LineEntry| call.exclusive || other.exclusive;
        let mut before = self.line.iter().take_while(|other| other.number != call.number);
        self.has_room_for(call.exclusive) && !before.any(goes_before)
    }

    fn leave_line(&mut self, number: u64) {
        if let Some(at) = self.line.iter().position(|other| other.number == number) {
            self.line.remove(at);
        }
    }

    fn enter(&mut self, exclusive: bool) {
        if exclusive {
            self.writer = true;
        } else {
            self.readers += 1;
        }
    }
}

impl Instance {
    /// A new object, which no call is in.
    pub(crate) fn new<O: Object>(value: O) -> Arc<Self> {
        Arc::new(Self {
            of: O::object_type(),
            value: Some(Box::new(RwLock::new(value))),
            inside: Mutex::default(),
            left: Condvar::new(),
        })
    }

    /// The object's type.
    pub(crate) fn object_type(&self) -> &'static ObjectType {
        self.of
    }

    /// Whether a method with `&mut self` has panicked.
    pub(crate) fn is_poisoned(&self) -> bool {
        self.value.as_ref().is_some_and(|value| value.is_poisoned())
    }

    /// Forgets that a method has panicked.
    pub(crate) fn clear_poison(&self) {
        if let Some(value) = &self.value {
            value.clear_poison();
        }
    }

    /// Lets a call in if it need not wait. `exclusive`: for a method with `&mut self`.
    pub(crate) fn try_admit(self: &Arc<Self>, exclusive: bool) -> Option<Admission> {
        let mut inside = self.inside();
        let goes_first = !inside.line.iter().any(|other| exclusive || other.exclusive);
        (goes_first && inside.has_room_for(exclusive)).then(|| self.admitted(&mut inside, exclusive))
    }

    /// Lets a call in, as soon as those before it have left.
    #[cfg(test)]
    pub(super) fn admit(self: &Arc<Self>, exclusive: bool) -> Admission {
        self.line_up(exclusive).admit()
    }

    /// The last place in the line.
    pub(super) fn line_up(self: &Arc<Self>, exclusive: bool) -> Place {
        let mut inside = self.inside();
        inside.last += 1;
        let call = LineEntry { number: inside.last, exclusive };
        inside.line.push_back(call);
        Place { instance: Arc::clone(self), call, is_in_line: true }
    }

    /// Lets in a call that a `&self` method of the same object makes on the same thread, so that another reader is there.
    pub(super) fn admit_beside(self: &Arc<Self>) -> Admission {
        self.admitted(&mut self.inside(), false)
    }

    fn admitted(self: &Arc<Self>, inside: &mut Inside, exclusive: bool) -> Admission {
        inside.enter(exclusive);
        Admission { instance: Arc::clone(self), exclusive }
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock<O: Object>(&self) -> Result<&RwLock<O>, ObjectRefusal> {
        let value: &dyn Any = &**self.value.as_ref().ok_or(ObjectRefusal::Absent)?;
        value.downcast_ref().ok_or(ObjectRefusal::Absent)
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instance").field("of", self.of).finish_non_exhaustive()
    }
}

impl Drop for Instance {
    /// Drops the value. A panic of its destructor stays here: the hook has said what there is to say.
    fn drop(&mut self) {
        let value = self.value.take();
        if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(|| drop(value))) {
            // The payload's destructor may panic, too.
            Box::leak(payload);
        }
    }
}

/// A call's place in the line of an object. It leaves the line when this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    instance: Arc<Instance>,
    call: LineEntry,
    is_in_line: bool,
}

impl Place {
    /// The object that it is for.
    pub(super) fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// Lets the call in if it need not wait; else it keeps its place.
    ///
    /// # Errors
    /// The place: it has to wait.
    pub(super) fn try_admit(self) -> Result<Admission, Self> {
        let instance = Arc::clone(&self.instance);
        let mut inside = instance.inside();
        if inside.is_next(self.call) { Ok(self.enter(&mut inside)) } else { Err(self) }
    }

    /// Lets the call in, as soon as those before it have left.
    pub(super) fn admit(self) -> Admission {
        let instance = Arc::clone(&self.instance);
        let mut inside = instance.inside();
        let yields_until = Instant::now() + MAX_YIELD;
        while !inside.is_next(self.call) {
            // A writer before it goes in as soon as the readers that are in the object have left.
            inside = if !self.call.exclusive && inside.readers > 0 {
                let rest = yields_until.saturating_duration_since(Instant::now());
                if rest.is_zero() {
                    break;
                }
                instance.left.wait_timeout(inside, rest).unwrap_or_else(PoisonError::into_inner).0
            } else {
                instance.left.wait(inside).unwrap_or_else(PoisonError::into_inner)
            };
        }
        self.enter(&mut inside)
    }

    fn enter(mut self, inside: &mut Inside) -> Admission {
        inside.leave_line(self.call.number);
        self.is_in_line = false;
        // A reader that waits for a writer may do so for a limited time only, now that another reader is in the object.
        if !self.call.exclusive && !inside.line.is_empty() {
            self.instance.left.notify_all();
        }
        self.instance.admitted(inside, self.call.exclusive)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.is_in_line {
            self.instance.inside().leave_line(self.call.number);
            self.instance.left.notify_all();
        }
    }
}

/// A call's leave to be in an object. It leaves when this is dropped.
#[derive(Debug)]
pub(crate) struct Admission {
    instance: Arc<Instance>,
    exclusive: bool,
}

impl Admission {
    /// The object that it is for.
    pub(crate) fn instance(&self) -> &Arc<Instance> {
        &self.instance
    }

    /// Whether it is for a method with `&mut self`.
    pub(crate) fn is_exclusive(&self) -> bool {
        self.exclusive
    }

    /// Runs `method` on the value, unless that is poisoned.
    pub(super) fn with_shared<O: Object, R>(&self, method: impl FnOnce(&O) -> R) -> Result<R, ObjectRefusal> {
        match self.instance.lock::<O>()?.try_read() {
            Ok(value) => Ok(method(&value)),
            Err(TryLockError::Poisoned(_)) => Err(ObjectRefusal::Poisoned),
            Err(TryLockError::WouldBlock) => Err(ObjectRefusal::Reentered),
        }
    }

    /// Runs `method` on the value, unless that is poisoned. A panic poisons it.
    pub(super) fn with_exclusive<O: Object, R>(&self, method: impl FnOnce(&mut O) -> R) -> Result<R, ObjectRefusal> {
        match self.instance.lock::<O>()?.try_write() {
            Ok(mut value) => Ok(method(&mut value)),
            Err(TryLockError::Poisoned(_)) => Err(ObjectRefusal::Poisoned),
            Err(TryLockError::WouldBlock) => Err(ObjectRefusal::Reentered),
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut inside = self.instance.inside();
        if self.exclusive {
            inside.writer = false;
        } else {
            inside.readers -= 1;
        }
        // Without a waiter this is one load.
        self.instance.left.notify_all();
    }
}

/// A value behind its lock, its type forgotten. The admissions see to it that the lock is never waited for.
trait Locked: Any + Send + Sync {
    fn is_poisoned(&self) -> bool;
    fn clear_poison(&self);
}

impl<O: Object> Locked for RwLock<O> {
    fn is_poisoned(&self) -> bool {
        self.is_poisoned()
    }

    fn clear_poison(&self) {
        self.clear_poison();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::{fs, thread};

    use super::*;
    use crate::process_object;

    struct Nothing;

    #[process_object(crate = crate)]
    impl Nothing {
        pub(crate) fn new() -> Self {
            Self
        }
    }

    /// Waits until that thread of this process sleeps.
    fn until_asleep(thread: &str) {
        while !fs::read_to_string(format!("/proc/{thread}/stat")).unwrap().contains(") S ") {
            thread::yield_now();
        }
    }

    #[test]
    fn reader_behind_a_writer_goes_in_beside_a_later_reader() {
        let instance = Instance::new(Nothing);
        let (first, writer, last) = (instance.line_up(false), instance.line_up(true), instance.line_up(false));
        let (name, named) = mpsc::channel();
        thread::scope(|scope| {
            let waits = scope.spawn(move || {
                name.send(fs::read_link("/proc/thread-self").unwrap()).unwrap();
                last.admit()
            });
            until_asleep(named.recv().unwrap().to_str().unwrap());
            // What it does may need the other reader.
            let inside = first.try_admit().unwrap();
            drop(waits.join().unwrap());
            drop((inside, writer));
        });
    }
}
