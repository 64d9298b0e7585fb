//! Telling a stack overflow apart from other segmentation faults.
//!
//! Owns: the handlers of `SIGSEGV` and `SIGBUS` in a child, and the second stack they run on. Runs in: a child, and the fork server.
//! Never: survives. The handler says what it saw, and the process ends as it would have.
//!
//! Before `main`, std has installed no such handler. Ours covers the thread that runs tasks; a thread that the task
//! started has no second stack, so its overflow stays a plain segmentation fault.
#![expect(unsafe_code, reason = "a signal handler on a stack of its own")]

use std::ffi::{c_int, c_void};
use std::ptr::{self, null_mut};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering::Relaxed};

use nix::libc;

use super::stack;

/// How far below the end of the stack an access still counts: the kernel's gap of 256 pages, and a big frame.
const BELOW: usize = 4 << 20;

static FLAG: AtomicPtr<AtomicU32> = AtomicPtr::new(null_mut());
static STACK_LOW: AtomicUsize = AtomicUsize::new(0);

/// From now on, an overflow of this thread's stack sets `overflowed` to 1, before it aborts the process.
pub(crate) fn tell(overflowed: &'static AtomicU32) {
    FLAG.store(ptr::from_ref(overflowed).cast_mut(), Relaxed);
}

/// From now on, an overflow of this thread's stack aborts the process with a message.
///
/// Runs in: the fork server, so that its children need not, and in a child that was executed.
pub(crate) fn install() {
    find_stack();
    let memory: &'static mut [u8] = Box::leak(vec![0; 64 << 10].into_boxed_slice());
    let stack = libc::stack_t { ss_sp: memory.as_mut_ptr().cast(), ss_flags: 0, ss_size: memory.len() };
    // SAFETY: the memory is never freed and used for nothing else.
    unsafe { libc::sigaltstack(&raw const stack, null_mut()) };
    // SAFETY: all zero is a valid `sigaction`: no flags, an empty mask, the default handler.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        // SAFETY: the handler does only what is allowed in one: atomics, write, sigaction, raise, abort.
        unsafe { libc::sigaction(signal, &raw const action, null_mut()) };
    }
}

/// Looks again where this thread's stack ends: its limit has changed.
pub(crate) fn find_stack() {
    STACK_LOW.store(stack::find(), Relaxed);
}

extern "C" fn handler(signal: c_int, info: *mut libc::siginfo_t, _context: *mut c_void) {
    // SAFETY: the kernel passes a valid `siginfo_t` to a handler installed with SA_SIGINFO.
    let info = unsafe { &*info };
    let code = info.si_code;
    // SAFETY: these two signals fill the address in, or it is not used below.
    let address = unsafe { info.si_addr() } as usize;
    let sent_by_somebody = code <= 0;
    let low = STACK_LOW.load(Relaxed);
    if !sent_by_somebody && (low.saturating_sub(BELOW)..low + 8192).contains(&address) {
        // SAFETY: null, or a reference that `install` was given for ever.
        if let Some(flag) = unsafe { FLAG.load(Relaxed).as_ref() } {
            flag.store(1, Relaxed);
        }
        let text = b"\na process task has overflowed its stack\n";
        // SAFETY: the bytes are borrowed across the call.
        unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
        // SAFETY: takes nothing and does not return.
        unsafe { libc::abort() };
    }
    // SAFETY: gives the signal back to the kernel; the faulting instruction runs again and ends the process.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
    if sent_by_somebody {
        // SAFETY: the signal is pending until this handler returns, then its default action ends the process.
        unsafe { libc::raise(signal) };
    }
}
