//! What an executed child has from the start: its environment, streams and directory.
//!
//! Runs in: the parent.
//! Invariant: a variable that the loader, the C library or a constructor reads is set before the execution, not after it.
//!
//! One exception: what the program itself has taken out of its environment since it was started, such as `LD_LIBRARY_PATH`, is
//! there while the loader works, if the loader was told so when the program was started. Else it would not find what it found
//! then. It is taken out again before the first task. What a builder asks for is always exact.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};

use super::attributes::{SpawnAttributes, attached, check_env, preparing};
use crate::codec::message::to_bytes;
use crate::error::{Error, Result};
use crate::link::boot_env::BOOT_ENV;
use crate::link::message::{self, Setup};
use crate::sys::quiet_file::QuietFile;
use crate::sys::{self, env, fd, memory};

/// See the top of this file.
#[derive(Debug)]
pub(crate) struct ExecContext {
    /// The memory with the message, then the descriptors that it names.
    descriptors: Vec<OwnedFd>,
}

impl ExecContext {
    /// For a child with these options.
    ///
    /// # Errors
    /// As [`super::setup`].
    pub(crate) fn new(options: &SpawnAttributes) -> Result<Self> {
        check_env(options)?;
        // The fork server's own are `/dev/null` and the root directory; a child that is to have these is told so like any other.
        let (roles, descriptors) = attached(options, None, None)?;
        let message = to_bytes(&message::ExecSetup { env: executed(options).0, attached: roles });
        let content = memory::create_empty("process-task-exec_context")
            .map_err(|errno| Error::could_not_start("reserve memory for its environment", errno))?;
        let mut content = QuietFile(File::from(content));
        content.write_all(&message).map_err(|error| preparing("write the environment", &error))?;
        Ok(Self { descriptors: [OwnedFd::from(content.0)].into_iter().chain(descriptors).collect() })
    }

    /// Descriptors for one request.
    pub(super) fn duplicate(&self) -> sys::Result<Vec<OwnedFd>> {
        self.descriptors.iter().map(|descriptor| fd::duplicate(descriptor.as_fd())).collect()
    }
}

/// Adds to the setup of a child that is executed what its environment has to lose or to get back then.
pub(super) fn correct(options: &SpawnAttributes, setup: &mut Setup) {
    for (key, value) in executed(options).1 {
        match value {
            Some(value) => setup.set_env.push((key, value)),
            None => setup.remove_env.push(key),
        }
    }
}

type Variables = Vec<(OsString, OsString)>;

/// The environment that a child is executed with, and what is to be changed when it is there.
fn executed(options: &SpawnAttributes) -> (Variables, Vec<(OsString, Option<OsString>)>) {
    let mut variables: Variables = if options.clear_env { Vec::new() } else { std::env::vars_os().collect() };
    variables.retain(|(key, _)| key != BOOT_ENV);
    for (key, value) in &options.env {
        variables.retain(|(set, _)| set != key);
        variables.extend(value.clone().map(|value| (key.clone(), value)));
    }
    let mut changes = Vec::new();
    let exact = |key: &str| options.clear_env || options.env.iter().any(|(asked, _)| asked == key);
    for noted in env::loader().iter().filter(|noted| !exact(noted.key)) {
        match variables.iter_mut().find(|(key, _)| key == noted.key) {
            None => {
                variables.push((noted.key.into(), noted.absolute.clone()));
                changes.push((noted.key.into(), None));
            }
            Some((key, value)) if *value == noted.value && noted.value != noted.absolute => {
                changes.push((key.clone(), Some(std::mem::replace(value, noted.absolute.clone()))));
            }
            Some(_) => {}
        }
    }
    (variables, changes)
}
