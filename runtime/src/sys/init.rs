//! Running before `main`: a constructor of our own, and then those that would have come after it.
//!
//! Owns: the arguments that the C library passed to our constructor. Runs in: every process, before `main`.
//!
//! `inventory` registers tasks by constructors in `.init_array`, and so do we. A child takes over in ours and never
//! returns, so it first runs the entries behind its own, or tasks that would have registered later are missing (with
//! thin LTO that was all of them). The linker names the ends of the array; a weak reference through the global offset
//! table finds them in static and dynamic programs, position independent or not, and reads 0 in a shared library.
#![expect(unsafe_code, reason = "an entry in .init_array, and calling the entries behind it")]

use std::arch::asm;
use std::ffi::{c_char, c_int};
use std::sync::OnceLock;

/// A constructor. The C library calls it with the arguments of `main`.
pub(crate) type Constructor = extern "C" fn(c_int, *const *const c_char, *const *const c_char);

/// Makes the program call a function before `main`.
macro_rules! before_main {
    ($function:path) => {
        const _: () = {
            extern "C" fn constructor(
                argc: std::ffi::c_int,
                argv: *const *const std::ffi::c_char,
                envp: *const *const std::ffi::c_char,
            ) {
                $crate::sys::init::record(&raw const ENTRY, argc, argv, envp);
                $function();
            }

            // The section is an array of constructors, and this is one: what makes the attribute sound.
            #[used]
            #[expect(unsafe_code, reason = "an entry in .init_array")]
            #[unsafe(link_section = ".init_array")]
            static ENTRY: $crate::sys::init::Constructor = constructor;
        };
    };
}
pub(crate) use before_main;

/// What the C library passed to our constructor.
struct MainArgs {
    entry: usize,
    count: c_int,
    argv: usize,
    envp: usize,
}

static MAIN_ARGS: OnceLock<MainArgs> = OnceLock::new();

/// Keeps the arguments of the constructor, for the constructors behind `entry`.
pub(crate) fn record(entry: *const Constructor, count: c_int, argv: *const *const c_char, envp: *const *const c_char) {
    let _ = MAIN_ARGS.set(MainArgs {
        entry: entry.expose_provenance(),
        count,
        argv: argv.expose_provenance(),
        envp: envp.expose_provenance(),
    });
}

/// Returns the index of our constructor among all constructors of the program: the same in each process of a binary.
///
/// It is also 0 in a shared library, and in a process that has not run our constructor yet.
pub(crate) fn constructor_index() -> usize {
    let (start, end) = bounds();
    let entry = MAIN_ARGS.get().map_or(0, |args| args.entry);
    if (start..end).contains(&entry) { (entry - start) / size_of::<Constructor>() } else { 0 }
}

/// Calls every constructor after ours.
///
/// Runs in: a child, in the middle of our own constructor, once.
pub(crate) fn run_remaining_constructors() {
    let Some(main) = MAIN_ARGS.get() else { return };
    let (start, end) = bounds();
    if !(start..end).contains(&main.entry) {
        return;
    }
    let argv = std::ptr::with_exposed_provenance(main.argv);
    let envp = std::ptr::with_exposed_provenance(main.envp);
    let mut entry = main.entry + size_of::<Constructor>();
    while entry < end {
        let constructor: *const Option<Constructor> = std::ptr::with_exposed_provenance(entry);
        // SAFETY: between the linker's two marks lies an array of function pointers, and `entry` is one of them.
        if let Some(constructor) = unsafe { constructor.read() } {
            constructor(main.count, argv, envp);
        }
        entry += size_of::<Constructor>();
    }
}

/// Returns the addresses of the array's first entry and of its end; both 0 in a shared library.
fn bounds() -> (usize, usize) {
    let (start, end): (usize, usize);
    // SAFETY: two loads from the global offset table; a weak symbol that is not defined reads 0.
    unsafe {
        asm!(
            ".weak __init_array_start",
            ".weak __init_array_end",
            "mov {start}, qword ptr [rip + __init_array_start@GOTPCREL]",
            "mov {end}, qword ptr [rip + __init_array_end@GOTPCREL]",
            start = out(reg) start,
            end = out(reg) end,
            options(nostack, preserves_flags, pure, readonly)
        );
    }
    (start, end)
}
