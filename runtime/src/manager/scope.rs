//! Hands the object of a call to the stub that runs the method, and takes what a constructor made.
//!
//! Runs in: the manager, on the thread that runs the call.
//!
//! A stub has the form of a task's: bytes in, bytes out. So the object is left with the thread, and the stub asks for it
//! when the arguments are decoded. A method may call another object of the manager: the calls of a thread are a stack.

use std::cell::RefCell;
use std::mem;
use std::rc::Rc;
use std::sync::Arc;

use super::instance::{Admission, Instance, Place};
use crate::task::{Object, ObjectRefusal, StubError};

thread_local! {
    static CALLS: RefCell<Vec<RunningCall>> = const { RefCell::new(Vec::new()) };
}

/// What one call of this thread is about.
#[derive(Debug)]
enum RunningCall {
    Method(Rc<Admission>),
    Constructor(Option<Arc<Instance>>),
}

/// Takes the last call away, also if the call panics.
struct Leave;

impl Drop for Leave {
    fn drop(&mut self) {
        let call = CALLS.with_borrow_mut(Vec::pop);
        // What it holds may run a destructor of the user's, which may call: the stack is free again.
        drop(call);
    }
}

fn enter(call: RunningCall) -> Leave {
    CALLS.with_borrow_mut(|calls| calls.push(call));
    Leave
}

/// Runs `call`, in which a method's stub finds the object.
pub(crate) fn with_object<R>(admission: Admission, call: impl FnOnce() -> R) -> R {
    let _leave = enter(RunningCall::Method(Rc::new(admission)));
    call()
}

/// Runs `call`, which runs a constructor's stub, and returns what that made.
pub(crate) fn with_constructor<R>(call: impl FnOnce() -> R) -> (R, Option<Arc<Instance>>) {
    let _leave = enter(RunningCall::Constructor(None));
    let outcome = call();
    (outcome, put(None).ok().flatten())
}

/// Lets a call of this thread into `instance` if it need not wait, from its `place` in the line if it has one. Else its place
/// is inside, from which it has to be admitted.
///
/// # Errors
/// [`ObjectRefusal::Reentered`]: it would wait for this thread.
pub(super) fn try_admit(
    instance: &Arc<Instance>,
    exclusive: bool,
    place: Option<Place>,
) -> Result<Result<Admission, Place>, ObjectRefusal> {
    match (held(instance), place) {
        (None, Some(place)) => Ok(place.try_admit()),
        (None, None) => Ok(instance.try_admit(exclusive).ok_or_else(|| instance.line_up(exclusive))),
        (Some(false), _) if !exclusive => Ok(Ok(instance.admit_beside())),
        (Some(_), _) => Err(ObjectRefusal::Reentered),
    }
}

/// Whether a call of this thread is in `instance`, and if so, whether with `&mut self`.
fn held(instance: &Arc<Instance>) -> Option<bool> {
    CALLS.with_borrow(|calls| {
        calls.iter().find_map(|call| match call {
            RunningCall::Method(admission) if Arc::ptr_eq(admission.instance(), instance) => {
                Some(admission.is_exclusive())
            }
            _ => None,
        })
    })
}

fn admission() -> Result<Rc<Admission>, ObjectRefusal> {
    CALLS.with_borrow(|calls| match calls.last() {
        Some(RunningCall::Method(admission)) => Ok(Rc::clone(admission)),
        Some(RunningCall::Constructor(_)) | None => Err(ObjectRefusal::Absent),
    })
}

/// For generated code: runs a `&self` method on the object of this thread's call.
///
/// # Errors
/// There is no object of this type, or it is poisoned.
pub fn shared_object<O: Object, R>(method: impl FnOnce(&O) -> R) -> Result<R, StubError> {
    admission().and_then(|admission| admission.with_shared(method)).map_err(StubError::Object)
}

/// For generated code: runs a `&mut self` method on the object of this thread's call.
///
/// # Errors
/// There is no object of this type, or it is poisoned, or the call was let in for `&self` only.
pub fn exclusive_object<O: Object, R>(method: impl FnOnce(&mut O) -> R) -> Result<R, StubError> {
    admission().and_then(|admission| admission.with_exclusive(method)).map_err(StubError::Object)
}

/// For generated code: keeps what a constructor made.
///
/// # Errors
/// This thread runs no constructor.
pub fn created<O: Object>(value: O) -> Result<(), StubError> {
    put(Some(Instance::new(value))).map(drop).map_err(StubError::Object)
}

/// Leaves `made` with the constructor that this thread runs, and returns what was there.
fn put(made: Option<Arc<Instance>>) -> Result<Option<Arc<Instance>>, ObjectRefusal> {
    CALLS.with_borrow_mut(|calls| match calls.last_mut() {
        Some(RunningCall::Constructor(place)) => Ok(mem::replace(place, made)),
        Some(RunningCall::Method(_)) | None => Err(ObjectRefusal::Absent),
    })
}

#[cfg(test)]
mod tests {
    use std::panic::{self, AssertUnwindSafe};
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::task::ObjectType;

    /// Panics when it is dropped with 13 in it.
    struct Number(i64);

    impl Object for Number {
        fn object_type() -> &'static ObjectType {
            static NUMBER: ObjectType = ObjectType::new("Number", file!(), line!());
            &NUMBER
        }
    }

    impl Drop for Number {
        fn drop(&mut self) {
            assert!(self.0 != 13, "unlucky");
        }
    }

    struct Other;

    impl Object for Other {
        fn object_type() -> &'static ObjectType {
            static OTHER: ObjectType = ObjectType::new("Other", file!(), line!());
            &OTHER
        }
    }

    fn number(instance: &Arc<Instance>) -> Result<i64, StubError> {
        with_object(instance.admit(false), || shared_object(|number: &Number| number.0))
    }

    fn set(instance: &Arc<Instance>, to: i64) -> Result<(), StubError> {
        with_object(instance.admit(true), || exclusive_object(|number: &mut Number| number.0 = to))
    }

    #[test]
    fn stub_finds_the_object_of_its_call() {
        let (outcome, made) = with_constructor(|| created(Number(1)));
        outcome.unwrap();
        let made = made.unwrap();
        assert_eq!(made.object_type(), Number::object_type());
        set(&made, 7).unwrap();
        assert_eq!(number(&made), Ok(7));
    }

    #[test]
    fn stub_outside_a_call_or_of_another_type_is_refused() {
        let absent = Err(StubError::Object(ObjectRefusal::Absent));
        assert_eq!(shared_object(|number: &Number| number.0), absent);
        assert_eq!(created(Number(1)).map(|()| 0), absent);
        let instance = Instance::new(Number(1));
        let other = with_object(instance.admit(false), || shared_object(|_: &Other| 0));
        assert_eq!(other, absent);
        assert_eq!(with_constructor(|| shared_object(|number: &Number| number.0)).0, absent);
        let exclusive = with_object(instance.admit(true), || created(Number(2)));
        assert_eq!(exclusive.map(|()| 0), absent);
    }

    #[test]
    fn panic_poisons_only_where_self_is_mutable() {
        let instance = Instance::new(Number(1));
        let panics = |exclusive| {
            let call = || {
                if exclusive {
                    exclusive_object(|_: &mut Number| panic!("on purpose"))
                } else {
                    shared_object(|_: &Number| panic!("on purpose"))
                }
            };
            let caught = panic::catch_unwind(AssertUnwindSafe(|| with_object(instance.admit(exclusive), call)));
            assert!(caught.is_err());
        };
        panics(false);
        assert_eq!(number(&instance), Ok(1));
        panics(true);
        assert!(instance.is_poisoned());
        assert_eq!(number(&instance), Err(StubError::Object(ObjectRefusal::Poisoned)));
        assert_eq!(set(&instance, 2), Err(StubError::Object(ObjectRefusal::Poisoned)));
        instance.clear_poison();
        set(&instance, 2).unwrap();
        assert_eq!(number(&instance), Ok(2), "the panics have left nothing on this thread's stack");
    }

    #[test]
    fn readers_are_side_by_side_and_writers_alone() {
        let instance = Instance::new(Number(1));
        let readers = [instance.try_admit(false).unwrap(), instance.try_admit(false).unwrap()];
        assert!(instance.try_admit(true).is_none());
        drop(readers);
        let writer = instance.try_admit(true).unwrap();
        assert!(instance.try_admit(true).is_none());
        assert!(instance.try_admit(false).is_none());
        drop(writer);
        assert!(instance.try_admit(true).is_some());
    }

    #[test]
    fn waiting_writer_comes_before_new_readers_for_a_while() {
        let instance = Instance::new(Number(1));
        let reader = instance.admit(false);
        let (sender, wrote) = mpsc::channel();
        let writer = thread::spawn({
            let instance = Arc::clone(&instance);
            move || {
                set(&instance, 2).unwrap();
                sender.send(()).unwrap();
            }
        });
        // Until the writer waits, a reader gets in at once.
        while instance.try_admit(false).is_some() {
            thread::yield_now();
        }
        // A reader gets in all the same: the first may be waiting for it.
        assert_eq!(number(&instance), Ok(1));
        assert!(wrote.try_recv().is_err());
        drop(reader);
        wrote.recv_timeout(Duration::from_secs(30)).unwrap();
        writer.join().unwrap();
        assert_eq!(number(&instance), Ok(2));
    }

    #[test]
    fn call_that_would_wait_for_its_own_thread_is_refused() {
        let instance = Instance::new(Number(1));
        let within = |outer, inner| {
            let call = || try_admit(&instance, inner, None).map(|admission| admission.is_ok());
            with_object(instance.admit(outer), call)
        };
        assert_eq!(within(false, false), Ok(true));
        for (outer, inner) in [(true, true), (true, false), (false, true)] {
            assert_eq!(within(outer, inner), Err(ObjectRefusal::Reentered));
        }
        let other = Instance::new(Other);
        let beside = with_object(instance.admit(true), || try_admit(&other, true, None).unwrap().is_ok());
        assert!(beside);
        assert!(try_admit(&instance, true, None).unwrap().is_ok(), "nothing is left behind");
    }

    #[test]
    fn panic_of_a_destructor_stays_in_it() {
        drop(Instance::new(Number(13)));
    }
}
