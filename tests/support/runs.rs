//! Programs that are run with their output in files, and what is left of them.
//!
//! Runs in: a test process. Each call is bounded in time, so a program that hangs fails its test.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a program may take, and its children to be gone after it.
const RUN: Duration = Duration::from_mins(1);

/// Where everything that these tests build and write lies.
pub(crate) fn folder() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("boot");
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// A program with what a shell does before it becomes it: the script's `$0`.
pub(crate) fn shell(script: &str, program: &Path) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(program);
    command
}

/// A process whose output goes to files, so that a child that stays behind does not hold up its end.
pub(crate) struct Run {
    pub(crate) child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

/// Starts a program whose file may just have been written. A process that another thread starts at that moment has the
/// descriptor by which it was written, until it executes its own program; as long as that is so the kernel refuses.
fn spawn(command: &mut Command) -> Child {
    let end = Instant::now() + RUN;
    loop {
        match command.spawn() {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy && Instant::now() < end => {
                sleep(Duration::from_millis(1));
            }
            started => return started.unwrap(),
        }
    }
}

/// What is left of a process that ended, or was killed because it did not.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn of(mut command: Command, name: &str) -> Self {
        let [stdout, stderr] = ["stdout", "stderr"].map(|stream| folder().join(format!("{name}.{stream}")));
        command.stdout(File::create(&stdout).unwrap()).stderr(File::create(&stderr).unwrap());
        Self { child: spawn(&mut command), stdout, stderr }
    }

    pub(crate) fn wait_for_output(&mut self, expected: &str) {
        let came = until(RUN, || fs::read_to_string(&self.stdout).unwrap() == expected);
        if !came {
            let _ = self.child.kill();
        }
        assert!(came, "{}{}", fs::read_to_string(&self.stdout).unwrap(), fs::read_to_string(&self.stderr).unwrap());
    }

    pub(crate) fn end(self) -> Ended {
        self.end_within(RUN)
    }

    pub(crate) fn end_within(mut self, time: Duration) -> Ended {
        let mut status = None;
        until(time, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        let status = status.unwrap_or_else(|| {
            self.child.kill().unwrap();
            self.child.wait().unwrap()
        });
        let read = |path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
        Ended { status, stdout: read(&self.stdout), stderr: read(&self.stderr) }
    }
}

impl Ended {
    pub(crate) fn prints(self, expected: &str) -> Self {
        assert_eq!(self.stdout, expected, "{}", self.stderr);
        assert_eq!((self.status.code(), self.status.signal()), (Some(0), None), "{}", self.stderr);
        self
    }

    /// The census: no process runs this file any more, under its name or deleted.
    pub(crate) fn no_copy_runs(self, program: &Path) -> Self {
        let mut found = Vec::new();
        let gone = until(RUN, || {
            found = running(program);
            found.is_empty()
        });
        assert!(gone, "left behind: {found:?}");
        self
    }
}

fn running(program: &Path) -> Vec<String> {
    let name = program.to_str().unwrap();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let runs = |image: PathBuf| image.to_str().is_some_and(|image| image.trim_end_matches(" (deleted)") == name);
    let those = processes.filter(|process| fs::read_link(process.path().join("exe")).is_ok_and(runs));
    those.map(|process| process.file_name().to_string_lossy().into_owned()).collect()
}

/// Looks again and again; false if `time` was over before it came true.
fn until(time: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + time;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
        sleep(Duration::from_millis(5));
    }
}
