//! Children under the C compiler's address sanitizer and its search for leaks: what they find is reported, and nothing of ours is found.
//!
//! Runs in: victims, into which the sanitizer's library is loaded by `LD_PRELOAD`. Never: fails where it is not installed.
#![expect(unsafe_code, reason = "a task that crashes, and leaving without handlers")]

use std::fs;
use std::hint::black_box;
use std::path::PathBuf;
use std::process::Command;

use crate::support::library::preloading;
use crate::support::process_builder;
use crate::support::subprocess::{self, Victim, reached};
use process_task::{ErrorKind, Pool, ShutdownMode, StartMethod, process_task};

under_every_start_method! {
    within 240 seconds;
    address_sanitizer_reports_crash_of_child,
    leak_sanitizer_finds_nothing_of_ours,
}

fn address_sanitizer_reports_crash_of_child(method: StartMethod) {
    let Some(victim) = played(false, "crashes", method) else { return };
    let [report] = &reports(&victim)[..] else { panic!("{:?}", reports(&victim)) };
    assert!(report.contains("AddressSanitizer: SEGV on unknown address"), "{report}");
}

fn leak_sanitizer_finds_nothing_of_ours(method: StartMethod) {
    let Some(victim) = played(true, "leaks nothing", method) else { return };
    assert_eq!(reports(&victim), [""; 0]);
    // It would have been seen.
    let Some(victim) = played(true, "leaks", method) else { return };
    let [report] = &reports(&victim)[..] else { panic!("{:?}", reports(&victim)) };
    assert!(report.contains("Direct leak of 12345 byte(s)"), "{report}");
}

/// A victim that has played a scene under the sanitizer; `None` where that is not installed.
fn played(leaks: bool, scene: &str, method: StartMethod) -> Option<Victim> {
    let found = Command::new("cc").arg("-print-file-name=libasan.so").output().ok()?;
    let library = PathBuf::from(String::from_utf8(found.stdout).ok()?.trim());
    if !library.is_absolute() {
        println!("skipped: the C compiler has no address sanitizer");
        return None;
    }
    let options = format!("ASAN_OPTIONS=detect_leaks={}:log_path=$PROCESS_TASK_STAGE/report", u8::from(leaks));
    let mut victim = Victim::start_by(Some(&format!("{options} {}", preloading(&library))), scene, method);
    let status = victim.finish();
    let said = victim.said();
    assert!(status.success() && victim.on_stage("played").exists(), "{status}\n{said}\n{:?}", reports(&victim));
    Some(victim)
}

/// What the sanitizer has written, one text for each process in which it had something to say.
fn reports(victim: &Victim) -> Vec<String> {
    let files = fs::read_dir(victim.on_stage("")).unwrap().map(Result::unwrap);
    let reports = files.filter(|file| file.file_name().to_string_lossy().starts_with("report"));
    reports.map(|file| String::from_utf8_lossy(&fs::read(file.path()).unwrap()).into_owned()).collect()
}

/// Plays a scene, in a process that a test of this file has started.
#[test]
fn scene() {
    let Some((scene, method)) = subprocess::scene() else { return };
    subprocess::say_panics();
    let spawn = || process_builder(method);
    match scene.as_str() {
        "crashes" => {
            let error = spawn().spawn(wild, ()).unwrap().join().unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Exited { code: 1, .. }), "{error}");
        }
        "leaks nothing" => {
            let mut process = spawn().spawn(square, 3).unwrap();
            assert_eq!(process.wait().unwrap().code(), Some(0));
            assert_eq!(process.join(), Ok(9));
            let pool = Pool::builder().workers(2).start_method(method).build().unwrap();
            assert_eq!(pool.map(square, 0..100).unwrap()[99], 9801);
            assert_eq!(pool.call(length, &vec![7; 1 << 20]).unwrap(), 1 << 20);
            pool.shutdown(ShutdownMode::Finish).unwrap();
        }
        "leaks" => {
            let mut process = spawn().spawn(leak, 12345).unwrap();
            assert_eq!(process.wait().unwrap().code(), Some(1));
            assert_eq!(process.join(), Ok(12345));
        }
        other => unreachable!("no scene {other}"),
    }
    reached("played");
    end();
}

/// Not by way of the test harness, of which the leak sanitizer has something to say.
fn end() {
    // SAFETY: takes a number and does not return.
    unsafe { nix::libc::_exit(0) };
}

#[process_task]
fn square(x: i64) -> i64 {
    x * x
}

#[process_task]
fn length(bytes: &[u8]) -> usize {
    bytes.len()
}

#[process_task]
fn leak(bytes: usize) -> usize {
    black_box(vec![1_u8; bytes].leak()).len()
}

#[process_task]
fn wild() -> u8 {
    let nowhere: *const u8 = std::ptr::with_exposed_provenance(8);
    // SAFETY: this is the crash that the test is about.
    unsafe { black_box(nowhere).read_volatile() }
}
