//! What the examples promise: they print what their headers say, and what the others compute is right.
//!
//! Runs the built programs, which `cargo test` builds beside the tests. Never: trusts one of them about itself; a picture
//! is decoded, and words are counted again.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::BufReader;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::programs::{example, watched};

#[test]
fn small_examples_print_what_their_headers_say() {
    watched("headers", |mark| {
        for name in [
            "square",
            "spawn",
            "crash",
            "timeouts",
            "worker_state",
            "await_result",
            "shared_counter",
            "barrier_phases",
            "actor",
            "manager_dict",
            "remote_manager",
        ] {
            let source = fs::read_to_string(format!("{}/examples/{name}.rs", env!("CARGO_MANIFEST_DIR"))).unwrap();
            assert!(source.lines().count() < 100, "{name} is not small any more");
            assert!(
                source.contains(&format!("//! Run it with `cargo run --example {name}`")),
                "{name} says how to run it"
            );
            let output = example(name, mark).output().unwrap();
            let errors = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(0), "{name}: {errors}");
            let printed = String::from_utf8(output.stdout).unwrap();
            assert_eq!(without_ids(&printed), without_ids(&promised(&source)), "{name}: {errors}");
        }
    });
}

#[test]
fn echo_answers_authenticated_clients() {
    watched("echo", |mark| {
        let source = fs::read_to_string(format!("{}/examples/echo_server.rs", env!("CARGO_MANIFEST_DIR"))).unwrap();
        assert_eq!(printed(&mut example("echo_server", mark)), promised(&source));
        // By hand: without the right key there is nothing to be printed but why.
        let scratch = Scratch::new("echo");
        let key = scratch.0.join("key");
        printed(example("echo_server", mark).arg("key").arg(&key));
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        let refused =
            example("echo_server", mark).args(["connect", "127.0.0.1:1", "--key"]).arg(&key).output().unwrap();
        assert!(String::from_utf8_lossy(&refused.stderr).contains("connect to 127.0.0.1:1: Connection refused"));
    });
}

#[test]
fn picture_is_the_same_for_any_number_of_workers() {
    watched("picture", |mark| {
        let scratch = Scratch::new("picture");
        let places: [&[&str]; 2] = [&[], &["--centre=-0.75,0", "--width", "3", "--steps", "200", "--samples", "1"]];
        for place in places {
            let pictures = ["1", "2", "5"].map(|workers| {
                let path = scratch.0.join(workers);
                let mut command = example("mandelbrot", mark);
                printed(command.args(["--size", "61x52", "--workers", workers]).args(place).arg(&path));
                fs::read(path).unwrap()
            });
            assert!(pictures.iter().all(|picture| *picture == pictures[0]), "{place:?}");
        }
        // The set as a whole, in the second place: symmetric, black in its middle, and not at the edge of the picture.
        let mut reader =
            png::Decoder::new(BufReader::new(File::open(scratch.0.join("1")).unwrap())).read_info().unwrap();
        assert_eq!(reader.info().size(), (61, 52));
        assert_eq!(reader.output_color_type(), (png::ColorType::Rgb, png::BitDepth::Eight));
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        let black: Vec<_> = pixels.chunks(61 * 3).map(|row| row.chunks(3).map(|rgb| rgb == [0; 3]).collect()).collect();
        assert!(black.iter().eq(black.iter().rev()), "the set is its own mirror image");
        assert_eq!((&black[0], &black[51]), (&vec![false; 61], &vec![false; 61]), "nothing of the set is so far up");
        // In the middle rows: 0 and -1, the middles of its greatest disks, and what lies beyond its ends.
        let row = &black[25];
        assert!(row[45] && row[25] && !row[55] && !row[0], "{row:?}");
    });
}

#[test]
fn words_are_counted_as_one_thread_counts_them() {
    watched("words", |mark| {
        let scratch = Scratch::new("words");
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let files = ["README.md", "ARCHITECTURE.md", "examples/wordcount.rs"].map(|name| root.join(name));
        let unusual = scratch.0.join("unusual.txt");
        fs::write(&unusual, "\n\nÄpfel äpfel—ÄPFEL\r\n日本 日本\n\n no end").unwrap();
        let empty = scratch.0.join("empty.txt");
        fs::write(&empty, "").unwrap();
        // Not named, and no text by its name.
        fs::write(scratch.0.join("data.bin"), "äpfel").unwrap();

        let expected = frequencies(&files.iter().chain([&unusual]).collect::<Vec<_>>());
        assert!(["       3 äpfel\n", "       2 日本\n"].iter().all(|line| expected.iter().any(|own| own == line)));

        let ways: [&[&str]; 4] = [&[], &["--chunk", "0"], &["--chunk", "1", "--workers", "3"], &["--chunk", "1000"]];
        for way in ways {
            let mut command = example("wordcount", mark);
            let counted = printed(command.args(way).args(["--top", "1000000"]).args(&files).arg(&scratch.0));
            assert!(counted == expected.concat(), "{way:?}: {counted}");
        }
        let top = printed(example("wordcount", mark).args(["--top", "3"]).args(&files).arg(&scratch.0));
        assert_eq!(top, expected[..3].concat());
    });
}

#[test]
fn pipeline_of_processes_finds_the_words_of_one_thread() {
    watched("pipeline", |mark| {
        let scratch = Scratch::new("pipeline");
        let unusual = scratch.0.join("unusual.txt");
        fs::write(&unusual, "\n\nÄpfel äpfel—ÄPFEL\r\n日本 日本\n\n no end").unwrap();
        let empty = scratch.0.join("empty.txt");
        fs::write(&empty, "").unwrap();
        let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
        for (file, width) in [(&readme, "1"), (&readme, "3"), (&unusual, "2"), (&empty, "2")] {
            let expected = frequencies(&[file]);
            let counted = printed(example("pipeline", mark).args(["--top", "1000000", "--width", width]).arg(file));
            assert!(counted == expected.concat(), "{} by {width}: {counted}", file.display());
        }
        let top = printed(&mut example("pipeline", mark));
        assert_eq!(top, frequencies(&[&readme])[..20].concat());

        let output = example("pipeline", mark).arg(scratch.0.join("missing")).output().unwrap();
        assert_eq!((output.status.code(), &*output.stdout), (Some(1), &b""[..]));
        assert!(String::from_utf8(output.stderr).unwrap().contains("missing: No such file"));
    });
}

#[test]
fn every_item_of_killed_processes_is_accounted_for() {
    watched("killed", |mark| {
        let text = printed(example("producer_consumer", mark).arg("--ledger"));
        let mut put = HashMap::<&str, Vec<usize>>::new();
        let (mut consumed, mut lost) = (HashMap::<&str, usize>::new(), 0);
        for line in text.lines().filter_map(|line| line.strip_prefix("item ")) {
            let [number, "of", producer, by] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            put.entry(producer.trim_end_matches(':')).or_default().push(number.parse().unwrap());
            if by == "[]" {
                lost += 1;
            } else {
                // One consumer, and not several.
                assert!(
                    by.strip_prefix('[').and_then(|by| by.strip_suffix(']')).is_some_and(|by| by.len() == 1),
                    "{line}"
                );
                *consumed.entry(by).or_default() += 1;
            }
        }
        assert!(put.values().all(|numbers| numbers.iter().copied().eq(0..numbers.len())), "{text}");
        assert_eq!((put.len(), put["producer-0"].len(), put["producer-2"].len()), (3, 2000, 2000), "{text}");
        assert!((500..2000).contains(&put["producer-1"].len()), "it was killed in the middle: {text}");
        assert!(consumed.len() == 3 && consumed["[1]"] >= 500, "{consumed:?}");
        assert!(lost <= 1, "a consumer has one item at a time: {lost}");

        // And so say the sentences, of which those about the dead are the only ones that tell of an error.
        let (all, once) = (put.values().map(Vec::len).sum::<usize>(), consumed.values().sum::<usize>());
        let sums = format!("put: {all}, consumed once: {once}, twice: 0, lost with their taker: {lost}");
        assert_eq!(text.lines().last(), Some(&*sums), "{text}");
        for (kind, task, verb) in [("producer", "produce", "put"), ("consumer", "consume", "consumed")] {
            for own in 0..3 {
                let count = match kind {
                    "producer" => put[&*format!("producer-{own}")].len(),
                    _ => consumed[&*format!("[{own}]")],
                };
                let killed = format!(
                    ": process `{kind}-1` (pid ID) was killed by SIGKILL while running `producer_consumer::{task}`"
                );
                let end = if own == 1 { &*killed } else { "" };
                let sentence = format!("{kind}-{own} {verb} {count} items{end}\n");
                assert!(without_ids(&text).contains(&sentence), "{sentence}{text}");
            }
        }
    });
}

#[test]
fn matrix_product_is_exact_for_any_number_of_workers() {
    watched("matrix", |mark| {
        // The last range is full, shorter than the others, the only one, or as long as a row.
        for (size, rows, workers) in [(24, 8, 2), (25, 8, 3), (7, 100, 1), (30, 1, 2), (1, 1, 2)] {
            let (size, rows, workers) = (size.to_string(), rows.to_string(), workers.to_string());
            let mut command = example("matrix", mark);
            let text = printed(command.args(["--print", "--size", &size, "--rows", &rows, "--workers", &workers]));
            let [a, b, product, words] = text.split("\n\n").collect::<Vec<_>>()[..] else { panic!("{text}") };
            let [a, b, product] = [a, b, product].map(integers);
            assert_eq!((a.len().to_string(), a[0].len().to_string()), (size.clone(), size.clone()), "{text}");
            let columns = || (0..b.len()).map(|column| b.iter().map(move |row| row[column]));
            let sum =
                |row: &[i64], column: &mut dyn Iterator<Item = i64>| row.iter().zip(column).map(|(a, b)| a * b).sum();
            let expected: Vec<Vec<i64>> =
                a.iter().map(|row| columns().map(|mut column| sum(row, &mut column)).collect()).collect();
            assert_eq!(product, expected, "{text}");
            assert!(words.starts_with(&format!("{size} x {size}, ")), "{words}");
            assert!(words.contains(&format!("\n{workers} workers: ")), "{words}");
        }
    });
}

/// How often which word occurs in some files: a line for each, as the examples print them, the most frequent first.
fn frequencies(files: &[&PathBuf]) -> Vec<String> {
    let mut counts: HashMap<String, u64> = HashMap::new();
    for file in files {
        for word in fs::read_to_string(file).unwrap().split(|c: char| !c.is_alphanumeric()) {
            *counts.entry(word.to_lowercase()).or_default() += 1;
        }
    }
    counts.remove("");
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by(|one, other| (other.1, &one.0).cmp(&(one.1, &other.0)));
    counts.iter().map(|(word, count)| format!("{count:8} {word}\n")).collect()
}

/// The rows of numbers in a text.
fn integers(text: &str) -> Vec<Vec<i64>> {
    text.lines().map(|row| row.split(' ').map(|number| number.parse().unwrap()).collect()).collect()
}

/// What a program prints that has nothing to complain about.
fn printed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert_eq!((output.status.code(), &*String::from_utf8_lossy(&output.stderr)), (Some(0), ""), "{command:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A directory, removed in the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("examples-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let removed = fs::remove_dir_all(&self.0);
        assert!(removed.is_ok() || std::thread::panicking(), "{removed:?}");
    }
}

/// What stands in the one block of text in an example's header.
fn promised(source: &str) -> String {
    let header = source.lines().map_while(|line| line.strip_prefix("//!"));
    let block = header.skip_while(|line| line.trim() != "```text").skip(1).take_while(|line| line.trim() != "```");
    block.fold(String::new(), |text, line| text + line.strip_prefix(' ').unwrap_or(line) + "\n")
}

/// The text without what differs from run to run and from machine to machine: process ids, and whether cores are dumped.
fn without_ids(text: &str) -> String {
    let mut result = String::new();
    let mut rest = &*text.replace(" (core dumped)", "");
    while let Some(at) = ["process ", "pid "].iter().filter_map(|word| Some(rest.find(word)? + word.len())).min() {
        let (before, after) = rest.split_at(at);
        result += before;
        rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
        if rest.len() < after.len() {
            result += "ID";
        }
    }
    result + rest
}
