//! What a program may rely on however it was built and whatever surrounds it: its children know what they are.
//!
//! Owns: a copy of the small user in `tests/boot`, built with cargo into the target directory, and run. Runs in: a test
//! process; the programs it starts are users of the library like any other. Never: builds twice what cargo has built.
//!
//! Each program prints the same transcript, both start methods in it, which is compared to the letter. Modes share the
//! dependencies that are built for a profile. Those of a release take minutes, and so are in the long form: they hold
//! bitcode beside their code, for link-time optimization.

#[path = "support/runs.rs"]
mod runs;

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, socketpair};
use runs::{Run, folder, shell};

/// How long cargo may take for one mode, on a machine that does other things, too.
const BUILD: Duration = Duration::from_mins(10);

/// How a program is built: a profile of `tests/boot/Cargo.toml`, what overrides it for all crates, and what the compiler
/// is told for the program beside it.
#[derive(Clone, Copy)]
struct Mode {
    name: &'static str,
    profile: &'static str,
    config: &'static [&'static str],
    flags: &'static [&'static str],
}

impl Mode {
    const fn dev(name: &'static str, flags: &'static [&'static str]) -> Self {
        Self { name, profile: "dev", config: &[], flags }
    }

    const fn release(name: &'static str, flags: &'static [&'static str]) -> Self {
        Self { name, profile: "release", config: &[], flags }
    }
}

const DEBUG: Mode = Mode::dev("debug", &[]);

/// What an executable says of itself, so that no mode is tested that was not built.
#[derive(Debug, PartialEq, Eq)]
struct Kind {
    position_independent: bool,
    loader: bool,
    lld: bool,
}

const USUAL: Kind = Kind { position_independent: true, loader: true, lld: true };

// ── The modes ──

#[test]
fn a_debug_program_boots() {
    boots(DEBUG, &USUAL, CAUGHT);
}

#[test]
fn a_stripped_release_program_boots() {
    boots_in_the_long_form(Mode::release("release", &[]), &USUAL, CAUGHT);
}

#[test]
fn a_program_with_thin_lto_boots() {
    boots_in_the_long_form(Mode::release("thin", &["-Clto=thin"]), &USUAL, CAUGHT);
}

#[test]
fn a_program_with_fat_lto_in_one_unit_boots() {
    boots_in_the_long_form(Mode::release("fat", &["-Clto=fat", "-Ccodegen-units=1"]), &USUAL, CAUGHT);
}

#[test]
fn program_that_aborts_on_panic_boots_and_its_panics_are_told() {
    // Not a profile of its own: macros and build scripts, which never abort, are shared with `dev`.
    let mode = Mode { config: &["profile.dev.panic='abort'"], ..Mode::dev("abort", &[]) };
    boots(mode, &USUAL, ABORTED);
}

#[test]
fn a_static_position_independent_program_boots() {
    let mode = Mode::dev("static-pie", &["-Ctarget-feature=+crt-static"]);
    boots(mode, &Kind { loader: false, ..USUAL }, CAUGHT);
}

#[test]
fn a_static_program_at_a_fixed_address_boots() {
    let flags = &["-Ctarget-feature=+crt-static", "-Crelocation-model=static"];
    let kind = Kind { position_independent: false, loader: false, lld: true };
    boots(Mode::dev("static", flags), &kind, CAUGHT);
}

#[test]
fn a_dynamic_program_at_a_fixed_address_boots() {
    let mode = Mode::dev("fixed", &["-Crelocation-model=static"]);
    boots(mode, &Kind { position_independent: false, ..USUAL }, CAUGHT);
}

#[test]
fn a_program_linked_by_gnu_ld_boots() {
    let mode = Mode::dev("gnu-ld", &["-Clinker-features=-lld"]);
    boots(mode, &Kind { lld: false, ..USUAL }, CAUGHT);
}

#[test]
fn a_static_program_with_fat_lto_linked_by_gnu_ld_boots() {
    let flags = &["-Clto=fat", "-Ctarget-feature=+crt-static", "-Crelocation-model=static", "-Clinker-features=-lld"];
    let kind = Kind { position_independent: false, loader: false, lld: false };
    boots_in_the_long_form(Mode::release("static-fat-gnu-ld", flags), &kind, CAUGHT);
}

#[test]
fn two_versions_in_one_program_start_their_own_processes() {
    let program = build_of("versions", DEBUG);
    Run::of(Command::new(&program), "versions").end().prints("ours\nother\nours\n").no_copy_runs(&program);
}

// ── The surroundings ──

#[test]
fn a_program_without_any_environment_boots() {
    let program = build(DEBUG);
    let mut command = Command::new(&program);
    command.env_clear();
    Run::of(command, "no-environment").end().prints(&transcript(CAUGHT)).no_copy_runs(&program);
}

#[test]
fn a_program_with_closed_standard_streams_boots() {
    let program = build(DEBUG);
    let closings = ["to \"$1\" <&-", "to \"$1\" >&-", "to \"$1\" 2>&-", "to \"$1\" <&- >&- 2>&-", "close \"$1\""];
    for (number, closing) in closings.into_iter().enumerate() {
        let written = folder().join(format!("closed-{number}.written"));
        let mut command = shell(&format!("exec \"$0\" {closing}"), &program);
        command.arg(&written);
        Run::of(command, &format!("closed-{number}")).end().prints("").no_copy_runs(&program);
        assert_eq!(fs::read_to_string(&written).unwrap(), transcript(CAUGHT), "{closing}");
    }
}

#[test]
fn deleted_then_replaced_program_still_starts_processes() {
    let built = build(DEBUG);
    let program = folder().join("goes-away");
    fs::copy(&built, &program).unwrap();
    let mut command = Command::new(&program);
    command.arg("twice").stdin(Stdio::piped());
    let mut run = Run::of(command, "goes-away");
    let mut stdin = run.child.stdin.take().unwrap();
    run.wait_for_output("waiting\n");
    // No process of ours has been started yet.
    fs::remove_file(&program).unwrap();
    stdin.write_all(b"\n").unwrap();
    run.wait_for_output(&format!("waiting\n{}waiting\n", transcript(CAUGHT)));
    fs::copy("/bin/false", &program).unwrap();
    stdin.write_all(b"\n").unwrap();
    let expected = format!("waiting\n{0}waiting\n{0}", transcript(CAUGHT));
    run.end().prints(&expected).no_copy_runs(&program);
    fs::remove_file(&program).unwrap();
}

#[test]
fn program_replaced_before_first_start_runs_its_old_image() {
    let built = build(DEBUG);
    let program = folder().join("changes");
    fs::copy(&built, &program).unwrap();
    let mut command = Command::new(&program);
    command.arg("twice").stdin(Stdio::piped());
    let mut run = Run::of(command, "changes");
    let mut stdin = run.child.stdin.take().unwrap();
    run.wait_for_output("waiting\n");
    let other = folder().join("changes-into");
    fs::copy("/bin/false", &other).unwrap();
    fs::rename(&other, &program).unwrap();
    stdin.write_all(b"\n\n").unwrap();
    let expected = format!("waiting\n{0}waiting\n{0}", transcript(CAUGHT));
    run.end().prints(&expected).no_copy_runs(&program);
    fs::remove_file(&program).unwrap();
}

// ── The mark, set by a stranger ──

#[test]
fn a_mark_that_means_nothing_changes_nothing() {
    let program = build(DEBUG);
    let marks = [
        "server:0:3",
        "child:0:0:1",
        "child:0:3:1",
        "server:0:999999",
        "server:0:-1",
        "server:9:0",
        "",
        "garbage",
        "server:3",
    ];
    for (number, mark) in marks.into_iter().enumerate() {
        let mut command = Command::new(&program);
        command.env(MARK, mark);
        Run::of(command, &format!("mark-{number}")).end().prints(&transcript(CAUGHT)).no_copy_runs(&program);
    }
}

#[test]
fn a_file_that_a_strangers_mark_names_stays_open_and_inherited() {
    let program = build(DEBUG);
    let content = folder().join("content");
    fs::write(&content, "what the file holds\n").unwrap();
    for (number, mark) in ["server:0:3", "child:0:3:1:4:5"].into_iter().enumerate() {
        let mut command = shell("exec \"$0\" read 3 3<\"$1\"", &program);
        command.arg(&content).env(MARK, mark);
        let expected = format!("what the file holds\n{}", transcript(CAUGHT));
        Run::of(command, &format!("mark-file-{number}")).end().prints(&expected).no_copy_runs(&program);
    }
}

#[test]
fn boot_leaves_messages_on_a_foreign_socket() {
    let program = build(DEBUG);
    for (number, role) in ["server", "child"].into_iter().enumerate() {
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        send(ours.as_raw_fd(), b"for another program", MsgFlags::empty()).unwrap();
        let mut command = shell("exec \"$0\" 3<&0 <&-", &program);
        command
            .stdin(theirs.try_clone().unwrap())
            .env(MARK, if role == "server" { "server:0:3" } else { "child:0:3:1:4:5" });
        Run::of(command, &format!("mark-socket-{number}")).end().prints(&transcript(CAUGHT)).no_copy_runs(&program);
        let mut bytes = [0; 64];
        let read = recv(theirs.as_fd().as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT).unwrap();
        assert_eq!(&bytes[..read], b"for another program");
    }
}

#[test]
fn a_privileged_program_obeys_no_mark_and_never_runs_twice() {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        println!("skipped: only root can give a program more rights than its caller has");
        return;
    }
    // Out of reach for every user that may not look into the target directory.
    let program = std::env::temp_dir().join(format!("process-task-privileged-{}", std::process::id()));
    let passing = Passing(program);
    let program = &passing.0;
    fs::copy(build(DEBUG), program).unwrap();
    fs::set_permissions(program, fs::Permissions::from_mode(0o4755)).unwrap();
    for (number, mark) in [None, Some("server:0:3")].into_iter().enumerate() {
        let mut command = Command::new(program);
        command.uid(65534).gid(65534).envs(mark.map(|mark| (MARK, mark)));
        let ended = Run::of(command, &format!("privileged-{number}")).end();
        assert_eq!(ended.stdout.matches("here: ").count(), 1, "{}{}", ended.stdout, ended.stderr);
        // Where such bits count for nothing, it is a program like any other.
        let refused = ended.stderr.contains("gets more rights by being executed");
        assert!(refused || ended.stdout == transcript(CAUGHT), "{}{}", ended.stdout, ended.stderr);
        ended.no_copy_runs(program);
    }
}

// ── Test runners ──

#[test]
fn children_of_tests_and_doctests_run_tasks_not_tests() {
    let mut command = cargo();
    command.args(["test", "--offline", "-p", "program", "-p", "named"]);
    let ended = under_the_lock(|| Run::of(command, "cargo-test").end_within(BUILD));
    let (stdout, stderr) = (ended.stdout, ended.stderr);
    assert!(ended.status.success(), "{stdout}{stderr}");
    let results: Vec<_> = stdout.lines().filter(|line| line.starts_with("test result: ")).collect();
    let passed = |count| format!("test result: ok. {count} passed; 0 failed;");
    assert_eq!(results.len(), 3, "{stdout}{stderr}");
    for (result, count) in results.iter().zip([0, 2, 3]) {
        assert!(result.starts_with(&passed(count)), "{stdout}{stderr}");
    }
    assert!(stdout.contains("merged doctests"), "the doctests were not merged: {stdout}");
}

/// As cargo-nextest does it: the binary lists its tests, and each one runs in a process of its own.
#[test]
fn tests_run_one_a_process_as_by_nextest() {
    let mut command = cargo();
    command.args(["test", "--offline", "-p", "program", "--no-run"]);
    let built = under_the_lock(|| Run::of(command, "no-run").end_within(BUILD));
    assert!(built.status.success(), "{}{}", built.stdout, built.stderr);
    let path = built.stderr.lines().find_map(|line| line.trim().strip_prefix("Executable ")?.split(['(', ')']).nth(1));
    let binary = folder().join("user").join(path.expect("the path of what was built"));
    let run = |args: &[&str], name| {
        let mut command = Command::new(&binary);
        command.args(args).current_dir(folder().join("user/program"));
        command.envs([("NEXTEST", "1"), ("NEXTEST_EXECUTION_MODE", "process-per-test")]);
        let ended = Run::of(command, name).end();
        assert!(ended.status.success(), "{args:?}: {}{}", ended.stdout, ended.stderr);
        ended.no_copy_runs(&binary)
    };
    let listed = run(&["--list", "--format", "terse"], "listed").stdout;
    let ignored = run(&["--list", "--format", "terse", "--ignored"], "ignored").stdout;
    let names: Vec<_> = listed.lines().map(|line| line.strip_suffix(": test").expect("a test")).collect();
    assert_eq!((names.len(), ignored.as_str()), (2, ""), "{listed}");
    for name in names {
        let ended = run(&["--exact", name, "--nocapture"], "exact");
        assert!(ended.stdout.contains("test result: ok. 1 passed; 0 failed;"), "{}{}", ended.stdout, ended.stderr);
    }
}

#[test]
fn tests_run_by_nextest_itself_where_it_is_installed() {
    let version = cargo().args(["nextest", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !version.is_ok_and(|status| status.success()) {
        println!("skipped: cargo-nextest is not installed");
        return;
    }
    let mut command = cargo();
    command.args(["nextest", "run", "--offline", "-p", "program", "--color", "never"]);
    let ended = under_the_lock(|| Run::of(command, "nextest").end_within(BUILD));
    assert!(
        ended.status.success() && ended.stderr.contains("2 tests run: 2 passed"),
        "{}{}",
        ended.stdout,
        ended.stderr
    );
}

// ── What is expected ──

/// The variable by which a process learns that it is one of ours. All packages of the workspace have one version.
const MARK: &str = concat!(
    "PROCESS_TASK_BOOT_",
    env!("CARGO_PKG_VERSION_MAJOR"),
    "_",
    env!("CARGO_PKG_VERSION_MINOR"),
    "_",
    env!("CARGO_PKG_VERSION_PATCH")
);
const CAUGHT: &str = "caught in program/src/main.rs: no luck here";
const ABORTED: &str = "signal 6: panicked at program/src/main.rs:25:5: no luck here";

/// What the program prints. The crate that it lists and never names is not linked: its preload does not run.
fn transcript(panic: &str) -> String {
    let method = |name, preloaded| {
        format!(
            "{name}
  square: 100
  in a dependency: 21
  preloaded: {preloaded}
  pool: [0, 1, 4, 9]
  nested: 25
  arguments are ours: true
  the mark is seen: false
  after env_clear: [\"ONLY\"]
  streams are open: true
  a panic: {panic}
"
        )
    };
    format!("here: 9 9\n{}{}", method("ForkServer", "[\"named\"]"), method("Exec", "[]"))
}

/// As [`boots`], where tests may take their time.
fn boots_in_the_long_form(mode: Mode, kind: &Kind, panic: &str) {
    match std::env::var("PROCESS_TASK_ROUNDS").map(|rounds| rounds.parse()) {
        Ok(Ok(2_u32..)) => boots(mode, kind, panic),
        _ => println!("skipped: only with PROCESS_TASK_ROUNDS of 2 or more"),
    }
}

fn boots(mode: Mode, kind: &Kind, panic: &str) {
    let program = build(mode);
    assert_eq!(kind_of(&program), *kind);
    let ended = Run::of(Command::new(&program), mode.name).end();
    let ended = ended.prints(&transcript(panic)).no_copy_runs(&program);
    assert_eq!(ended.stderr.matches("no luck here").count(), 2, "each panic is also printed: {}", ended.stderr);
}

/// Reads an ELF header: its type, whether a program header asks for a loader, and whose comment the linker left.
fn kind_of(program: &Path) -> Kind {
    let bytes = fs::read(program).unwrap();
    let short = |at: usize| usize::from(u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap()));
    let headers = usize::try_from(u64::from_le_bytes(bytes[32..40].try_into().unwrap())).unwrap();
    let (size, count) = (short(54), short(56));
    let mut types = (0..count).map(|number| &bytes[headers + number * size..][..4]);
    Kind {
        position_independent: short(16) == 3,
        loader: types.any(|kind| kind == 3u32.to_le_bytes()),
        lld: bytes.windows(11).any(|bytes| bytes == b"Linker: LLD"),
    }
}

// ── Building ──

/// Builds the program in one mode, and returns a file of its own that holds it.
fn build(mode: Mode) -> PathBuf {
    build_of("program", mode)
}

/// Builds a program of the user's workspace in one mode, and returns a file of its own that holds it.
fn build_of(program: &str, mode: Mode) -> PathBuf {
    under_the_lock(|| {
        let mut command = cargo();
        command.envs((mode.profile == "release").then_some(("RUSTFLAGS", "-Cembed-bitcode=yes")));
        command.args(["rustc", "--offline", "-p", program, "--bin", program, "--profile", mode.profile]);
        command.args(mode.config.iter().flat_map(|config| ["--config", *config])).arg("--").args(mode.flags);
        let ended = Run::of(command, &format!("build-{program}-{}", mode.name)).end_within(BUILD);
        assert!(ended.status.success(), "{}", ended.stderr);
        let profile = if mode.profile == "dev" { "debug" } else { mode.profile };
        let built = folder().join("target").join(profile).join(program);
        // A name for each caller: nextest runs each test in a process of its own, and one may still run what another built.
        let name = std::thread::current().name().unwrap_or("main").to_owned();
        let program = folder().join(format!("{name}.program"));
        let _ = fs::remove_file(&program);
        fs::copy(built, &program).unwrap();
        program
    })
}

/// cargo, in an up-to-date copy of the user's workspace, with nothing inherited from the cargo that runs us.
fn cargo() -> Command {
    let mut command = Command::new(env!("CARGO"));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let ours = text == "CARGO_HOME" || text.starts_with("RUSTUP_");
        if !ours && ["CARGO", "RUST", "NEXTEST", "__CARGO"].iter().any(|start| text.starts_with(start)) {
            command.env_remove(name);
        }
    }
    command.current_dir(folder().join("user")).env("CARGO_TARGET_DIR", folder().join("target"));
    // Shared with the cargo that runs us, which knows by a hash what is the same: macros, serde, and more.
    let shared = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target directory");
    command.env("CARGO_BUILD_BUILD_DIR", shared).env("CARGO_TERM_COLOR", "never");
    command
}

/// One at a time, across processes: cargo's output lies where the next mode's will, and the copy is written first.
fn under_the_lock<T>(act: impl FnOnce() -> T) -> T {
    let lock = File::create(folder().join("lock")).unwrap();
    lock.lock().unwrap();
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    // A manifest names the library's folder from its own place.
    let runtime = here.join("runtime");
    let in_full = |text: &str| text.replace("../../../runtime", runtime.to_str().unwrap());
    copy_folder(&here.join("tests/boot"), &folder().join("user"), &in_full);
    copy_other_version(here);
    // The versions that this repository was tested with, which were fetched to build this test.
    let lock_file = folder().join("user/Cargo.lock");
    if !lock_file.exists() {
        fs::copy(here.join("Cargo.lock"), lock_file).unwrap();
    }
    act()
}

/// Makes the second version of the library that one of the user's programs has: a copy with another number.
fn copy_other_version(here: &Path) {
    let other = folder().join("other");
    copy_folder(&here.join("runtime/src"), &other.join("src"), &str::to_owned);
    let manifest = fs::read_to_string(here.join("runtime/Cargo.toml")).unwrap();
    // All else that it inherits is the same.
    let version = format!("version = \"99.0.0\"\nworkspace = \"{}\"", here.display());
    write_if_changed(&other.join("Cargo.toml"), &manifest.replacen("version.workspace = true", &version, 1));
}

/// Makes `to` hold what `from` holds, and the lock file that cargo writes there.
fn copy_folder(from: &Path, to: &Path, edit: &dyn Fn(&str) -> String) {
    fs::create_dir_all(to).unwrap();
    let is_stale = |entry: &fs::DirEntry| entry.file_name() != "Cargo.lock" && !from.join(entry.file_name()).exists();
    for stale in fs::read_dir(to).unwrap().map(Result::unwrap).filter(is_stale) {
        fs::remove_file(stale.path()).or_else(|_| fs::remove_dir_all(stale.path())).unwrap();
    }
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &to, edit);
        } else {
            write_if_changed(&to, &edit(&fs::read_to_string(entry.path()).unwrap()));
        }
    }
}

/// Writes what has changed only, so that cargo sees no change where there is none.
fn write_if_changed(file: &Path, text: &str) {
    if fs::read_to_string(file).ok().as_deref() != Some(text) {
        fs::write(file, text).unwrap();
    }
}

/// A file that does not outlive its test, whatever becomes of that.
struct Passing(PathBuf);

impl Drop for Passing {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
