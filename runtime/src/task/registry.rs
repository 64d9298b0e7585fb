//! All tasks of this binary, in an order that every process agrees on.
//!
//! Owns: the numbers by which processes name tasks to each other. Never: changes once it is built, so it must not be
//! asked before all constructors of the binary ran.
//! Runs in: every process.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::OnceLock;

use super::Registration;

/// A task, on its way into the registry.
#[derive(Debug)]
pub struct Entry(pub &'static Registration);

inventory::collect!(Entry);

/// A function that the fork server runs before it makes children: `#[process_task::preload]`.
#[derive(Debug)]
pub struct Preload(pub fn());

inventory::collect!(Preload);

/// All tasks; the place of each is its [`Registration::index`].
///
/// Constructors run in an order that the linker chose, so the tasks are sorted by what the source says of them, and
/// where that is the same, by where their code lies in the binary.
pub(crate) fn registry() -> &'static [&'static Registration] {
    static REGISTRY: OnceLock<Vec<&'static Registration>> = OnceLock::new();
    REGISTRY.get_or_init(|| {
        let mut tasks: Vec<_> = inventory::iter::<Entry>.into_iter().map(|entry| entry.0).collect();
        tasks.sort_by_key(|task| (task.name(), task.location(), task.offset_from(anchor)));
        for (index, task) in (0..).zip(&tasks) {
            task.set_index(index);
        }
        tasks
    })
}

/// The task whose [`Registration::index`] is `index`, a number that another process sent.
pub(crate) fn lookup(index: u32) -> Option<&'static Registration> {
    registry().get(usize::try_from(index).ok()?).copied()
}

/// The functions that the fork server runs before it makes children, in no particular order.
pub(crate) fn preloads() -> impl Iterator<Item = fn()> {
    inventory::iter::<Preload>.into_iter().map(|preload| preload.0)
}

/// A number that two processes share if they run the same binary, and hardly ever otherwise.
///
/// It covers this crate's version, and name, place and code offset of every task. A task in a library that is loaded
/// on its own, elsewhere in every process, would make it differ.
pub(crate) fn fingerprint() -> u64 {
    static FINGERPRINT: OnceLock<u64> = OnceLock::new();
    *FINGERPRINT.get_or_init(|| {
        // Its keys are fixed, and both sides have the same standard library, being the same binary.
        let mut hasher = DefaultHasher::new();
        env!("CARGO_PKG_VERSION").hash(&mut hasher);
        for task in registry() {
            (task.name(), task.location(), task.offset_from(anchor)).hash(&mut hasher);
        }
        hasher.finish()
    })
}

/// The place in the binary that code offsets are counted from.
fn anchor() {}
