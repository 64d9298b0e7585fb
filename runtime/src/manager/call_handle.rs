//! [`CallHandle`]: the way to the result of a call that was made by `later`.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::error::Result;

/// The way to a call's result.
#[derive(Debug)]
pub struct CallHandle<T> {
    result: PhantomData<fn() -> T>,
}

impl<T> CallHandle<T> {
    /// Waits for the result, as long as it takes.
    ///
    /// # Errors
    /// The call failed.
    pub fn join(self) -> Result<T> {
        unimplemented!()
    }

    /// As [`join`](Self::join), but gives the handle back after `timeout`.
    ///
    /// # Errors
    /// The handle, if the time is over.
    pub fn join_timeout(self, _timeout: Duration) -> std::result::Result<Result<T>, Self> {
        unimplemented!()
    }

    /// Whether [`join`](Self::join) would return at once.
    pub fn is_finished(&self) -> bool {
        unimplemented!()
    }
}

impl<T> Future for CallHandle<T> {
    type Output = Result<T>;

    fn poll(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Result<T>> {
        unimplemented!()
    }
}
