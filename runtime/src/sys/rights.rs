//! What a thread may do, as far as the kernel shows it: ids, capabilities, filters, namespaces, root, control group.
//!
//! Owns: nothing. Runs in: a parent, which compares them whenever it asks for a process; a fork server gives capabilities up.
//! Never: changes another thread. Filters are counted, not compared: the kernel shows no more. Landlock is not shown at all.
//!
//! All of these belong to threads. The C library changes ids in every thread at once; `no_new_privs`, filters, capabilities and
//! namespaces are those of the thread that changes them, and of the threads that it starts later.
#![expect(unsafe_code, reason = "nix has no wrapper for capget(2), capset(2) and some options of prctl(2)")]

use std::ffi::CStr;
use std::os::fd::{AsFd as _, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::libc;
use nix::sys::stat::Mode;

use super::fd::{DirId, dir_id, own_dir_id};
use super::retry;

/// The lines of `/proc/<pid>/status` that are rights.
const STATUS_LINES: [&[u8]; 11] = [
    b"Uid:",
    b"Gid:",
    b"Groups:",
    b"CapInh:",
    b"CapPrm:",
    b"CapEff:",
    b"CapBnd:",
    b"CapAmb:",
    b"NoNewPrivs:",
    b"Seccomp:",
    b"Seccomp_filters:",
];

const CONTROL_GROUPS: &CStr = c"ns/cgroup";

/// The namespaces that a new process gets from its parent's thread.
const NAMESPACES: [&CStr; 8] = [
    c"ns/user",
    c"ns/net",
    c"ns/mnt",
    c"ns/uts",
    c"ns/ipc",
    CONTROL_GROUPS,
    c"ns/pid_for_children",
    c"ns/time_for_children",
];

/// What a link to a namespace says, filled up with zeroes.
type NamespaceLink = [u8; 32];

/// What a short file of `/proc` is not longer than.
const READ_BYTES: usize = 4096;

/// `PR_GET_MDWE`, from Linux 6.3; the crate `libc` does not have it for every C library.
const GET_MDWE: i32 = 66;

/// `CAP_SYS_ADMIN`, without which no thread changes any namespace but the user's.
const SYS_ADMIN: u32 = 21;

/// The rights of one thread at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rights {
    /// How often [`invalidate_all`] was called before.
    epoch: u64,
    /// The thread that has asked, if it asked for its own: see [`this_thread`].
    thread: Option<u64>,
    lines: Vec<u8>,
    permitted: u64,
    umask: Option<u32>,
    namespaces: Vec<NamespaceLink>,
    root: Option<DirId>,
    control_group: Vec<u8>,
    session: i32,
    /// Securebits, personality, and whether memory may not be made executable, which only the thread itself can ask for.
    own: Option<[i32; 3]>,
}

static EPOCH: AtomicU64 = AtomicU64::new(0);

/// From now on, no rights are the same as those before.
pub(crate) fn invalidate_all() {
    EPOCH.fetch_add(1, SeqCst);
}

/// A number that no other thread of this process has or has had; `None` while the thread ends.
fn this_thread() -> Option<u64> {
    static LAST: AtomicU64 = AtomicU64::new(0);
    thread_local! {
        static NUMBER: u64 = LAST.fetch_add(1, SeqCst);
    }
    NUMBER.try_with(|number| *number).ok()
}

impl Rights {
    /// Those of this thread. What can only have changed together with something else is taken from
    /// `before` if that has not, and this thread had those.
    ///
    /// # Errors
    /// A file could not be read for want of something, such as a descriptor. Without `/proc` nothing is [known](Self::is_known).
    pub(crate) fn of_this_thread(before: Option<&Self>) -> nix::Result<Self> {
        // SAFETY: takes numbers and touches no memory.
        let option = |number| unsafe { libc::prctl(number, 0, 0, 0, 0) };
        // SAFETY: takes a number; by this one the personality is asked for, and not set.
        let personality = unsafe { libc::personality(libc::c_ulong::from(u32::MAX)) };
        let own = [option(libc::PR_GET_SECUREBITS), personality, option(GET_MDWE)];
        Self::read("/proc/thread-self", before, Some(own))
    }

    /// Those of the thread that has this [name](thread_name); `None` if there is no such thread any more.
    ///
    /// # Errors
    /// As [`Rights::of_this_thread`].
    pub(crate) fn of(thread: &Path) -> nix::Result<Option<Self>> {
        let rights = Self::read(&Path::new("/proc").join(thread).to_string_lossy(), None, None)?;
        Ok(rights.is_known().then_some(rights))
    }

    fn read(folder: &str, before: Option<&Self>, own: Option<[i32; 3]>) -> nix::Result<Self> {
        // Found once: the way through `/proc` takes longer than to read a file there.
        let folder = open_if_there(None, folder, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        let status = read_in(folder.as_ref(), "status")?;
        let mut lines = Vec::with_capacity(400);
        let (mut permitted, mut umask) = (0, None);
        // Most lines begin with other letters.
        let may_count = |line: &&[u8]| line.first().is_some_and(|first| b"UGCNS".contains(first));
        for line in status.split_inclusive(|byte| *byte == b'\n').filter(may_count) {
            if let Some(value) = line.strip_prefix(b"Umask:") {
                umask = number(value, 8).and_then(|mask| u32::try_from(mask).ok());
            } else if STATUS_LINES.iter().any(|start| line.starts_with(start)) {
                if let Some(value) = line.strip_prefix(b"CapPrm:") {
                    permitted = number(value, 16).unwrap_or(u64::MAX);
                }
                lines.extend_from_slice(line);
            }
        }
        // What another thread had says nothing: each may have changed its own before it gave the capability up.
        let thread = own.and_then(|_| this_thread());
        let before = before.filter(|before| before.thread == thread && thread.is_some());
        let before = before.filter(|before| (before.permitted | permitted) & 1 << SYS_ADMIN == 0);
        Ok(Self {
            epoch: EPOCH.load(SeqCst),
            thread,
            lines,
            permitted,
            umask,
            namespaces: folder.as_ref().map_or_else(Vec::new, |folder| namespaces(folder, before)),
            root: match &own {
                Some(_) => own_dir_id(c"/"),
                // A thread may have a root of its own.
                None => folder.as_ref().and_then(|folder| dir_id(folder.as_fd(), c"root")),
            },
            control_group: read_in(folder.as_ref(), "cgroup")?,
            session: nix::unistd::getsid(None).map_or(0, nix::unistd::Pid::as_raw),
            own,
        })
    }

    /// Whether a process that was started with `self` may serve a thread that has `other`. The umask is no right.
    pub(crate) fn same(&self, other: &Self) -> bool {
        let own = self.own.is_none() || other.own.is_none() || self.own == other.own;
        let here = (self.epoch, &self.lines, &self.namespaces, self.root, &self.control_group, self.session);
        let there = (other.epoch, &other.lines, &other.namespaces, other.root, &other.control_group, other.session);
        // Nothing is known where `/proc` did not tell; that is the same as nothing.
        own && self.is_known() && here == there
    }

    /// Whether control groups have the same names for threads that have `self` and `other`, so that one can look up the other's.
    pub(crate) fn sees_groups_as(&self, other: &Self) -> bool {
        let place = NAMESPACES.iter().position(|name| *name == CONTROL_GROUPS);
        place.is_some_and(|place| self.namespaces.get(place) == other.namespaces.get(place))
    }

    /// Whether anything is known. Without `/proc` it is not.
    pub(crate) fn is_known(&self) -> bool {
        !self.lines.is_empty()
    }

    /// Whether they are those of a thread that has not ended: a first thread that has stays in `/proc`, without namespaces.
    pub(crate) fn is_of_living_thread(&self) -> bool {
        self.namespaces.iter().any(|name| *name != NamespaceLink::default())
    }

    /// The umask, if the kernel shows it.
    pub(crate) fn umask(&self) -> Option<u32> {
        self.umask
    }
}

/// Which namespaces new processes of the thread behind `folder` are in.
///
/// Without `CAP_SYS_ADMIN`, then and now, only a new user namespace leads a thread to another one of the others. So they are as
/// `before` if that is the same.
fn namespaces(folder: &OwnedFd, before: Option<&Rights>) -> Vec<NamespaceLink> {
    let user = namespace_link(folder, NAMESPACES[0]);
    match before.filter(|before| before.namespaces.first() == Some(&user)) {
        Some(before) => before.namespaces.clone(),
        None => [user].into_iter().chain(NAMESPACES[1..].iter().map(|link| namespace_link(folder, link))).collect(),
    }
}

/// Whether this thread's children will be in another namespace of process ids than itself: by `unshare` or `setns`.
///
/// The kernel lets such a thread start no other thread.
pub(crate) fn has_other_pid_namespace_for_children() -> bool {
    let folder = open_if_there(None, "/proc/thread-self", OFlag::O_PATH | OFlag::O_DIRECTORY).ok().flatten();
    folder.is_some_and(|folder| namespace_link(&folder, c"ns/pid") != namespace_link(&folder, c"ns/pid_for_children"))
}

/// What a link to a namespace says, such as `net:[4026531840]`; zeroes if there is no such link.
fn namespace_link(folder: &OwnedFd, link: &CStr) -> NamespaceLink {
    let mut name = NamespaceLink::default();
    // SAFETY: the kernel writes at most so many bytes into the name, which is borrowed for the call, as the path is.
    unsafe { libc::readlinkat(folder.as_raw_fd(), link.as_ptr(), name.as_mut_ptr().cast(), name.len()) };
    name
}

/// Whether the kernel has no such file, or does not show it, and will not in a moment either.
fn is_unknown(errno: Errno) -> bool {
    !matches!(errno, Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM)
}

/// The umask of this process, if the kernel shows it.
pub(crate) fn umask() -> Option<u32> {
    Rights::read("/proc/thread-self", None, None).ok()?.umask
}

/// What stands behind a colon, in this base.
fn number(value: &[u8], base: u32) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(value).ok()?.trim(), base).ok()
}

/// A file of `/proc`; empty if it is not there.
///
/// # Errors
/// It could not be read for want of something.
pub(super) fn read(path: &str) -> nix::Result<Vec<u8>> {
    open_if_there(None, path, OFlag::O_RDONLY).map(read_file)
}

/// A file in a folder of `/proc`; empty if it is not there, or the folder is not.
fn read_in(folder: Option<&OwnedFd>, name: &str) -> nix::Result<Vec<u8>> {
    let Some(folder) = folder else { return Ok(Vec::new()) };
    open_if_there(Some(folder), name, OFlag::O_RDONLY).map(read_file)
}

fn open_if_there(folder: Option<&OwnedFd>, path: &str, flags: OFlag) -> nix::Result<Option<OwnedFd>> {
    let flags = flags | OFlag::O_CLOEXEC;
    let opened = retry(|| match folder {
        Some(folder) => openat(folder, path, flags, Mode::empty()),
        None => open(path, flags, Mode::empty()),
    });
    match opened {
        Err(errno) if is_unknown(errno) => Ok(None),
        opened => opened.map(Some),
    }
}

fn read_file(file: Option<OwnedFd>) -> Vec<u8> {
    let Some(file) = file else { return Vec::new() };
    // Such a file is made by the first read, and comes whole if there is room: standard ways to read a file take eight.
    let mut bytes = vec![0; READ_BYTES];
    let mut len = 0;
    loop {
        match retry(|| nix::unistd::read(&file, &mut bytes[len..])) {
            Ok(0) | Err(_) => break,
            Ok(more) => len += more,
        }
        if len < bytes.len() {
            break;
        }
        bytes.resize(2 * len, 0);
    }
    bytes.truncate(len);
    bytes
}

/// The name of this thread in `/proc`, such as `412/task/415`: the number that it has there, in whichever namespace that is.
pub(crate) fn thread_name() -> Option<std::path::PathBuf> {
    std::fs::read_link("/proc/thread-self").ok()
}

/// The name of the program's first thread.
pub(crate) fn main_thread_name() -> Option<std::path::PathBuf> {
    let process = std::fs::read_link("/proc/self").ok()?;
    Some(process.join("task").join(&process))
}

/// Capabilities: effective, permitted, inheritable.
pub(crate) type Capabilities = [u64; 3];

/// The kernel's header and data of `capget(2)`, version 3: two sets of 32 bits each.
#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

const VERSION: u32 = 0x2008_0522;

/// The capabilities of this thread; `None` if the kernel does not say.
pub(crate) fn capabilities() -> Option<Capabilities> {
    let (header, mut data) = (CapHeader { version: VERSION, pid: 0 }, [[0u32; 3]; 2]);
    // SAFETY: the kernel writes two triples of words for this version.
    let answer = unsafe { libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) };
    (answer == 0).then(|| [0, 1, 2].map(|kind| u64::from(data[0][kind]) | u64::from(data[1][kind]) << 32))
}

/// Gives up each capability of this thread that is not in `wanted`. Being executed as root had given it all back.
pub(crate) fn keep_capabilities(wanted: Capabilities) -> nix::Result<()> {
    let own = capabilities().ok_or_else(Errno::last)?;
    let kept = [0, 1, 2].map(|kind| own[kind] & wanted[kind]);
    if kept == own {
        return Ok(());
    }
    let half = |shift: u32| kept.map(|set| u32::try_from(set >> shift & u64::from(u32::MAX)).unwrap_or(0));
    let (header, data) = (CapHeader { version: VERSION, pid: 0 }, [half(0), half(32)]);
    // SAFETY: the kernel reads two triples of words for this version.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_that_have_not_changed_are_the_same() {
        let before = Rights::of_this_thread(None).unwrap();
        assert!(
            before.same(&Rights::of_this_thread(None).unwrap())
                && before.same(&Rights::of_this_thread(Some(&before)).unwrap())
        );
        assert!(before.same(&Rights::of(&thread_name().unwrap()).unwrap().unwrap()));
        assert_eq!(
            (before.lines.split(|byte| *byte == b'\n').count(), before.namespaces.len()),
            (STATUS_LINES.len() + 1, 8)
        );
        assert!(before.namespaces.iter().all(|name| *name != NamespaceLink::default()) && before.umask.is_some());
    }

    #[test]
    fn rights_of_a_thread_with_no_new_privileges_differ() {
        let before = Rights::of_this_thread(None).unwrap();
        let after = std::thread::spawn(|| {
            nix::sys::prctl::set_no_new_privs().unwrap();
            Rights::of_this_thread(None).unwrap()
        });
        assert!(!before.same(&after.join().unwrap()));
    }

    #[test]
    fn capabilities_that_are_kept_stay() {
        std::thread::spawn(|| {
            let own = capabilities().unwrap();
            keep_capabilities([u64::MAX; 3]).unwrap();
            assert_eq!(capabilities().unwrap(), own);
            keep_capabilities([own[0] & !1, own[1] & !1, own[2]]).unwrap();
            assert_eq!(capabilities().unwrap(), [own[0] & !1, own[1] & !1, own[2]]);
        })
        .join()
        .unwrap();
    }
}
