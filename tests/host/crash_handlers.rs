//! Handlers that constructors installed, a sanitizer's or a crash reporter's among them, hear in children what they would in `main`.
//!
//! Runs in: victims, with a library under `LD_PRELOAD` that installs the handlers; in their children. Never: crashes the test process.
#![expect(unsafe_code, reason = "tasks that crash")]

use std::hint::black_box;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::time::Duration;
use std::{fs, process};

use crate::support::library::{library, preloading};
use crate::support::process_builder;
use crate::support::scratch::Scratch;
use crate::support::subprocess::{self, Victim, reached};
use nix::libc;
use nix::sys::signal::{Signal, raise};
use process_task::{Error, ErrorKind, Pool, StartMethod, process_task};

under_every_start_method! {
    within 120 seconds;
    handler_from_before_hears_of_faults,
    handler_without_stack_of_its_own_hears_of_faults,
    handler_from_before_that_mends_faults_goes_on,
    handler_from_before_hears_of_overflow_after_ours,
    ignored_signal_stays_ignored_and_fault_ends_process,
    handlers_of_terminal_signals_act_in_children,
    ignored_sigchld_of_constructor_hides_no_end,
}

/// Installs what `HANDLERS` says, and writes a line into `heard` for each signal.
const REPORTER: &str = r#"
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static char path[4096];

static void say(const char *what, int number) {
    char line[64];
    int log = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    int length = snprintf(line, sizeof line, "%s %d\n", what, number);
    if (log < 0 || write(log, line, length) != length)
        _exit(99);
    close(log);
}

static void report(int number, siginfo_t *info, void *context) {
    char room[32 << 10];
    memset(room, number, sizeof room);
    say(info->si_code > 0 ? "fault" : "sent", number);
    signal(number, SIG_DFL);
}

static void mend(int number, siginfo_t *info, void *context) {
    say("mended", number);
    if (mprotect((void *)((uintptr_t)info->si_addr & ~4095ul), 4096, PROT_READ | PROT_WRITE))
        _exit(98);
}

static void hear(int number) { say("heard", number); }

__attribute__((constructor)) static void begin(void) {
    const char *wanted = getenv("HANDLERS");
    struct sigaction action = {.sa_flags = SA_SIGINFO | SA_ONSTACK, .sa_sigaction = report};
    if (!wanted)
        return;
    snprintf(path, sizeof path, "%s/heard", getenv("PROCESS_TASK_STAGE"));
    if (!strcmp(wanted, "plain"))
        action.sa_flags = SA_SIGINFO;
    if (!strcmp(wanted, "mend"))
        action.sa_sigaction = mend;
    if (!strcmp(wanted, "ignore"))
        action = (struct sigaction){.sa_handler = SIG_IGN};
    if (!strcmp(wanted, "terminal")) {
        int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGCHLD};
        action = (struct sigaction){.sa_handler = hear, .sa_flags = SA_RESTART};
        for (int i = 0; i < 6; i++)
            sigaction(numbers[i], &action, 0);
    } else if (!strcmp(wanted, "children")) {
        signal(SIGCHLD, SIG_IGN);
    } else {
        sigaction(SIGSEGV, &action, 0);
        sigaction(SIGBUS, &action, 0);
    }
}
"#;

/// What was heard while this scene was played.
fn played(handlers: &str, scene: &str, method: StartMethod) -> Vec<String> {
    let scratch = Scratch::new();
    let shell = format!("HANDLERS={handlers} {}", preloading(&library(&scratch, "reporter", REPORTER)));
    let mut victim = Victim::start_by(Some(&shell), scene, method);
    victim.plays_to_the_end();
    let heard = fs::read_to_string(victim.on_stage("heard")).unwrap_or_default();
    heard.lines().map(str::to_owned).collect()
}

const SEGV: i32 = libc::SIGSEGV;
const BUS: i32 = libc::SIGBUS;

fn handler_from_before_hears_of_faults(method: StartMethod) {
    let expected = [format!("fault {SEGV}"), format!("fault {SEGV}"), format!("fault {BUS}"), format!("sent {SEGV}")];
    assert_eq!(played("own", "crashes", method), expected);
}

fn handler_without_stack_of_its_own_hears_of_faults(method: StartMethod) {
    let expected = [format!("fault {SEGV}"), format!("fault {SEGV}"), format!("fault {BUS}"), format!("sent {SEGV}")];
    assert_eq!(played("plain", "crashes", method), expected);
}

fn handler_from_before_that_mends_faults_goes_on(method: StartMethod) {
    assert_eq!(played("mend", "touches", method), vec![format!("mended {SEGV}"); 6]);
}

fn handler_from_before_hears_of_overflow_after_ours(method: StartMethod) {
    assert_eq!(played("own", "overflows", method), [format!("fault {SEGV}")]);
    assert_eq!(played("plain", "overflows", method), [""; 0], "there is no stack for it");
}

fn ignored_signal_stays_ignored_and_fault_ends_process(method: StartMethod) {
    assert_eq!(played("ignore", "ignores", method), [""; 0]);
}

fn handlers_of_terminal_signals_act_in_children(method: StartMethod) {
    let signals = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGCHLD];
    let expected: Vec<_> = signals.into_iter().map(|signal| format!("heard {}", signal as i32)).collect();
    assert_eq!(played("terminal", "raises", method), [&expected[..], &expected[..]].concat());
}

fn ignored_sigchld_of_constructor_hides_no_end(method: StartMethod) {
    assert_eq!(played("children", "ends", method), [""; 0]);
}

/// Plays a scene, in a process that a test of this file has started.
#[test]
fn scene() {
    let Some((scene, method)) = subprocess::scene() else { return };
    subprocess::say_panics();
    let spawn = || process_builder(method);
    let pool = || Pool::builder().workers(1).start_method(method).build().unwrap();
    match scene.as_str() {
        "crashes" => {
            killed_by(SEGV, &spawn().spawn(wild, ()).unwrap().join().unwrap_err());
            killed_by(SEGV, &pool().call(wild, ()).unwrap_err());
            killed_by(BUS, &spawn().spawn(beyond_end, &*subprocess::stage()).unwrap().join().unwrap_err());
            // The handler has set the default, but the signal is over: the process goes on.
            assert_eq!(spawn().spawn(send_itself, SEGV).unwrap().join(), Ok(SEGV));
        }
        "touches" => {
            assert_eq!(spawn().spawn(touch, 3).unwrap().join(), Ok(3));
            assert_eq!(pool().map(touch, [1, 2]).unwrap(), [1, 2]);
        }
        "overflows" => {
            let error = spawn().spawn(overflow, 0).unwrap().join().unwrap_err();
            assert_eq!(*error.kind(), ErrorKind::StackOverflow, "{error}");
        }
        "ignores" => {
            assert_eq!(spawn().spawn(send_itself, SEGV).unwrap().join(), Ok(SEGV));
            killed_by(SEGV, &spawn().spawn(wild, ()).unwrap().join().unwrap_err());
        }
        "raises" => {
            spawn().spawn(raise_all, ()).unwrap().join().unwrap();
            pool().call(raise_all, ()).unwrap();
        }
        "ends" => {
            let mut process = spawn().spawn(leave, 7).unwrap();
            let status = process.wait_timeout(Duration::from_secs(20)).unwrap().unwrap();
            assert_eq!(status.code(), Some(7));
            let mut process = spawn().spawn(send_itself, libc::SIGKILL).unwrap();
            let status = process.wait_timeout(Duration::from_secs(20)).unwrap().unwrap();
            assert_eq!(status.signal(), Some(9));
        }
        other => unreachable!("no scene {other}"),
    }
    reached("played");
}

fn killed_by(number: i32, error: &Error) {
    assert!(matches!(error.kind(), ErrorKind::Killed { signal, .. } if *signal == number), "{error}");
}

#[process_task]
fn wild() -> u8 {
    let nowhere: *const u8 = std::ptr::with_exposed_provenance(8);
    // SAFETY: this is the crash that the test is about.
    unsafe { black_box(nowhere).read_volatile() }
}

#[process_task]
fn beyond_end(stage: &Path) -> u8 {
    let file = fs::File::create_new(stage.join("empty")).unwrap();
    let length = std::num::NonZero::new(4096).unwrap();
    let access = nix::sys::mman::ProtFlags::PROT_READ;
    // SAFETY: a new mapping; that its file has no page behind it is the crash that the test is about.
    let mapped = unsafe { nix::sys::mman::mmap(None, length, access, nix::sys::mman::MapFlags::MAP_SHARED, &file, 0) };
    // SAFETY: as above.
    unsafe { mapped.unwrap().cast::<u8>().as_ptr().read_volatile() }
}

#[process_task]
fn send_itself(number: i32) -> i32 {
    raise(Signal::try_from(number).unwrap()).unwrap();
    number
}

/// Writes to pages that it may not write to, twice.
#[process_task]
fn touch(value: i32) -> i32 {
    let access = nix::sys::mman::ProtFlags::PROT_NONE;
    let length = std::num::NonZero::new(8192).unwrap();
    // SAFETY: a new mapping, which overlaps nothing.
    let mapped = unsafe { nix::sys::mman::mmap_anonymous(None, length, access, nix::sys::mman::MapFlags::MAP_PRIVATE) };
    let start = mapped.unwrap().cast::<i32>().as_ptr();
    for place in [start, start.wrapping_byte_add(4096)] {
        // SAFETY: the handler makes the page writable before the instruction runs again.
        unsafe { place.write_volatile(value) };
    }
    // SAFETY: it was written above.
    unsafe { start.read_volatile() }
}

#[process_task]
fn overflow(depth: u64) -> u64 {
    let frame = black_box([depth; 512]);
    if depth == u64::MAX { 0 } else { overflow(depth + 1) + frame[0] }
}

#[process_task]
fn raise_all() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGCHLD] {
        raise(signal).unwrap();
    }
}

#[process_task]
#[expect(clippy::exit, reason = "the task is one that ends its process")]
fn leave(code: i32) {
    process::exit(code);
}
