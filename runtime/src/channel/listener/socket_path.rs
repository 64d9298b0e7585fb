//! The path of a local socket, in a directory that only its owner can read.
//!
//! Owns: [`SocketPath`], and the name of a socket that listens, which goes with it. Runs in: any process.
//! Never: uses a directory in which another user could put a socket, or remove ours.
//!
//! # Two that begin at once
//!
//! A process that begins to listen locks the directory until its socket listens, and one that stops does so to remove the
//! name. So a name without a listener is always what a killed process left, and is replaced; one with a listener is never.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::channel::error::channel_failed;
use crate::error::{Error, Result};
use crate::sys::{Errno, fd, peer_cred, unix_listener};

/// How long a process that begins waits for another that does.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A directory that is ours, and a name in it.
#[derive(Debug)]
pub(super) struct SocketPath {
    path: PathBuf,
    folder: OwnedFd,
    name: PathBuf,
}

/// The name of a socket that listens.
#[derive(Debug)]
pub(super) struct BoundPath {
    place: SocketPath,
    file: fd::FileId,
    /// The directory, if it was made for it, from the root on: this process may go elsewhere.
    made_folder: Option<PathBuf>,
    /// A copy of this process does not remove what its origin still uses.
    process: u32,
}

impl SocketPath {
    /// # Errors
    /// The path has no last part that can be a name, or its directory is not there, or is not ours alone.
    pub(super) fn at(path: &Path) -> Result<Self> {
        if path.as_os_str().as_bytes().contains(&0) {
            return Err(Error::invalid(
                "a socket needs a path without zero bytes: names that are in no directory have no owner, and any process \
                 can take them first",
            ));
        }
        let Some(name) = path.file_name() else {
            return Err(Error::invalid(format!("`{}` does not end with a name for a socket", path.display())));
        };
        let parent = parent(path);
        let folder = unix_listener::folder(parent).map_err(|errno| match errno {
            Errno::ENOTDIR | Errno::ELOOP => Error::invalid(format!(
                "the directory `{}` of a socket has to be one itself, and no link or anything else that others may lead \
                 elsewhere",
                parent.display()
            )),
            errno => failed_at("open the directory of the socket", path, errno),
        })?;
        let (owner, others) =
            unix_listener::owner(folder.as_fd()).map_err(|errno| channel_failed("look whose a directory is", errno))?;
        let us = peer_cred::own_user();
        let place = parent.display();
        if owner != us {
            return Err(Error::invalid(format!(
                "the directory `{place}` of a socket belongs to user {owner} and not to user {us}, for whom this process runs"
            )));
        }
        if others != 0 {
            return Err(Error::invalid(format!(
                "the directory `{place}` of a socket can be used by others than its owner (mode {:o}); it needs mode 700: \
                 take one that has nothing else in it, which is made if it is not there",
                others | 0o700
            )));
        }
        Ok(Self { path: path.to_owned(), folder, name: Path::new(name).to_owned() })
    }

    /// A connection to the process that listens here.
    pub(super) fn connect(&self) -> Result<OwnedFd> {
        let socket = unix_listener::connect_at(self.folder.as_fd(), &self.name)
            .map_err(|errno| failed_at("connect to the socket", &self.path, errno))?;
        check_user(&socket)?;
        Ok(socket)
    }

    /// Listens here; the directory is made if there is none.
    pub(super) fn listen(path: &Path) -> Result<(OwnedFd, BoundPath)> {
        let folder = std::path::absolute(parent(path))
            .map_err(|error| channel_failed("ask for the directory of this process", crate::sys::errno_of(&error)))?;
        let end = Instant::now() + CONNECT_TIMEOUT;
        loop {
            let made = match unix_listener::make_folder(&folder) {
                Ok(()) => true,
                Err(Errno::EEXIST) => false,
                Err(errno) => return Err(failed_at("make the directory of the socket", path, errno)),
            };
            match Self::listen_in_folder(path, made.then_some(&folder), end) {
                Ok(None) => {}
                Ok(Some(listening)) => return Ok(listening),
                Err(error) => {
                    if made {
                        unix_listener::remove_folder(&folder);
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Listens here, in a directory that is there; if it was made for that, it is `made`. `None`: another process has
    /// removed it meanwhile.
    fn listen_in_folder(path: &Path, made: Option<&PathBuf>, end: Instant) -> Result<Option<(OwnedFd, BoundPath)>> {
        let place = match Self::at(path) {
            // The process that made it has removed it.
            Err(error) if was_removed(&error) && Instant::now() < end => return Ok(None),
            place => place?,
        };
        let lock = match lock(place.folder.as_fd(), end) {
            Err(Errno::ENOENT) if Instant::now() < end => return Ok(None),
            lock => lock.map_err(|errno| failed_at("lock the directory of the socket", path, errno))?,
        };
        let listening = place.listen_alone();
        drop(lock);
        match listening {
            Err(Errno::ENOENT) if Instant::now() < end => Ok(None),
            Err(Errno::EADDRINUSE) => Err(Error::invalid(format!(
                "`{}` is the name of something else, or a process listens there already",
                path.display()
            ))),
            Err(errno) => Err(failed_at("listen at the socket", path, errno)),
            Ok((socket, file)) => {
                let (made_folder, process) = (made.cloned(), std::process::id());
                Ok(Some((socket, BoundPath { place, file, made_folder, process })))
            }
        }
    }

    /// Listens here, while no other process begins to.
    fn listen_alone(&self) -> crate::sys::Result<(OwnedFd, fd::FileId)> {
        let folder = self.folder.as_fd();
        let socket = match unix_listener::listen_at(folder, &self.name) {
            Err(Errno::EADDRINUSE) => {
                let (_, is_socket) = unix_listener::socket_in(folder, &self.name)?;
                if !is_socket || unix_listener::has_listener(folder, &self.name)? {
                    return Err(Errno::EADDRINUSE);
                }
                unix_listener::remove(folder, &self.name)?;
                unix_listener::listen_at(folder, &self.name)?
            }
            socket => socket?,
        };
        let (file, _) = unix_listener::socket_in(folder, &self.name)?;
        Ok((socket, file))
    }
}

impl BoundPath {
    pub(super) fn path(&self) -> &Path {
        &self.place.path
    }
}

impl Drop for BoundPath {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            return;
        }
        let folder = self.place.folder.as_fd();
        let lock = lock(folder, Instant::now() + CONNECT_TIMEOUT);
        // Another process may have removed it, and put another in its place.
        let is_ours = unix_listener::socket_in(folder, &self.place.name).is_ok_and(|(file, _)| file == self.file);
        if lock.is_ok() && is_ours {
            let _ = unix_listener::remove(folder, &self.place.name);
        }
        if let Some(path) = &self.made_folder
            && unix_listener::folder(path).is_ok_and(|there| fd::file_id(there.as_fd()) == fd::file_id(folder))
        {
            unix_listener::remove_folder(path);
        }
    }
}

/// Whether the process at the other end runs for the same user as this one, or for root, which may do anything anyway.
///
/// # Errors
/// It does not.
pub(super) fn check_user(socket: &OwnedFd) -> Result<()> {
    let user = peer_cred::peer_user(socket.as_fd()).map_err(|errno| channel_failed("ask who is at a socket", errno))?;
    let us = peer_cred::own_user();
    if user == us || user == 0 {
        return Ok(());
    }
    Err(super::refused(format!(
        "the peer runs as user {user}, this process as user {us}; a path connects processes of one user"
    )))
}

/// Locks a directory of sockets, as soon as no other process has it locked.
fn lock(folder: BorrowedFd<'_>, end: Instant) -> crate::sys::Result<impl Sized + use<>> {
    loop {
        match unix_listener::lock(folder) {
            Err(Errno::EWOULDBLOCK) if Instant::now() < end => thread::sleep(Duration::from_millis(1)),
            lock => return lock,
        }
    }
}

/// The kernel refused what was to be done with the socket of this name.
fn failed_at(step: &str, path: &Path, errno: Errno) -> Error {
    super::failed(format!("{step} `{}`", path.display()), errno)
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| *parent.as_os_str() != *OsStr::new("")).unwrap_or(Path::new("."))
}

fn was_removed(error: &Error) -> bool {
    let gone = Errno::ENOENT as i32;
    matches!(error.kind(), crate::error::ErrorKind::ChannelFailed { errno, .. } if *errno == gone)
}
