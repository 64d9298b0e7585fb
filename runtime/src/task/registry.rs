//! All tasks of this binary, in an order that every process agrees on.
//!
//! Runs in: every process.
//! Invariant: a task's number changes no more once all constructors of the binary have run.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::OnceLock;

use super::object::ObjectType;
use super::{Registration, RegistrationKind};

/// A task, on its way into the registry.
#[derive(Debug)]
pub struct Entry(pub &'static Registration);

inventory::collect!(Entry);

/// A function that the fork server runs before it makes children: `#[process_task::preload]`.
#[derive(Debug)]
pub struct Preload(pub fn());

inventory::collect!(Preload);

/// All tasks, as far as the constructors that have run by now have registered them.
struct Known {
    /// Where the entry stands that came last: every new one comes before it.
    last: usize,
    tasks: Vec<&'static Registration>,
    fingerprint: OnceLock<u64>,
}

/// A task that is asked for in a constructor finds those of the constructors before it. So the list is made anew when there are more.
static KNOWN: [OnceLock<Known>; 16] = [const { OnceLock::new() }; 16];

fn known() -> &'static Known {
    let last = inventory::iter::<Entry>.into_iter().next().map_or(0, |entry| std::ptr::from_ref(entry).addr());
    let mut found = None;
    for place in &KNOWN {
        let known = place.get_or_init(|| Known { last, tasks: sorted(), fingerprint: OnceLock::new() });
        found = Some(known);
        if known.last == last {
            break;
        }
    }
    found.expect("there is a first place")
}

/// All tasks; the place of each is its [`Registration::index`].
///
/// Constructors run in an order that the linker chose, so the tasks are sorted by what the source says of them, and
/// where that is the same, by where their code lies in the binary.
pub(crate) fn registry() -> &'static [&'static Registration] {
    &known().tasks
}

fn sorted() -> Vec<&'static Registration> {
    let mut tasks: Vec<_> = inventory::iter::<Entry>.into_iter().map(|entry| entry.0).collect();
    tasks.sort_by_key(|task| (task.name(), task.location(), task.offset_from(anchor)));
    for (index, task) in (0..).zip(&tasks) {
        task.set_index(index);
    }
    number_object_types(&tasks);
    tasks
}

/// Numbers the types of which `tasks` has methods or constructors, in their order.
fn number_object_types(tasks: &[&'static Registration]) {
    let mut types: Vec<&'static ObjectType> = Vec::new();
    for of in tasks.iter().filter_map(|task| task.object_type()) {
        if !types.contains(&of) {
            types.push(of);
        }
    }
    for (index, of) in (0..).zip(types) {
        of.set_index(index);
    }
}

/// The task with [`Registration::index`] `index`, a number that another process sent. Methods are not found.
pub(crate) fn lookup(index: u32) -> Option<&'static Registration> {
    registered(index).filter(|task| task.is_task())
}

/// The method or constructor with [`Registration::index`] `index`, a number that another process sent.
pub(crate) fn lookup_method(index: u32) -> Option<&'static Registration> {
    registered(index).filter(|task| !task.is_task())
}

fn registered(index: u32) -> Option<&'static Registration> {
    registry().get(usize::try_from(index).ok()?).copied()
}

/// The functions that the fork server runs before it makes children, in no particular order.
pub(crate) fn preloads() -> impl Iterator<Item = fn()> {
    inventory::iter::<Preload>.into_iter().map(|preload| preload.0)
}

/// A number that two processes share if they run the same binary, and hardly ever otherwise.
///
/// It covers this crate's version, and name, place, code offset and kind of every task and method. A task in a library that is loaded
/// on its own, elsewhere in every process, would make it differ.
pub(crate) fn fingerprint() -> u64 {
    let known = known();
    *known.fingerprint.get_or_init(|| {
        // Its keys are fixed, and both sides have the same standard library, being the same binary.
        let mut hasher = DefaultHasher::new();
        env!("CARGO_PKG_VERSION").hash(&mut hasher);
        for task in &known.tasks {
            (task.name(), task.location(), task.offset_from(anchor)).hash(&mut hasher);
            match task.kind() {
                RegistrationKind::Task => 0_u8,
                RegistrationKind::Constructor(_) => 1,
                RegistrationKind::Method { exclusive, .. } => 2 + u8::from(exclusive),
            }
            .hash(&mut hasher);
            task.object_type().map(ObjectType::name).hash(&mut hasher);
        }
        hasher.finish()
    })
}

/// The place in the binary that code offsets are counted from.
fn anchor() {}
