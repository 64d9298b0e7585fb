//! Code that compiles in silence, in odd places and under the strictest lints, and does what it says.
//!
//! Runs in: the test process, and in children, which run the tasks. Modules and not programs, which would each be linked.

pub mod forbidden_lints;
pub mod object_odd_places;
pub mod object_strict_lints;
pub mod odd_places;
pub mod renamed_crate;
pub mod strict_lints;

#[test]
fn tasks_compile_where_lints_are_forbidden() {
    forbidden_lints::main();
}

#[test]
fn tasks_compile_under_strict_lints() {
    strict_lints::main();
}

#[test]
fn tasks_compile_in_odd_places() {
    odd_places::main();
}

#[test]
fn tasks_compile_under_another_crate_name() {
    renamed_crate::main();
}

#[test]
fn objects_compile_in_odd_places() {
    object_odd_places::main();
}

#[test]
fn objects_compile_under_strict_lints() {
    object_strict_lints::main();
}
