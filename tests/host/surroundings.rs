//! What a child has from its first instruction, and what the fork server keeps from its parent: nothing.
//!
//! Runs in: victims, which change their streams, directory and environment for good. Never: changes the test process.
#![expect(unsafe_code, reason = "an entry in .init_array, and changing the environment")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::sync::OnceLock;

use crate::support;
use crate::support::library::library;
use crate::support::scratch::Scratch;
use crate::support::subprocess::{self, Victim, reached};
use nix::mount::{MsFlags, mount, umount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{dup2_stderr, dup2_stdout};
use process_task::{Pool, Process, ProcessBuilder, StartMethod, process_task};

under_every_start_method! {
    reader_of_output_sees_the_end_when_the_program_has_closed_it,
    file_system_of_the_first_use_can_be_unmounted,
    loader_finds_what_it_found_when_the_program_was_started,
    environment_changed_by_the_program_is_seen_by_tasks,
}

fn reader_of_output_sees_the_end_when_the_program_has_closed_it(method: StartMethod) {
    plays(None, "output", method);
}

fn file_system_of_the_first_use_can_be_unmounted(method: StartMethod) {
    if nix::unistd::geteuid().is_root() {
        plays(None, "unmount", method);
    } else {
        println!("skipped: only root may mount file systems");
    }
}

fn loader_finds_what_it_found_when_the_program_was_started(method: StartMethod) {
    let scratch = Scratch::new();
    library(&scratch, "found", "int found_by_the_loader;");
    let line = format!("cd '{}' && LD_LIBRARY_PATH=. LD_PRELOAD=found.so exec \"$@\"", scratch.path().display());
    plays(Some(&line), "loader", method);
}

fn environment_changed_by_the_program_is_seen_by_tasks(method: StartMethod) {
    plays(None, "environment", method);
}

fn plays(shell: Option<&str>, scene: &str, method: StartMethod) {
    Victim::start_by(shell, scene, method).plays_to_the_end();
}

/// Plays a scene, in a process that a test of this file has started.
#[test]
fn scene() {
    let Some((scene, method)) = subprocess::scene() else { return };
    subprocess::say_panics();
    match scene.as_str() {
        "output" => output(method),
        "unmount" => unmount(method),
        "loader" => loader(method),
        "environment" => environment(method),
        other => unreachable!("no scene {other}"),
    }
    reached("played");
}

/// A process, and a pool that is dropped.
fn use_some(method: StartMethod) {
    assert_eq!(ProcessBuilder::new().start_method(method).spawn(square, 3).and_then(Process::join), Ok(9));
    let pool = Pool::builder().workers(2).start_method(method).build().unwrap();
    assert_eq!(pool.map(square, 0..4).unwrap(), [0, 1, 4, 9]);
}

fn output(method: StartMethod) {
    let (mut reader, writer) = std::io::pipe().unwrap();
    dup2_stdout(&writer).unwrap();
    dup2_stderr(&writer).unwrap();
    drop(writer);
    use_some(method);
    assert_eq!(ProcessBuilder::new().start_method(method).spawn(print, ()).and_then(Process::join), Ok(()));
    let null = fs::File::options().write(true).open("/dev/null").unwrap();
    dup2_stdout(&null).unwrap();
    dup2_stderr(&null).unwrap();
    let mut text = String::new();
    // Ends only if nothing has the other end any more.
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text.matches("a line of a task\n").count(), 1, "{text}");
    use_some(method);
}

fn unmount(method: StartMethod) {
    let (place, none) = (subprocess::stage().join("mounted"), None::<&str>);
    fs::create_dir(&place).unwrap();
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    mount(Some("tmpfs"), &place, Some("tmpfs"), MsFlags::empty(), none).unwrap();
    std::env::set_current_dir(&place).unwrap();
    use_some(method);
    let seen = ProcessBuilder::new().start_method(method).spawn(directory, ()).and_then(Process::join);
    assert_eq!(seen.as_deref(), Ok(&*place));
    std::env::set_current_dir("/").unwrap();
    use_some(method);
    // Processes that have answered end a little later.
    support::eventually("the file system is unmounted", support::PATIENCE, || umount(&place).is_ok());
}

fn loader(method: StartMethod) {
    assert!(libraries().contains("found.so"));
    std::env::set_current_dir("/").unwrap();
    set("LD_LIBRARY_PATH", None);
    set("LD_PRELOAD", None);
    let run = || support::process_builder(method);
    assert!(run().spawn(libraries, ()).and_then(Process::join).unwrap().contains("found.so"));
    let seen = run().spawn(variables, ()).and_then(Process::join).unwrap();
    assert_eq!((seen.get("LD_LIBRARY_PATH"), seen.get("LD_PRELOAD")), (None, None));
    if method == StartMethod::Exec {
        // What is asked for is exact, also for the loader.
        let without = run().env_remove("LD_PRELOAD").spawn(libraries, ()).and_then(Process::join);
        assert!(!without.unwrap().contains("found.so"));
    }
}

fn environment(method: StartMethod) {
    set("CHANGED", Some("by the program"));
    let run = || support::process_builder(method);
    assert_eq!(run().spawn(variables, ()).and_then(Process::join).unwrap()["CHANGED"], "by the program");
    set("CHANGED", None);
    set("LATER", Some("set"));
    let seen = run().spawn(variables, ()).and_then(Process::join).unwrap();
    assert_eq!((seen.get("CHANGED"), seen["LATER"].as_str()), (None, "set"));
}

fn set(key: &str, value: Option<&str>) {
    match value {
        // SAFETY: nothing else of this victim reads the environment meanwhile.
        Some(value) => unsafe { std::env::set_var(key, value) },
        // SAFETY: as above.
        None => unsafe { std::env::remove_var(key) },
    }
}

/// What a constructor has found, before all others.
static FOUND: OnceLock<BTreeMap<String, String>> = OnceLock::new();

extern "C" fn look() {
    let found = variables();
    FOUND.get_or_init(|| found);
}

#[used]
#[unsafe(link_section = ".init_array.00001")]
static LOOK: extern "C" fn() = look;

#[process_task]
fn found_by_constructor() -> BTreeMap<String, String> {
    FOUND.get().cloned().unwrap_or_default()
}

/// How the variable begins by which an executed process learns that it is one of ours; its end is the version.
const MARKS: &str = "PROCESS_TASK_BOOT_";

#[test]
fn constructors_of_executed_processes_find_their_environment() {
    support::promise(|| {
        let builder = || support::process_builder(StartMethod::Exec);
        let found =
            |builder: &mut ProcessBuilder| builder.spawn(found_by_constructor, ()).and_then(Process::join).unwrap();
        assert_eq!(found(builder().env("OMP_NUM_THREADS", "3"))["OMP_NUM_THREADS"], "3");
        assert!(!found(builder().env("PATH", "").env_remove("PATH")).contains_key("PATH"));
        let alone: Vec<_> = found(builder().env_clear().env("ONLY", "1")).into_keys().collect();
        assert!(alone[0] == "ONLY" && alone[1].starts_with(MARKS) && alone.len() == 2, "{alone:?}");
        let pool =
            Pool::builder().workers(1).start_method(StartMethod::Exec).env("MALLOC_ARENA_MAX", "2").build().unwrap();
        assert_eq!(pool.call(found_by_constructor, ()).unwrap()["MALLOC_ARENA_MAX"], "2");
        assert!(!pool.call(variables, ()).unwrap().keys().any(|key| key.starts_with(MARKS)));
    });
}

#[process_task]
fn variables() -> BTreeMap<String, String> {
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    std::env::vars_os().map(|(key, value)| (text(key), text(value))).collect()
}

#[process_task]
fn libraries() -> String {
    fs::read_to_string("/proc/self/maps").unwrap()
}

#[process_task]
fn directory() -> std::path::PathBuf {
    std::env::current_dir().unwrap()
}

#[process_task]
fn print() {
    println!("a line of a task");
}

#[process_task]
fn square(x: i64) -> i64 {
    x * x
}
