//! Tasks where names mean something else, in function bodies, in modules, and re-exported.
#![deny(warnings)]
#![expect(clippy::unnecessary_wraps, clippy::extra_unused_type_parameters, reason = "odd code is what is tested")]

mod bare {
    //! No prelude, and names of the standard library that are something else.
    #![no_implicit_prelude]

    /// Not the usual one.
    #[expect(dead_code, reason = "it is only in the way")]
    pub(crate) enum Result {
        Ok,
        Err,
    }

    pub(crate) mod std {}

    pub(crate) mod core {}

    #[::process_task::process_task(timeout = "1s")]
    pub(crate) fn bare(text: &str, more: ::std::vec::Vec<u8>) -> ::std::result::Result<usize, ::std::string::String> {
        ::std::result::Result::Ok(text.len() + more.len())
    }

    #[::process_task::preload]
    fn warm() {}
}

pub mod tasks {
    //! Tasks of every visibility.

    /// Private here, but so is the task.
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Inner(u8);

    #[process_task::process_task]
    fn private(inner: Inner) -> u8 {
        inner.0
    }

    #[process_task::process_task]
    pub fn public(x: u8) -> u8 {
        private(Inner(x))
    }

    #[process_task::process_task]
    pub(in crate::accepted::odd_places::tasks) fn restricted() {}

    pub(super) fn start() {
        assert_eq!(private.spawn(Inner(3)).join().ok(), Some(3));
        assert!(restricted.spawn().join().is_ok());
    }
}

pub use tasks::public;
pub use tasks::public as renamed;

macro_rules! with_visibility {
    ($(#[$attribute:meta])* $vis:vis fn $name:ident($($args:tt)*) $(-> $R:ty)? $body:block) => {
        #[process_task::process_task]
        $(#[$attribute])* $vis fn $name($($args)*) $(-> $R)? $body
    };
}
with_visibility! {
    /// Documented.
    pub(crate) fn through(x: &[u8], _: u8) -> u8 { x[0] }
}
with_visibility! {
    fn nothing() {}
}

fn generic<T>() -> u8 {
    #[process_task::process_task]
    fn inside() -> u8 {
        9
    }
    inside.spawn().join().unwrap_or(0)
}

pub(super) fn main() {
    assert_eq!(bare::bare.spawn("abc", vec![1]).join().ok(), Some(Ok(4)));
    tasks::start();
    assert_eq!(public(1), renamed(1));
    assert_eq!(renamed.spawn(4).join().ok(), Some(4));
    assert_eq!(through.spawn(&[5], 0).join().ok(), Some(5));
    nothing();
    assert_eq!(generic::<String>(), 9);
    let closure = || {
        #[process_task::process_task]
        fn within(x: u8) -> u8 {
            x
        }
        within.spawn(2).join().ok()
    };
    assert_eq!(closure(), Some(2));
}
