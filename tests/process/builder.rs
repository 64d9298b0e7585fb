//! What can be asked for a process, and that this process has it, and no other.
//!
//! Runs in: the test process; the tasks in children. Never: changes anything of the test process itself.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::support::process_builder as builder;
use crate::support::scratch::Scratch;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit};
use process_task::{ErrorKind, Execution, ProcessBuilder, StartMethod, Stdio, process_task};

under_every_start_method! {
    variables_are_set_removed_and_cleared_in_the_order_asked,
    what_no_environment_can_hold_is_an_error,
    programs_that_a_task_starts_see_its_environment,
    the_working_directory_is_the_one_asked_for,
    stdin_is_empty_unless_asked,
    streams_lead_to_files_pipes_and_nowhere,
    one_process_can_write_into_the_next,
    output_beyond_a_pipes_size_arrives_whole,
    processor_time_beyond_the_limit_ends_the_task,
    limits_are_those_asked_for,
    niceness_and_processors_are_those_asked_for,
    a_name_is_cut_only_where_the_kernel_must,
    options_of_one_process_do_not_reach_the_next,
    builder_starts_many_processes_of_any_tasks,
    builder_makes_a_pipe_for_each_process,
    builder_keeps_a_given_file_until_it_is_dropped,
    output_leaves_the_streams_of_its_builder_alone,
    threads_start_processes_from_one_builder,
}

#[process_task]
fn environment() -> BTreeMap<OsString, OsString> {
    std::env::vars_os().collect()
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<OsString, OsString> {
    pairs.iter().map(|(key, value)| (OsString::from(key), OsString::from(value))).collect()
}

fn variables_are_set_removed_and_cleared_in_the_order_asked(method: StartMethod) {
    let own: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
    let seen = |builder: &ProcessBuilder| builder.spawn(environment, ()).unwrap().join().unwrap();
    assert_eq!(seen(&builder(method)), own);
    assert_eq!(seen(builder(method).env_clear()), map(&[]));
    let mut cleared = builder(method);
    cleared.env("A", "1").env_clear().env("B", "2").env("C", "").env("B", "=3=");
    assert_eq!(seen(&cleared), map(&[("B", "=3="), ("C", "")]));

    let mut expected = own.clone();
    expected.remove(std::ffi::OsStr::new("PATH")).expect("there is a PATH");
    expected.insert("NEW".into(), "value".into());
    let mut changed = builder(method);
    changed.env_remove("PATH").env("NEW", "old").env_remove("NEW").env("NEW", "value");
    assert_eq!(seen(changed.env_remove("NEVER_SET")), expected);

    let odd = OsString::from_vec(vec![b'x', 0xFF]);
    let seen = seen(builder(method).env_clear().env(odd.clone(), odd.clone()));
    assert_eq!(seen, [(odd.clone(), odd)].into());
}

fn what_no_environment_can_hold_is_an_error(method: StartMethod) {
    for (key, value) in [("", "value"), ("A=B", "value"), ("A\0B", "value"), ("A", "val\0ue")] {
        let started = builder(method).stderr(Stdio::null()).env(key, value).spawn(environment, ());
        let error = started.and_then(process_task::Process::join).expect_err("it cannot be had");
        assert_eq!(error.execution(), Execution::NotStarted);
        let reason = "its name is empty or holds `=`, or a NUL byte is in it";
        assert_eq!(error.to_string(), format!("no environment can hold the variable {key:?}: {reason}"));
    }
}

#[process_task]
fn environment_of_a_program() -> Vec<u8> {
    Command::new("/usr/bin/env").output().unwrap().stdout
}

fn programs_that_a_task_starts_see_its_environment(method: StartMethod) {
    let seen = builder(method).env_clear().env("ONLY", "this").spawn(environment_of_a_program, ());
    assert_eq!(seen.unwrap().join().unwrap().as_slice(), b"ONLY=this\n");
}

#[process_task]
fn directory() -> PathBuf {
    std::env::current_dir().unwrap()
}

fn the_working_directory_is_the_one_asked_for(method: StartMethod) {
    let own = std::env::current_dir().unwrap();
    let scratch = Scratch::new();
    let seen = |path: &str| builder(method).current_dir(path).spawn(directory, ()).unwrap().join().unwrap();
    assert_eq!(seen(&scratch.file("")), scratch.path());
    assert_eq!(seen("/"), PathBuf::from("/"));
    assert_eq!(seen("runtime/../tests"), own.join("tests"));
    assert_eq!(builder(method).spawn(directory, ()).unwrap().join().unwrap(), own);
}

#[process_task]
fn read_stdin() -> (PathBuf, Vec<u8>) {
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).unwrap();
    (fs::read_link("/proc/self/fd/0").unwrap(), bytes)
}

fn stdin_is_empty_unless_asked(method: StartMethod) {
    let null = (PathBuf::from("/dev/null"), vec![]);
    assert_eq!(builder(method).spawn(read_stdin, ()).unwrap().join().unwrap(), null);
    assert_eq!(builder(method).stdin(Stdio::null()).spawn(read_stdin, ()).unwrap().join().unwrap(), null);

    let scratch = Scratch::new();
    let path = scratch.file("input");
    fs::write(&path, "from a file").unwrap();
    let process = builder(method).stdin(File::open(&path).unwrap()).spawn(read_stdin, ()).unwrap();
    assert_eq!(process.join().unwrap(), (PathBuf::from(&path), b"from a file".to_vec()));

    let own = fs::read_link("/proc/self/fd/0").unwrap();
    let process = builder(method).stdin(Stdio::inherit()).spawn(where_streams_lead, ()).unwrap();
    assert_eq!(process.join().unwrap()[0], own);
}

#[process_task]
fn where_streams_lead() -> [PathBuf; 3] {
    [0, 1, 2].map(|number| fs::read_link(format!("/proc/self/fd/{number}")).unwrap())
}

#[process_task]
fn say(out: &str, err: &str) {
    print!("{out}");
    eprint!("{err}");
}

fn streams_lead_to_files_pipes_and_nowhere(method: StartMethod) {
    let own = [1, 2].map(|number| fs::read_link(format!("/proc/self/fd/{number}")).unwrap());
    let [_, out, err] = builder(method).spawn(where_streams_lead, ()).unwrap().join().unwrap();
    assert_eq!([out, err], own);
    let inherited = builder(method).stdout(Stdio::inherit()).stderr(Stdio::inherit()).spawn(where_streams_lead, ());
    let [_, out, err] = inherited.unwrap().join().unwrap();
    assert_eq!([out, err], own);

    let mut process =
        builder(method).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn(say, ("to stdout", "to stderr")).unwrap();
    let (out, err) = (process.take_stdout().unwrap(), process.take_stderr().unwrap());
    assert!(process.take_stdout().is_none() && process.take_stderr().is_none() && process.take_stdin().is_none());
    assert_eq!(std::io::read_to_string(out).unwrap(), "to stdout");
    assert_eq!(std::io::read_to_string(err).unwrap(), "to stderr");
    process.join().unwrap();

    let scratch = Scratch::new();
    let both = File::create(scratch.file("both")).unwrap();
    let again = both.try_clone().unwrap();
    builder(method).stdout(both).stderr(again).spawn(say, ("first ", "second")).unwrap().join().unwrap();
    let mut text = fs::read_to_string(scratch.file("both")).unwrap().split(' ').map(str::to_owned).collect::<Vec<_>>();
    text.sort();
    // stdout is flushed at the end of the task, stderr at once.
    assert_eq!(text, ["", "secondfirst"].map(str::to_owned));

    let nowhere = builder(method).stdout(Stdio::null()).stderr(Stdio::null()).spawn(where_streams_lead, ());
    let [_, out, err] = nowhere.unwrap().join().unwrap();
    assert_eq!([out, err], ["/dev/null", "/dev/null"].map(PathBuf::from));
}

#[process_task]
fn upper_case() {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).unwrap();
    print!("{}", text.to_uppercase());
}

fn one_process_can_write_into_the_next(method: StartMethod) {
    let mut first = builder(method).stdout(Stdio::piped()).spawn(say, ("down the line", "")).unwrap();
    let between = first.take_stdout().unwrap();
    let mut second = builder(method).stdin(between).stdout(Stdio::piped()).spawn(upper_case, ()).unwrap();
    let out = second.take_stdout().unwrap();
    assert_eq!(std::io::read_to_string(out).unwrap(), "DOWN THE LINE");
    first.join().unwrap();
    second.join().unwrap();
}

#[process_task]
fn print_much(lines: usize) {
    for line in 0..lines {
        println!("line {line}");
    }
}

fn output_beyond_a_pipes_size_arrives_whole(method: StartMethod) {
    let mut process = builder(method).stdout(Stdio::piped()).spawn(print_much, 100_000).unwrap();
    let text = std::io::read_to_string(process.take_stdout().unwrap()).unwrap();
    assert_eq!(text.lines().count(), 100_000);
    assert!(text.ends_with("line 99999\n"));
    process.join().unwrap();
}

#[process_task]
fn burn() -> u64 {
    let mut sum = 0_u64;
    loop {
        sum = std::hint::black_box(sum.wrapping_mul(3) ^ 1);
    }
}

fn processor_time_beyond_the_limit_ends_the_task(method: StartMethod) {
    let error = builder(method).cpu_time_limit(Duration::from_millis(1)).spawn(burn, ()).unwrap().join().unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Killed { signal: nix::libc::SIGXCPU, .. }), "{error}");
    assert!(error.to_string().contains("was killed by SIGXCPU while running `process::builder::burn`"), "{error}");
}

#[process_task]
fn own_limits() -> [(u64, u64); 3] {
    [Resource::RLIMIT_AS, Resource::RLIMIT_CPU, Resource::RLIMIT_NOFILE].map(|which| getrlimit(which).unwrap())
}

#[process_task]
fn open_until_refused() -> (usize, Option<i32>) {
    let mut files = Vec::new();
    loop {
        match File::open("/dev/null") {
            Ok(file) => files.push(file),
            Err(error) => return (files.len(), error.raw_os_error()),
        }
    }
}

fn limits_are_those_asked_for(method: StartMethod) {
    let limited = builder(method)
        .memory_limit(3 << 30)
        .cpu_time_limit(Duration::from_millis(7_001))
        .open_files_limit(40)
        .spawn(own_limits, ());
    assert_eq!(limited.unwrap().join().unwrap().map(|(soft, _)| soft), [3 << 30, 8, 40]);
    let own =
        [Resource::RLIMIT_AS, Resource::RLIMIT_CPU, Resource::RLIMIT_NOFILE].map(|which| getrlimit(which).unwrap());
    assert_eq!(builder(method).spawn(own_limits, ()).unwrap().join().unwrap(), own);
    let process = builder(method).open_files_limit(40).spawn(open_until_refused, ()).unwrap();
    let (opened, errno) = process.join().unwrap();
    assert_eq!(errno, Some(nix::libc::EMFILE));
    assert!((20..38).contains(&opened), "{opened}");
}

/// Niceness, and the list of processors.
#[process_task]
fn niceness_and_processors() -> (i32, String) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let niceness = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(16).unwrap().parse().unwrap();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    (niceness, list.trim().to_owned())
}

fn niceness_and_processors_are_those_asked_for(method: StartMethod) {
    let (own_niceness, own_processors) = niceness_and_processors();
    let seen = |builder: &ProcessBuilder| builder.spawn(niceness_and_processors, ()).unwrap().join().unwrap();
    assert_eq!(seen(&builder(method)), (own_niceness, own_processors.clone()));
    assert_eq!(seen(builder(method).nice(11)), (11, own_processors.clone()));
    assert_eq!(seen(builder(method).nice(1_000)), (19, own_processors.clone()), "the kernel's most");
    let first = own_processors.split([',', '-']).next().unwrap();
    assert_eq!(seen(builder(method).cpus([first.parse().unwrap()])), (own_niceness, first.to_owned()));
}

/// What this process is called by us and by the kernel.
#[process_task]
fn names() -> (String, Vec<u8>) {
    let mut comm = fs::read("/proc/self/comm").unwrap();
    comm.pop();
    (process_task::current().name().to_owned(), comm)
}

fn a_name_is_cut_only_where_the_kernel_must(method: StartMethod) {
    let long = "a name of more than fifteen bytes";
    for name in ["short", long, "ümläüts älsö hére", "", "with\nnewline"] {
        let process = builder(method).name(name).spawn(names, ()).unwrap();
        assert_eq!(process.name(), name);
        let (own, kernels) = process.join().unwrap();
        assert_eq!(own, name);
        let escaped = String::from_utf8_lossy(&kernels).replace("\\n", "\n");
        assert!(name.as_bytes().starts_with(&kernels[..kernels.len().min(4)]), "{name}: {escaped}");
        assert!(kernels.len() >= name.len().min(15), "{name}: {escaped}");
    }
    assert_eq!(builder(method).name("nul\0inside").spawn(names, ()).unwrap().join().unwrap().0, "nul\0inside");
    assert_eq!(builder(method).spawn(names, ()).unwrap().join().unwrap(), ("names".to_owned(), b"names".to_vec()));
}

fn options_of_one_process_do_not_reach_the_next(method: StartMethod) {
    let own: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
    let (niceness, processors) = niceness_and_processors();
    for _ in 0..10 {
        let mut odd = builder(method);
        odd.env_clear().env("ODD", "one").current_dir("/").nice(5).cpus([0]).memory_limit(1 << 32);
        odd.stdout(Stdio::null()).stdin(Stdio::piped()).open_files_limit(64).name("odd");
        assert_eq!(odd.spawn(environment, ()).unwrap().join().unwrap(), map(&[("ODD", "one")]));
    }
    for _ in 0..5 {
        assert_eq!(builder(method).spawn(environment, ()).unwrap().join().unwrap(), own);
        let seen = builder(method).spawn(niceness_and_processors, ()).unwrap().join().unwrap();
        assert_eq!(seen, (niceness, processors.clone()));
        assert_eq!(builder(method).spawn(directory, ()).unwrap().join().unwrap(), std::env::current_dir().unwrap());
    }
}

fn builder_starts_many_processes_of_any_tasks(method: StartMethod) {
    let mut builder = builder(method);
    builder.name("first").env_clear().env("MODE", "quick").current_dir("/");
    let first = [(); 3].map(|()| builder.spawn(environment, ()).unwrap());
    let elsewhere = builder.spawn(directory, ()).unwrap();
    builder.name("second").env("MODE", "slow");
    let second = builder.spawn(environment, ()).unwrap();
    assert_eq!(first.each_ref().map(process_task::Process::name), ["first"; 3]);
    assert_eq!(first.map(|process| process.join().unwrap()), [(); 3].map(|()| map(&[("MODE", "quick")])));
    assert_eq!((elsewhere.name(), second.name()), ("first", "second"));
    assert_eq!(elsewhere.join().unwrap(), PathBuf::from("/"));
    assert_eq!(second.join().unwrap(), map(&[("MODE", "slow")]));

    let failing = builder.env("A=B", "no variable").spawn(environment, ()).unwrap_err();
    assert_eq!(failing.execution(), Execution::NotStarted);
    let again = builder.env_clear().spawn(environment, ()).unwrap();
    assert_eq!(again.join().unwrap(), map(&[]), "a builder is of use after a start that failed");
}

fn builder_makes_a_pipe_for_each_process(method: StartMethod) {
    let mut builder = builder(method);
    builder.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut both = [(); 2].map(|()| builder.spawn(upper_case, ()).unwrap());
    for (process, text) in both.iter_mut().zip(["one", "other"]) {
        process.take_stdin().unwrap().write_all(text.as_bytes()).unwrap();
    }
    let said = both.map(|process| String::from_utf8(process.output().stdout).unwrap());
    assert_eq!(said, ["ONE", "OTHER"]);
}

fn builder_keeps_a_given_file_until_it_is_dropped(method: StartMethod) {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let mut builder = builder(method);
    builder.stdout(writer);
    for _ in 0..2 {
        builder.spawn(say, ("same", "")).unwrap().join().unwrap();
    }
    let mut text = [0; 8];
    reader.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"samesame");
    let mut end = PollFd::new(reader.as_fd(), PollFlags::POLLIN);
    assert_eq!(poll(std::slice::from_mut(&mut end), PollTimeout::ZERO), Ok(0), "the builder can still start others");
    builder.stdout(Stdio::null());
    assert_eq!(reader.read(&mut text).unwrap(), 0, "nothing has it any more");
}

fn output_leaves_the_streams_of_its_builder_alone(method: StartMethod) {
    let own = fs::read_link("/proc/self/fd/1").unwrap();
    let builder = builder(method);
    assert_eq!(
        builder.output(say, ("heard", "too")).map(|output| (output.stdout, output.stderr)),
        Ok((b"heard".to_vec(), b"too".to_vec()))
    );
    let mut process = builder.spawn(where_streams_lead, ()).unwrap();
    assert!(process.take_stdout().is_none() && process.take_stderr().is_none());
    assert_eq!(process.join().unwrap()[1], own);
}

fn threads_start_processes_from_one_builder(method: StartMethod) {
    let mut builder = builder(method);
    builder.env_clear().env("MODE", "shared");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                assert_eq!(builder.spawn(environment, ()).unwrap().join().unwrap(), map(&[("MODE", "shared")]));
            });
        }
    });
}
