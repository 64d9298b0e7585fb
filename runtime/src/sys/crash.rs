//! Telling a stack overflow apart from other segmentation faults.
//!
//! Owns: the handlers of `SIGSEGV` and `SIGBUS` in a child, and the second stack they run on, if there was none. Runs in: a
//! child, and the fork server. Invariant: an overflow ends the process, and other faults reach the handler that was there before.
//!
//! Before `main`, std has installed no such handler. Ours covers the thread that runs tasks; a thread that the task
//! started has no second stack, so its overflow stays a plain segmentation fault.
//!
//! A sanitizer, or a library that reports crashes, may have installed a handler already. It gets every other fault as if
//! ours were not there: with the same arguments, mask and stack. It is called by ours if it runs on the second stack. If not,
//! it is put back, and the instruction faults again. An overflow is reported by ours first, and then by the one that was there.
#![expect(unsafe_code, reason = "a signal handler on a stack of its own")]

use std::ffi::{c_int, c_void};
use std::ptr::{self, null_mut};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering::Relaxed};

use nix::libc;

use super::stack;

/// Number of bytes below the end of the stack in which an access counts as overflow: the kernel's gap of 256 pages, and a
/// big frame.
const GUARD_BYTES: usize = 4 << 20;

/// Size of the second stack, if ours is used. A report of another handler may need most of it. Pages that are not touched
/// take no memory.
const SECOND_STACK_BYTES: usize = 256 << 10;

const PAGE_BYTES: usize = 4096;

const SIGNALS: [c_int; 2] = [libc::SIGSEGV, libc::SIGBUS];

static FLAG: AtomicPtr<AtomicU32> = AtomicPtr::new(null_mut());
static STACK_LOW: AtomicUsize = AtomicUsize::new(0);

/// The action that was installed before, for each of [`SIGNALS`]: null, or a box that is never freed.
static PREVIOUS: [AtomicPtr<libc::sigaction>; 2] = [const { AtomicPtr::new(null_mut()) }; 2];

/// Makes an overflow of this thread's stack set `overflowed` to 1, before it aborts the process.
pub(crate) fn set_overflow_flag(overflowed: &'static AtomicU32) {
    FLAG.store(ptr::from_ref(overflowed).cast_mut(), Relaxed);
}

/// Makes an overflow of this thread's stack abort the process with a message.
///
/// Runs in: the fork server, so that its children need not, and in a child that was executed.
pub(crate) fn install() {
    find_stack();
    if !has_second_stack() {
        make_second_stack();
    }
    for (signal, place) in SIGNALS.into_iter().zip(&PREVIOUS) {
        // SAFETY: all zero is a valid `sigaction`: no flags, an empty mask, the default handler.
        let mut before: Box<libc::sigaction> = Box::new(unsafe { std::mem::zeroed() });
        // SAFETY: asks only, and writes the answer into `before`, which is borrowed for the call.
        unsafe { libc::sigaction(signal, ptr::null(), &raw mut *before) };
        let mut action = *before;
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | before.sa_flags & (libc::SA_NODEFER | libc::SA_RESTART);
        place.store(Box::into_raw(before), Relaxed);
        // SAFETY: the handler does only what is allowed in one: atomics, write, sigaction, raise, abort; and what the
        // handler that was there before does.
        unsafe { libc::sigaction(signal, &raw const action, null_mut()) };
    }
}

/// Finds the end of this thread's stack again, after a change of its limit.
pub(crate) fn find_stack() {
    STACK_LOW.store(stack::find(), Relaxed);
}

fn has_second_stack() -> bool {
    let mut now = libc::stack_t { ss_sp: null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
    // SAFETY: asks only, and writes the answer into `now`, which is borrowed for the call.
    let asked = unsafe { libc::sigaltstack(ptr::null(), &raw mut now) };
    asked == 0 && now.ss_flags & libc::SS_DISABLE == 0
}

/// Maps the second stack above a guard page. It is not allocated, or a leak checker would report it.
fn make_second_stack() {
    let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping, which overlaps nothing.
    let start = unsafe { libc::mmap(null_mut(), PAGE_BYTES + SECOND_STACK_BYTES, access, flags, -1, 0) };
    if start == libc::MAP_FAILED {
        return;
    }
    // SAFETY: the first page of the mapping that was just made, which nothing uses.
    unsafe { libc::mprotect(start, PAGE_BYTES, libc::PROT_NONE) };
    let stack = libc::stack_t { ss_sp: start.wrapping_byte_add(PAGE_BYTES), ss_flags: 0, ss_size: SECOND_STACK_BYTES };
    // SAFETY: the memory is never unmapped and used for nothing else.
    unsafe { libc::sigaltstack(&raw const stack, null_mut()) };
}

extern "C" fn handler(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes a valid `siginfo_t` to a handler installed with SA_SIGINFO.
    let said = unsafe { &*info };
    // SAFETY: these two signals fill the address in, or it is not used below.
    let address = unsafe { said.si_addr() } as usize;
    let was_sent = said.si_code <= 0;
    let low = STACK_LOW.load(Relaxed);
    let overflow = !was_sent && (low.saturating_sub(GUARD_BYTES)..low + 8192).contains(&address);
    if overflow {
        report_overflow();
    }
    let place = SIGNALS.iter().position(|handled| *handled == signal).map(|at| &PREVIOUS[at]);
    // SAFETY: null, or a box that is never freed.
    let before = place.and_then(|place| unsafe { place.load(Relaxed).as_ref() });
    match before.filter(|before| before.sa_sigaction != libc::SIG_DFL) {
        Some(before) if before.sa_sigaction == libc::SIG_IGN && was_sent => {}
        Some(before) if before.sa_sigaction != libc::SIG_IGN => {
            if was_sent || before.sa_flags & libc::SA_ONSTACK != 0 {
                call(before, signal, info, context);
            } else if !overflow {
                // SAFETY: puts back what was there; the faulting instruction runs again, and the kernel calls it. After an
                // overflow no stack is left on which it could run.
                unsafe { libc::sigaction(signal, before, null_mut()) };
            }
        }
        _ if !overflow => raise_default(signal, was_sent),
        _ => {}
    }
    if overflow {
        // SAFETY: takes nothing and does not return.
        unsafe { libc::abort() };
    }
}

fn report_overflow() {
    // SAFETY: null, or a static reference from `set_overflow_flag`.
    if let Some(flag) = unsafe { FLAG.load(Relaxed).as_ref() } {
        flag.store(1, Relaxed);
    }
    let text = b"\na process task has overflowed its stack\n";
    // SAFETY: the bytes are borrowed across the call.
    unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
}

/// Calls the handler that was installed before, as the kernel would have.
fn call(before: &libc::sigaction, signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    if before.sa_flags & libc::SA_RESETHAND != 0 {
        // SAFETY: gives the signal back to the kernel, as it would have done for the handler that was there.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let address: *const () = ptr::with_exposed_provenance(before.sa_sigaction);
    if before.sa_flags & libc::SA_SIGINFO == 0 {
        // SAFETY: it was installed as a handler that takes one number, and is neither of the two that are no functions.
        let function = unsafe { std::mem::transmute::<*const (), extern "C" fn(c_int)>(address) };
        function(signal);
    } else {
        type WithInfo = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);
        // SAFETY: it was installed as a handler that takes these three, and is neither of the two that are no functions.
        let function = unsafe { std::mem::transmute::<*const (), WithInfo>(address) };
        function(signal, info, context);
    }
}

/// Ends this process by the default action of the signal.
fn raise_default(signal: c_int, was_sent: bool) {
    // SAFETY: gives the signal back to the kernel; a faulting instruction runs again and ends the process.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
    if was_sent {
        // SAFETY: the signal is pending until this handler returns, then its default action ends the process.
        unsafe { libc::raise(signal) };
    }
}
