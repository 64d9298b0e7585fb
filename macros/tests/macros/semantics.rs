//! What `#[process_task]` promises about the functions that it is put on: they stay functions, whatever they are called
//! and wherever they stand, and their stubs do what a call does.
#![forbid(unsafe_code, non_camel_case_types)]
#![deny(missing_docs, warnings, clippy::pedantic)]

use crate::task_call;
use process_task::{Task, process_task};

/// Encodes the arguments, runs the stub, decodes the result: a call without its processes.
fn round_trip<T: Task>(task: T, args: T::Args<'_>) -> T::Output {
    task_call::call::<T>(&task, args).expect("the call works")
}

/// Squares.
#[process_task]
pub fn square(x: i64) -> i64 {
    x * x
}

#[test]
fn a_task_is_still_a_function() {
    assert_eq!(square(3), 9);
    assert_eq!([1, 2, 3].map(*square), [1, 4, 9]);
    assert_eq!((1..4).map(*square).sum::<i64>(), 14);
    assert_eq!(round_trip(square, -7), 49);
}

#[process_task]
fn nothing() {}

#[process_task]
#[expect(clippy::too_many_arguments, reason = "the attribute reaches the function")]
fn twelve(a: u8, b: i8, c: u16, d: i16, e: u32, f: i32, g: u64, h: i64, i: u128, j: i128, k: usize, l: &str) -> String {
    format!("{a} {b} {c} {d} {e} {f} {g} {h} {i} {j} {k} {l}")
}

#[test]
fn zero_to_twelve_parameters_arrive() {
    round_trip(nothing, ());
    nothing();
    let text = round_trip(twelve, (1, -2, 3, -4, 5, -6, 7, -8, 9, -10, 11, "twelve"));
    assert_eq!(text, "1 -2 3 -4 5 -6 7 -8 9 -10 11 twelve");
    assert_eq!(text, twelve(1, -2, 3, -4, 5, -6, 7, -8, 9, -10, 11, "twelve"));
}

#[process_task]
fn patterns((a, b): (i32, i32), _: u8, mut x: Vec<u8>, [first, ..]: [u16; 3]) -> (i32, Vec<u8>, u16) {
    x.push(9);
    (a + b, x, first)
}

#[test]
fn parameters_may_be_patterns() {
    let expected = (3, vec![8, 9], 5);
    assert_eq!(round_trip(patterns, ((1, 2), 0, vec![8], [5, 6, 7])), expected);
    assert_eq!(patterns((1, 2), 0, vec![8], [5, 6, 7]), expected);
}

mod same_name {
    //! Tasks of one name.
    pub(crate) mod one {
        //! The first.
        /// One.
        #[process_task::process_task]
        pub fn which() -> u8 {
            1
        }
    }
    pub(crate) mod two {
        //! The second.
        /// Two.
        #[process_task::process_task]
        pub fn which() -> u8 {
            2
        }
    }
}

#[test]
fn tasks_of_one_name_stay_apart() {
    #[process_task]
    fn which() -> u8 {
        3
    }
    fn inner() -> u8 {
        #[process_task]
        fn which() -> u8 {
            4
        }
        round_trip(which, ())
    }
    assert_eq!(round_trip(same_name::one::which, ()), 1);
    assert_eq!(round_trip(same_name::two::which, ()), 2);
    assert_eq!(round_trip(which, ()), 3);
    assert_eq!(inner(), 4);
    assert!(!std::ptr::eq(which.registration(), same_name::one::which.registration()));
    assert!(same_name::two::which.registration().name().ends_with("::same_name::two::which"));
}

macro_rules! adders {
    ($($name:ident: $T:ty, $by:literal;)*) => { $(
        #[process_task]
        fn $name(x: $T) -> $T {
            let args = x;
            args + $by
        }
    )* };
}
adders! { add_one: u8, 1; add_two: u64, 2; }

macro_rules! shadowing {
    ($name:ident, $param:ident) => {
        #[process_task]
        fn $name($param: u32, x: u32) -> u32 {
            $param * 10 + x
        }
    };
}
shadowing!(shadowed, x);

/// One macro call, two tasks with the same name and position.
macro_rules! twins {
    () => {{
        let one = {
            #[process_task]
            fn twin() -> u8 {
                1
            }
            round_trip(twin, ())
        };
        let two = {
            #[process_task]
            fn twin() -> u8 {
                2
            }
            round_trip(twin, ())
        };
        (one, two)
    }};
}

#[test]
fn one_macro_call_can_make_several_tasks() {
    assert_eq!(round_trip(add_one, 1), 2);
    assert_eq!(round_trip(add_two, 1), 3);
    assert_eq!(round_trip(shadowed, (4, 2)), 42);
    assert_eq!(shadowed(4, 2), 42);
    assert_eq!(twins!(), (1, 2));
}

mod names {
    //! Tasks with names that get in the way.
    use process_task::process_task;

    pub(crate) mod serde {
        //! A module named like a crate.
        /// A task named like its module and like a crate.
        #[process_task::process_task]
        pub fn serde(bytes: u8, writer: u8, reader: u8) -> u8 {
            bytes + writer + reader
        }
    }

    pub(crate) mod locals {
        //! Named like what generated code might call its locals.
        use process_task::process_task;

        /// Like the crate.
        #[process_task]
        pub fn process_task(x: u8) -> u8 {
            x
        }
        /// Like a local.
        #[process_task]
        pub fn args(a: u8, b: &str) -> usize {
            usize::from(a) + b.len()
        }
        /// Like a local.
        #[process_task]
        #[expect(deprecated, reason = "a name that macros of other crates bind is what is tested")]
        pub fn out() -> u8 {
            args(1, "").try_into().unwrap_or(0)
        }
        /// Like a local.
        #[process_task]
        pub fn bytes(x: u8) -> u8 {
            x
        }
        /// Like a local.
        #[process_task]
        pub fn timeout(x: u8) -> u8 {
            x
        }
        /// Like a local.
        #[process_task]
        pub fn retries(x: u8) -> u8 {
            x
        }
        /// Like a method, a field, and a local.
        #[process_task]
        pub fn memory_limit(first: u8, limit: u8) -> u8 {
            first + limit
        }
        /// Like a field.
        #[process_task]
        pub fn options() -> u8 {
            memory_limit(1, 2)
        }
    }

    /// With parameters named like locals.
    #[process_task]
    pub fn task(args: u8, out: u8, bytes: u8, output: u8, writer: u8, reader: u8) -> u8 {
        args + out + bytes + output + writer + reader
    }
    /// Like a method of tasks.
    #[process_task]
    pub fn spawn(run: u8) -> u8 {
        run
    }
    /// Like a keyword.
    #[process_task]
    pub fn r#try(r#type: u8, self_: u8) -> u8 {
        r#type + self_
    }
    /// Like a trait method.
    #[process_task]
    pub fn clone(encode: u8) -> u8 {
        encode
    }
    /// Calls itself, here and elsewhere.
    #[process_task]
    pub fn fibonacci(n: u64) -> u64 {
        if n < 2 { n } else { fibonacci(n - 1) + super::round_trip(fibonacci, n - 2) }
    }
}

#[test]
fn a_task_may_have_any_name() {
    assert_eq!(round_trip(names::serde::serde, (1, 2, 3)), 6);
    assert_eq!(round_trip(names::locals::process_task, 1), 1);
    assert_eq!(round_trip(names::locals::args, (1, "two")), 4);
    assert_eq!(round_trip(names::locals::out, ()), 1);
    assert_eq!(round_trip(names::locals::bytes, 1), 1);
    assert_eq!(round_trip(names::locals::timeout, 1), 1);
    assert_eq!(round_trip(names::locals::retries.retries(1), 1), 1);
    assert_eq!(round_trip(names::locals::memory_limit.memory_limit(1), (1, 2)), 3);
    assert_eq!(round_trip(names::locals::options, ()), 3);
    assert_eq!(round_trip(names::task, (1, 2, 3, 4, 5, 6)), 21);
    assert_eq!(round_trip(names::spawn, 1), 1);
    assert_eq!(round_trip(names::r#try, (1, 2)), 3);
    assert_eq!(names::r#try.registration().name(), concat!(module_path!(), "::names::try"));
    assert_eq!(round_trip(names::clone, 1), 1);
    assert_eq!(names::fibonacci(10), 55);
}

#[process_task(timeout = "1.5s", retries = 2)]
fn patient() {}

#[test]
fn options_ride_on_the_value() {
    use std::time::Duration;
    assert_eq!(patient.options().timeout, Some(Duration::from_millis(1500)));
    assert_eq!(patient.options().retries, 2);
    assert_eq!(patient.options().memory_limit, None);
    assert_eq!(nothing.options(), process_task::__private::Options::default());
}

#[test]
fn options_are_set_on_a_copy_and_the_last_one_counts() {
    use std::time::Duration;
    let options = patient.timeout(Duration::MAX).retries(0).memory_limit(5).memory_limit(7).options();
    assert_eq!((options.timeout, options.retries, options.memory_limit), (Some(Duration::MAX), 0, Some(7)));
    assert_eq!(patient.options().memory_limit, None, "the task itself stays as it is");
    assert_eq!(patient.memory_limit(7).options().retries, 2, "what the attribute says stays");
    assert_eq!(patient.memory_limit(7).registration().index(), patient.registration().index());
    let function: fn() = *patient.retries(3);
    function();
}

#[cfg(windows)]
#[process_task]
fn left_out(x: NoSuchType) -> NoSuchType {}

/// Left in.
#[cfg_attr(not(windows), inline, doc = "More.")]
#[cfg_attr(windows, cfg(windows))]
#[must_use]
#[process_task]
#[cfg(target_os = "linux")]
fn left_in(text: String) -> usize {
    text.len()
}

#[deprecated(note = "on purpose")]
#[process_task]
fn old(depth: u8) -> u8 {
    if depth == 0 { 0 } else { old(depth - 1) }
}

#[test]
#[expect(deprecated, reason = "that it is reported is what is tested")]
fn attributes_go_where_they_belong() {
    assert_eq!(round_trip(left_in, "four".to_owned()), 4);
    assert_eq!(round_trip(old, 2), 0);
}
