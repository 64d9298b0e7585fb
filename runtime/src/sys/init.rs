//! Running before `main`: a constructor of our own, and then those that would have come after it.
//!
//! Owns: what the C library gave our constructor. Runs in: every process, before `main`.
//! Never: runs anything in a process that is not a child of ours; that is decided by the function it is given.
//!
//! `inventory` registers tasks by constructors in `.init_array`, and so do we. A child takes over in ours and never
//! returns, so it first runs the entries behind its own, or tasks that would have registered later are missing (with
//! thin LTO that was all of them). The linker names the ends of the array; a weak reference through the global offset
//! table finds them in static and dynamic programs, position independent or not, and reads 0 in a shared library.
#![expect(unsafe_code, reason = "an entry in .init_array, and calling the entries behind it")]

use std::arch::asm;
use std::ffi::{c_char, c_int};
use std::sync::OnceLock;

/// What the C library calls with `main`'s arguments.
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
                $crate::sys::init::note(&raw const ENTRY, argc, argv, envp);
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

struct Noted {
    entry: usize,
    count: c_int,
    argv: usize,
    envp: usize,
}

static NOTED: OnceLock<Noted> = OnceLock::new();

/// Keeps what the C library said, for the constructors behind `entry`.
pub(crate) fn note(entry: *const Constructor, count: c_int, argv: *const *const c_char, envp: *const *const c_char) {
    let _ = NOTED.set(Noted {
        entry: entry.expose_provenance(),
        count,
        argv: argv.expose_provenance(),
        envp: envp.expose_provenance(),
    });
}

/// Where our constructor stands among all constructors of the program, counted from 0: the same in each process of a binary.
///
/// It is 0, too, in a shared library, and in a process that has not come to our constructor.
pub(crate) fn place() -> usize {
    let (start, end) = bounds();
    let entry = NOTED.get().map_or(0, |noted| noted.entry);
    if (start..end).contains(&entry) { (entry - start) / size_of::<Constructor>() } else { 0 }
}

/// Calls every constructor that stands behind ours.
///
/// Runs in: a child, in the middle of our own constructor, once.
pub(crate) fn run_the_rest() {
    let Some(noted) = NOTED.get() else { return };
    let (start, end) = bounds();
    if !(start..end).contains(&noted.entry) {
        return;
    }
    let argv = std::ptr::with_exposed_provenance(noted.argv);
    let envp = std::ptr::with_exposed_provenance(noted.envp);
    let mut entry = noted.entry + size_of::<Constructor>();
    while entry < end {
        let constructor: *const Option<Constructor> = std::ptr::with_exposed_provenance(entry);
        // SAFETY: between the linker's two marks lies an array of function pointers, and `entry` is one of them.
        if let Some(constructor) = unsafe { constructor.read() } {
            constructor(noted.count, argv, envp);
        }
        entry += size_of::<Constructor>();
    }
}

/// The addresses of the array's first entry and of its end; both 0 in a shared library.
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
