//! A program that a test may do anything to: this test binary, started again to play one scene.
//!
//! Runs in: the test process, which starts victims, and in the victims, which ask for their scene.
//! Never: leaves a victim behind. A test file with scenes has a test called `scene`, which does nothing unless told to.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use process_task::StartMethod;

use crate::support::{self, eventually, processes};

const SCENE: &str = "PROCESS_TASK_SCENE";
const TAG: &str = "PROCESS_TASK_TAG";
const STAGE: &str = "PROCESS_TASK_STAGE";

/// The file on a stage that has what the scene said.
const SAID: &str = "said";

/// What makes the test binary play a scene of the file whose test runs.
pub(crate) fn args() -> [String; 4] {
    [
        "--exact".to_owned(),
        format!("{}::scene", support::file()),
        "--nocapture".to_owned(),
        "--test-threads=1".to_owned(),
    ]
}

/// The scene that this process is to play, and the start method it is to use; `None` in the test process.
pub(crate) fn scene() -> Option<(String, StartMethod)> {
    let text = std::env::var(SCENE).ok()?;
    let (scene, method) = text.split_once(':')?;
    Some((scene.to_owned(), if method == "exec" { StartMethod::Exec } else { StartMethod::ForkServer }))
}

/// The victim's own directory, which test and victim, and all that the victim starts, can write to.
pub(crate) fn stage() -> PathBuf {
    PathBuf::from(std::env::var_os(STAGE).expect("only a victim has a stage"))
}

/// Says to the test that this point of the scene is reached.
pub(crate) fn reached(point: &str) {
    std::fs::write(stage().join(point), "").expect("the stage is writable");
}

/// In a victim: from now on, writes to the stage why it panics, for the test to show.
pub(crate) fn say_panics() {
    std::panic::set_hook(Box::new(|info| drop(std::fs::write(stage().join(SAID), info.to_string()))));
}

/// Plays a scene to its end, in a process of its own.
pub(crate) fn plays(scene: &str, method: StartMethod) {
    Victim::start(scene, method).plays_to_the_end();
}

/// A process that plays a scene.
#[derive(Debug)]
pub(crate) struct Victim {
    pub(crate) child: Child,
    tag: String,
    stage: PathBuf,
}

impl Victim {
    /// Starts one that says nothing.
    pub(crate) fn start(scene: &str, method: StartMethod) -> Self {
        Self::start_by(None, scene, method)
    }

    /// As [`Victim::start`], through a line of shell that ends by executing `"$@"`.
    pub(crate) fn start_by(shell: Option<&str>, scene: &str, method: StartMethod) -> Self {
        let program = OsString::from(std::env::current_exe().expect("the test binary has a path"));
        let mut command = match shell {
            None => Command::new(program),
            Some(line) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", line, "sh"]).arg(program);
                shell
            }
        };
        command.args(args());
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Self::start_as(command, scene, method)
    }

    /// Starts one by `command`, which executes the test binary with [`args`], sooner or later.
    pub(crate) fn start_as(mut command: Command, scene: &str, method: StartMethod) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Relaxed);
        let tag = format!("{TAG}=victim-{}-{number}.", std::process::id());
        let stage = std::env::temp_dir().join(format!("process-task-victim-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&stage).expect("a directory for the victim");
        let method = if method == StartMethod::Exec { "exec" } else { "fork" };
        command.env(SCENE, format!("{scene}:{method}")).env(TAG, &tag[TAG.len() + 1..]).env(STAGE, &stage);
        let child = command.spawn().expect("the victim starts");
        Self { child, tag, stage }
    }

    /// Waits until the victim has said that it has reached `point`.
    pub(crate) fn wait_for(&mut self, point: &str) {
        let path = self.stage.join(point);
        eventually(point, Duration::from_secs(40), || {
            assert!(path.exists() || self.child.try_wait().unwrap().is_none(), "the victim has ended before {point}");
            path.exists()
        });
    }

    /// Lets the victim go on from [`wait_to_go_on`], and returns how it ended.
    pub(crate) fn finish(&mut self) -> ExitStatus {
        drop(self.child.stdin.take());
        self.child.wait().expect("the victim is our child")
    }

    /// Waits for the end of a scene that must reach `played`, and of all that it started. Returns what it said.
    pub(crate) fn plays_to_the_end(&mut self) -> String {
        let status = self.finish();
        let said = self.said();
        assert!(status.success() && self.on_stage("played").exists(), "{status}\n{said}");
        self.leaves_no_process();
        said
    }

    /// What it said: why it panicked, if it has called [`say_panics`].
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(self.on_stage(SAID)).unwrap_or_default()
    }

    /// Every process that the victim has started, of any generation.
    pub(crate) fn family(&self) -> Vec<u32> {
        let own = self.child.id();
        processes::tagged(&self.tag).into_iter().filter(|pid| *pid != own && processes::alive(*pid)).collect()
    }

    /// Panics unless all that the victim started has ended within a second.
    pub(crate) fn leaves_no_process(&self) {
        eventually("nothing that the victim started is alive", Duration::from_secs(1), || self.family().is_empty());
    }

    /// A file on the victim's stage.
    pub(crate) fn on_stage(&self, name: impl AsRef<Path>) -> PathBuf {
        self.stage.join(name)
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.stage);
        for pid in self.family() {
            let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        }
    }
}

/// In a victim: waits until the test says [`Victim::finish`], or is gone.
pub(crate) fn wait_to_go_on() {
    let _ = std::io::stdin().read_line(&mut String::new());
}
