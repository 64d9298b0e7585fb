//! The crate under another name, re-exported, and inside the macro of another crate.
#![deny(warnings)]

mod facade {
    pub(crate) mod deep {
        pub(crate) use process_task as engine;
    }

    /// What another crate might offer.
    macro_rules! remote {
        ($(#[$attribute:meta])* fn $name:ident($($param:ident: $T:ty),*) -> $R:ty $body:block) => {
            #[$crate::accepted::renamed_crate::facade::deep::engine::process_task(crate = $crate::accepted::renamed_crate::facade::deep::engine, timeout = "1m")]
            $(#[$attribute])*
            fn $name($($param: $T),*) -> $R $body
        };
    }
    pub(crate) use remote;
}

mod process_task_is_not_here {
    use super::facade::deep::engine;

    #[engine::process_task(crate = "engine")]
    pub fn as_string(x: u8) -> u8 {
        x
    }

    #[engine::process_task(crate = crate::accepted::renamed_crate::facade::deep::engine,)]
    pub fn as_path(x: u8) -> u8 {
        x
    }

    #[engine::preload(crate = engine)]
    fn warm() {}
}

facade::remote! {
    /// Through a macro.
    fn through_a_macro(text: &str, numbers: &[f64]) -> usize {
        text.len() + numbers.len()
    }
}

macro_rules! timed {
    ($timeout:literal, $T:ty) => {
        #[process_task::process_task(timeout = $timeout)]
        fn timed(x: $T) -> usize {
            x.len()
        }
    };
}
timed!("250ms", &str);

#[derive(facade::deep::engine::Shareable)]
#[shareable(crate = facade::deep::engine)]
struct Renamed(u8);

pub(super) fn main() {
    assert_eq!(facade::deep::engine::Shared::new(Renamed(7)).ok().map(|renamed| renamed.0), Some(7));
    assert_eq!(process_task_is_not_here::as_string.spawn(1).join().ok(), Some(1));
    assert_eq!(process_task_is_not_here::as_path(2), 2);
    assert_eq!(through_a_macro.spawn("ab", &[1.0]).join().ok(), Some(3));
    assert_eq!(timed.spawn("abc").join().ok(), Some(3));
}
