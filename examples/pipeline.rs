//! The most frequent words of a text, by a pipeline: each stage is processes of its own, and queues join them.
//!
//! Run it with `cargo run --release --example pipeline -- [FILE]`. Without a name it takes this repository's README.
//! `--top N` chooses how many words it prints, `--width N` how many processes each of the middle stages has.
//!
//! ```text
//! read ──lines──▶ split ──words──▶ count ──counts──▶ rank
//!                 split            count
//! ```
//!
//! Nothing tells a stage that its work is over: when the last producer of a queue is gone, by its end or by `kill -9`, the
//! consumers get what is left in it, and then the word that it is closed. So a stage that dies never makes another one wait;
//! its `join` says what happened, and the program fails, since what that process had taken is missing.
//!
//! The queues are bounded: a stage that is faster than the next waits for it, so a file of any length needs little memory.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use process_task::channel::{Queue, QueueReceiver, QueueSender};
use process_task::{Process, process_task};

/// The most frequent words of a file.
#[derive(Parser)]
struct Options {
    /// A text; this repository's README by default.
    #[arg(default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md"))]
    file: PathBuf,
    /// How many words to print.
    #[arg(long, value_name = "N", default_value_t = 20)]
    top: usize,
    /// How many processes split, and how many count.
    #[arg(long, value_name = "N", default_value_t = 2)]
    width: usize,
}

/// How often each word occurs in what one process has counted.
type Counts = HashMap<String, u64>;

/// How many lines, or lines of words, a queue holds.
const AHEAD: usize = 256;

/// The first stage: the lines of the file. Bytes that are no text separate words.
#[process_task]
fn read_lines(file: &Path, lines: QueueSender<String>) -> Result<(), String> {
    let read = || -> io::Result<()> {
        for line in BufReader::new(File::open(file)?).split(b'\n') {
            let line = String::from_utf8_lossy(&line?).into_owned();
            if lines.send(line).is_err() {
                break; // Every splitter is gone; what happened to them is theirs to say.
            }
        }
        Ok(())
    };
    read().map_err(|error| format!("{}: {error}", file.display()))
}

/// The second stage: the words of each line, in lower case.
#[process_task]
fn split_lines(lines: QueueReceiver<String>, words: QueueSender<Vec<String>>) {
    for line in &lines {
        let of_line = line.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
        if words.send(of_line.map(str::to_lowercase).collect()).is_err() {
            break;
        }
    }
}

/// The third stage: how often each word came to this process.
#[process_task]
fn count_words(words: QueueReceiver<Vec<String>>, counts: QueueSender<Counts>) {
    let mut own = Counts::new();
    for line in &words {
        for word in line {
            *own.entry(word).or_default() += 1;
        }
    }
    // If they are not wanted any more, there is nothing to tell.
    let _ = counts.send(own);
}

/// The last stage: the most frequent words of all, those first that occur most.
#[process_task]
fn rank_words(counts: QueueReceiver<Counts>, top: usize) -> Vec<(String, u64)> {
    let mut all = Counts::new();
    for part in &counts {
        for (word, times) in part {
            *all.entry(word).or_default() += times;
        }
    }
    let mut all: Vec<_> = all.into_iter().collect();
    all.sort_by(|(one, ones), (other, others)| others.cmp(ones).then_with(|| one.cmp(other)));
    all.truncate(top);
    all
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of our output has seen enough of it.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("pipeline: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> io::Result<()> {
    let top = top_words(options).map_err(io::Error::other)?.map_err(io::Error::other)?;
    let mut out = io::stdout().lock();
    for (word, times) in top {
        writeln!(out, "{times:8} {word}")?;
    }
    Ok(())
}

/// Starts the stages, and waits for all of them. The inner result is what the file has to say.
fn top_words(options: &Options) -> process_task::Result<Result<Vec<(String, u64)>, String>> {
    let (put_lines, get_lines) = Queue::bounded(AHEAD)?.split();
    let (put_words, get_words) = Queue::bounded(AHEAD)?.split();
    let (put_counts, get_counts) = Queue::unbounded()?.split();

    let reader = read_lines.spawn(&options.file, put_lines);
    let mut middle: Vec<Process<()>> = Vec::new();
    for _ in 0..options.width.max(1) {
        middle.push(split_lines.spawn(get_lines.clone(), put_words.clone()));
        middle.push(count_words.spawn(get_words.clone(), put_counts.clone()));
    }
    let ranker = rank_words.spawn(get_counts, options.top);
    // These ends are ends too: a queue whose producer we are is not over, and one whose consumer we are takes more.
    drop((get_lines, put_words, get_words, put_counts));

    let read = reader.join()?;
    middle.into_iter().try_for_each(Process::join)?;
    let top = ranker.join()?;
    Ok(read.map(|()| top))
}
