//! A task that is asked for in a constructor, before `main`, says what is wrong, and harms no later call.
//!
//! Runs in: victims, of which a constructor asks. Never: asks in the test process before `main`.
#![expect(unsafe_code, reason = "an entry in .init_array, before all others")]

mod support;
mod victim;

use std::sync::OnceLock;

use process_task::{Builder, Pool, Process, StartMethod, process_task};
use victim::{Victim, reached};

under_every_start_method! {
    task_of_constructor_is_refused_and_later_calls_work,
}

/// What the constructor was told.
static TOLD: OnceLock<String> = OnceLock::new();

extern "C" fn early() {
    if std::env::var("PROCESS_TASK_SCENE").is_ok_and(|scene| scene.starts_with("early")) {
        TOLD.get_or_init(|| format!("{:?}", square.spawn(3).join()));
    }
}

#[used]
#[unsafe(link_section = ".init_array.00001")]
static EARLY: extern "C" fn() = early;

fn task_of_constructor_is_refused_and_later_calls_work(method: StartMethod) {
    let mut victim = Victim::start("early", method);
    let status = victim.finish();
    let said = std::fs::read_to_string(victim.on_stage("said")).unwrap_or_default();
    assert!(status.success() && victim.on_stage("played").exists(), "{status}\n{said}");
    victim.leaves_nobody();
}

/// Plays a scene, in a process that a test of this file has started.
#[test]
fn scene() {
    let Some((_, method)) = victim::scene() else { return };
    std::panic::set_hook(Box::new(|info| drop(std::fs::write(victim::stage().join("said"), info.to_string()))));
    let told = TOLD.get().unwrap();
    assert!(told.contains("in a constructor: only those tasks are known by now"), "{told}");
    assert_eq!(Builder::new().start_method(method).spawn(square, 3).and_then(Process::join), Ok(9));
    let pool = Pool::builder().workers(2).start_method(method).build().unwrap();
    assert_eq!(pool.map(square, 0..4).unwrap(), [0, 1, 4, 9]);
    reached("played");
}

#[process_task]
fn square(x: i64) -> i64 {
    x * x
}
