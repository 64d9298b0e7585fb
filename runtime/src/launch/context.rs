//! What a child's surroundings are to be: those of the parent at the moment it asks, and what was asked for beside.
//!
//! Owns: the comparison with the fork server, whose surroundings a new child has. Runs in: the parent.
//! Never: keeps a file of the parent open longer than the request takes.
//!
//! A comparison takes about as long as the environment takes to read. umask is the fork server's and is not compared.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::link::message::{Attached, Setup};
use crate::link::{StartMethod, identity};
use crate::sys::fd::{self, Identity};
use crate::sys::limits::{self, Limits};
use crate::sys::signal::{self, Mask};
use crate::sys::{self, env, errno_of, terminal};

/// The surroundings of the fork server: those of its parent when it was started.
#[derive(Debug)]
pub(crate) struct Base {
    env: Vec<(OsString, OsString)>,
    directory: Option<Identity>,
    outputs: [Option<Identity>; 2],
    limits: Limits,
    niceness: i32,
}

impl Base {
    pub(super) fn now() -> Self {
        Self {
            env: std::env::vars_os().collect(),
            directory: fd::path_identity(c"."),
            outputs: [fd::identity(fd::stdio(1)), fd::identity(fd::stdio(2))],
            limits: limits::own(),
            niceness: limits::niceness(),
        }
    }
}

/// How long a process may take to exit after its only call, unless its builder says otherwise.
const EXIT_TIMEOUT: Duration = Duration::from_secs(5);

/// What was asked for, beside what the parent itself has.
#[derive(Debug, Default)]
pub(crate) struct Options {
    pub(crate) method: StartMethod,
    pub(crate) clear_env: bool,
    /// In order; `None` removes.
    pub(crate) env: Vec<(OsString, Option<OsString>)>,
    pub(crate) directory: Option<PathBuf>,
    /// Standard streams by number.
    pub(crate) stdio: [Option<OwnedFd>; 3],
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
    /// The signals that it blocks, if not those of the thread that asks: the hub's blocks all.
    pub(crate) mask: Option<Mask>,
}

impl Options {
    /// Refuses what no process can become.
    ///
    /// # Errors
    /// A number is out of its range.
    pub(crate) fn check(&self) -> Result<()> {
        if self.open_files == Some(0) {
            return Err(Error::invalid("a process that may have 0 open files could not even receive its arguments"));
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
        if asked.is_empty() {
            return Err(Error::invalid(
                "choose its processors: a worker needs at least one to run on, and an empty list was given",
            ));
        }
        let (possible, online) = (limits::possible_cpus(), limits::online_cpus());
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

    /// The same for workers of a pool, which are asked for by the hub's thread, also when they replace others: what belongs
    /// to a thread is that of this one.
    pub(crate) fn of_this_thread(self) -> Self {
        Self {
            mask: Some(signal::mask()),
            niceness: self.niceness.or_else(|| Some(limits::niceness())),
            cpus: self.cpus.or_else(|| self.pin.then(limits::cpus)),
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

/// The request for a child called `name`, and the descriptors that go with it.
///
/// # Errors
/// A descriptor could not be opened or duplicated, or a variable was asked for that no environment can hold.
pub(crate) fn setup(base: &Base, options: &Options, name: &str, once: bool) -> Result<(Setup, Vec<OwnedFd>)> {
    let mut setup = Setup {
        name: name.to_owned(),
        once: once.then(|| options.exit_timeout.unwrap_or(EXIT_TIMEOUT)),
        parent: (std::process::id(), identity::get().map_or_else(String::new, |own| own.name.clone())),
        depth: identity::depth() + 1,
        clear_env: options.clear_env,
        cpus: options.cpus.clone(),
        most_memory: options.most_memory,
        mask: options.mask.unwrap_or_else(signal::mask),
        ignores_termination: options.ignores_termination || identity::get().is_some_and(|own| own.ignores_termination),
        ..Setup::default()
    };
    if let Some((key, _)) = options.env.iter().find(|(key, value)| !env::can_hold(key, value.as_deref())) {
        let reason = "its name is empty or holds `=`, or a NUL byte is in it";
        return Err(Error::invalid(format!(
            "no environment can hold the variable {:?}: {reason}",
            key.to_string_lossy()
        )));
    }
    compare_env(base, options, &mut setup);
    compare_limits(base, options, &mut setup);
    let niceness = options.niceness.unwrap_or_else(limits::niceness);
    setup.niceness = (niceness != base.niceness).then_some(niceness);

    let mut descriptors = Vec::new();
    let mut attach = |role, fd: sys::Result<OwnedFd>, step: &str| -> Result<()> {
        descriptors.push(fd.map_err(|errno| Error::could_not_start(step, errno))?);
        setup.attached.push(role);
        Ok(())
    };
    for (number, role) in [Attached::Stdin, Attached::Stdout, Attached::Stderr].into_iter().enumerate() {
        if let Some(stream) = &options.stdio[number] {
            let is_terminal = number == 0 && terminal::is_open_on(stream.as_fd());
            let role = if is_terminal { Attached::Terminal } else { role };
            attach(role, fd::duplicate(stream.as_fd()), "duplicate a standard stream")?;
        } else if number > 0 {
            let own = fd::stdio(i32::try_from(number).unwrap_or(2));
            let now = fd::identity(own);
            if now != base.outputs[number - 1] {
                // It may be gone by now: then what was seen there was only passing through.
                let stream = fd::duplicate(own).or_else(|_| fd::null());
                attach(role, stream, "duplicate a standard stream")?;
            }
        }
    }
    if let Some(path) = &options.directory {
        let step = format!("open the working directory {}", path.display());
        attach(Attached::Directory, fd::directory(path), &step)?;
    } else if fd::path_identity(c".") != base.directory {
        attach(Attached::Directory, fd::directory(".".as_ref()), "open the working directory")?;
    }
    Ok((setup, descriptors))
}

/// The request for the worker in place `number` of a pool. See [`setup`].
pub(crate) fn setup_of_worker(
    base: &Base,
    options: &Options,
    name: &str,
    number: usize,
) -> Result<(Setup, Vec<OwnedFd>)> {
    let (mut setup, descriptors) = setup(base, options, name, false)?;
    if let (true, Some(shared)) = (options.pin, &options.cpus) {
        // Of none, none: which the kernel refuses.
        setup.cpus = Some(number.checked_rem(shared.len()).map_or_else(Vec::new, |place| vec![shared[place]]));
    }
    Ok((setup, descriptors))
}

/// The difference between the environment wanted and the fork server's.
fn compare_env(base: &Base, options: &Options, setup: &mut Setup) {
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

fn compare_limits(base: &Base, options: &Options, setup: &mut Setup) {
    let mut wanted = limits::own();
    // Whole seconds are what the kernel counts; rounded up, or a short time would be none.
    let cpu_time = options.cpu_time.map(|time| time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0)));
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
