//! A filter as containers and sandboxes install one: some system calls are refused, in this process and in all that it starts.
//!
//! Runs in: victims. Never: in a test process, which could not get rid of it.
#![expect(unsafe_code, reason = "nix has no wrapper for PR_SET_SECCOMP")]

use nix::errno::Errno;
use nix::libc;

/// What becomes of a call that is on the list.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    Errno(Errno),
    /// The process is killed by `SIGSYS`.
    Kill,
}

/// From now on, and for ever, answers so to each of `calls` on this thread and on those that it starts.
pub(crate) fn refuse(calls: &[i64], answer: Answer) {
    let load = u16::try_from(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS).unwrap();
    let jump = u16::try_from(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K).unwrap();
    let end = u16::try_from(libc::BPF_RET | libc::BPF_K).unwrap();
    let step = |code, jt, k| libc::sock_filter { code, jt, jf: 0, k };
    let refused = match answer {
        Answer::Errno(errno) => libc::SECCOMP_RET_ERRNO | (errno as i32).unsigned_abs(),
        Answer::Kill => libc::SECCOMP_RET_KILL_PROCESS,
    };
    // The number of the call is the first word of what a filter sees.
    let mut program = vec![step(load, 0, 0)];
    for (at, call) in calls.iter().enumerate() {
        // Over the tests that are left, and over the answer for all others.
        let to_the_end = u8::try_from(calls.len() - at).unwrap();
        program.push(step(jump, to_the_end, u32::try_from(*call).unwrap()));
    }
    program.extend([step(end, 0, libc::SECCOMP_RET_ALLOW), step(end, 0, refused)]);
    let filter = libc::sock_fprog { len: u16::try_from(program.len()).unwrap(), filter: program.as_mut_ptr() };
    // SAFETY: takes numbers; a filter may be installed by a process that cannot get more rights by executing.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: the program and its description are borrowed across the call, which copies them.
    let installed = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    assert_eq!(installed, 0, "{}", Errno::last());
}
