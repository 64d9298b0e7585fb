//! What becomes of a pool's calls and callbacks when the program ends: finished if the pool is dropped, ended if not.
//!
//! Runs in: the test process; in victims, each of which plays one scene; in their workers. Never: waits for a pool that
//! nothing drops.

use std::path::Path;
use std::time::Duration;

use crate::support::subprocess::{self, Victim, stage};
use process_task::{Pool, StartMethod, process_task};

under_every_start_method! {
    a_program_that_drops_its_pool_finishes_what_it_submitted,
    a_program_that_closes_its_pool_and_returns_finishes_too,
    the_global_pool_holds_no_program_up,
    a_callback_may_exit_the_program,
    a_program_may_exit_while_a_callback_blocks,
}

/// Plays a scene, in a process that a test of this file has started.
#[test]
#[expect(clippy::exit, reason = "what is tested is how a program ends")]
fn scene() {
    let Some((scene, method)) = subprocess::scene() else { return };
    let stage = stage().into_os_string().into_string().expect("a path in UTF-8");
    if scene == "global" {
        let pool = Pool::global().expect("the global pool");
        drop(pool.submit(mark, (stage.as_str(), "first")));
        drop(pool.submit(for_ever, ()));
        std::process::exit(4);
    }
    let pool = Pool::builder().workers(2).start_method(method).build().expect("a pool");
    match scene.as_str() {
        "drops" | "closes" => {
            for item in 0..20 {
                let path = format!("{stage}/called back {item}");
                let handle = pool.submit(mark, (stage.as_str(), item.to_string().as_str()));
                handle.on_done(move |result| std::fs::write(path, format!("{result:?}")).expect("a file"));
            }
            if scene == "closes" {
                pool.close();
            }
        }
        "exits in a callback" => {
            pool.submit(nap, ()).on_done(|_| std::process::exit(3));
            // Until then.
            let _ = pool.call(for_ever, ());
        }
        _ => {
            let (sender, receiver) = std::sync::mpsc::channel();
            pool.submit(nap, ()).on_done(move |_| {
                sender.send(()).expect("the test listens");
                std::thread::sleep(Duration::from_mins(10));
            });
            receiver.recv().expect("a callback");
            std::process::exit(5);
        }
    }
}

/// Leaves the file `directory/name`, a while later.
#[process_task]
fn mark(directory: &str, name: &str) {
    nap();
    std::fs::write(Path::new(directory).join(name), "").expect("a directory that can be written to");
}

#[process_task]
fn nap() {
    std::thread::sleep(Duration::from_millis(20));
}

#[process_task]
fn for_ever() {
    std::thread::sleep(Duration::from_mins(10));
}

fn finishes_its_calls(scene: &str, method: StartMethod) {
    let mut victim = Victim::start(scene, method);
    assert_eq!(victim.finish().code(), Some(0));
    for item in 0..20 {
        assert!(victim.on_stage(item.to_string()).exists(), "{item} was not made");
        let said = std::fs::read_to_string(victim.on_stage(format!("called back {item}"))).expect("a callback's file");
        assert_eq!(said, "Ok(())");
    }
    victim.leaves_no_process();
}

fn ends_with(scene: &str, method: StartMethod, code: i32) {
    let mut victim = Victim::start(scene, method);
    assert_eq!(victim.finish().code(), Some(code));
    victim.leaves_no_process();
}

fn a_program_that_drops_its_pool_finishes_what_it_submitted(method: StartMethod) {
    finishes_its_calls("drops", method);
}

fn a_program_that_closes_its_pool_and_returns_finishes_too(method: StartMethod) {
    finishes_its_calls("closes", method);
}

fn the_global_pool_holds_no_program_up(method: StartMethod) {
    ends_with("global", method, 4);
}

fn a_callback_may_exit_the_program(method: StartMethod) {
    ends_with("exits in a callback", method, 3);
}

fn a_program_may_exit_while_a_callback_blocks(method: StartMethod) {
    ends_with("exits while a callback blocks", method, 5);
}
