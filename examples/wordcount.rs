//! How often which word occurs in some files, counted by all processors.
//!
//! Run it with `cargo run --release --example wordcount -- FILE…`, where a directory stands for the text below it: its
//! `*.md`, `*.rs` and `*.txt`. Without a name it takes this repository. `--top N` chooses how many words it prints.
//!
//! The task borrows its text: `fn count(text: &str)`. Nothing is copied to make a chunk, which is a slice of its file that
//! ends with a line; and the worker reads it where it arrived. Upper and lower case are the same; what stands between
//! words is everything but letters and digits.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fs, iter};

use clap::Parser;
use process_task::{Pool, process_task};
use walkdir::{DirEntry, WalkDir};

/// The most frequent words of some files.
#[derive(Parser)]
struct Options {
    /// Files, or directories of them; this repository by default.
    #[arg(default_value = env!("CARGO_MANIFEST_DIR"))]
    paths: Vec<PathBuf>,
    /// How many words to print.
    #[arg(long, value_name = "N", default_value_t = 20)]
    top: usize,
    /// How long a chunk is, up to the end of the line.
    #[arg(long, value_name = "BYTES", default_value_t = 256 << 10)]
    chunk: usize,
    /// How many processes work; one for each processor by default.
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
}

/// How often each word occurs in `text`.
#[process_task]
fn count(text: &str) -> HashMap<String, u64> {
    let mut counts = HashMap::new();
    for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        *counts.entry(word.to_lowercase()).or_default() += 1;
    }
    counts
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of our output has seen enough of it.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("wordcount: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> io::Result<()> {
    let files = options.paths.iter().flat_map(|path| files_below(path));
    let texts = files.map(|file| text_of(&file?)).collect::<io::Result<Vec<String>>>()?;

    let builder = Pool::builder().name("wordcount");
    let builder = if let Some(workers) = options.workers { builder.workers(workers) } else { builder };
    let pool = builder.build().map_err(io::Error::other)?;
    let chunks = texts.iter().flat_map(|text| chunks(text, options.chunk));
    let counted = pool.map(count, chunks).map_err(io::Error::other)?;

    let mut all: HashMap<String, u64> = HashMap::new();
    for (word, times) in counted.into_iter().flatten() {
        *all.entry(word).or_default() += times;
    }
    let mut all: Vec<_> = all.into_iter().collect();
    all.sort_by(|(one, ones), (other, others)| others.cmp(ones).then_with(|| one.cmp(other)));
    let mut out = io::stdout().lock();
    for (word, times) in all.iter().take(options.top) {
        writeln!(out, "{times:8} {word}")?;
    }
    Ok(())
}

/// `text` in slices of about `length` bytes, each with whole lines.
fn chunks(text: &str, length: usize) -> impl Iterator<Item = &str> {
    let mut rest = text;
    iter::from_fn(move || {
        let end = rest.bytes().skip(length.saturating_sub(1)).position(|byte| byte == b'\n');
        let end = end.map_or(rest.len(), |more| length.max(1) + more);
        let (chunk, left) = rest.split_at(end);
        rest = left;
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// The file itself, or the text below a directory: without what is hidden, and without what was built, which cargo marks.
fn files_below(path: &Path) -> impl Iterator<Item = io::Result<PathBuf>> {
    let wanted = |entry: &DirEntry| {
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        entry.depth() == 0 || !hidden && !entry.path().join("CACHEDIR.TAG").exists()
    };
    let is_text = |entry: &DirEntry| {
        let ending = entry.path().extension().and_then(|ending| ending.to_str());
        entry.depth() == 0 || entry.file_type().is_file() && matches!(ending, Some("md" | "rs" | "txt"))
    };
    let entries = WalkDir::new(path).sort_by_file_name().into_iter().filter_entry(wanted);
    entries.filter_map(move |entry| match entry {
        Ok(entry) => (is_text(&entry) && !entry.path().is_dir()).then(|| Ok(entry.into_path())),
        Err(error) => Some(Err(error.into())),
    })
}

/// What is in a file; bytes that are no text separate words.
fn text_of(path: &Path) -> io::Result<String> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let bytes = fs::read(path).map_err(named)?;
    Ok(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}
