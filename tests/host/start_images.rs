//! What a copy of the program is made from, and what an error says when no copy can be made.
//!
//! Runs in: victims, which change what belongs to their process. Never: changes the test process.
#![expect(unsafe_code, reason = "replacing descriptors and memory of a program, and filters")]

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support;
use crate::support::filter::{self, Answer};
use crate::support::subprocess::{self, plays, reached};
use nix::errno::Errno;
use nix::libc;
use process_task::{Pool, Process, ProcessBuilder, StartMethod, process_task};

under_every_start_method! {
    within 120 seconds;
    file_under_the_images_number_is_not_executed,
    program_that_closed_our_descriptors_starts_processes,
    text_in_anonymous_memory_starts_processes,
    root_without_proc_is_named,
    root_without_dev_null_is_named,
    refused_exec_is_named,
    refused_exec_of_a_child_is_named,
    refused_pidfd_is_named,
    refused_memfd_is_named,
}

fn file_under_the_images_number_is_not_executed(method: StartMethod) {
    plays("number", method);
}

fn program_that_closed_our_descriptors_starts_processes(method: StartMethod) {
    plays("closed", method);
}

fn text_in_anonymous_memory_starts_processes(method: StartMethod) {
    plays("anonymous text", method);
}

fn root_without_proc_is_named(method: StartMethod) {
    plays_as_root("no proc", method);
}

fn root_without_dev_null_is_named(method: StartMethod) {
    plays_as_root("no null", method);
}

fn refused_exec_is_named(method: StartMethod) {
    plays("no exec", method);
}

fn refused_exec_of_a_child_is_named(method: StartMethod) {
    plays("no execveat", method);
}

fn refused_pidfd_is_named(method: StartMethod) {
    plays("no pidfd", method);
}

fn refused_memfd_is_named(method: StartMethod) {
    plays("no memfd", method);
}

fn plays_as_root(scene: &str, method: StartMethod) {
    if nix::unistd::geteuid().is_root() {
        plays(scene, method);
    } else {
        println!("skipped: only root may change its root directory");
    }
}

#[test]
fn file_capabilities_are_named() {
    support::promise(start_with_capabilities);
}

fn start_with_capabilities() {
    let folder = std::env::temp_dir().join(format!("process-task-capable-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let program = folder.join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let given = Command::new("setcap").arg("cap_net_bind_service+ep").arg(&program).output();
    if given.is_ok_and(|given| given.status.success()) {
        let mut command = Command::new(&program);
        command
            .args(["--exact", "start_images::capable", "--nocapture"])
            .env("PROCESS_TASK_CAPABLE", "1")
            .uid(65534)
            .gid(65534);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let words = "could not start process `square` for `host::start_images::square`: start a copy of this program: its file \
            has capabilities or a set-user-ID or set-group-ID bit";
        assert!(said.contains(words), "{said}");
    } else {
        println!("skipped: no file can be given capabilities here");
    }
    fs::remove_dir_all(&folder).unwrap();
}

/// Says what became of a process, in a copy of this test that has capabilities.
#[test]
fn capable() {
    if std::env::var_os("PROCESS_TASK_CAPABLE").is_some() {
        println!("{:?}", square.spawn(3).join());
    }
}

/// Plays a scene, in a process that a test of this file has started.
#[test]
fn scene() {
    let Some((scene, method)) = subprocess::scene() else { return };
    let said = File::create(subprocess::stage().join("said")).unwrap();
    std::panic::set_hook(Box::new(move |info| drop(std::io::Write::write_fmt(&mut &said, format_args!("{info}")))));
    match scene.as_str() {
        "number" => another_file_has_the_number(method),
        "closed" => descriptors_are_closed(method),
        "anonymous text" => text_moves(method),
        "no proc" => {
            fs::create_dir(subprocess::stage().join("dev")).unwrap();
            // A bind mount would need a namespace of its own; a device node does as well.
            nix::sys::stat::mknod(
                &subprocess::stage().join("dev/null"),
                nix::sys::stat::SFlag::S_IFCHR,
                nix::sys::stat::Mode::from_bits_truncate(0o666),
                nix::sys::stat::makedev(1, 3),
            )
            .unwrap();
            below_the_stage(|| fails(method, "is /proc mounted"));
        }
        "no null" => below_the_stage(|| fails(method, "open /dev/null: No such file or directory")),
        "no exec" => {
            filter::refuse(&[libc::SYS_execve, libc::SYS_execveat], Answer::Errno(Errno::EPERM));
            fails(method, "execute this program again: Operation not permitted (a seccomp filter");
        }
        "no execveat" => {
            filter::refuse(&[libc::SYS_execveat], Answer::Errno(Errno::ENOSYS));
            match method {
                StartMethod::ForkServer => starts(method),
                StartMethod::Exec => {
                    fails(method, "execute this program again: Function not implemented (a seccomp filter");
                }
            }
        }
        "no pidfd" => {
            filter::refuse(&[libc::SYS_pidfd_open], Answer::Errno(Errno::ENOSYS));
            fails(method, "open a pidfd: Function not implemented (a seccomp filter");
        }
        "no memfd" => {
            filter::refuse(&[libc::SYS_memfd_create], Answer::Errno(Errno::EPERM));
            fails(method, "Operation not permitted (a seccomp filter");
        }
        other => unreachable!("no scene {other}"),
    }
    reached("played");
}

fn starts(method: StartMethod) {
    assert_eq!(ProcessBuilder::new().start_method(method).spawn(square, 3).and_then(Process::join), Ok(9));
    let pool = Pool::builder().workers(2).start_method(method).build().unwrap();
    assert_eq!(pool.map(square, 0..4).unwrap(), [0, 1, 4, 9]);
}

fn fails(method: StartMethod, words: &str) {
    let error = ProcessBuilder::new().start_method(method).spawn(square, 3).and_then(Process::join).unwrap_err();
    assert!(error.to_string().contains(words), "{error}");
    let pool = Pool::builder().workers(1).start_method(method).build();
    let error = pool.and_then(|pool| pool.call(square, 3)).unwrap_err();
    assert!(error.to_string().contains(words), "{error}");
}

fn another_file_has_the_number(method: StartMethod) {
    let echo = File::open("/bin/echo").unwrap();
    let own = std::env::current_exe().unwrap();
    let numbers: Vec<i32> =
        descriptors().into_iter().filter(|(_, path)| *path == own).map(|(number, _)| number).collect();
    assert!(!numbers.is_empty(), "the image is kept open");
    for number in numbers {
        // SAFETY: takes two numbers; the library is to notice what became of its descriptor.
        assert_eq!(unsafe { libc::dup2(echo.as_raw_fd(), number) }, number);
    }
    starts(method);
}

fn descriptors_are_closed(method: StartMethod) {
    let said = descriptors().into_iter().find(|(_, path)| path.ends_with("said")).unwrap().0.unsigned_abs();
    for (first, last) in [(3, said - 1), (said + 1, u32::MAX)] {
        if first <= last {
            // SAFETY: takes numbers; nothing of this process needs what was open before the first process is started.
            unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        }
    }
    let files: Vec<_> = (0..20).map(|_| File::open("/bin/echo").unwrap()).collect();
    starts(method);
    drop(files);
}

/// The open descriptors of this process, and what they show.
fn descriptors() -> Vec<(i32, PathBuf)> {
    let entries = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let number = |path: &Path| path.file_name()?.to_str()?.parse().ok();
    entries.filter_map(|entry| Some((number(&entry.path())?, fs::read_link(entry.path()).ok()?))).collect()
}

/// Puts a copy of the program's text, in memory of no file, in its place.
fn text_moves(method: StartMethod) {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let own = std::env::current_exe().unwrap();
    let line = maps.lines().find(|line| line.contains(" r-xp ") && line.ends_with(own.to_str().unwrap())).unwrap();
    let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
    let [from, to] = [from, to].map(|bound| usize::from_str_radix(bound, 16).unwrap());
    let text = std::ptr::with_exposed_provenance_mut::<libc::c_void>(from);
    let (protection, flags) =
        (libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: new memory, which nothing else knows of.
    let copy = unsafe { libc::mmap(std::ptr::null_mut(), to - from, protection, flags, -1, 0) };
    assert_ne!(copy, libc::MAP_FAILED);
    // SAFETY: both are as long as the text, and apart.
    unsafe { std::ptr::copy_nonoverlapping(text.cast::<u8>(), copy.cast::<u8>(), to - from) };
    // SAFETY: the copy takes the text's place in one step, so every address holds what it did.
    let moved = unsafe { libc::mremap(copy, to - from, to - from, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, text) };
    assert_eq!(moved, text);
    starts(method);
}

fn below_the_stage(body: impl FnOnce()) {
    let outside = File::open("/").unwrap();
    nix::unistd::chroot(&subprocess::stage()).unwrap();
    std::env::set_current_dir("/").unwrap();
    body();
    nix::unistd::fchdir(&outside).unwrap();
    nix::unistd::chroot(".").unwrap();
}

#[process_task]
fn square(x: i64) -> i64 {
    x * x
}
