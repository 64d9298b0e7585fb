//! The rules of this repository that no compiler checks.
//!
//! Owns: the order of the layers, and the lists of who may name what. Runs in: a test process, which only reads files.
//! Never: looks at anything that was built.

use std::fs;
use std::path::{Path, PathBuf};

/// The layers of `runtime/src`, lowest first. A file may name what stands in its own line and in those before it.
const LAYERS: &[&[&str]] = &[
    &["error", "sys"],
    &["codec"],
    &["shared"],
    &["sync"],
    &["task"],
    &["link"],
    &["child", "launch"],
    &["process", "channel"],
    &["pool", "manager"],
    &["cluster"],
];

/// `child` runs in processes that we started and `launch` in the one that asks: they meet in `link` and nowhere else.
const APART: [&str; 2] = ["child", "launch"];

/// Words that only some folders and files of `runtime/src` may contain, outside comments and strings.
const RESERVED: &[(&str, &[&str])] = &[
    ("unsafe", &["sys", "shared"]),
    ("nix", &["sys", "error"]),
    ("libc", &["sys", "error"]),
    ("asm", &["sys"]),
    ("bincode", &["codec"]),
];

/// The most lines that a source may have.
const LONGEST: usize = 500;

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
                assert!(!apart, "{at}: `{named}` and `{}` meet in `link` only", file.layer);
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
        assert!(lines <= LONGEST, "{}: {lines} lines are more than {LONGEST}", file.name);
    }
}

#[test]
fn every_file_of_the_runtime_says_what_it_never_does() {
    for file in runtime().into_iter().filter(|file| !["lib", "tests"].contains(&file.stem())) {
        let header: Vec<_> = file.text.lines().take_while(|line| line.starts_with("//!")).collect();
        assert!(header.iter().any(|line| line.contains("Never: ")), "{}: what does it never do?", file.name);
    }
}

#[test]
fn no_file_names_a_place_on_somebodys_machine() {
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
        self.text.lines().enumerate().map(|(number, line)| (number + 1, code_of(line)))
    }

    fn stem(&self) -> &str {
        Path::new(&self.name).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default()
    }
}

/// Leaves out what stands between quotation marks on one line, and what follows `//`.
fn code_of(line: &str) -> String {
    let (mut code, mut quoted, mut before) = (String::new(), false, ' ');
    for c in line.chars() {
        match c {
            '"' if before != '\\' && before != '\'' => quoted = !quoted,
            '/' if !quoted && before == '/' => break,
            _ if !quoted => code.push(c),
            _ => {}
        }
        before = c;
    }
    code
}

fn rank(layer: &str) -> Option<usize> {
    LAYERS.iter().position(|layers| layers.contains(&layer))
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
    let wanted = |path: &PathBuf| {
        let ending = path.extension().and_then(|ending| ending.to_str()).unwrap_or_default();
        endings.is_empty() || endings.contains(&ending)
    };
    found.retain(wanted);
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
