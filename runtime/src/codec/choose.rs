//! Which format a type takes, decided while the caller compiles.
//!
//! Owns: the order of preference. Never: runs; everything here compiles to nothing.
//! Runs in: no process; generated code names it.
//!
//! # How a type is asked
//!
//! Method lookup strips one reference after the other from the receiver and takes the first method that fits. So generated
//! code writes `(&&&&by_reference::<T>()).choose()`, and the first of these with a bound that holds answers:
//!
//! | stripped | `&&by_value`                    | `&&&&by_reference`                                              |
//! |----------|---------------------------------|-----------------------------------------------------------------|
//! | none     | [`ChoosePlain`]: `T` is plain   | [`ChooseBorrowed`]: `T` lies in the payload as it is            |
//! | one      | [`ChooseSerde`]: all the others | [`ChooseOwnedPlain`], [`ChooseElements`]: plain, or any slice   |
//! | two      |                                 | [`ChooseOwnedSerde`]: all the others with a size                |
//! | three    |                                 | [`ChooseNothing`]: `dyn Trait`                                  |
//!
//! The answers to all the others have no bound on purpose: a type without serde's traits must be answered too, so that using the answer
//! is what fails, with the message of [`Travels`](super::Travels).

use std::marker::PhantomData;

use super::{AsBorrowed, AsElements, AsNothing, AsOwned, AsPlain, Borrowable, Plain, ViaSerde};

/// Asks which format a parameter or result of type `T` takes.
#[derive(Debug)]
pub struct ByValue<T>(PhantomData<T>);

/// Asks how a parameter of type `&T` is lent.
#[derive(Debug)]
pub struct ByReference<T: ?Sized>(PhantomData<T>);

/// Asks about a value.
#[inline]
#[must_use]
pub const fn by_value<T>() -> ByValue<T> {
    ByValue(PhantomData)
}

/// Asks about the target of a reference.
#[inline]
#[must_use]
pub const fn by_reference<T: ?Sized>() -> ByReference<T> {
    ByReference(PhantomData)
}

macro_rules! answers {
    ($(
        $(#[$doc:meta])*
        $Answer:ident for $Question:ty, where ($($bound:tt)*): $Format:ty = $format:expr;
    )*) => { $(
        $(#[$doc])*
        pub trait $Answer {
            /// The format.
            #[inline]
            fn choose(&self) -> $Format {
                $format
            }
        }
        impl<$($bound)*> $Answer for $Question {}
    )* };
}

answers! {
    /// Plain types take the plain format.
    ChoosePlain for &ByValue<T>, where (T: Plain): AsPlain = AsPlain;

    /// All the others take serde's.
    ChooseSerde for ByValue<T>, where (T): ViaSerde = ViaSerde;

    /// What lies in the payload as it is, is lent from there.
    ChooseBorrowed for &&&ByReference<T>, where (T: Borrowable + ?Sized): AsBorrowed = AsBorrowed;

    /// Plain types are decoded, then lent.
    ChooseOwnedPlain for &&ByReference<T>, where (T: Plain): AsOwned<AsPlain> = AsOwned(AsPlain);

    /// Slices of anything else are decoded into a `Vec`.
    ChooseElements for &&ByReference<[T]>, where (T): AsElements = AsElements;

    /// All the others that have a size are decoded through serde, then lent.
    ChooseOwnedSerde for &ByReference<T>, where (T): AsOwned<ViaSerde> = AsOwned(ViaSerde);

    /// What has no size cannot be kept anywhere.
    ChooseNothing for ByReference<T>, where (T: ?Sized): AsNothing = AsNothing;
}
