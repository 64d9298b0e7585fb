//! The table in `docs/types.md`: each of its rows names a test, and each test has a row.
//!
//! Runs in: a test process, which only reads files. Never: looks at anything that was built.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The files with tests that have rows.
const FILES: [&str; 3] = ["crates.rs", "std_types.rs", "attributes.rs"];

#[test]
fn each_row_names_a_test_and_each_test_has_a_row() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(package.join("../../docs/types.md")).unwrap();
    let sections: Vec<_> = page.split("\n## ").skip(1).collect();
    assert_eq!(sections.len(), FILES.len(), "each section is about one file");
    for (section, file) in sections.into_iter().zip(FILES) {
        assert!(section.contains(&format!("(../tests/types/tests/types/{file})")), "{file}: its section leads to it");
        let rows: Vec<_> = rows(section).collect();
        let named: BTreeSet<_> = rows.iter().copied().collect();
        assert_eq!(named.len(), rows.len(), "{file}: a test has two rows");
        let source = fs::read_to_string(package.join("tests/types").join(file)).unwrap();
        let tests: BTreeSet<_> = tests(&source).collect();
        assert!(tests.len() > 10, "{file}: its tests are written in another way");
        let no_test: Vec<_> = named.difference(&tests).collect();
        let no_row: Vec<_> = tests.difference(&named).collect();
        assert!(
            no_test.is_empty() && no_row.is_empty(),
            "{file}: rows without test: {no_test:?}, tests without row: {no_row:?}"
        );
    }
}

/// What stands in the last column of each row.
fn rows(section: &str) -> impl Iterator<Item = &str> {
    let rows = section.lines().filter(|line| line.starts_with("| "));
    rows.filter_map(|row| row.trim_end_matches(" |").rsplit(" | ").next()?.strip_prefix('`')?.strip_suffix('`'))
}

/// The names in `under_every_start_method!`, and those of functions that are tests by themselves.
fn tests(source: &str) -> impl Iterator<Item = &str> {
    let list = source.split_once("under_every_start_method! {").map_or("", |(_, rest)| rest);
    let list = list.split_once('}').map_or("", |(list, _)| list);
    let names = list.lines().filter_map(|line| line.trim().strip_suffix(','));
    let lonely = source.split("#[test]").skip(1).filter_map(|rest| rest.split_once("fn ")?.1.split('(').next());
    names.chain(lonely)
}
