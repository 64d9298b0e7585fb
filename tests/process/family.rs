//! What processes know of each other: names, parents, children, and how they were made.
//!
//! Runs in: the test process; the tasks in children and grandchildren. Never: asks the kernel for what the library says.

use std::io::{Read as _, Write as _};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::support;
use crate::support::process_builder as builder;
use process_task::{
    ProcessInfo, StartMethod, Stdio, active_children, available_parallelism, current, parent, preload, process_task,
};

under_every_start_method! {
    program_started_by_hand_has_no_parent,
    a_child_knows_itself_and_its_parent,
    a_grandchild_knows_the_child,
    a_tree_of_processes_is_walked_in_depth_first_order,
    a_child_starts_with_no_children_of_its_own,
    children_are_listed_oldest_first,
    a_child_shares_with_the_fork_server_what_its_method_says,
    every_method_can_start_every_other,
    there_is_at_least_one_processor,
}

type Parts = (String, u32);

fn parts(info: &ProcessInfo) -> Parts {
    (info.name().to_owned(), info.pid())
}

/// Itself, and its parent.
#[process_task]
fn identity() -> (Parts, Option<Parts>) {
    (parts(&current()), parent().as_ref().map(parts))
}

fn main_process() -> Parts {
    ("main".to_owned(), std::process::id())
}

fn program_started_by_hand_has_no_parent(_: StartMethod) {
    assert_eq!(identity(), (main_process(), None));
}

fn a_child_knows_itself_and_its_parent(method: StartMethod) {
    let process = builder(method).name("child").spawn(identity, ()).unwrap();
    let itself = ("child".to_owned(), process.pid().unwrap());
    assert_eq!(process.join().unwrap(), (itself, Some(main_process())));
}

/// What a child of this child says of itself, and this child.
#[process_task]
fn ask_a_child(exec: bool) -> ((Parts, Option<Parts>), Parts) {
    let child = builder(method_of(exec)).name("grandchild").spawn(identity, ()).unwrap();
    (child.join().unwrap(), parts(&current()))
}

fn method_of(exec: bool) -> StartMethod {
    if exec { StartMethod::Exec } else { StartMethod::ForkServer }
}

fn a_grandchild_knows_the_child(method: StartMethod) {
    let process = builder(method).name("child").spawn(ask_a_child, method == StartMethod::Exec).unwrap();
    let id = process.pid().unwrap();
    let ((grandchild, its_parent), child) = process.join().unwrap();
    assert_eq!(child, ("child".to_owned(), id));
    assert_eq!(grandchild.0, "grandchild");
    assert!(![id, std::process::id()].contains(&grandchild.1));
    assert_eq!(its_parent, Some(child));
}

fn every_method_can_start_every_other(method: StartMethod) {
    for exec in [false, true] {
        let ((grandchild, _), child) = builder(method).spawn(ask_a_child, exec).unwrap().join().unwrap();
        assert_eq!((grandchild.0.as_str(), child.0.as_str()), ("grandchild", "ask_a_child"));
    }
}

/// Writes its id, then has two children of one digit more do the same, one after the other.
#[process_task]
fn walk(id: &str, depth: usize, exec: bool) {
    println!("[{id}]");
    std::io::stdout().flush().unwrap();
    if depth > 0 {
        for digit in 0..2 {
            let child = builder(method_of(exec)).spawn(walk, (&format!("{id}{digit}"), depth - 1, exec));
            child.unwrap().join().unwrap();
        }
    }
}

fn a_tree_of_processes_is_walked_in_depth_first_order(method: StartMethod) {
    let args = ("", 2, method == StartMethod::Exec);
    let mut process = builder(method).stdout(Stdio::piped()).spawn(walk, args).unwrap();
    let text = std::io::read_to_string(process.take_stdout().unwrap()).unwrap();
    process.join().unwrap();
    assert_eq!(text, "[]\n[0]\n[00]\n[01]\n[1]\n[10]\n[11]\n");
}

#[process_task]
fn count_children() -> usize {
    active_children().len()
}

#[process_task]
fn wait_for_stdin() {
    std::io::stdin().read_to_string(&mut String::new()).unwrap();
}

fn a_child_starts_with_no_children_of_its_own(method: StartMethod) {
    let held: Vec<_> =
        (0..3).map(|_| builder(method).stdin(Stdio::piped()).spawn(wait_for_stdin, ()).unwrap()).collect();
    assert_eq!(active_children().len(), 3);
    assert_eq!(builder(method).spawn(count_children, ()).unwrap().join().unwrap(), 0);
    for process in held {
        process.join().unwrap();
    }
}

fn children_are_listed_oldest_first(method: StartMethod) {
    let names = ["one", "two", "three", "four"];
    let mut held: Vec<_> = names
        .iter()
        .map(|name| builder(method).name(*name).stdin(Stdio::piped()).spawn(wait_for_stdin, ()).unwrap())
        .collect();
    let listed = || active_children().iter().map(parts).collect::<Vec<_>>();
    let expected: Vec<_> = held.iter().map(|process| (process.name().to_owned(), process.pid().unwrap())).collect();
    assert_eq!(listed(), expected);
    held.remove(1).wait().unwrap();
    assert_eq!(listed(), [&expected[..1], &expected[2..]].concat());
    for mut process in held {
        process.wait().unwrap();
    }
    assert_eq!(listed(), []);
}

static PRELOADED_IN: AtomicU32 = AtomicU32::new(0);

#[preload]
fn note_where() {
    PRELOADED_IN.store(std::process::id(), Relaxed);
}

/// Where the preload ran whose memory this process has, and the process that made it.
#[process_task]
fn origin() -> (u32, u32) {
    (PRELOADED_IN.load(Relaxed), std::os::unix::process::parent_id())
}

fn a_child_shares_with_the_fork_server_what_its_method_says(method: StartMethod) {
    let (preloaded_in, server) = builder(method).spawn(origin, ()).unwrap().join().unwrap();
    assert_eq!(support::processes::parent_of(server), Some(std::process::id()));
    if method == StartMethod::ForkServer {
        assert_eq!(preloaded_in, server, "a copy of the fork server has what it loaded");
    } else {
        assert_eq!(preloaded_in, 0, "a program executed again starts from nothing");
    }
    assert_eq!(origin().0, 0, "and the parent never ran it");
}

fn there_is_at_least_one_processor(method: StartMethod) {
    assert!(available_parallelism() >= 1);
    let seen = builder(method).cpus([0]).spawn(processors, ());
    assert!(seen.is_ok_and(|process| process.join().is_ok_and(|seen| seen == 1)));
}

#[process_task]
fn processors() -> usize {
    available_parallelism()
}
