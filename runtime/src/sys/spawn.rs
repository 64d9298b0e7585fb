//! Starting this program's image from a process that may be large and have many threads.
//!
//! Owns: what happens between the copy and `execve`. Runs in: a parent, which calls it once for each fork server.
//! Never: copies the caller's address space, so it takes as long in a large program as in a small one.
//!
//! It is what `posix_spawn(3)` does, `clone(CLONE_VM | CLONE_VFORK)` onto a stack of its own, with one step that no file action has
//! on every C library: everything is marked close-on-exec ([`inherit`]). Until `execve` the new process runs in the
//! caller's memory while the calling thread is stopped, so it makes plain system calls, and nothing else. All signals are
//! blocked from before the copy until the new process has no handlers left.
#![expect(unsafe_code, reason = "clone(2), and system calls between it and execve(2)")]

use std::ffi::{CStr, CString, c_char, c_int, c_long, c_void};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

use nix::errno::Errno;
use nix::libc;

use super::process::{Pid, reap};
use super::{inherit, signal};

/// The stack of the new process until `execve`.
const STACK_BYTES: usize = 64 << 10;

/// The bytes of a signal set as the kernel has it.
const MASK_BYTES: usize = 8;

/// What the new process needs, made before the copy.
struct SpawnPlan {
    path: *const c_char,
    args: *const *const c_char,
    env: *const *const c_char,
    socket: c_int,
    null: c_int,
    leads_group: bool,
    /// Why it was not executed.
    failed: AtomicI32,
}

/// Starts this program's image again, with `socket` as its descriptor of that number: as the leader of a process group of its
/// own, or in this process's.
///
/// Standard input is `null`, and so are the other two streams if they are closed. Other descriptors are not inherited.
/// Signals are as a new program expects them, but that those of job control wait until they are asked for.
///
/// # Errors
/// What the kernel said of the copy, or of `execve(2)`.
pub(crate) fn spawn_image(
    path: &CStr,
    (socket, null): (BorrowedFd<'_>, BorrowedFd<'_>),
    leads_group: bool,
    (args, env): (&[CString], &[CString]),
) -> nix::Result<Pid> {
    let (args, env) = (pointers(args), pointers(env));
    let plan = SpawnPlan {
        path: path.as_ptr(),
        args: args.as_ptr(),
        env: env.as_ptr(),
        socket: socket.as_raw_fd(),
        null: null.as_raw_fd(),
        leads_group,
        failed: AtomicI32::new(0),
    };
    // Elements of 16 bytes, since a stack has to be aligned so.
    let mut stack = vec![0_u128; STACK_BYTES / size_of::<u128>()];
    let top = stack.as_mut_ptr_range().end.cast::<c_void>();
    let before = signal::block_all();
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the stack and the plan outlive the new process's use of them: this thread goes on once that one has executed
    // or ended. The function makes system calls only, so it leaves no lock of this process in another state.
    let pid = unsafe { libc::clone(become_image, top, flags, (&raw const plan).cast_mut().cast()) };
    let pid = Errno::result(pid).map(Pid::from_raw);
    signal::set_mask(before);
    let pid = pid?;
    match plan.failed.load(Relaxed) {
        0 => Ok(pid),
        failed => {
            let _ = reap(pid);
            Err(Errno::from_raw(failed))
        }
    }
}

/// As `execve(2)` takes them: pointers, and a null at the end.
fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}

/// Becomes the image that the plan names.
///
/// Runs in: the new process, on a stack of its own, in the memory of the parent.
extern "C" fn become_image(plan: *mut c_void) -> c_int {
    // SAFETY: the caller of `clone` lends its plan until this process has executed or ended.
    let plan = unsafe { &*plan.cast_const().cast::<SpawnPlan>() };
    plan.failed.store(prepare_and_execute(plan) as i32, Relaxed);
    // SAFETY: takes a number and does not return.
    unsafe { libc::syscall(libc::SYS_exit_group, 127) };
    127
}

/// Returns only if it failed.
fn prepare_and_execute(plan: &SpawnPlan) -> Errno {
    // SAFETY: takes two numbers and touches no memory.
    if plan.leads_group && unsafe { libc::syscall(libc::SYS_setpgid, 0, 0) } < 0 {
        return Errno::last();
    }
    // Four words of zeros are the default disposition, without flags and with an empty mask.
    let default = [0_u64; 4];
    for signal in (1..=64).filter(|signal| ![libc::SIGKILL, libc::SIGSTOP].contains(signal)) {
        let none = ptr::null_mut::<c_void>();
        // SAFETY: the kernel reads one `struct sigaction`, which is not longer than this array.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), none, MASK_BYTES) };
    }
    inherit::close_all_on_exec();
    if inherit::leave_open(plan.socket) < 0 || put_null_on(plan.null, 0) < 0 {
        return Errno::last();
    }
    for stream in [1, 2] {
        // SAFETY: takes two numbers and touches no memory.
        if unsafe { libc::syscall(libc::SYS_fcntl, stream, libc::F_GETFD) } < 0 && put_null_on(plan.null, stream) < 0 {
            return Errno::last();
        }
    }
    let blocked = signal::JOB_CONTROL;
    let no_old = ptr::null_mut::<c_void>();
    // SAFETY: the kernel reads one signal set of this length; no handler is left that could run.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const blocked, no_old, MASK_BYTES) };
    // SAFETY: a path, and two arrays of strings that end with a null, all made before the copy.
    unsafe { libc::syscall(libc::SYS_execve, plan.path, plan.args, plan.env) };
    Errno::last()
}

fn put_null_on(null: c_int, stream: c_int) -> c_long {
    // SAFETY: takes three numbers and touches no memory.
    unsafe { libc::syscall(libc::SYS_dup3, null, stream, 0) }
}
