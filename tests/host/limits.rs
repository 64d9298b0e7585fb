//! Too few descriptors or processes: an error that names the step, nothing half-built, and work again with more.
//!
//! Runs in: victims, whose limits are theirs alone. Never: lowers a limit of the test process.

use std::time::Duration;

use crate::support;
use crate::support::subprocess::{self, plays, reached};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use process_task::{Error, ErrorKind, Pool, ProcessBuilder, StartMethod, process_task};

under_every_start_method! {
    within 120 seconds;
    a_process_needs_so_many_descriptors_and_says_so,
    a_pool_needs_so_many_descriptors_and_says_so,
    too_few_processes_are_an_error_that_says_so,
    a_parent_that_gave_up_its_rights_starts_processes,
}

fn a_process_needs_so_many_descriptors_and_says_so(method: StartMethod) {
    plays("sweeps processes", method);
}

fn a_pool_needs_so_many_descriptors_and_says_so(method: StartMethod) {
    plays("sweeps pools", method);
}

fn too_few_processes_are_an_error_that_says_so(method: StartMethod) {
    plays("runs out of processes", method);
}

fn a_parent_that_gave_up_its_rights_starts_processes(method: StartMethod) {
    plays("gives up its rights", method);
}

/// Plays a scene, in a process that a test of this file has started.
#[test]
fn scene() {
    let Some((scene, method)) = subprocess::scene() else { return };
    subprocess::say_panics();
    match scene.as_str() {
        "sweeps processes" => sweep(method, &|| {
            let process = ProcessBuilder::new().start_method(method).spawn(square, 9)?;
            process.join().map(|squared| assert_eq!(squared, 81))
        }),
        "sweeps pools" => sweep(method, &|| {
            let pool = Pool::builder().workers(3).start_method(method).build()?;
            pool.map(square, 0..9).map(|squares| assert_eq!(squares[8], 64))
        }),
        "runs out of processes" => run_out_of_processes(method),
        "gives up its rights" => {
            drop_to_a_lone_user();
            let process =
                ProcessBuilder::new().start_method(method).spawn(square, 9).and_then(process_task::Process::join);
            assert_eq!(process, Ok(81));
        }
        other => unreachable!("no scene {other}"),
    }
    reached("played");
}

/// Twice: from nothing, where the fork server has to be started too, and with everything there.
fn sweep(method: StartMethod, attempt: &dyn Fn() -> process_task::Result<()>) {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let plenty = most.min(1024);
    let limit = |soft: u64| setrlimit(Resource::RLIMIT_NOFILE, soft, most).unwrap();
    let (mut refused, mut worked) = (0, 0);
    for lap in ["cold", "warm"] {
        let before = (lap == "warm").then(|| descriptors_at_rest(method));
        for soft in 3..70 {
            limit(soft);
            let result = attempt();
            limit(plenty);
            match result {
                Ok(()) => worked += 1,
                Err(error) => {
                    names_the_step(&error, soft);
                    refused += 1;
                }
            }
            let ended = |entry: &support::processes::Entry| entry.state == 'Z' && entry.parent == std::process::id();
            support::eventually("no process is left unreaped", Duration::from_secs(10), || {
                !support::processes::descendants().values().any(ended)
            });
            // It works again at once, and nothing of the attempt is left.
            assert_eq!(attempt(), Ok(()), "{lap}, after a limit of {soft}");
            if let Some(before) = before {
                let given_back = || descriptors() == before;
                support::eventually("descriptors are given back", Duration::from_secs(10), given_back);
            }
        }
    }
    // The very first attempt has nothing to start from. After it, one that finds a spare needs no more descriptors.
    assert!(refused > 0 && worked > 3, "{method:?}: {refused} refused, {worked} worked");
}

fn names_the_step(error: &Error, soft: u64) {
    let ErrorKind::CouldNotStart { step, errno, .. } = error.kind() else { panic!("limit {soft}: {error}") };
    assert!(step.len() > 3 && *errno == nix::errno::Errno::EMFILE as i32, "limit {soft}: {error}");
}

/// How many descriptors we have, and how many of them are of processes: a spare that is missing does not make up for a leak.
fn descriptors() -> (usize, usize) {
    (std::fs::read_dir("/proc/self/fd").unwrap().count(), support::census::pidfds())
}

/// The same, once no process is left but the fork server and, if there is one, its stock of spares.
fn descriptors_at_rest(method: StartMethod) -> (usize, usize) {
    if method == StartMethod::ForkServer {
        support::warm_up();
    }
    // The pidfd of one that has ended is there until its end has been heard of, which may take long where others work.
    support::eventually("no process that was started is left", Duration::from_secs(10), || {
        let family = support::processes::descendants().len();
        support::census::pidfds() == family && (family == 1 || method == StartMethod::ForkServer)
    });
    descriptors()
}

fn drop_to_a_lone_user() {
    if nix::unistd::geteuid().is_root() {
        std::fs::set_permissions(subprocess::stage(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        nix::unistd::setuid(support::restore::lone_user()).unwrap();
    }
}

fn run_out_of_processes(method: StartMethod) {
    // The fork server comes first, so that it is the one that is refused.
    let start = || ProcessBuilder::new().start_method(method).spawn(square, 9).and_then(process_task::Process::join);
    if !nix::unistd::geteuid().is_root() {
        // Another user's processes would count.
        return;
    }
    let sleepers = || ProcessBuilder::new().start_method(method).spawn(sleep, ());
    drop_to_a_lone_user();
    assert_eq!(start(), Ok(81));
    let (_, most) = getrlimit(Resource::RLIMIT_NPROC).unwrap();
    let server = support::processes::descendants().into_iter().find(|(_, entry)| entry.parent == std::process::id());
    let server = server.expect("the fork server runs").0;
    let status = std::process::Command::new("prlimit").args(["--pid", &server.to_string(), "--nproc=12"]).status();
    assert!(status.unwrap().success());
    let mut running = Vec::new();
    let error = loop {
        match sleepers() {
            Ok(process) => running.push(process),
            Err(error) => break error,
        }
        assert!(running.len() < 40, "no limit was felt; at most {most}");
    };
    let ErrorKind::CouldNotStart { step, errno, .. } = error.kind() else { panic!("{error}") };
    assert!(step.contains("fork") && *errno == nix::errno::Errno::EAGAIN as i32, "{error}");
    for mut process in running {
        process.kill().unwrap();
        process.wait().unwrap();
    }
    support::eventually("there is room again", Duration::from_secs(10), || start() == Ok(81));
}

#[process_task]
fn square(x: i64) -> i64 {
    x * x
}

#[process_task]
fn sleep() {
    std::thread::sleep(Duration::from_secs(1000));
}
