//! The rules of this repository that no compiler checks.
//!
//! Owns: the order of the layers, what is reserved for some of them, and the limits that only fall. Runs in: a test process,
//! which reads the files of the repository and nothing that was built.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The layers of `runtime/src`, lowest first. A file may name what stands in its own line and in those before it.
const LAYERS: &[&[&str]] = &[
    &["error", "sys"],
    &["codec"],
    &["shared"],
    &["sync"],
    &["task"],
    &["reactor"],
    &["link"],
    &["call"],
    &["child", "supervisor"],
    &["process", "channel"],
    &["manager"],
    &["pool"],
    &["managed"],
];

/// `child` runs in processes that we started and `supervisor` in the one that asks: they meet in `link` and `call`.
const APART: [&str; 2] = ["child", "supervisor"];

/// Words that only some folders and files of `runtime/src` may contain, outside comments and strings.
const RESERVED: &[(&str, &[&str])] = &[
    ("unsafe", &["sys", "shared"]),
    ("nix", &["sys", "error"]),
    ("libc", &["sys", "error"]),
    ("asm", &["sys"]),
    ("bincode", &["codec"]),
];

/// The most lines that a source may have.
const MAX_LINES: usize = 500;

/// Words that speak of a thread or a process as of a person. It is *it*, or its noun: leader, producer, peer, caller.
const PRONOUNS: &str =
    "who whoever whom whose somebody nobody anybody everybody someone anyone everyone he his him himself";

/// The most [`PRONOUNS`] in a thousand comment lines of `runtime/src` and `macros/src`. Only ever lowered.
const MAX_PRONOUNS: usize = 5;

/// Names of public types that other types have too. Only ever shortened: a name that only one type has must leave it.
const REUSED_NAMES: &[&str] = &["Shared"];

/// The most names that several types have, public or not. Only ever lowered.
const MAX_REPEATED_NAMES: usize = 1;

/// The most programs that cargo links for tests, beside that of the library itself: each takes seconds.
const MAX_TEST_PROGRAMS: usize = 20;

/// Folders of packages, as their tests' names begin.
const PACKAGES: [&str; 4] = ["", "macros/", "runtime/", "tests/types/"];

/// Long names that documents quote from elsewhere. A name must leave the list when no document quotes it.
const FOREIGN_NAMES: &[&str] = &["get_all_start_methods", "max_tasks_per_child", "set_running_or_notify_cancel"];

#[test]
fn imports_point_downwards() {
    for file in runtime() {
        let Some(own) = rank(&file.layer) else {
            assert_eq!(file.layer, "lib", "{}: `{}` is no layer of LAYERS", file.name, file.layer);
            continue;
        };
        for (number, line) in file.code() {
            let at = format!("{}:{number}", file.name);
            assert!(!line.contains("super::super"), "{at}: name the layer, so that its direction is seen");
            assert!(!line.contains("crate::{"), "{at}: one line a layer, so that its direction is seen");
            for path in line.split("crate::").chain(line.split("process_task::")).filter(|path| *path != line) {
                let named = path.split(|c: char| !is_of_word(c)).next().unwrap_or_default();
                assert!(rank(named) <= Some(own), "{at}: `{named}` lies above `{}`", file.layer);
                let apart = named != file.layer && APART.contains(&named) && APART.contains(&&*file.layer);
                assert!(!apart, "{at}: `{named}` and `{}` meet in `link` and `call` only", file.layer);
            }
        }
    }
}

#[test]
fn what_is_reserved_for_some_layers_is_named_in_no_other() {
    for file in runtime() {
        for (number, line) in file.code() {
            for word in line.split(|c| !is_of_word(c)) {
                let reserved = RESERVED.iter().find(|(reserved, _)| *reserved == word);
                let allowed = reserved.is_none_or(|(_, layers)| layers.contains(&&*file.layer));
                assert!(allowed, "{}:{number}: `{word}` has no place in `{}`", file.name, file.layer);
            }
        }
    }
}

#[test]
fn nothing_but_the_runtime_is_unsafe_unless_it_says_why_on_top() {
    let says_why = |file: &Source| file.text.contains("\n#![expect(unsafe_code, reason = ");
    // One file is safe, but writes an `unsafe impl` into programs, after it has checked the type.
    let writes_it = |file: &Source| file.name == "macros/src/shareable.rs";
    let outside = |file: &Source| !file.name.starts_with("runtime/") && !file.name.contains("/ui/") && !writes_it(file);
    for file in sources().into_iter().filter(|file| outside(file) && !says_why(file)) {
        for (number, line) in file.code() {
            let found = line.split(|c| !is_of_word(c)).any(|word| word == "unsafe");
            assert!(!found, "{}:{number}: code outside the runtime is safe", file.name);
        }
    }
}

#[test]
fn every_source_says_first_what_it_is_and_is_short() {
    for file in sources() {
        assert!(file.text.starts_with("//! "), "{}: begins with something else than `//! `", file.name);
        let lines = file.text.lines().count();
        assert!(lines <= MAX_LINES, "{}: {lines} lines are more than {MAX_LINES}", file.name);
    }
}

#[test]
fn every_layer_of_the_list_exists() {
    let layers: BTreeSet<_> = runtime().into_iter().map(|file| file.layer).collect();
    for layer in LAYERS.iter().copied().flatten() {
        assert!(layers.contains(*layer), "`runtime/src` has no layer `{layer}`");
    }
}

#[test]
fn pronouns_for_threads_and_processes_become_fewer() {
    let (mut lines, mut found) = (0, 0);
    for file in sources().into_iter().filter(Source::is_of_library) {
        for (_, comment) in file.comments() {
            lines += 1;
            let words = comment.split(|c| !is_of_word(c)).filter(|word| !word.is_empty());
            found += words.filter(|word| PRONOUNS.split(' ').any(|pronoun| word.eq_ignore_ascii_case(pronoun))).count();
        }
    }
    let most = MAX_PRONOUNS * lines / 1000;
    assert!(found <= most, "{found} pronouns in {lines} comment lines, at most {most}: a thread or a process is `it`");
}

#[test]
fn public_types_have_names_of_their_own() {
    let mut types = BTreeMap::<String, Vec<(String, bool)>>::new();
    for file in sources().into_iter().filter(|file| file.is_of_library() && !file.name.contains("tests")) {
        for (number, line) in file.code() {
            if let Some((name, is_public)) = type_of(&line) {
                types.entry(name.to_owned()).or_default().push((format!("{}:{number}", file.name), is_public));
            }
        }
    }
    types.retain(|_, places| places.len() > 1);
    for (name, places) in &types {
        let public = places.iter().filter(|(_, is_public)| *is_public).count();
        assert!(public < 2, "`{name}` is the name of {public} public types: {places:?}");
        assert!(public < 1 || REUSED_NAMES.contains(&&**name), "`{name}` is a public type's name: {places:?}");
    }
    for name in REUSED_NAMES {
        let is_reused = types.get(*name).is_some_and(|places| places.iter().any(|(_, is_public)| *is_public));
        assert!(is_reused, "`{name}` is no other type's name any more: take it from REUSED_NAMES");
    }
    let (found, names) = (types.len(), types.keys());
    assert!(
        found <= MAX_REPEATED_NAMES,
        "{found} names are those of several types, at most {MAX_REPEATED_NAMES}: {names:?}"
    );
}

#[test]
fn test_programs_are_few() {
    let is_program = |name: &str| {
        let paths = PACKAGES.iter().filter_map(|package| name.strip_prefix(package)?.strip_prefix("tests/"));
        paths.into_iter().any(|path| !path.trim_end_matches("/main.rs").contains('/'))
    };
    let programs: Vec<_> = sources().into_iter().map(|file| file.name).filter(|name| is_program(name)).collect();
    let found = programs.len();
    assert!((10..=MAX_TEST_PROGRAMS).contains(&found), "{found}, at most {MAX_TEST_PROGRAMS}: {programs:?}");
}

#[test]
fn files_that_documents_and_comments_cite_exist() {
    let files: Vec<_> = files(&[]).into_iter().map(|file| file.name).collect();
    for Line { at, text, .. } in prose() {
        for path in paths(&text) {
            assert!(files.iter().any(|file| is_at(file, path)), "{at}: there is no `{path}`");
        }
    }
}

/// A reader of a document sees the lines that rustdoc hides, and types them.
#[test]
fn programs_of_documents_have_no_hidden_lines() {
    let mut programs = 0;
    for file in files(&["md"]) {
        let mut in_program = false;
        for (number, line) in file.text.lines().enumerate() {
            if line.starts_with("```") {
                in_program = line == "```rust";
                programs += usize::from(in_program);
            }
            let hidden = in_program && (line.trim() == "#" || line.trim_start().starts_with("# "));
            assert!(!hidden, "{}:{}: write the whole program, as it is typed", file.name, number + 1);
        }
    }
    assert!(programs > 15, "the programs of documents are somewhere else");
}

#[test]
fn names_that_documents_and_comments_cite_exist() {
    let words: BTreeSet<_> = sources().iter().flat_map(Source::code).flat_map(|(_, line)| words(&line)).collect();
    let mut foreign = BTreeSet::new();
    for Line { at, text, .. } in prose() {
        // Shorter names are those of other things too: fields of files in /proc, options of serde.
        for name in quoted(&text).filter(|name| name.trim_matches('_').matches('_').count() >= 3) {
            if FOREIGN_NAMES.contains(&name) {
                foreign.insert(name.to_owned());
            } else {
                assert!(
                    words.contains(name),
                    "{at}: no source has `{name}`; FOREIGN_NAMES is for names from elsewhere"
                );
            }
        }
    }
    for name in FOREIGN_NAMES {
        assert!(foreign.contains(*name), "no document quotes `{name}`: take it from FOREIGN_NAMES");
    }
}

/// A test is named like `tests/tidy.rs::imports_point_downwards`. A table names tests alone in its last column if that is called
/// `test` or `shown by`: each is in the file that was named last before it.
#[test]
fn cited_tests_are_in_the_file_that_is_named() {
    let has_tests = |path: &str| path.contains("tests/") || path.ends_with("tests.rs");
    let tests: Vec<_> = sources().into_iter().filter(|file| has_tests(&file.name)).collect();
    let functions = |file: &Source| file.code().filter_map(|(_, line)| function_of(&line)).collect::<BTreeSet<_>>();
    let functions: Vec<_> = tests.iter().map(|file| (&file.name, functions(file))).collect();
    let is_there = |file: &str, test: &str| functions.iter().any(|(name, all)| is_at(name, file) && all.contains(test));
    let (mut document, mut file, mut in_table, mut found) = (String::new(), String::new(), false, 0);
    for Line { at, text, name } in prose() {
        if document != name {
            (document, file, in_table) = (name, String::new(), false);
        }
        let row = text.trim().strip_prefix('|').and_then(|row| row.strip_suffix('|'));
        let last = row.and_then(|row| row.rsplit('|').next()).map(str::trim);
        in_table = last.is_some_and(|last| in_table || ["test", "shown by"].contains(&last));
        for part in last.filter(|_| in_table).unwrap_or(&text).split('`') {
            if ending(part) == "rs" && has_tests(part) {
                part.clone_into(&mut file);
            } else if let Some((file, test)) = part.split_once(".rs::") {
                assert!(is_there(&format!("{file}.rs"), test), "{at}: `{file}.rs` has no test `{test}`");
            } else if in_table && part.contains('_') && part.chars().all(is_of_word) {
                assert!(is_there(&file, part), "{at}: `{file}` has no test `{part}`");
                found += 1;
            }
        }
    }
    assert!(found > 100, "the tables that name tests are somewhere else");
}

#[test]
fn no_file_names_a_path_of_one_machine() {
    let homes = ["home", "root", "work", "Users"].map(|folder| format!("/{folder}/"));
    for file in files(&[]) {
        for (number, line) in file.text.lines().enumerate() {
            let found = homes.iter().find(|home| {
                let before = |at: usize| line[..at].chars().next_back();
                line.match_indices(home.as_str())
                    .any(|(at, _)| !before(at).is_some_and(|c| is_of_word(c) || "./-}".contains(c)))
            });
            assert!(found.is_none(), "{}:{}: {found:?} is a place on one machine", file.name, number + 1);
        }
    }
}

struct Source {
    /// From the root of the repository, with slashes.
    name: String,
    /// The folder or file below `runtime/src`, or nothing.
    layer: String,
    text: String,
}

impl Source {
    /// The lines without comments and strings, numbered from 1.
    fn code(&self) -> impl Iterator<Item = (usize, String)> {
        self.text.lines().enumerate().map(|(number, line)| (number + 1, parts_of(line).0))
    }

    /// What stands behind `//`, with the number of its line.
    fn comments(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().filter_map(|(number, line)| Some((number + 1, parts_of(line).1?)))
    }

    fn is_of_library(&self) -> bool {
        ["runtime/src/", "macros/src/"].iter().any(|folder| self.name.starts_with(folder))
    }
}

/// A line of a document, or a comment of a source.
struct Line {
    /// Its file.
    name: String,
    /// Its file and its number, for messages.
    at: String,
    text: String,
}

/// Every line that people read, document by document.
fn prose() -> Vec<Line> {
    let mut lines = Vec::new();
    for file in files(&["md", "rs"]) {
        let mut add = |number: usize, text: &str| {
            let text = text.trim_start_matches(['/', '!']).to_owned();
            lines.push(Line { name: file.name.clone(), at: format!("{}:{number}", file.name), text });
        };
        if ending(&file.name) == "md" {
            file.text.lines().enumerate().for_each(|(number, line)| add(number + 1, line));
        } else {
            file.comments().for_each(|(number, comment)| add(number, comment));
        }
    }
    lines
}

/// What a line says of files: words that end in `.rs` or `.md`, or that begin in a folder of tests.
fn paths(line: &str) -> impl Iterator<Item = &str> {
    let words = line.split(|c: char| !is_of_word(c) && !"./*-:".contains(c));
    let words = words.map(|word| word.split(':').next().unwrap_or_default());
    let words = words.map(|word| word.trim_end_matches(['.', '-']).trim_start_matches("../"));
    let words = words.filter(|word| !word.ends_with("docs.rs"));
    words.filter(|word| ["rs", "md"].contains(&ending(word)) || word.contains("tests/"))
}

/// Whether a file has this path, or this end of a path, or is in a folder of this path; `*` stands for anything.
fn is_at(file: &str, path: &str) -> bool {
    let file = format!("/{file}/");
    let mut rest = &*file;
    format!("/{}/", path.trim_matches('/')).split('*').all(|piece| match rest.find(piece) {
        Some(at) => {
            rest = &rest[at + piece.len()..];
            true
        }
        None => false,
    })
}

/// The plain names in lower case between two backticks.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    let parts = line.split('`').skip(1).step_by(2);
    parts.filter(|part| part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'))
}

fn words(line: &str) -> Vec<String> {
    line.split(|c| !is_of_word(c)).map(str::to_owned).collect()
}

/// The function that a line of code defines.
fn function_of(line: &str) -> Option<String> {
    let name = line.split_once("fn ")?.1;
    name.split(|c| !is_of_word(c)).next().map(str::to_owned)
}

/// The type that a line of code defines outside of blocks, and whether its visibility is `pub` and nothing less.
fn type_of(line: &str) -> Option<(&str, bool)> {
    let mut words = line.split(' ');
    let mut word = words.next()?;
    let is_public = word == "pub";
    while word.starts_with("pub") || word == "unsafe" || word.ends_with(')') {
        word = words.next()?;
    }
    let is_type = ["struct", "enum", "union", "trait", "type"].contains(&word);
    let name = words.next().filter(|_| is_type)?;
    name.split(|c| !is_of_word(c)).next().map(|name| (name, is_public))
}

/// The code of a line without what stands between quotation marks on it, and what follows `//`.
fn parts_of(line: &str) -> (String, Option<&str>) {
    let (mut code, mut quoted, mut before) = (String::new(), false, ' ');
    for (at, c) in line.char_indices() {
        match c {
            '"' if before != '\\' && before != '\'' => quoted = !quoted,
            '/' if !quoted && before == '/' => return (code, Some(&line[at + 1..])),
            _ if !quoted => code.push(c),
            _ => {}
        }
        before = c;
    }
    (code, None)
}

fn rank(layer: &str) -> Option<usize> {
    LAYERS.iter().position(|layers| layers.contains(&layer))
}

/// What follows the last dot of a file's name, if something stands before it.
fn ending(path: &str) -> &str {
    Path::new(path).extension().and_then(|ending| ending.to_str()).unwrap_or_default()
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn runtime() -> Vec<Source> {
    let files: Vec<_> = sources().into_iter().filter(|file| !file.layer.is_empty()).collect();
    assert!(files.len() > 30, "the runtime's sources are somewhere else");
    files
}

fn sources() -> Vec<Source> {
    files(&["rs"])
}

/// Every text file of the repository with one of these endings, or with any.
fn files(endings: &[&str]) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    walk(root, &mut found);
    found.retain(|path| endings.is_empty() || path.to_str().is_some_and(|path| endings.contains(&ending(path))));
    found.into_iter().filter_map(|path| source(root, &path)).collect()
}

fn source(root: &Path, path: &Path) -> Option<Source> {
    let name = path.strip_prefix(root).ok()?.to_str()?.to_owned();
    let inside = name.strip_prefix("runtime/src/").unwrap_or_default();
    let layer = inside.split('/').next().unwrap_or_default().trim_end_matches(".rs").to_owned();
    Some(Source { name, layer, text: fs::read_to_string(path).ok()? })
}

/// Everything but what was built, which cargo marks, and what git keeps for itself.
fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    if folder.ends_with(".git") || folder.join("CACHEDIR.TAG").exists() || folder.ends_with("target") {
        return;
    }
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() && !path.is_symlink() {
            walk(&path, found);
        } else if path.is_file() {
            found.push(path);
        }
    }
}
