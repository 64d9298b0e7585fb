//! A child has the rights that its parent has when it asks, also where a fork server was started with others.
//!
//! Runs in: victims, which give their rights up for good; the tasks in their children. Never: changes the test process.
#![expect(unsafe_code, reason = "system calls that change what a thread may do")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use crate::support;
use crate::support::filter::{self, Answer};
use crate::support::restrict::{self, give_up_capabilities};
use crate::support::subprocess::{self, Victim, reached};
use nix::errno::Errno;
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::stat::{Mode, umask};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{Gid, Uid, chroot, setegid, seteuid, setgid, setgroups, setsid, setuid};
use process_task::{Pool, Process, StartMethod, process_task};

under_every_start_method! {
    within 120 seconds;
    user_and_groups_are_those_of_now,
    effective_user_and_group_are_those_of_now,
    capabilities_are_those_of_now,
    bounding_set_is_that_of_now,
    no_new_privileges_are_inherited,
    filters_are_inherited,
    root_directory_is_that_of_now,
    directory_that_only_root_may_enter_stays,
    namespaces_are_those_of_now,
    control_group_is_that_of_now,
    session_is_that_of_now,
    securebits_and_personality_are_those_of_now,
    scheduling_and_memory_attributes_are_those_of_now,
    favours_that_no_child_may_take_fail_no_start,
    umask_is_that_of_now,
    daemon_that_drops_its_privileges_starts_processes_without,
    fresh_start_lets_go_of_the_fork_server,
    old_processes_outlive_a_change_of_rights,
    refused_start_never_falls_back_to_old_rights,
}

fn user_and_groups_are_those_of_now(method: StartMethod) {
    plays("user", method);
}

fn effective_user_and_group_are_those_of_now(method: StartMethod) {
    plays("effective user", method);
}

fn capabilities_are_those_of_now(method: StartMethod) {
    plays("capabilities", method);
}

fn bounding_set_is_that_of_now(method: StartMethod) {
    plays("bounding set", method);
}

fn no_new_privileges_are_inherited(method: StartMethod) {
    plays("no new privileges", method);
}

fn filters_are_inherited(method: StartMethod) {
    plays("filter", method);
}

fn root_directory_is_that_of_now(method: StartMethod) {
    plays("root", method);
    plays("read-only root", method);
}

fn directory_that_only_root_may_enter_stays(method: StartMethod) {
    plays("private directory", method);
}

fn namespaces_are_those_of_now(method: StartMethod) {
    plays("namespaces", method);
}

fn control_group_is_that_of_now(method: StartMethod) {
    plays("control group", method);
}

fn session_is_that_of_now(method: StartMethod) {
    plays("session", method);
}

fn securebits_and_personality_are_those_of_now(method: StartMethod) {
    plays("securebits", method);
    plays("personality", method);
    plays("executable memory", method);
}

fn favours_that_no_child_may_take_fail_no_start(method: StartMethod) {
    plays("favours", method);
}

fn scheduling_and_memory_attributes_are_those_of_now(method: StartMethod) {
    plays("attributes", method);
}

fn umask_is_that_of_now(method: StartMethod) {
    plays("umask", method);
}

fn daemon_that_drops_its_privileges_starts_processes_without(method: StartMethod) {
    plays("daemon", method);
}

fn fresh_start_lets_go_of_the_fork_server(method: StartMethod) {
    plays("afresh", method);
}

fn old_processes_outlive_a_change_of_rights(method: StartMethod) {
    plays("outlive", method);
}

fn refused_start_never_falls_back_to_old_rights(method: StartMethod) {
    plays("refused", method);
}

/// What only root may do, or what needs no rights at all.
const FREE: [&str; 6] = ["no new privileges", "filter", "personality", "session", "umask", "afresh"];

fn plays(scene: &str, method: StartMethod) {
    if !FREE.contains(&scene) && !Uid::effective().is_root() {
        println!("skipped: only root may change what the scene {scene} changes");
        return;
    }
    let mut victim = Victim::start(scene, method);
    victim.plays_to_the_end();
    if scene == "control group" {
        let _ = fs::remove_dir(control_group(victim.child.id()));
    }
}

/// Plays a scene, in a process that a test of this file has started.
#[test]
fn scene() {
    let Some((scene, method)) = subprocess::scene() else { return };
    let said = File::create(subprocess::stage().join("said")).unwrap();
    std::panic::set_hook(Box::new(move |info| drop((&said).write_all(info.to_string().as_bytes()))));
    // It will not be root's only.
    fs::set_permissions(subprocess::stage(), fs::Permissions::from_mode(0o777)).unwrap();
    match scene.as_str() {
        "daemon" => daemon(method),
        "afresh" => afresh(method),
        "outlive" => outlive(method),
        "refused" => refused(method),
        "favours" => favours(method),
        "executable memory" if option(GET_MDWE, 0) < 0 => {}
        "control group" if fs::create_dir(control_group(std::process::id())).is_err() => {
            (&File::create(subprocess::stage().join("said")).unwrap())
                .write_all(b"no control group can be made")
                .unwrap();
        }
        other => follows(other, method),
    }
    reached("played");
}

/// Every kind of process has what the scene's thread has after the change.
fn follows(scene: &str, method: StartMethod) {
    let outside = File::open("/").unwrap();
    let old = Pool::builder().workers(1).start_method(method).build().unwrap();
    assert_eq!(start(method), facts());
    assert_eq!(old.call(facts, ()).unwrap(), facts());
    let before = facts();
    change(scene);
    let own = facts();
    assert_ne!(own, before, "{scene} changes something");
    assert_eq!(start(method), own, "a process");
    assert_eq!(start(method), own, "another one");
    old.call(leave, ()).unwrap_err();
    assert_eq!(old.call(facts, ()).unwrap(), own, "a worker that replaces one");
    let new = Pool::builder().workers(2).start_method(method).build().unwrap();
    assert_eq!(new.call(facts, ()).unwrap(), own, "a worker of a new pool");
    assert_eq!(
        Process::builder().start_method(method).spawn(nested, ()).and_then(Process::join),
        Ok(own),
        "a child's child"
    );
    drop((old, new));
    if scene == "root" || scene == "read-only root" {
        nix::unistd::fchdir(&outside).unwrap();
        chroot(".").unwrap();
    }
}

fn start(method: StartMethod) -> BTreeMap<String, String> {
    Process::builder().start_method(method).spawn(facts, ()).and_then(Process::join).unwrap()
}

#[process_task]
fn nested() -> BTreeMap<String, String> {
    facts.spawn().join().unwrap()
}

/// What this thread may do, and what else it hands down.
#[process_task]
fn facts() -> BTreeMap<String, String> {
    const LINES: [&str; 12] = [
        "Umask:",
        "Uid:",
        "Gid:",
        "Groups:",
        "CapInh:",
        "CapPrm:",
        "CapEff:",
        "CapBnd:",
        "CapAmb:",
        "NoNewPrivs:",
        "Seccomp",
        "THP_enabled:",
    ];
    let mut found = BTreeMap::new();
    let mut say = |name: &str, value: String| drop(found.insert(name.to_owned(), value));
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    for line in status.lines().filter(|line| LINES.iter().any(|start| line.starts_with(start))) {
        let (name, value) = line.split_once(':').unwrap();
        let mut values: Vec<_> = value.split_whitespace().collect();
        if name == "Uid" || name == "Gid" {
            // The saved one is lost by being executed.
            values.remove(2);
        }
        say(name, values.join(" "));
    }
    for kind in ["net", "mnt", "uts", "ipc", "cgroup", "user"] {
        say(kind, fs::read_link(format!("/proc/thread-self/ns/{kind}")).unwrap().display().to_string());
    }
    let root = fs::metadata("/").unwrap();
    let is_read_only = statvfs("/").unwrap().flags().contains(FsFlags::ST_RDONLY);
    say("root", format!("{} {} {is_read_only}", root.dev(), root.ino()));
    say("directory", format!("{:?}", fs::read_link("/proc/thread-self/cwd")));
    say("cgroups", fs::read_to_string("/proc/thread-self/cgroup").unwrap());
    say("oom", fs::read_to_string("/proc/self/oom_score_adj").unwrap());
    let session = nix::unistd::getsid(None).map_or(-1, nix::unistd::Pid::as_raw);
    say("session", session.to_string());
    let numbers = [
        ("dumpable", option(libc::PR_GET_DUMPABLE, 0)),
        ("slack", option(libc::PR_GET_TIMERSLACK, 0)),
        ("huge pages", option(libc::PR_GET_THP_DISABLE, 0)),
        ("executable memory", option(GET_MDWE, 0)),
        ("securebits", option(libc::PR_GET_SECUREBITS, 0)),
        ("personality", call(libc::SYS_personality, [0xffff_ffff, 0, 0])),
        ("policy", call(libc::SYS_sched_getscheduler, [0; 3])),
        ("io", call(libc::SYS_ioprio_get, [1, 0, 0])),
        ("niceness", call(libc::SYS_getpriority, [0; 3])),
    ];
    for (name, number) in numbers {
        say(name, number.to_string());
    }
    found
}

/// `PR_SET_MDWE` and `PR_GET_MDWE`.
const SET_MDWE: i32 = 65;
const GET_MDWE: i32 = 66;

/// `prctl(2)` for an option that takes or gives a number.
fn option(number: i32, value: u64) -> i32 {
    // SAFETY: takes numbers and touches no memory.
    unsafe { libc::prctl(number, value, 0, 0, 0) }
}

/// A system call that takes and gives numbers.
fn call(number: i64, arguments: [i64; 3]) -> i32 {
    let [first, second, third] = arguments;
    // SAFETY: takes numbers and touches no memory.
    i32::try_from(unsafe { libc::syscall(number, first, second, third) }).unwrap()
}

fn change(scene: &str) {
    match scene {
        "user" => {
            setgroups(&[]).unwrap();
            setgid(Gid::from_raw(65534)).unwrap();
            setuid(Uid::from_raw(65534)).unwrap();
        }
        "effective user" => {
            setegid(Gid::from_raw(65534)).unwrap();
            seteuid(Uid::from_raw(65534)).unwrap();
        }
        "capabilities" => give_up_capabilities(1 << 21 | 1),
        "bounding set" => {
            // SAFETY: takes numbers; CAP_SYS_TIME.
            assert_eq!(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, 25, 0, 0, 0) }, 0);
            give_up_capabilities(1 << 25);
        }
        "no new privileges" => prctl::set_no_new_privs().unwrap(),
        "filter" => {
            filter::refuse(&[libc::SYS_acct], Answer::Errno(Errno::EPERM));
            // A second one is seen as well.
            start(StartMethod::ForkServer);
            filter::refuse(&[libc::SYS_swapon], Answer::Errno(Errno::EPERM));
        }
        "root" => chroot(&restrict::other_root()).unwrap(),
        "read-only root" => {
            let (root, none) = (subprocess::stage().join("root"), None::<&str>);
            fs::create_dir(&root).unwrap();
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
            mount(Some("/"), &root, none, MsFlags::MS_BIND | MsFlags::MS_REC, none).unwrap();
            // With the namespace of now, and the root of before.
            start(StartMethod::ForkServer);
            mount(none, &root, none, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, none).unwrap();
            chroot(&root).unwrap();
            std::env::set_current_dir("/").unwrap();
        }
        "private directory" => {
            let private = subprocess::stage().join("private");
            fs::create_dir(&private).unwrap();
            fs::set_permissions(&private, fs::Permissions::from_mode(0o700)).unwrap();
            std::env::set_current_dir(&private).unwrap();
            setuid(Uid::from_raw(65534)).unwrap();
        }
        "executable memory" => assert_eq!(option(SET_MDWE, 1), 0),
        "namespaces" => {
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC).unwrap();
            unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWCGROUP).unwrap();
        }
        "control group" => {
            let own = std::process::id();
            fs::write(control_group(own).join("cgroup.procs"), own.to_string()).unwrap();
        }
        "session" => drop(setsid().unwrap()),
        "securebits" => {
            // SAFETY: takes numbers; SECBIT_NO_SETUID_FIXUP.
            assert_eq!(unsafe { libc::prctl(libc::PR_SET_SECUREBITS, 4, 0, 0, 0) }, 0);
        }
        "personality" => {
            // SAFETY: takes a number.
            assert!(unsafe { libc::personality(0x0400_0000) } >= 0);
        }
        "umask" => drop(umask(Mode::from_bits_truncate(0o027))),
        "attributes" => {
            assert_eq!(call(libc::SYS_setpriority, [0, 0, 7]), 0);
            fs::write("/proc/self/oom_score_adj", "500").unwrap();
            let parameters = libc::sched_param { sched_priority: 0 };
            // SAFETY: takes numbers, and a structure that is borrowed for the call.
            assert_eq!(unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters) }, 0);
            assert_eq!(call(libc::SYS_ioprio_set, [1, 0, 3 << 13]), 0);
            let options =
                [(libc::PR_SET_TIMERSLACK, 1_000_000), (libc::PR_SET_THP_DISABLE, 1), (libc::PR_SET_DUMPABLE, 0)];
            for (number, value) in options {
                assert_eq!(option(number, value), 0);
            }
        }
        other => unreachable!("no scene {other}"),
    }
}

/// A thread was favoured by means of a privilege that it has no more, and its fork server was started before that.
fn favours(method: StartMethod) {
    let user = |user| seteuid(Uid::from_raw(user)).unwrap();
    user(65534);
    let pool = Pool::builder().workers(1).start_method(method).build().unwrap();
    let before = pool.call(facts, ()).unwrap();
    user(0);
    let realtime = libc::sched_param { sched_priority: 1 };
    // SAFETY: takes numbers, and a structure that is borrowed for the call.
    assert_eq!(unsafe { libc::sched_setscheduler(0, libc::SCHED_RR, &raw const realtime) }, 0);
    assert_eq!(call(libc::SYS_setpriority, [0, 0, -7]), 0);
    assert_eq!(call(libc::SYS_ioprio_set, [1, 0, 1 << 13]), 0);
    user(65534);
    for child in [start(method), start(method)] {
        assert_eq!(child["niceness"], before["niceness"]);
    }
    pool.call(leave, ()).unwrap_err();
    assert_eq!(pool.call(facts, ()).unwrap()["policy"], before["policy"]);
    // Asked for, it is refused as ever.
    let error = Process::builder().start_method(method).nice(-7).spawn(facts, ()).and_then(Process::join).unwrap_err();
    assert!(error.to_string().contains("set its niceness"), "{error}");
    process_task::start_afresh().unwrap();
    assert_eq!(start(method)["niceness"], facts()["niceness"]);
}

/// A new control group, in the first hierarchy that may have one.
fn control_group(victim: u32) -> std::path::PathBuf {
    let folders = ["pids", "unified", "."].map(|folder| Path::new("/sys/fs/cgroup").join(folder));
    let folder = folders.into_iter().find(|folder| folder.join("cgroup.procs").exists()).unwrap_or_default();
    folder.join(format!("process-task-{victim}"))
}

#[process_task]
fn reads_shadow() -> (bool, bool, u32) {
    let written = File::create("/etc/process-task-was-here").is_ok();
    (fs::read("/etc/shadow").is_ok(), written, Uid::current().as_raw())
}

/// Starts as root, tries its workers, and gives its privileges up for good, as a daemon does.
fn daemon(method: StartMethod) {
    let pool = Pool::builder().workers(2).start_method(method).build().unwrap();
    let read = |method| Process::builder().start_method(method).spawn(facts, ()).and_then(Process::join).unwrap();
    assert_eq!(read(method)["Uid"], "0 0 0");
    setgroups(&[]).unwrap();
    setgid(Gid::from_raw(65534)).unwrap();
    setuid(Uid::from_raw(65534)).unwrap();
    let nothing = (false, false, 65534);
    assert_eq!(reads_shadow(), nothing);
    assert_eq!(Process::builder().start_method(method).spawn(reads_shadow, ()).and_then(Process::join), Ok(nothing));
    // The workers that were there go on as they are. Those that come in their place have what the program has.
    for _ in 0..4 {
        pool.call(leave, ()).unwrap_err();
    }
    assert_eq!(pool.call(reads_shadow, ()), Ok(nothing));
    let new = Pool::builder().workers(2).start_method(method).build().unwrap();
    assert_eq!(new.call(reads_shadow, ()), Ok(nothing));
    // Nothing of root's is left but what was started as root.
    drop((pool, new));
    support::eventually("no process of root's is left", support::PATIENCE, || {
        let below = support::processes::descendants();
        below.keys().all(|pid| {
            fs::metadata(format!("/proc/{pid}")).map_or(true, |process| process.uid() != 0 || ended_as_ours(*pid))
        })
    });
}

/// A process that may not be dumped belongs to root in `/proc`, whatever its user is; its status tells.
fn ended_as_ours(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().find(|line| line.starts_with("Uid:")).is_none_or(|line| !line.split_whitespace().any(|id| id == "0"))
}

#[process_task]
#[expect(clippy::exit, reason = "the task is one that ends its process")]
fn leave() {
    std::process::exit(3);
}

#[process_task]
fn server() -> u32 {
    nix::unistd::getppid().as_raw().unsigned_abs()
}

fn afresh(method: StartMethod) {
    let ask = || Process::builder().start_method(method).spawn(server, ()).and_then(Process::join).unwrap();
    let before = ask();
    assert_eq!(ask(), before);
    process_task::start_afresh().unwrap();
    let after = ask();
    assert_ne!(after, before);
    assert_eq!(ask(), after);
    support::eventually("the fork server from before has ended", support::PATIENCE, || {
        !support::processes::alive(before)
    });
}

#[process_task]
fn waits_for(path: &Path) -> u32 {
    while !path.exists() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    server()
}

fn outlive(method: StartMethod) {
    let signal = subprocess::stage().join("go on");
    let old = Process::builder().start_method(method).spawn(waits_for, &signal).unwrap();
    let pool = Pool::builder().workers(1).start_method(method).build().unwrap();
    let before = pool.call(server, ()).unwrap();
    let file = File::create(subprocess::stage().join("go")).unwrap();
    setuid(Uid::from_raw(65534)).unwrap();
    let ask = || Process::builder().start_method(method).spawn(server, ()).and_then(Process::join).unwrap();
    assert_ne!(ask(), before);
    assert_eq!(pool.call(server, ()), Ok(before), "its worker goes on");
    drop(file);
    pool.call(creates, &signal).unwrap();
    assert_eq!(old.join(), Ok(before));
    drop(pool);
    support::eventually("the old fork server has ended", support::PATIENCE, || !support::processes::alive(before));
    assert_eq!(start(method)["Uid"], "65534 65534 65534");
}

#[process_task]
fn creates(path: &Path) {
    File::create(path).unwrap();
}

fn refused(method: StartMethod) {
    let pool = Pool::builder().workers(1).start_method(method).build().unwrap();
    assert_eq!(pool.call(server, ()).is_ok(), start(method).len() > 5);
    filter::refuse(&[libc::SYS_execve, libc::SYS_execveat], Answer::Errno(Errno::EACCES));
    let error = Process::builder().start_method(method).spawn(server, ()).and_then(Process::join).unwrap_err();
    assert!(error.to_string().contains("execute this program again"), "{error}");
    let error = Pool::builder().workers(1).start_method(method).build().unwrap_err();
    assert!(error.to_string().contains("execute this program again"), "{error}");
    // What would come in its worker's place has no filter, so nothing does.
    pool.call(leave, ()).unwrap_err();
    let error = pool.call(server, ()).unwrap_err();
    assert!(error.to_string().contains("the rights of the thread that asked"), "{error}");
}
