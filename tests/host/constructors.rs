//! Files that constructors opened before the library has begun: they stay open under their owners, in every process.
//!
//! Runs in: victims, of which some have a constructor that opens a log, and some a library under `LD_PRELOAD` that opens several.
//! Never: opens anything in the test process before `main`.
#![expect(unsafe_code, reason = "an entry in .init_array, before all others")]

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use crate::support;
use crate::support::library::{library, preloading};
use crate::support::scratch::Scratch;
use crate::support::subprocess::{self, Victim, reached};
use process_task::{Pool, StartMethod, process_task};

under_every_start_method! {
    within 120 seconds;
    file_of_constructor_stays_open_in_children,
    file_of_constructor_stays_open_without_streams,
    two_files_of_preloaded_library_get_its_lines_alone,
    five_files_of_preloaded_library_get_its_lines_alone,
    thread_of_constructor_is_named_once,
    thread_of_constructor_takes_no_end_away,
}

/// Given by the test to victims of which a constructor opens a log: where.
const LOG_PATH: &str = "PROCESS_TASK_TEST_LOG";

static LOG: OnceLock<File> = OnceLock::new();

/// What an attribute for constructors makes.
extern "C" fn open_log() {
    if let Some(path) = std::env::var_os(LOG_PATH) {
        let file = File::options().append(true).create(true).open(path);
        LOG.get_or_init(|| file.expect("a log on the stage"));
    }
}

#[used]
#[unsafe(link_section = ".init_array.00001")]
static OPEN_LOG: extern "C" fn() = open_log;

/// As the first thing of all, in front of the program's constructors; and it writes whenever its process forks.
const TRACER: &str = r#"
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int logs[8], count;

static void tell(void) {
    for (int i = 0; i < count; i++)
        if (write(logs[i], "traced\n", 7) != 7)
            abort();
}

__attribute__((constructor)) static void begin(void) {
    const char *wanted = getenv("TRACER_LOGS");
    for (count = 0; wanted && count < atoi(wanted); count++) {
        char path[4096];
        snprintf(path, sizeof path, "%s/traced-%d", getenv("PROCESS_TASK_STAGE"), count);
        logs[count] = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
        if (logs[count] < 0)
            abort();
    }
    pthread_atfork(tell, tell, tell);
}

__attribute__((destructor)) static void end(void) { tell(); }
"#;

/// As an allocator's: a thread that is there before `main`.
const FLUSHER: &str = r#"
#define _GNU_SOURCE
#include <pthread.h>
#include <unistd.h>

static void *flush(void *nothing) {
    for (;;)
        pause();
    return nothing;
}

__attribute__((constructor)) static void begin(void) {
    pthread_t thread;
    if (!pthread_create(&thread, 0, flush, 0))
        pthread_setname_np(thread, "flusher");
}
"#;

fn file_of_constructor_stays_open_in_children(method: StartMethod) {
    keeps_log(method, "");
}

fn file_of_constructor_stays_open_without_streams(method: StartMethod) {
    keeps_log(method, "<&- >&- 2>&-");
}

fn keeps_log(method: StartMethod, streams: &str) {
    let scratch = Scratch::new();
    let log = scratch.file("log");
    let mut victim = Victim::start_by(Some(&format!("{LOG_PATH}='{log}' exec \"$@\" {streams}")), "logs", method);
    victim.plays_to_the_end();
    let data = |name| fs::read_to_string(victim.on_stage(name)).unwrap();
    assert_eq!((data("here"), data("spawned"), data("worker")), ("here".into(), "there".into(), "there".into()));
    assert_eq!(fs::read_to_string(&log).unwrap(), "saving\nsaving\nsaving\n");
}

fn two_files_of_preloaded_library_get_its_lines_alone(method: StartMethod) {
    traces(method, 2);
}

fn five_files_of_preloaded_library_get_its_lines_alone(method: StartMethod) {
    traces(method, 5);
}

fn traces(method: StartMethod, logs: usize) {
    let scratch = Scratch::new();
    let shell = format!("TRACER_LOGS={logs} {}", preloading(&library(&scratch, "tracer", TRACER)));
    let mut victim = Victim::start_by(Some(&shell), "traced", method);
    victim.plays_to_the_end();
    let texts = (0..logs).map(|log| fs::read_to_string(victim.on_stage(format!("traced-{log}"))).unwrap());
    let texts: Vec<_> = texts.collect();
    assert!(texts[0].lines().all(|line| line == "traced"), "{:?}", texts[0]);
    // Each of eight processes that run tasks was made by a fork, which writes on both sides of it, and writes once more at its end.
    assert!(texts[0].lines().count() >= 24, "{:?}", texts[0]);
    assert!(texts.iter().all(|text| *text == texts[0]), "a line is missing: {texts:?}");
    assert_eq!(fs::read_to_string(victim.on_stage("spawned")).unwrap(), "there");
}

fn thread_of_constructor_is_named_once(method: StartMethod) {
    let scratch = Scratch::new();
    let shell = format!("{} 2>\"$PROCESS_TASK_STAGE/told\"", preloading(&library(&scratch, "flusher", FLUSHER)));
    let mut victim = Victim::start_by(Some(&shell), "traced", method);
    victim.plays_to_the_end();
    let told = fs::read_to_string(victim.on_stage("told")).unwrap();
    if method == StartMethod::Exec {
        assert_eq!(told, "");
    } else {
        assert_eq!(told.lines().count(), 1, "{told}");
        assert!(told.contains("`flusher`, started by a constructor"), "{told}");
    }
}

fn thread_of_constructor_takes_no_end_away(method: StartMethod) {
    let scratch = Scratch::new();
    let mut victim = Victim::start_by(Some(&preloading(&library(&scratch, "flusher", FLUSHER))), "many ends", method);
    victim.plays_to_the_end();
}

/// Plays a scene, in a process that a test of this file has started.
#[test]
fn scene() {
    let Some((scene, method)) = subprocess::scene() else { return };
    subprocess::say_panics();
    let (spawned, worker) = (subprocess::stage().join("spawned"), subprocess::stage().join("worker"));
    let builder = || support::process_builder(method);
    match scene.as_str() {
        "logs" => {
            save(&subprocess::stage().join("here"), "here");
            builder().spawn(save, (spawned.as_path(), "there")).unwrap().join().unwrap();
            let pool = Pool::builder().workers(1).start_method(method).build().unwrap();
            pool.call(save, (worker.as_path(), "there")).unwrap();
        }
        "traced" => {
            for _ in 0..5 {
                builder().spawn(write, (spawned.as_path(), "there")).unwrap().join().unwrap();
            }
            let pool = Pool::builder().workers(3).start_method(method).build().unwrap();
            assert_eq!(pool.map(square, 0..100).unwrap()[99], 9801);
        }
        "many ends" => {
            for x in 0..support::rounds(40) {
                let mut process = builder().spawn(square, i64::try_from(x).unwrap()).unwrap();
                let status = process.wait_timeout(Duration::from_secs(30)).unwrap().unwrap();
                assert_eq!(status.code(), Some(0), "the end of process {x}");
            }
        }
        other => unreachable!("no scene {other}"),
    }
    reached("played");
    end();
}

/// Not by way of the test harness, which would write its own words to whatever is descriptor 1.
#[expect(clippy::exit, reason = "the scene is over")]
fn end() {
    std::process::exit(0);
}

#[process_task]
fn save(path: &Path, text: &str) {
    let mut data = File::create(path).unwrap();
    LOG.get().unwrap().write_all(b"saving\n").unwrap();
    data.write_all(text.as_bytes()).unwrap();
}

#[process_task]
fn write(path: &Path, text: &str) {
    File::create(path).unwrap().write_all(text.as_bytes()).unwrap();
}

#[process_task]
fn square(x: i64) -> i64 {
    x * x
}
