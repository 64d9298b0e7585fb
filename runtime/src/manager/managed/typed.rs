//! What all typed collections have: they are proxies of untyped ones.
//!
//! Runs in: clients. Never: lets a collection of one type be read as one of another.

use crate::error::{Error, Result};
use crate::manager::handle::ManagerHandle;
use crate::manager::managed::update::UpdateError;

/// Writes the struct `$Name`, and what does not depend on its methods.
macro_rules! managed_type {
    ($(#[$docs:meta])* $Name:ident<$($T:ident),*>, $Raw:ident $(, refuses by $Refusal:ty)?) => {
        $(#[$docs])*
        pub struct $Name<$($T),*> {
            raw: $Raw,
            types: std::marker::PhantomData<fn() -> ($($T,)*)>,
        }

        impl<$($T),*> $Name<$($T),*> {
            fn of(raw: $Raw) -> Self {
                Self { raw, types: std::marker::PhantomData }
            }

            $(
                fn settled<R>(
                    &self,
                    outcome: crate::error::Result<std::result::Result<R, $Refusal>>,
                ) -> crate::error::Result<R> {
                    crate::manager::managed::typed::settled(outcome, || self.manager())
                }
            )?

            /// The same collection, each of whose calls fails once it has taken this long.
            #[must_use = "the collection itself stays as it is; use what this returns"]
            pub fn with_timeout(&self, limit: std::time::Duration) -> Self {
                Self::of(self.raw.with_timeout(limit))
            }

            /// The manager in which it lives.
            #[must_use]
            pub fn manager(&self) -> crate::manager::ManagerHandle {
                self.raw.manager()
            }
        }

        impl<$($T),*> Clone for $Name<$($T),*> {
            /// Another proxy of the same collection.
            fn clone(&self) -> Self {
                Self::of(self.raw.clone())
            }
        }

        impl<$($T),*> std::fmt::Debug for $Name<$($T),*> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_tuple(stringify!($Name)).field(&self.raw).finish()
            }
        }

        impl<$($T),*> PartialEq for $Name<$($T),*> {
            /// Whether both are of the same collection.
            fn eq(&self, other: &Self) -> bool {
                self.raw == other.raw
            }
        }

        impl<$($T),*> Eq for $Name<$($T),*> {}

        impl<$($T),*> std::hash::Hash for $Name<$($T),*> {
            fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
                self.raw.hash(state);
            }
        }

        impl<$($T),*> serde::Serialize for $Name<$($T),*> {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
                (crate::sys::specialize::key::<Self>(), &self.raw).serialize(serializer)
            }
        }

        impl<'de, $($T),*> serde::Deserialize<'de> for $Name<$($T),*> {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
                let (of, raw): (u64, $Raw) = serde::Deserialize::deserialize(deserializer)?;
                if of == crate::sys::specialize::key::<Self>() {
                    return Ok(Self::of(raw));
                }
                let name = std::any::type_name::<Self>();
                Err(serde::de::Error::custom(format!("a collection of another type was read as a `{name}`")))
            }
        }
    };
}
pub(crate) use managed_type;

/// Makes a call that must be made in any case: a release, which would be lost if the manager were late and the call taken back.
macro_rules! release {
    ($raw:expr, $method:ident($($argument:expr),*)) => {{
        let proxy = $raw.__process_task_proxy();
        if proxy.timeout().is_some() {
            proxy.unless_late($raw.with_timeout(std::time::Duration::MAX).later().$method($($argument),*))
        } else {
            $raw.$method($($argument),*)
        }
    }};
}
pub(super) use release;

/// The result of a call that a collection may refuse.
#[inline]
pub(super) fn settled<T>(
    outcome: Result<std::result::Result<T, UpdateError>>,
    manager: impl FnOnce() -> ManagerHandle,
) -> Result<T> {
    outcome?.map_err(|refused| of_refusal(refused, &manager()))
}

#[cold]
fn of_refusal(refused: UpdateError, manager: &ManagerHandle) -> Error {
    refused.into_error().in_process(manager.name(), manager.pid())
}
