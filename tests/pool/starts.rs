//! What a pool promises when workers cannot be started: what may pass is waited for and told of, what cannot is refused at
//! once, and so are numbers that no pool and no process can have.
//!
//! Runs in: the test process; its tasks run in workers. Never: depends on how fast anything is.

use std::fs::{self, File};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::support::processes::descendants;
use crate::support::restore;
use crate::support::scratch::Scratch;
use crate::support::{self, PATIENCE, eventually};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use process_task::{Error, ErrorKind, Pool, PoolBuilder, ProcessBuilder, StartMethod, active_children, process_task};

under_every_start_method! {
    within 150 seconds;
    lasting_failure_closes_the_pool_at_once,
    too_many_workers_are_refused,
    processors_that_are_not_there_are_refused,
    numbers_out_of_range_are_refused,
    memory_limit_below_what_is_mapped_is_refused,
    refused_options_are_what_build_reports,
    full_descriptor_table_is_waited_for,
    refused_fork_is_waited_for_and_names_the_limits,
}

#[process_task]
pub(crate) fn square(x: i64) -> i64 {
    x * x
}

pub(crate) fn builder(method: StartMethod, workers: usize) -> PoolBuilder {
    Pool::builder().workers(workers).start_method(method)
}

fn is_invalid(error: &Error, words: &[&str]) {
    assert!(matches!(error.kind(), ErrorKind::InvalidInput { .. }), "{error:?}");
    assert!(words.iter().all(|word| error.to_string().contains(word)), "{error}");
}

/// A descriptor table that is full until this is dropped.
pub(crate) struct FullTable {
    before: (u64, u64),
    files: Vec<File>,
}

impl FullTable {
    pub(crate) fn new() -> Self {
        let before = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
        let open = fs::read_dir("/proc/self/fd").expect("a directory").count() as u64;
        setrlimit(Resource::RLIMIT_NOFILE, open + 40, before.1).expect("a limit that can be lowered");
        let mut full = Self { before, files: Vec::new() };
        full.fill();
        full
    }

    /// Takes the places that were given back.
    pub(crate) fn fill(&mut self) {
        let errno = loop {
            match File::open("/dev/null") {
                Ok(file) => self.files.push(file),
                Err(error) => break error.raw_os_error(),
            }
        };
        assert_eq!(errno, Some(Errno::EMFILE as i32));
    }
}

impl Drop for FullTable {
    fn drop(&mut self) {
        self.files.clear();
        setrlimit(Resource::RLIMIT_NOFILE, self.before.0, self.before.1).expect("a limit that can be raised");
    }
}

/// Kills every worker and every spare that takes its place, until none has been started for a while.
pub(crate) fn kill_all(pool: &Pool, mut meanwhile: impl FnMut()) {
    let mut quiet = 0;
    eventually("no worker can be started", PATIENCE, || {
        meanwhile();
        let there = active_children();
        for child in &there {
            let _ = kill(Pid::from_raw(child.pid().cast_signed()), Signal::SIGKILL);
        }
        let refused = pool.stats().start_failure;
        let refused = refused.is_some_and(|failure| matches!(failure.kind(), ErrorKind::CouldNotStart { .. }));
        quiet = if there.is_empty() && refused { quiet + 1 } else { 0 };
        quiet > 100
    });
}

fn full_descriptor_table_is_waited_for(method: StartMethod) {
    let pool = builder(method, 2).build().unwrap();
    assert_eq!(pool.call(square, 3), Ok(9));
    let mut full = FullTable::new();
    kill_all(&pool, || full.fill());
    let waiting = pool.submit(square, 4);
    // Far longer than a pool waited once.
    let since = Instant::now();
    eventually("it is tried again and again", PATIENCE, || since.elapsed() > Duration::from_secs(2));
    assert!(!waiting.is_finished());
    let failure = pool.stats().start_failure.expect("a reason");
    assert!(
        matches!(failure.kind(), ErrorKind::CouldNotStart { errno, .. } if *errno == Errno::EMFILE as i32),
        "{failure}"
    );
    assert!(pool.stats().to_string().contains("no worker could be started the last time"));
    drop(full);
    assert_eq!(waiting.join(), Ok(16));
    assert_eq!(pool.map(square, 0..50).unwrap(), (0..50).map(|x| x * x).collect::<Vec<_>>());
    eventually("nothing is wanting", PATIENCE, || pool.stats().start_failure.is_none());
    drop(pool);
    support::warm_up();
}

/// A control group with a bound on its processes. `None` where this process may not make one.
struct Bounded(PathBuf);

impl Bounded {
    fn with(pid: u32) -> Option<Self> {
        let path = PathBuf::from(format!("/sys/fs/cgroup/pids/process-task-{}", std::process::id()));
        fs::create_dir(&path).ok()?;
        let group = Self(path);
        fs::write(group.0.join("cgroup.procs"), pid.to_string()).ok()?;
        fs::write(group.0.join("pids.max"), "1").ok()?;
        Some(group)
    }
}

impl Drop for Bounded {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("pids.max"), "max");
        for pid in fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default().lines() {
            let _ = fs::write("/sys/fs/cgroup/pids/cgroup.procs", pid);
        }
        eventually("the group is empty", PATIENCE, || {
            for pid in fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default().lines() {
                let _ = fs::write("/sys/fs/cgroup/pids/cgroup.procs", pid);
            }
            fs::remove_dir(&self.0).is_ok()
        });
    }
}

fn refused_fork_is_waited_for_and_names_the_limits(method: StartMethod) {
    let pool = builder(method, 1).build().unwrap();
    let worker = active_children()[0].pid();
    let server = descendants()[&worker].parent;
    let Some(bounded) = Bounded::with(server) else { return };
    kill_all(&pool, || ());
    let waiting = pool.submit(square, 5);
    let failure = pool.stats().start_failure.expect("a reason");
    assert!(["fork", "RLIMIT_NPROC", "pids.max"].iter().all(|word| failure.to_string().contains(word)), "{failure}");
    // When the last spare is used up.
    let mut error = None;
    eventually("a process cannot be started", PATIENCE, || {
        error = square.spawn(3).join().err();
        error.is_some()
    });
    assert!(error.as_ref().is_some_and(|error| error.to_string().contains("pids.max")), "{error:?}");
    assert!(waiting.wait_timeout(Duration::from_millis(500)).is_err());
    drop(bounded);
    assert_eq!(waiting.join(), Ok(25));
    drop(pool);
    // Spares that could not be made are made when the next process is asked for.
    support::warm_up();
}

fn lasting_failure_closes_the_pool_at_once(method: StartMethod) {
    let scratch = Scratch::new();
    let directory = scratch.path().join("works here");
    fs::create_dir(&directory).unwrap();
    let pool = builder(method, 1).current_dir(&directory).build().unwrap();
    assert_eq!(pool.call(square, 3), Ok(9));
    fs::remove_dir(&directory).unwrap();
    let worker = Pid::from_raw(active_children()[0].pid().cast_signed());
    kill(worker, Signal::SIGKILL).unwrap();
    let mut closed = None;
    eventually("the pool closes", PATIENCE, || {
        closed = pool.call(square, 3).err().filter(|error| matches!(error.kind(), ErrorKind::Closed { .. }));
        closed.is_some()
    });
    let text = closed.expect("an error").to_string();
    assert!(text.contains("its workers cannot be started") && text.contains("works here"), "{text}");
}

fn too_many_workers_are_refused(method: StartMethod) {
    for workers in [65_537, usize::MAX / 2, usize::MAX] {
        for builder in [builder(method, workers), builder(method, workers).lazy()] {
            is_invalid(&builder.build().unwrap_err(), &["at most 65536", &workers.to_string()]);
        }
    }
    let pool = builder(method, 1).build().unwrap();
    for workers in [65_537, usize::MAX] {
        is_invalid(&pool.resize(workers).unwrap_err(), &["at most 65536"]);
    }
    is_invalid(&pool.resize(0).unwrap_err(), &["at least 1, not 0", "`close`"]);
    // More than this process has descriptors for.
    let back = restore::soft_limit(Resource::RLIMIT_NOFILE, 1024);
    let (built, resized) = (builder(method, 1000).build(), pool.resize(1000));
    let lazy = builder(method, 1000).lazy().build();
    drop(back);
    for error in [built.unwrap_err(), resized.unwrap_err()] {
        assert!(
            ["1000 workers", "RLIMIT_NOFILE", "1024"].iter().all(|word| error.to_string().contains(word)),
            "{error}"
        );
    }
    assert_eq!(lazy.unwrap().call(square, 3), Ok(9));
    assert_eq!((pool.workers(), pool.call(square, 4)), (1, Ok(16)));
}

fn processors_that_are_not_there_are_refused(method: StartMethod) {
    for (cpus, words) in [(vec![], "at least one"), (vec![9999], "9999"), (vec![0, usize::MAX], "no processor")] {
        is_invalid(&builder(method, 1).cpus(cpus.clone()).build().unwrap_err(), &[words]);
        is_invalid(&builder(method, 1).cpus(cpus.clone()).lazy().build().unwrap_err(), &[words]);
        let is_empty = cpus.is_empty();
        let spawned = ProcessBuilder::new().start_method(method).cpus(cpus).spawn(square, 3);
        if is_empty {
            is_invalid(spawned.as_ref().unwrap_err(), &[words]);
        }
        let error = spawned.and_then(process_task::Process::join).unwrap_err();
        assert!(error.to_string().contains("choose its processors"), "{error}");
    }
}

fn numbers_out_of_range_are_refused(method: StartMethod) {
    is_invalid(&builder(method, 1).open_files_limit(0).build().unwrap_err(), &["at least 1, not 0"]);
    is_invalid(&ProcessBuilder::new().open_files_limit(0).spawn(square, 3).unwrap_err(), &["at least 1, not 0"]);
}

fn memory_limit_below_what_is_mapped_is_refused(method: StartMethod) {
    let told = |error: &Error| {
        let text = error.to_string();
        assert!(text.contains("102400 bytes") && text.contains("mapped"), "{text}");
    };
    let small = 100 << 10;
    told(&builder(method, 1).memory_limit(small).build().unwrap_err());
    told(&ProcessBuilder::new().start_method(method).memory_limit(small).spawn(square, 3).unwrap().join().unwrap_err());
    told(&square.memory_limit(small).spawn(3).join().unwrap_err());
    let pool = builder(method, 1).build().unwrap();
    let error = pool.call(square.memory_limit(small), 3).unwrap_err();
    told(&error);
    assert_eq!(error.execution(), process_task::Execution::NotStarted);
    assert_eq!(pool.call(square.memory_limit(8 << 30), 3), Ok(9));
    told(&builder(method, 1).initializer(nothing.memory_limit(small), ()).build().unwrap_err());
}

#[process_task]
fn nothing() {}

fn refused_options_are_what_build_reports(method: StartMethod) {
    // Which only the kernel can refuse, when a worker sets itself up.
    let error = builder(method, 2).memory_limit(1 << 20).build().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Closed { .. }), "{error}");
    assert!(error.to_string().contains("its workers cannot be started"), "{error}");
    let pool = builder(method, 2).memory_limit(8 << 30).open_files_limit(64).nice(5).cpus([0]).build().unwrap();
    assert_eq!(pool.call(square, 3), Ok(9));
}
