//! Messages to stderr, for what no waiting caller can be told.
//!
//! Runs in: the parent, mostly on the reactor's thread. Each message is written once in a program.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Says that the fork server executes children instead of forking, and which threads are the reason.
pub(super) fn warn_multithreaded(of_constructors: &[String], of_preloads: &[String]) {
    static TOLD: AtomicBool = AtomicBool::new(false);
    if !TOLD.swap(true, Relaxed) {
        tell(&format!(
            "children are executed instead of atfork, which takes longer, since a process can be copied only while it has one \
             thread, and in the fork server there {}",
            threads(of_constructors, of_preloads)
        ));
    }
}

/// Which threads there are, and what started them.
fn threads(of_constructors: &[String], of_preloads: &[String]) -> String {
    let started = |names: &[String], by: &str| {
        let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
        (!names.is_empty()).then(|| format!("{}, started by {by}", names.join(", ")))
    };
    let known = [
        started(of_constructors, "a constructor of the program or of a library, before any preload ran"),
        started(of_preloads, "a preload"),
    ];
    let known: Vec<_> = known.into_iter().flatten().collect();
    if known.is_empty() { "were others for a moment".to_owned() } else { format!("are also {}", known.join("; and ")) }
}

fn tell(sentence: &str) {
    let _ = writeln!(std::io::stderr(), "process-task: {sentence}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_named_with_what_started_them() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let constructors = "a constructor of the program or of a library, before any preload ran";
        for (of_constructors, of_preloads, expected) in [
            (names(&[]), names(&[]), "were others for a moment".to_owned()),
            (names(&["bg"]), names(&[]), format!("are also `bg`, started by {constructors}")),
            (names(&[]), names(&["a", "b"]), "are also `a`, `b`, started by a preload".to_owned()),
            (
                names(&["bg"]),
                names(&["a"]),
                format!("are also `bg`, started by {constructors}; and `a`, started by a preload"),
            ),
        ] {
            assert_eq!(threads(&of_constructors, &of_preloads), expected);
        }
    }
}
