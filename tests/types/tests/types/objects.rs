//! Objects of a dependency, beside one of the same name of the program's own.
//!
//! Runs in: the test process, and managers.

use process_task::{Manager, StartMethod, process_object, process_task};
use process_task_types::{Choice, Kept, Measured};

/// An object of the same name as that of the dependency.
struct Shelf(u8);

#[process_object]
impl Shelf {
    fn helper(&self) -> u8 {
        self.0
    }

    pub(crate) fn new(value: u8) -> Self {
        Self(value)
    }

    pub(crate) fn get(&self, more: u8) -> u8 {
        self.helper() + more
    }
}

/// The dependency's trait, of an object of this program.
#[process_object]
impl Measured for Shelf {
    fn size(&self, unit: &str) -> String {
        format!("{unit} {}", self.0)
    }
}

fn kept(text: &str) -> Kept<String> {
    let choice = Choice::Named { value: text.to_owned(), mark: 7 };
    Kept { before: 1, list: vec![text.to_owned()], maybe: None, choice, gone: None, after: "after".to_owned() }
}

#[process_task]
fn fill(shelf: &process_task_types::ShelfProxy, own: ShelfProxy) -> usize {
    shelf.put(kept("from a task")).unwrap() + usize::from(own.get(1).unwrap())
}

fn object_of_a_dependency_lives_beside_one_of_that_name(method: StartMethod) {
    let manager = Manager::builder().start_method(method).start().unwrap();
    let shelf = process_task_types::ShelfProxy::new(&manager).unwrap();
    let own = ShelfProxy::new(&manager, 5).unwrap();
    assert_eq!(shelf.put(kept("first")).unwrap(), 1);
    assert_eq!(shelf.get(0).unwrap().unwrap().list, ["first"]);
    assert_eq!(shelf.get(9).unwrap().unwrap_err(), "nothing is at 9");
    assert_eq!(own.get(2).unwrap(), 7);
    assert_eq!(
        (shelf.size("books").unwrap(), own.size("books").unwrap()),
        ("1 books".to_owned(), "books 5".to_owned())
    );
    assert_eq!(fill.spawn(&shelf, own).join().unwrap(), 8);
    assert_eq!(shelf.later().size("books").join().unwrap(), "2 books");
    let objects = manager.stats().unwrap();
    assert!(objects.objects().keys().any(|name| name == "process_task_types::Shelf"), "{objects:?}");
}

under_every_start_method! { object_of_a_dependency_lives_beside_one_of_that_name }
