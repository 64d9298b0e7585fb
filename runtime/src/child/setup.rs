//! Applies a setup: environment, directory, streams, limits, name.
//!
//! Runs in: a child, on its only thread, before its first call. The first step that fails ends it.
//!
//! Why a child with the terminal as stdin leaves its own group for its parent's: to give its group the terminal
//! instead would take Ctrl-C from the program, and stop the program when it reads.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::codec::message::from_bytes;
use crate::link::message::{Attached, ExecSetup, Setup, SetupRefusal};
use crate::sys::identity::{self, Identity};
use crate::sys::{Errno, cpu, env, fd, hangup, limits, process, signal};

/// Does what `setup` says; `attached` are the descriptors that came with it.
///
/// # Errors
/// The step that failed, and the kernel's reason.
pub(super) fn apply(setup: Setup, attached: &[OwnedFd]) -> Result<(), SetupRefusal> {
    attach(&setup.attached, attached)?;
    if setup.clear_env {
        std::env::vars_os().for_each(|(key, _)| env::remove(&key));
    }
    setup.remove_env.iter().for_each(|key| env::remove(key));
    setup.set_env.iter().for_each(|(key, value)| env::set(key, value));
    if let Some(niceness) = setup.niceness {
        limits::set_niceness(niceness).map_err(|errno| refusal("set its niceness", errno))?;
    }
    if let Some(cpus) = &setup.cpus {
        cpu::set_allowed(cpus).map_err(|errno| refusal("choose its processors", errno))?;
    }
    for (place, values) in setup.limits {
        if place == limits::ADDRESS_SPACE
            && let Some(refusal) = refuse_memory(values.0)
        {
            return Err(refusal);
        }
        limits::set(place, values).map_err(|errno| refusal("set its resource limits", errno))?;
    }
    for attribute in setup.attributes {
        attribute.inherit().map_err(|errno| refusal(attribute.step(), errno))?;
    }
    if setup.shares_group {
        process::join_group_of(setup.parent.0);
        if !process::leads_group(process::own_pid()) {
            hangup::give_up();
        }
        signal::restore_tostop();
    }
    process::set_name(&setup.name);
    if setup.ignores_termination {
        signal::ignore_terminal();
    }
    signal::set_mask(setup.mask);
    let Setup { name, parent, depth, ignores_termination, .. } = setup;
    identity::set(Identity { name, parent, depth, ignores_termination });
    Ok(())
}

/// How much this program maps before it has run anything.
static MAPPED_BYTES: AtomicU64 = AtomicU64::new(0);

/// Notes how much this process has mapped, unless the one that it is a copy of has noted it.
pub(super) fn measure() {
    if MAPPED_BYTES.load(Relaxed) == 0 {
        MAPPED_BYTES.store(process::mapped_memory(), Relaxed);
    }
}

/// Refuses a limit of address space that this program exceeds before it has run anything: each allocation would fail.
pub(super) fn refuse_memory(limit: u64) -> Option<SetupRefusal> {
    let mapped = MAPPED_BYTES.load(Relaxed);
    let step = || {
        format!(
            "limit its memory to {limit} bytes: a process of this program has {mapped} bytes of address space mapped \
             before it runs anything"
        )
    };
    (limit < mapped).then(|| SetupRefusal { step: step(), errno: 0 })
}

/// Puts streams and directory on, and returns the environment, for a process that will execute the program next.
///
/// `descriptors` are the memory with a [`ExecSetup`], and those that it names; without them, there is the fork server's own environment,
/// and nothing else changes: then the child was to be forked.
///
/// # Errors
/// The step that failed, and the kernel's reason.
pub(super) fn dress(descriptors: impl Iterator<Item = OwnedFd>) -> Result<Vec<(OsString, OsString)>, SetupRefusal> {
    let mut descriptors = descriptors;
    let Some(content) = descriptors.next() else { return Ok(std::env::vars_os().collect()) };
    let unreadable = |_| refusal("read its environment", Errno::EPROTO);
    let content = File::from(content);
    let len = usize::try_from(content.metadata().map_err(unreadable)?.len())
        .map_err(|_| refusal("read its environment", Errno::EPROTO))?;
    let mut bytes = vec![0; len];
    // At a place, and not where the last reader stopped: the parent may have to send the same memory once more.
    content.read_exact_at(&mut bytes, 0).map_err(unreadable)?;
    let dress: ExecSetup = from_bytes(&bytes).map_err(|_| refusal("read its environment", Errno::EPROTO))?;
    let attached: Vec<OwnedFd> = descriptors.collect();
    attach(&dress.attached, &attached)?;
    Ok(dress.env)
}

/// Puts each descriptor where its role says.
fn attach(roles: &[Attached], descriptors: &[OwnedFd]) -> Result<(), SetupRefusal> {
    if descriptors.len() != roles.len() {
        return Err(refusal("receive its descriptors", Errno::EMFILE));
    }
    for (role, descriptor) in roles.iter().zip(descriptors) {
        let descriptor = descriptor.as_fd();
        match role {
            Attached::Stdin => fd::replace_stdio(descriptor, 0).map_err(|errno| refusal("set its stdin", errno)),
            Attached::Stdout => fd::replace_stdio(descriptor, 1).map_err(|errno| refusal("set its stdout", errno)),
            Attached::Stderr => fd::replace_stdio(descriptor, 2).map_err(|errno| refusal("set its stderr", errno)),
            Attached::Directory => {
                fd::change_directory(descriptor).map_err(|errno| refusal("change to its working directory", errno))
            }
        }?;
    }
    Ok(())
}

pub(super) fn refusal(step: &str, errno: Errno) -> SetupRefusal {
    SetupRefusal { step: step.to_owned(), errno: errno as i32 }
}
