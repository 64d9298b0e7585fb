//! The attributes of a new child: those of the parent when it asks, changed by what a builder asked for.
//!
//! Runs in: the parent.
//! Invariant: no file of the parent stays open longer than the request takes.
//!
//! A fork server passes its own attributes to a new child, so the setup holds the difference. To find it takes about as long as
//! reading the environment. What a child cannot give itself is compared in [`super::servers`].

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::exec_context;
use super::requester::{Requester, rights_of_this_thread};
use crate::error::{Error, Result};
use crate::link::message::{Attached, Setup};
use crate::link::{Caller, StartMethod};
use crate::sys::attributes::{self, Attribute};
use crate::sys::cpu;
use crate::sys::fd::{self, DirId, FileId};
use crate::sys::limits::{self, ResourceLimits};
use crate::sys::rights::{self, Capabilities, Rights};
use crate::sys::signal::{self, Mask};
use crate::sys::{self, Errno, env, errno_of, identity, terminal};

/// The surroundings of the fork server: those of its parent when it was started, but for the streams and the directory,
/// which it does not keep in use.
#[derive(Debug)]
pub(crate) struct BaseAttributes {
    env: Vec<(OsString, OsString)>,
    /// The root directory; none if the server stays in the parent's, which may not be gone to with the rights of now.
    directory: Option<DirId>,
    /// `/dev/null`.
    output: Option<FileId>,
    limits: ResourceLimits,
    attributes: Vec<Attribute>,
    /// Those of the thread that started the server. Whatever thread asks has the same, but another may ask in its place.
    capabilities: Option<Capabilities>,
}

impl BaseAttributes {
    /// For a server that is started now, by this thread, which has this `umask`; `null` is what its streams will be.
    pub(super) fn now(null: BorrowedFd<'_>, umask: Option<u32>) -> Self {
        let dumpable = |attribute: Attribute| match attribute {
            // So is every process that has just been executed.
            Attribute::Dumpable(_) => Attribute::Dumpable(true),
            other => other,
        };
        let attributes = attributes::of_process().into_iter().chain(attributes::of_thread(None));
        Self {
            env: env_of_copy(),
            directory: fd::directory(".".as_ref()).ok().and_then(|_| fd::own_dir_id(c"/")),
            output: fd::file_id(null),
            limits: limits::current(),
            attributes: attributes.map(dumpable).chain(umask.map(Attribute::Umask)).collect(),
            capabilities: rights::capabilities(),
        }
    }

    /// Whether the server stays in its parent's directory.
    pub(super) fn stays(&self) -> bool {
        self.directory.is_none()
    }

    pub(super) fn env(&self) -> &[(OsString, OsString)] {
        &self.env
    }
}

/// The environment for a copy of this program that prepares itself: that of now, but with what the dynamic loader was told
/// when the program was started, so that it finds what it found then.
fn env_of_copy() -> Vec<(OsString, OsString)> {
    let own = std::env::vars_os().filter(|(key, _)| env::loader().iter().all(|noted| key != noted.key));
    own.chain(env::loader().iter().map(|noted| (noted.key.into(), noted.absolute.clone()))).collect()
}

/// How long a process may take to exit after its only call, unless its builder says otherwise.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);

/// What was asked for, beside what the parent itself has.
#[derive(Clone, Debug, Default)]
pub(crate) struct SpawnAttributes {
    pub(crate) method: StartMethod,
    pub(crate) clear_env: bool,
    /// In order; `None` removes.
    pub(crate) env: Vec<(OsString, Option<OsString>)>,
    pub(crate) directory: Option<PathBuf>,
    /// Standard streams by number. The builder may have a file that its caller gave, too.
    pub(crate) stdio: [Option<Arc<OwnedFd>>; 3],
    pub(crate) memory: Option<u64>,
    pub(crate) cpu_time: Option<Duration>,
    pub(crate) open_files: Option<u64>,
    /// A worker that uses more private memory than this is replaced.
    pub(crate) most_memory: Option<u64>,
    /// How long a process that is done may take to exit, if not as long as usual.
    pub(crate) exit_timeout: Option<Duration>,
    pub(crate) niceness: Option<i32>,
    pub(crate) cpus: Option<Vec<usize>>,
    /// Whether a pool's workers share the processors out among them, one for each.
    pub(crate) pin: bool,
    /// Whether it ignores the signals that ask to end.
    pub(crate) ignores_termination: bool,
    /// The signals that it blocks, if not those of the thread that asks: the reactor's blocks all.
    pub(crate) mask: Option<Mask>,
    /// Scheduling and the like, if not those of the thread that asks.
    pub(crate) attributes: Option<Vec<Attribute>>,
    /// The thread that it has the rights of, if another one asks for it.
    pub(crate) asker: Option<Requester>,
}

impl SpawnAttributes {
    /// Refuses what no process can become.
    ///
    /// # Errors
    /// A number is out of its range.
    pub(crate) fn check(&self) -> Result<()> {
        if self.open_files == Some(0) {
            return Err(Error::invalid(
                "`open_files_limit` must be at least 1, not 0: the process could not receive its arguments",
            ));
        }
        if self.cpus.as_ref().is_some_and(Vec::is_empty) {
            return Err(Error::invalid(
                "choose its processors: a process needs at least one to run on, and `cpus` was given 0; leave it out for \
                 those that it has anyway",
            ));
        }
        Ok(())
    }

    /// As [`check`](Self::check), for the workers of a pool; of one process, the process itself says this.
    ///
    /// # Errors
    /// As [`check`](Self::check), or a processor is not there.
    pub(crate) fn check_for_many(&self) -> Result<()> {
        self.check()?;
        let Some(asked) = &self.cpus else { return Ok(()) };
        let (possible, online) = (cpu::possible(), cpu::online());
        let listed = |cpus: &[RangeInclusive<usize>], cpu: &usize| cpus.iter().any(|range| range.contains(cpu));
        if let Some(missing) = asked.iter().find(|cpu| !listed(&possible, cpu)) {
            return Err(Error::invalid(format!(
                "choose its processors: there is no processor {missing}, this machine has {}",
                Cpus(&online)
            )));
        }
        if !asked.iter().any(|cpu| listed(&online, cpu)) {
            return Err(Error::invalid(format!(
                "choose its processors: none of {asked:?} is online, this machine has {}",
                Cpus(&online)
            )));
        }
        Ok(())
    }

    /// Whether something was asked for that a process may be refused when it sets itself up.
    pub(crate) fn may_be_refused(&self) -> bool {
        let limits = [self.memory, self.open_files].iter().any(Option::is_some) || self.cpu_time.is_some();
        limits || self.directory.is_some() || self.niceness.is_some() || self.cpus.is_some() || self.pin
    }

    /// The same for workers of a pool, which are asked for by the reactor's thread, also when they replace others: what belongs
    /// to a thread is that of this one.
    ///
    /// # Errors
    /// As [`Requester::new`].
    pub(crate) fn of_pool(self) -> Result<Self> {
        Ok(Self { asker: Some(Requester::new()?), ..self.of_this_thread() })
    }

    /// The rights that the process is to have.
    ///
    /// # Errors
    /// As [`Requester::rights`].
    pub(crate) fn rights(&self) -> Result<Arc<Rights>> {
        self.asker.as_ref().map_or_else(|| rights_of_this_thread(None).map(Arc::new), Requester::rights)
    }

    /// The same, where what belongs to a thread is noted.
    pub(crate) fn of_this_thread(self) -> Self {
        Self {
            mask: Some(signal::mask()),
            attributes: Some(attributes::of_thread(None)),
            cpus: self.cpus.or_else(|| self.pin.then(cpu::allowed)),
            ..self
        }
    }
}

/// Numbers of processors, as the kernel writes them.
struct Cpus<'a>(&'a [RangeInclusive<usize>]);

impl fmt::Display for Cpus<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, range) in self.0.iter().enumerate() {
            f.write_str(if place == 0 { "" } else { "," })?;
            match (range.start(), range.end()) {
                (start, end) if start == end => write!(f, "{start}")?,
                (start, end) => write!(f, "{start}-{end}")?,
            }
        }
        Ok(())
    }
}

/// Which rights and umask a child's setup is made for, and how it comes to be.
#[derive(Clone, Copy)]
pub(crate) struct SetupFor<'a> {
    pub(crate) base: &'a BaseAttributes,
    pub(crate) name: &'a str,
    /// Whether it ends after one call.
    pub(crate) once: bool,
    pub(crate) umask: Option<u32>,
}

/// The request for a child, and the descriptors that go with it.
///
/// # Errors
/// A descriptor could not be opened or duplicated, or a variable was asked for that no environment can hold.
pub(crate) fn setup(child: SetupFor<'_>, options: &SpawnAttributes) -> Result<(Setup, Vec<OwnedFd>)> {
    let SetupFor { base, name, once, umask } = child;
    let mut setup = Setup {
        name: name.to_owned(),
        once: once.then(|| options.exit_timeout.unwrap_or(EXIT_TIMEOUT)),
        parent: (std::process::id(), identity::get().map_or_else(String::new, |own| own.name.clone())),
        depth: identity::depth() + 1,
        cpus: options.cpus.clone(),
        most_memory: options.most_memory,
        ignores_termination: options.ignores_termination || identity::get().is_some_and(|own| own.ignores_termination),
        mask: options.mask.unwrap_or_else(signal::mask),
        shares_group: options.stdio[0].as_ref().is_some_and(|stdin| terminal::is_open_on(stdin.as_fd())),
        ..Setup::default()
    };
    compare_limits(base, options, &mut setup);
    compare_attributes(base, options, umask, &mut setup);
    setup.niceness = options.niceness;
    if options.method == StartMethod::Exec {
        exec_context::correct(options, &mut setup);
        return Ok((setup, Vec::new()));
    }
    check_env(options)?;
    setup.clear_env = options.clear_env;
    compare_env(base, options, &mut setup);
    let (roles, descriptors) = attached(options, base.output, base.directory)?;
    setup.attached = roles;
    Ok((setup, descriptors))
}

/// Refuses variables that no environment can hold.
pub(super) fn check_env(options: &SpawnAttributes) -> Result<()> {
    let impossible = options.env.iter().find(|(key, value)| !env::can_hold(key, value.as_deref()));
    let Some((key, _)) = impossible else { return Ok(()) };
    let reason = "its name is empty or holds `=`, or a NUL byte is in it";
    Err(Error::invalid(format!("no environment can hold the variable {:?}: {reason}", key.to_string_lossy())))
}

/// The streams and the directory of a child, where they are others than `output` and `here`.
pub(super) fn attached(
    options: &SpawnAttributes,
    output: Option<FileId>,
    here: Option<DirId>,
) -> Result<(Vec<Attached>, Vec<OwnedFd>)> {
    let (mut roles, mut descriptors) = (Vec::new(), Vec::new());
    let mut attach = |role, fd: sys::Result<OwnedFd>, step: &str| -> Result<()> {
        descriptors.push(fd.map_err(|errno| Error::could_not_start(step, errno))?);
        roles.push(role);
        Ok(())
    };
    for (number, role) in [Attached::Stdin, Attached::Stdout, Attached::Stderr].into_iter().enumerate() {
        if let Some(stream) = &options.stdio[number] {
            attach(role, fd::duplicate(stream.as_fd()), "duplicate a standard stream")?;
        } else if number > 0 {
            let own = fd::stdio(i32::try_from(number).unwrap_or(2));
            // What is closed by now was only passing through, or the child has what the server has: nothing.
            if let Some(stream) =
                fd::file_id(own).filter(|now| Some(*now) != output).and_then(|_| fd::duplicate(own).ok())
            {
                attach(role, Ok(stream), "duplicate a standard stream")?;
            }
        }
    }
    if let Some(path) = &options.directory {
        let step = format!("open the working directory {}", path.display());
        attach(Attached::Directory, fd::directory(path), &step)?;
    } else {
        let own = options.asker.as_ref().map_or_else(|| Some(c".".to_owned()), Requester::directory);
        if let Some(own) = own.filter(|own| fd::own_dir_id(own) != here) {
            attach(
                Attached::Directory,
                fd::directory(OsStr::from_bytes(own.as_bytes()).as_ref()),
                "open the working directory",
            )?;
        }
    }
    Ok((roles, descriptors))
}

/// Sends a child the descriptors that go with its setup. If it is gone already, that is found out as of any child that ends before
/// it has begun: the call goes to another one.
pub(crate) fn hand_over<T>(caller: &Caller<T>, descriptors: &[OwnedFd]) -> sys::Result<()> {
    if descriptors.is_empty() {
        return Ok(());
    }
    let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    match caller.attach(&descriptors) {
        Err(Errno::EPIPE | Errno::ECONNRESET) => Ok(()),
        other => other,
    }
}

/// The request for the worker in place `number` of a pool. See [`setup`].
pub(crate) fn setup_of_worker(
    worker: SetupFor<'_>,
    options: &SpawnAttributes,
    number: usize,
) -> Result<(Setup, Vec<OwnedFd>)> {
    let (mut setup, descriptors) = setup(worker, options)?;
    if let (true, Some(shared)) = (options.pin, &options.cpus) {
        // Of none, none: which the kernel refuses.
        setup.cpus = Some(number.checked_rem(shared.len()).map_or_else(Vec::new, |place| vec![shared[place]]));
    }
    Ok((setup, descriptors))
}

/// The difference between the environment wanted and the fork server's.
fn compare_env(base: &BaseAttributes, options: &SpawnAttributes, setup: &mut Setup) {
    let mut before = base.env.iter();
    let same = std::env::vars_os().all(|now| before.next() == Some(&now)) && before.next().is_none();
    if !options.clear_env && !same {
        let now: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
        let before: BTreeMap<&OsString, &OsString> = base.env.iter().map(|(key, value)| (key, value)).collect();
        setup.remove_env = before.keys().filter(|key| !now.contains_key(**key)).map(|key| (*key).clone()).collect();
        setup.set_env = now.into_iter().filter(|(key, value)| before.get(key) != Some(&value)).collect();
    }
    for (key, value) in &options.env {
        setup.set_env.retain(|(set, _)| set != key);
        setup.remove_env.retain(|removed| removed != key);
        match value {
            Some(value) => setup.set_env.push((key.clone(), value.clone())),
            None => setup.remove_env.push(key.clone()),
        }
    }
}

fn compare_attributes(base: &BaseAttributes, options: &SpawnAttributes, umask: Option<u32>, setup: &mut Setup) {
    let of_asker = options.asker.as_ref().and_then(Requester::attributes);
    let of_thread = of_asker.or_else(|| options.attributes.clone()).unwrap_or_else(|| attributes::of_thread(None));
    let is_chosen = |attribute: &Attribute| matches!(attribute, Attribute::Niceness(_)) && options.niceness.is_some();
    let of_thread = of_thread.into_iter().filter(|attribute| !is_chosen(attribute));
    let now = of_thread.chain(umask.map(Attribute::Umask)).chain(attributes::of_process());
    // The fork server has these capabilities at most, but being executed as root gives all back, and then it cannot be dumped.
    let always = |attribute: &Attribute| matches!(attribute, Attribute::Dumpable(_));
    let differs = |attribute: &Attribute| always(attribute) || !base.attributes.contains(attribute);
    let capabilities = base.capabilities.map(Attribute::Capabilities);
    setup.attributes = capabilities.into_iter().chain(now.filter(differs)).collect();
}

fn compare_limits(base: &BaseAttributes, options: &SpawnAttributes, setup: &mut Setup) {
    let mut wanted = limits::current();
    // The kernel counts whole seconds. A limit of 0 kills at the first tick of the clock, which may come in the middle of any
    // call, or never: one second is the least that means something.
    let rounded_up = |time: Duration| time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0)).max(1);
    let cpu_time = options.cpu_time.map(rounded_up);
    // SIGXCPU comes at the soft limit, and only if that is below the hard one, where SIGKILL comes.
    let hard_cpu_time = cpu_time.map(|seconds| seconds.saturating_add(1));
    let asked = [
        (limits::ADDRESS_SPACE, options.memory, options.memory),
        (limits::CPU_TIME, cpu_time, hard_cpu_time),
        (limits::OPEN_FILES, options.open_files, options.open_files),
    ];
    for (place, soft, hard) in asked {
        if let (Some(soft), Some(hard)) = (soft, hard) {
            wanted[place] = (soft, hard.min(wanted[place].1));
        }
    }
    let places = wanted.iter().zip(&base.limits).enumerate();
    setup.limits = places.filter(|(_, (now, before))| now != before).map(|(place, (now, _))| (place, *now)).collect();
}

/// The error of a parent's own preparations.
pub(crate) fn preparing(step: &str, error: &std::io::Error) -> Error {
    Error::could_not_start(step, errno_of(error))
}
