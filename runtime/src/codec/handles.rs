//! What travels beside a payload: descriptors, which no bytes can carry.
//!
//! Owns: for each thread, the handles beside the payload that it encodes, and those beside the one that it decodes.
//! Runs in: every process. Never: moves a descriptor between processes; the link does, and keeps the order.
//!
//! A handle, such as a region of shared memory, is written as its index among those beside its payload ([`attach`]), and made
//! again of the descriptor that came ([`open`]). Code that encodes or decodes a payload opens a scope for it ([`collect`],
//! [`provide`]); scopes may be nested, since a value's `Serialize` may use a pool. A scope counts only while serde runs
//! ([`active`]): the function of a task, which runs between the two, cannot take a handle for itself, so that one scope may
//! stay open for a whole batch.
//!
//! Why the process that decoded an end is its only holder: the kernel counts ends, and a forgotten copy would hide a
//! death. But the sender of a call keeps a copy until the call is answered, since it may have to go to another
//! process. So an end that a task drops early counts until its call is over. When a process ends, what was sent to it
//! is let go at once, also if its result is not asked for.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::mem;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::{Arc, Mutex, Weak};

use super::CodecError;
use crate::sys::mutex::MutexExt as _;

/// Something of which another process gets a descriptor. Unwinding leaves it whole, or no pool would be unwind-safe that
/// has one on its way.
pub(crate) trait Handle: Any + Send + Sync + UnwindSafe + RefUnwindSafe + fmt::Debug {
    fn descriptor(&self) -> BorrowedFd<'_>;

    /// Whether a worker may have it for some moments longer than the call that it came with, because nothing can be told from
    /// that: so that the next call finds it as it is.
    fn is_cacheable(&self) -> bool;

    /// Whether other processes are told when the last holder drops it. Then it is held by the code that decoded it only.
    fn is_end(&self) -> bool {
        false
    }
}

/// The most handles of one value, or of one call's arguments.
pub(crate) const MAX_HANDLES_PER_VALUE: usize = 1024;

/// The handles beside a payload, by index. They live as long as it may have to be sent again.
#[derive(Clone, Debug, Default)]
#[expect(clippy::box_collection, reason = "one word in every payload, of which most have none")]
pub(crate) struct Handles(Option<Box<Vec<Arc<dyn Handle>>>>);

impl Handles {
    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |list| list.len())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// So many, all different, for tests of the code that carries them.
    #[cfg(test)]
    pub(crate) fn some(count: usize) -> Self {
        Self(Some(Box::new((0..count).map(|_| tests::event()).collect())))
    }

    /// These, by index.
    pub(crate) fn of(list: Vec<Arc<dyn Handle>>) -> Self {
        Self((!list.is_empty()).then(|| Box::new(list)))
    }

    /// Each of them, by index.
    pub(crate) fn each(&self) -> impl Iterator<Item = Arc<dyn Handle>> {
        self.0.iter().flat_map(|list| list.iter()).map(Arc::clone)
    }

    /// Their descriptors, by index.
    pub(crate) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.0.iter().flat_map(|list| list.iter()).map(|handle| handle.descriptor()).collect()
    }

    /// Puts one in, if there are fewer than `most`.
    fn attach(&mut self, handle: Arc<dyn Handle>, most: usize) -> Result<u32, CodecError> {
        let list = self.0.get_or_insert_default();
        let known = list.iter().position(|other| Arc::ptr_eq(other, &handle));
        let at = known.unwrap_or(list.len());
        if at >= most {
            return Err(CodecError::new(format!(
                "more than {MAX_HANDLES_PER_VALUE} handles cannot travel with one call"
            )));
        }
        if known.is_none() {
            list.push(handle);
        }
        // There are not many more than `MAX_HANDLES_PER_VALUE`.
        Ok(u32::try_from(at).unwrap_or(u32::MAX))
    }
}

/// The handles beside a payload that came, by index.
#[derive(Clone, Debug, Default)]
pub(crate) struct Received(Option<Arc<Mutex<Vec<ReceivedSlot>>>>);

#[derive(Debug)]
enum ReceivedSlot {
    Arrived(OwnedFd),
    Opened(Arc<dyn Handle>),
    /// As `Opened`, but only the code that decoded it holds it.
    End(Weak<dyn Handle>),
    /// It could not be received or opened, for this reason.
    Lost(&'static str),
}

impl Received {
    pub(crate) fn new(descriptors: Vec<OwnedFd>) -> Self {
        Self::of_slots(descriptors.into_iter().map(ReceivedSlot::Arrived).collect())
    }

    /// So many, none of which could be received.
    pub(crate) fn lost(count: usize, why: &'static str) -> Self {
        Self::of_slots((0..count).map(|_| ReceivedSlot::Lost(why)).collect())
    }

    /// Those beside a payload that stays in this process.
    pub(crate) fn of_own(handles: &Handles) -> Self {
        let list = handles.0.iter().flat_map(|list| list.iter());
        Self::of_slots(list.map(|handle| ReceivedSlot::Opened(Arc::clone(handle))).collect())
    }

    fn of_slots(slots: Vec<ReceivedSlot>) -> Self {
        Self((!slots.is_empty()).then(|| Arc::new(Mutex::new(slots))))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// How many have come, for tests of the code that carries them.
    #[cfg(test)]
    pub(crate) fn arrived(&self) -> usize {
        let slots = self.0.as_ref().map(|slots| slots.lock().unwrap());
        slots.map_or(0, |slots| slots.iter().filter(|slot| matches!(slot, ReceivedSlot::Arrived(_))).count())
    }

    /// Lets go of those that may not linger. What was decoded has its own hold.
    pub(crate) fn release(&self) {
        if let Some(slots) = &self.0 {
            let lingers = |slot: &ReceivedSlot| matches!(slot, ReceivedSlot::Opened(handle) if handle.is_cacheable());
            slots.lock_unpoisoned().retain(lingers);
        }
    }

    fn take<H: Handle>(
        &self,
        index: u32,
        open: impl FnOnce(OwnedFd) -> Result<Arc<H>, CodecError>,
    ) -> Result<Arc<H>, CodecError> {
        let none = || CodecError::new("the payload is corrupt: it names a handle that did not come with it");
        let mut slots = self.0.as_ref().ok_or_else(none)?.lock_unpoisoned();
        let slot = usize::try_from(index).ok().and_then(|at| slots.get_mut(at)).ok_or_else(none)?;
        let opened: Arc<dyn Handle> = match mem::replace(slot, ReceivedSlot::Lost("it was refused before")) {
            ReceivedSlot::Arrived(descriptor) => open(descriptor)?,
            ReceivedSlot::Opened(handle) => handle,
            ReceivedSlot::End(handle) => {
                handle.upgrade().ok_or_else(|| CodecError::new("a handle was let go of before"))?
            }
            ReceivedSlot::Lost(why) => {
                *slot = ReceivedSlot::Lost(why);
                return Err(CodecError::new(format!("a handle that came with it could not be received: {why}")));
            }
        };
        *slot = if opened.is_end() {
            ReceivedSlot::End(Arc::downgrade(&opened))
        } else {
            ReceivedSlot::Opened(Arc::clone(&opened))
        };
        let opened: Arc<dyn Any + Send + Sync> = opened;
        opened.downcast().map_err(|_| CodecError::new("a handle was read as one of another kind"))
    }
}

thread_local! {
    /// How many scopes of this thread are open, one in another, to collect handles, and to provide them.
    static COLLECTING: Cell<u32> = const { Cell::new(0) };
    static PROVIDING: Cell<u32> = const { Cell::new(0) };
    /// The handles of those scopes that have any, with the number of the scope. Most payloads have none, and are many, so that
    /// opening and closing a scope touches only what needs no destructor.
    static COLLECTED: RefCell<Vec<(u32, Handles)>> = const { RefCell::new(Vec::new()) };
    static PROVIDED: RefCell<Vec<(u32, Received)>> = const { RefCell::new(Vec::new()) };
    /// The number of the last scope in `COLLECTED`; 0 if there is none.
    static LAST: Cell<u32> = const { Cell::new(0) };
    /// How many handles of the present scope are of values before the one at hand.
    static BEFORE: Cell<usize> = const { Cell::new(0) };
    static ACTIVE: Cell<bool> = const { Cell::new(false) };
}

/// Runs `encode`, in which handles can be [`attach`] beside those that are in `handles`.
#[inline]
pub(crate) fn collect<R>(handles: &mut Handles, encode: impl FnOnce() -> R) -> R {
    struct Scope<'h>(&'h mut Handles, usize);
    impl Drop for Scope<'_> {
        #[inline]
        fn drop(&mut self) {
            if LAST.get() == COLLECTING.get() {
                *self.0 = pop();
            }
            COLLECTING.set(COLLECTING.get() - 1);
            BEFORE.set(self.1);
        }
    }
    COLLECTING.set(COLLECTING.get() + 1);
    if !handles.is_empty() {
        push(mem::take(handles));
    }
    let _scope = Scope(handles, BEFORE.replace(0));
    encode()
}

#[cold]
fn push(handles: Handles) {
    LAST.set(COLLECTING.get());
    COLLECTED.with_borrow_mut(|scopes| scopes.push((COLLECTING.get(), handles)));
}

#[cold]
fn pop() -> Handles {
    COLLECTED.with_borrow_mut(|scopes| {
        let last = scopes.pop().map(|(_, handles)| handles);
        LAST.set(scopes.last().map_or(0, |(number, _)| *number));
        last.unwrap_or_default()
    })
}

/// Another value of the same payload is to be encoded in the scope of this thread, which may have [`MAX_HANDLES_PER_VALUE`] handles itself.
#[inline]
pub(crate) fn next_value() {
    BEFORE.set(collected());
}

/// Whether there are handles in the scope of this thread.
#[inline]
fn any() -> bool {
    LAST.get() != 0 && LAST.get() == COLLECTING.get()
}

/// How many handles are in the scope of this thread.
#[inline]
pub(crate) fn collected() -> usize {
    if any() { COLLECTED.with_borrow(|scopes| scopes.last().map_or(0, |(_, handles)| handles.len())) } else { 0 }
}

/// The handle of kind `H` in the scope of this thread that `is_it` says yes to.
pub(crate) fn find_collected<H: Handle>(is_it: impl Fn(&H) -> bool) -> Option<Arc<H>> {
    with_collected(|handles| {
        handles.each().find_map(|handle| {
            let handle: Arc<dyn Any + Send + Sync> = handle;
            handle.downcast::<H>().ok().filter(|handle| is_it(handle))
        })
    })
}

/// Shows `look` the handles in the scope of this thread.
pub(super) fn with_collected<R>(look: impl FnOnce(&Handles) -> R) -> R {
    if !any() {
        return look(&Handles::default());
    }
    let handles = COLLECTED.with_borrow(|scopes| scopes.last().map(|(_, handles)| handles.clone()));
    look(&handles.unwrap_or_default())
}

/// Takes the handles out of the scope of this thread: for one that stays open for many payloads.
#[inline]
pub(crate) fn take_collected() -> Handles {
    if any() { pop() } else { Handles::default() }
}

/// Runs `decode`, in which the handles that were `received` can be [opened](open).
#[inline]
pub(crate) fn provide<R>(received: &Received, decode: impl FnOnce() -> R) -> R {
    struct Scope(bool);
    impl Drop for Scope {
        #[inline]
        fn drop(&mut self) {
            PROVIDING.set(PROVIDING.get() - 1);
            if self.0 {
                drop(PROVIDED.with_borrow_mut(Vec::pop));
            }
        }
    }
    PROVIDING.set(PROVIDING.get() + 1);
    let any = !received.is_empty();
    if any {
        PROVIDED.with_borrow_mut(|scopes| scopes.push((PROVIDING.get(), received.clone())));
    }
    let _scope = Scope(any);
    decode()
}

/// Runs `serde`, which encodes or decodes a value of a payload.
#[inline]
pub(super) fn active<R>(serde: impl FnOnce() -> R) -> R {
    struct Scope(bool);
    impl Drop for Scope {
        #[inline]
        fn drop(&mut self) {
            ACTIVE.set(self.0);
        }
    }
    let _scope = Scope(ACTIVE.replace(true));
    serde()
}

/// Puts a handle beside the payload that this thread encodes. Its index: the same for the same handle again.
///
/// # Errors
/// This thread encodes no payload, or there are too many.
pub(crate) fn attach(handle: Arc<dyn Handle>) -> Result<u32, CodecError> {
    if !ACTIVE.get() || COLLECTING.get() == 0 {
        return Err(outside("written"));
    }
    if !any() {
        push(Handles::default());
    }
    COLLECTED.with_borrow_mut(|scopes| match scopes.last_mut() {
        Some((_, handles)) => handles.attach(handle, BEFORE.get() + MAX_HANDLES_PER_VALUE),
        None => Err(outside("written")),
    })
}

/// Puts all of these beside the payload that this thread encodes, where they keep their order.
///
/// # Errors
/// As [`attach`].
pub(crate) fn attach_each(handles: &Handles) -> Result<(), CodecError> {
    active(|| handles.each().try_for_each(|handle| attach(handle).map(drop)))
}

/// All handles beside the payload that this thread decodes, in their order.
///
/// # Errors
/// As [`open`].
pub(crate) fn open_each<H: Handle>(
    each: impl Fn(OwnedFd) -> Result<Arc<H>, CodecError>,
) -> Result<Handles, CodecError> {
    let number = PROVIDING.get();
    let last = PROVIDED.with_borrow(|scopes| scopes.last().filter(|last| last.0 == number).map(|last| last.1.clone()));
    let count = last.and_then(|received| received.0.map(|slots| slots.lock_unpoisoned().len())).unwrap_or(0);
    let open_one = |at| open(u32::try_from(at).unwrap_or(u32::MAX), &each).map(|handle| handle as Arc<dyn Handle>);
    active(|| (0..count).map(open_one).collect::<Result<_, _>>()).map(Handles::of)
}

/// The handle of that index beside the payload that this thread decodes; `open` makes it of the descriptor that came, or
/// finds that it is known, the first time.
///
/// # Errors
/// This thread decodes no payload, there is no handle of that index, it is of another kind, or `open` refuses.
pub(crate) fn open<H: Handle>(
    index: u32,
    open: impl FnOnce(OwnedFd) -> Result<Arc<H>, CodecError>,
) -> Result<Arc<H>, CodecError> {
    let number = PROVIDING.get();
    if !ACTIVE.get() || number == 0 {
        return Err(outside("read"));
    }
    let last = PROVIDED.with_borrow(|scopes| scopes.last().filter(|last| last.0 == number).map(|last| last.1.clone()));
    last.unwrap_or_default().take(index, open)
}

#[cold]
fn outside(how: &str) -> CodecError {
    CodecError::new(format!(
        "a handle to something that processes share can only be {how} as part of an argument or a result of a task, \
         or of a message: it travels as a descriptor, which bytes elsewhere cannot carry"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fd;
    use std::os::fd::AsFd;

    #[derive(Debug)]
    struct Event(OwnedFd);

    impl Handle for Event {
        fn descriptor(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }

        fn is_cacheable(&self) -> bool {
            false
        }
    }

    #[derive(Debug)]
    struct Other(OwnedFd);

    impl Handle for Other {
        fn descriptor(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }

        fn is_cacheable(&self) -> bool {
            true
        }
    }

    pub(super) fn event() -> Arc<dyn Handle> {
        Arc::new(Event(fd::eventfd().unwrap()))
    }

    #[expect(clippy::unnecessary_wraps, reason = "what opens may fail")]
    fn opened(descriptor: OwnedFd) -> Result<Arc<Event>, CodecError> {
        Ok(Arc::new(Event(descriptor)))
    }

    #[test]
    fn a_handle_has_one_index_however_often_it_is_put() {
        let (one, two) = (event(), event());
        let mut handles = Handles::default();
        let indices =
            collect(&mut handles, || active(|| [&one, &two, &one].map(|handle| attach(Arc::clone(handle)).unwrap())));
        assert_eq!((indices, handles.len(), handles.descriptors().len()), ([0, 1, 0], 2, 2));
    }

    #[test]
    fn each_value_of_a_payload_may_have_as_many_as_a_call() {
        let many: Vec<_> = (0..=MAX_HANDLES_PER_VALUE).map(|_| event()).collect();
        let put_all = |some: &[Arc<dyn Handle>]| some.iter().try_for_each(|one| attach(Arc::clone(one)).map(drop));
        let mut handles = Handles::default();
        collect(&mut handles, || {
            active(|| put_all(&many[..3]).unwrap());
            next_value();
            active(|| put_all(&many[3..]).unwrap());
            next_value();
            // A scope inside has its own count, and leaves this one's alone.
            collect(&mut Handles::default(), || active(|| put_all(&many).unwrap_err()));
            active(|| put_all(&many).unwrap());
        });
        assert_eq!(handles.len(), MAX_HANDLES_PER_VALUE + 1);
    }

    #[test]
    fn a_handle_outside_a_call_is_refused_in_words() {
        assert!(attach(event()).unwrap_err().to_string().contains("argument or a result of a task"));
        assert!(open(0, opened).unwrap_err().to_string().contains("argument or a result of a task"));
        let mut handles = Handles::default();
        // The function of a task runs inside its scopes, but not inside serde.
        assert!(collect(&mut handles, || attach(event())).is_err());
        assert!(handles.is_empty());
    }

    #[test]
    fn scopes_do_not_see_each_other() {
        let (mut outer, mut inner) = (Handles::default(), Handles::default());
        collect(&mut outer, || {
            active(|| {
                attach(event()).unwrap();
                collect(&mut inner, || active(|| assert_eq!(attach(event()).unwrap(), 0)));
                assert_eq!(attach(event()).unwrap(), 1);
            });
        });
        assert_eq!((outer.len(), inner.len()), (2, 1));
        let received = Received::new(vec![fd::eventfd().unwrap()]);
        provide(&received, || active(|| provide(&Received::default(), || open(0, opened).unwrap_err())));
    }

    #[test]
    fn a_handle_is_opened_once() {
        let received = Received::new(vec![fd::eventfd().unwrap()]);
        let take = || provide(&received, || active(|| open(0, opened)));
        assert!(Arc::ptr_eq(&take().unwrap(), &take().unwrap()));
        let other = provide(&received, || active(|| super::open(0, |fd| Ok(Arc::new(Other(fd))))));
        assert!(other.unwrap_err().to_string().contains("another kind"));
        received.release();
        assert!(take().is_err());
    }

    #[test]
    fn a_handle_that_may_linger_does_so_once_it_was_opened() {
        let received = Received::new(vec![fd::eventfd().unwrap(), fd::eventfd().unwrap()]);
        let other = || provide(&received, || active(|| super::open(0, |fd| Ok(Arc::new(Other(fd))))));
        let before = other().unwrap();
        received.release();
        assert_eq!(received.arrived(), 0, "what was not opened is closed");
        assert!(Arc::ptr_eq(&before, &other().unwrap()));
    }

    #[test]
    fn a_handle_that_stays_is_the_same() {
        let handle: Arc<Event> = Arc::new(Event(fd::eventfd().unwrap()));
        let mut handles = Handles::default();
        collect(&mut handles, || active(|| attach(handle.clone()).unwrap()));
        let received = Received::of_own(&handles);
        let same: Arc<Event> = provide(&received, || active(|| open(0, |_| unreachable!("it is open")))).unwrap();
        assert!(Arc::ptr_eq(&same, &handle));
    }
}
