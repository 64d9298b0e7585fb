//! What a worker keeps from one call to the next.
//!
//! Runs in: a worker, or whichever process calls a task as a function. Each thread has values of its own, one of each type.

use std::any::{Any, TypeId};
use std::cell::{RefCell, RefMut};
use std::collections::HashMap;

type Cell = RefCell<Box<dyn Any>>;

thread_local! {
    static STATE: RefCell<HashMap<TypeId, &'static Cell>> = RefCell::default();
}

/// The value of type `T` that this worker keeps: made by [`Default`] when it is first asked for, and the same in every
/// later call that the worker makes.
///
/// A costly object is made once per worker: by its `Default`, or by the pool's
/// [initializer](crate::PoolBuilder::initializer), which may have arguments and assigns what it makes. The value lives
/// as long as the worker, and is not dropped when that ends; a [finalizer](crate::PoolBuilder::finalizer) can take it out.
/// Tasks run on one thread of their worker; a thread that a task starts has values of its own.
///
/// # Examples
/// ```
/// use process_task::{Pool, process_task, worker_state};
///
/// #[process_task]
/// fn count() -> u32 {
///     let mut calls = worker_state::<u32>();
///     *calls += 1;
///     *calls
/// }
///
/// let pool = Pool::builder().workers(1).build()?;
/// assert_eq!([pool.call(count, ())?, pool.call(count, ())?], [1, 2]);
/// # process_task::Result::Ok(())
/// ```
///
/// # Panics
/// The value of this type is in use already: what an earlier call of this function returned, further up on this thread,
/// has not been dropped.
#[must_use = "the value is reached through what this returns"]
#[track_caller]
pub fn worker_state<T: Default + 'static>() -> RefMut<'static, T> {
    let known = STATE.with_borrow(|state| state.get(&TypeId::of::<T>()).copied());
    // Made while nothing is borrowed: `default` may ask for other values.
    let cell = known.unwrap_or_else(|| {
        let value: Box<dyn Any> = Box::new(T::default());
        let new: &'static Cell = Box::leak(Box::new(RefCell::new(value)));
        STATE.with_borrow_mut(|state| *state.entry(TypeId::of::<T>()).or_insert(new))
    });
    let Ok(value) = cell.try_borrow_mut() else {
        panic!("the worker's state of type `{}` is in use already", std::any::type_name::<T>())
    };
    RefMut::map(value, |value| value.downcast_mut().unwrap_or_else(|| unreachable!("it is kept under its own type")))
}
