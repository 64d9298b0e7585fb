//! A task that is asked for in a constructor, before `main`, says what is wrong, and harms no later call.
//!
//! Runs in: victims, of which a constructor asks. Never: asks in the test process before `main`.
#![expect(unsafe_code, reason = "an entry in .init_array, before all others")]

use std::sync::OnceLock;

use crate::support::subprocess::{self, reached};
use process_task::{Pool, Process, ProcessBuilder, StartMethod, process_task};

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
    subprocess::plays("early", method);
}

/// Plays a scene, in a process that a test of this file has started.
#[test]
fn scene() {
    let Some((_, method)) = subprocess::scene() else { return };
    subprocess::say_panics();
    let told = TOLD.get().unwrap();
    assert!(told.contains("in a constructor: only those tasks are known by now"), "{told}");
    assert_eq!(ProcessBuilder::new().start_method(method).spawn(square, 3).and_then(Process::join), Ok(9));
    let pool = Pool::builder().workers(2).start_method(method).build().unwrap();
    assert_eq!(pool.map(square, 0..4).unwrap(), [0, 1, 4, 9]);
    reached("played");
}

#[process_task]
fn square(x: i64) -> i64 {
    x * x
}
