//! A declaration of a variadic foreign function.
use process_task::process_task;

unsafe extern "C" {
    #[process_task]
    fn printf(format: *const u8, ...) -> i32;
}

fn main() {}
