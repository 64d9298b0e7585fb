//! SHA-256 of every file below some directories, in the format of `sha256sum`, on all processors.
//!
//! Run it with `cargo run --release --example checksum -- DIRECTORY…`; without a directory it takes this repository.
//! `--workers N` chooses how many processes work, `--one-process` does the same without any. For example:
//!
//! ```text
//! cargo run --release --example checksum -- /usr/lib > sums
//! sha256sum --quiet -c sums
//! ```
//!
//! One task hashes one file. Sums come in the order of the paths' bytes, each as soon as it and those before it are
//! there. Regular files count, symbolic links below the directories are not followed. A file or a directory that cannot
//! be read, and a file whose worker is killed, cost one line on stderr each, and the exit code is 1; all other sums are
//! right. On a terminal, a bar on stderr shows how far it is.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use nix::fcntl::OFlag;
use process_task::{Pool, process_task};
use sha2::{Digest as _, Sha256};
use walkdir::{DirEntry, WalkDir};

/// How much of a file is in memory at a time.
const BUFFER: usize = 256 << 10;

/// SHA-256 of every file below the directories, in the format of `sha256sum`.
#[derive(Parser)]
struct Options {
    /// Directories, or files; this repository by default.
    #[arg(default_value = env!("CARGO_MANIFEST_DIR"))]
    paths: Vec<PathBuf>,
    /// How many processes work; one for each processor by default.
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// Hash in this process, one file after the other, for comparison.
    #[arg(long, conflicts_with = "workers")]
    one_process: bool,
}

/// The sum of one file, or why there is none.
#[process_task]
fn sha256(path: &Path) -> Result<[u8; 32], String> {
    let text = |error: io::Error| error.to_string();
    // What was a regular file a moment ago may be a link or a FIFO now, which would lead elsewhere or keep us waiting.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let mut file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path).map_err(text)?;
    if !file.metadata().map_err(text)?.is_file() {
        return Err("no longer a regular file".to_owned());
    }
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; BUFFER]);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hasher.finalize().into()),
            Ok(length) => hasher.update(&buffer[..length]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(text(error)),
        }
    }
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(failures) => {
            eprintln!("checksum: {failures} could not be hashed");
            ExitCode::FAILURE
        }
        // The reader of our output has seen enough of it.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("checksum: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Does the whole job, and returns how many files and directories failed.
fn run(options: &Options) -> io::Result<u64> {
    let mut failures = 0;
    let files = files_below(&options.paths, &mut failures);
    let paths = files.iter().map(PathBuf::as_path);

    let pool; // Outlives the iterator that borrows it.
    let sums: Box<dyn Iterator<Item = process_task::Result<Result<[u8; 32], String>>>> = if options.one_process {
        Box::new(paths.map(|path| Ok(sha256(path))))
    } else {
        let builder = Pool::builder().name("checksum");
        let builder = if let Some(workers) = options.workers { builder.workers(workers) } else { builder };
        pool = builder.build().map_err(io::Error::other)?;
        Box::new(pool.imap(sha256, paths))
    };

    // It draws nothing where stderr is no terminal.
    let bar = ProgressBar::new(files.len() as u64).with_style(
        ProgressStyle::with_template("{wide_bar} {human_pos}/{human_len} files, {eta} left")
            .map_err(io::Error::other)?,
    );
    for (path, sum) in files.iter().zip(sums) {
        // The outer error is the process's, the inner one the task's.
        match sum.map_err(|error| error.to_string()).flatten() {
            Ok(sum) => bar.suspend(|| io::stdout().lock().write_all(&line(path, &sum)))?,
            Err(why) => {
                failures += 1;
                bar.suspend(|| complain(path, &why));
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(failures)
}

/// Every regular file at or below `paths`, once, in the order of the paths' bytes.
fn files_below(paths: &[PathBuf], failures: &mut u64) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut failed = |path: &Path, why: &str| {
        *failures += 1;
        complain(path, why);
    };
    for root in paths {
        for entry in WalkDir::new(root) {
            match entry {
                Ok(entry) if entry.file_type().is_file() => files.push(entry.into_path()),
                Ok(entry) if entry.depth() == 0 && !leads_to_directory(&entry) => {
                    failed(root, "neither a directory nor a regular file");
                }
                Ok(_) => {}
                Err(error) => {
                    let why = error.io_error().map_or_else(|| error.to_string(), ToString::to_string);
                    failed(error.path().unwrap_or(root), &why);
                }
            }
        }
    }
    files.sort_by(|one, other| one.as_os_str().as_bytes().cmp(other.as_os_str().as_bytes()));
    files.dedup_by(|one, other| one.as_os_str() == other.as_os_str());
    files
}

/// Whether the walk goes into `entry`, which was named by the user: then also through a link.
fn leads_to_directory(entry: &DirEntry) -> bool {
    entry.path().is_dir()
}

/// As `sha256sum` writes it: a name with a backslash or a line's end in it is escaped, and a backslash in front says so.
fn line(path: &Path, sum: &[u8]) -> Vec<u8> {
    let name = path.as_os_str().as_bytes();
    let mut line = Vec::with_capacity(2 * sum.len() + name.len() + 4);
    if name.iter().any(|byte| b"\\\n\r".contains(byte)) {
        line.push(b'\\');
    }
    for byte in sum {
        line.extend(format!("{byte:02x}").bytes());
    }
    line.extend(b"  ");
    for &byte in name {
        match byte {
            b'\\' => line.extend(br"\\"),
            b'\n' => line.extend(br"\n"),
            b'\r' => line.extend(br"\r"),
            _ => line.push(byte),
        }
    }
    line.push(b'\n');
    line
}

/// One line on stderr, whatever is in the name.
#[expect(clippy::unnecessary_debug_formatting, reason = "its escapes keep the name on one line")]
fn complain(path: &Path, why: &str) {
    eprintln!("checksum: {path:?}: {}", why.replace('\n', " "));
}
