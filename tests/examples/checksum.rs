//! What `examples/checksum.rs` promises: the right sums, whatever files are there and whichever process is killed.
//!
//! Runs the built program, which `cargo test` builds beside the tests. Never: trusts it about itself; sums are computed
//! here, and by `sha256sum` where there is one.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use crate::support::programs::{example, marked, pid, wait_for, watched};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use sha2::{Digest as _, Sha256};

#[test]
fn sums_are_those_of_sha256sum_for_any_name_and_worker_count() {
    watched("names", |mark| {
        let tree = Tree::new("names");
        let sums = tree.fill();
        symlink("plain", tree.path("link-to-file")).unwrap();
        symlink("directory", tree.path("link-to-directory")).unwrap();
        symlink("nothing", tree.path("link-to-nothing")).unwrap();
        // Opening it would wait for a writer.
        mkfifo(&tree.path("fifo"), Mode::S_IRWXU).unwrap();
        let ways: [&[&str]; 4] = [&[], &["--workers", "1"], &["--workers", "5"], &["--one-process"]];
        for way in ways {
            let output = example("checksum", mark).args(way).arg(&tree.root).output().unwrap();
            assert_eq!(text(&output.stderr), "", "{way:?}");
            assert_eq!(text(&output.stdout), text(&sums.concat()), "{way:?}");
            assert_eq!(output.status.code(), Some(0), "{way:?}");
        }
        accepted_by_sha256sum(&sums.concat());
    });
}

#[test]
fn a_file_that_is_named_twice_is_summed_once() {
    watched("twice", |mark| {
        let tree = Tree::new("twice");
        let sums = tree.fill();
        let output = example("checksum", mark).args([&tree.root, &tree.path("plain"), &tree.root]).output().unwrap();
        assert_eq!(text(&output.stdout), text(&sums.concat()));
        assert_eq!(output.status.code(), Some(0));
    });
}

#[test]
fn what_cannot_be_read_costs_one_line_each_and_nothing_else() {
    watched("unreadable", |mark| {
        let tree = Tree::new("unreadable");
        let sums = tree.fill();
        let locked = tree.path("locked");
        File::create(&locked).unwrap();
        fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).unwrap();
        // A user that may read everything can read this one too.
        let privileged = File::open(&locked).is_ok();
        if privileged {
            fs::remove_file(&locked).unwrap();
        }
        let others = ["/proc/self/mem", "/dev/null", "/nonexistent/one\nline"];
        for way in [&["--workers", "2"][..], &["--one-process"]] {
            let output = example("checksum", mark).args(way).arg(&tree.root).args(others).output().unwrap();
            assert_eq!(text(&output.stdout), text(&sums.concat()), "{way:?}");
            assert_eq!(output.status.code(), Some(1), "{way:?}");
            let errors = String::from_utf8(output.stderr).unwrap();
            let failures = others.len() + usize::from(!privileged);
            let lines: Vec<_> = errors.lines().collect();
            assert_eq!(lines.len(), failures + 1, "{errors}");
            assert!(errors.contains("\"/proc/self/mem\": Input/output error"), "{errors}");
            assert!(errors.contains("\"/dev/null\": neither a directory nor a regular file"), "{errors}");
            assert!(errors.contains(r#""/nonexistent/one\nline": No such file or directory"#), "{errors}");
            assert!(privileged || errors.contains("/locked\": Permission denied"), "{errors}");
            assert_eq!(lines.last(), Some(&&*format!("checksum: {failures} could not be hashed")));
        }
    });
}

#[test]
fn a_killed_worker_costs_its_own_file_and_nothing_else() {
    watched("worker", |mark| {
        let tree = Tree::new("worker");
        let sums = tree.fill();
        let endless = tree.endless_file();
        let run = started(&["--workers", "2"], &tree, mark);
        let worker = wait_for("a worker to read the endless file", || reader_of(&endless, mark));
        assert_ne!(worker, run.id(), "the parent reads no file itself");
        kill(pid(worker), Signal::SIGKILL).unwrap();
        let output = finished(run);
        assert_eq!(text(&output.stdout), text(&sums.concat()));
        assert_eq!(output.status.code(), Some(1));
        let errors = String::from_utf8(output.stderr).unwrap();
        let lines: Vec<_> = errors.lines().collect();
        assert_eq!(lines.len(), 2, "{errors}");
        assert!(lines[0].starts_with(&format!("checksum: {endless:?}: ")), "{errors}");
        assert!(lines[0].contains(&format!("(pid {worker}) was killed by SIGKILL")), "{errors}");
        assert_eq!(lines[1], "checksum: 1 could not be hashed");
    });
}

#[test]
fn file_that_vanishes_during_the_run_costs_itself_alone() {
    watched("vanishing", |mark| {
        let tree = Tree::new("vanishing");
        let mut sums = tree.fill();
        let endless = tree.endless_file();
        let vanishing = tree.path("zz-vanishing");
        File::create(&vanishing).unwrap();
        let run = started(&["--workers", "1"], &tree, mark);
        wait_for("a worker to read the endless file", || reader_of(&endless, mark));
        fs::remove_file(&vanishing).unwrap();
        // What is left of the endless one has a sum that cannot be foretold.
        File::options().write(true).open(&endless).unwrap().set_len(0).unwrap();
        let output = finished(run);
        let name = endless.as_os_str().as_bytes();
        let is_endless = |line: &[u8]| line.strip_suffix(b"\n").is_some_and(|line| line.ends_with(name));
        let mut printed: Vec<_> = output.stdout.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        printed.retain(|line| !is_endless(line));
        sums.retain(|line| !is_endless(line));
        assert_eq!(text(&printed.concat()), text(&sums.concat()));
        assert_eq!(output.status.code(), Some(1));
        let expected = format!(
            "checksum: {vanishing:?}: No such file or directory (os error 2)\nchecksum: 1 could not be hashed\n"
        );
        assert_eq!(String::from_utf8(output.stderr).unwrap(), expected);
    });
}

#[test]
fn a_killed_parent_leaves_no_process() {
    watched("parent", |mark| {
        let tree = Tree::new("parent");
        tree.fill();
        let endless = tree.endless_file();
        let run = started(&["--workers", "2"], &tree, mark);
        wait_for("a worker to read the endless file", || reader_of(&endless, mark));
        // The parent, its fork server, and two workers; spares come and go.
        assert!(marked(mark).len() >= 4, "the mark is not seen on all processes");
        kill(pid(run.id()), Signal::SIGKILL).unwrap();
        finished(run);
        wait_for("every process to end", || marked(mark).is_empty().then_some(()));
    });
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure_worth_words() {
    watched("reader", |mark| {
        let tree = Tree::new("reader");
        tree.fill();
        let mut run = started(&[], &tree, mark);
        drop(run.stdout.take());
        let output = finished(run);
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(1), String::new()));
    });
}

fn started(options: &[&str], tree: &Tree, mark: &str) -> Child {
    let mut command = example("checksum", mark);
    command.args(options).arg(&tree.root).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn finished(run: Child) -> Output {
    run.wait_with_output().unwrap()
}

/// A directory of files of all kinds, removed in the end.
struct Tree {
    root: PathBuf,
}

impl Tree {
    fn new(name: &str) -> Self {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("checksum-{}-{name}", std::process::id()));
        fs::create_dir_all(&root).unwrap();
        Self { root }
    }

    fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.root.join(name.as_ref())
    }

    /// Makes the files, and returns their lines in the order of the paths' bytes.
    fn fill(&self) -> Vec<Vec<u8>> {
        let buffer = 256 << 10;
        // In this order: `-` comes before `/`, and `/` before letters. Beside each name stands how it is to be written.
        let files: [(&[u8], &[u8], Vec<u8>); 12] = [
            (b" ", b" ", b"named like a gap".to_vec()),
            (b"-n", b"-n", b"named like an option".to_vec()),
            (br"back\slash", br"back\\slash", b"one".to_vec()),
            (b"carriage\rreturn", br"carriage\rreturn", b"two".to_vec()),
            (b"directory-beside", b"directory-beside", b"three".to_vec()),
            (b"directory/below/file", b"directory/below/file", vec![7; 3 * buffer + 1]),
            (b"directory0", b"directory0", vec![0; buffer]),
            (b"empty", b"empty", Vec::new()),
            (b"new\nline\n", br"new\nline\n", b"four".to_vec()),
            (b"plain", b"plain", (0..=255).collect()),
            ("ünïcode".as_bytes(), "ünïcode".as_bytes(), b"five".to_vec()),
            (b"\xff\xfe", b"\xff\xfe", b"six".to_vec()),
        ];
        let root = self.root.as_os_str().as_bytes();
        assert!(!root.iter().any(|byte| b"\\\n\r".contains(byte)), "the target directory's own name is plain");
        let mut lines = Vec::new();
        for (name, written, contents) in files {
            let path = self.path(OsString::from_vec(name.to_vec()));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &contents).unwrap();
            let mut line = if name == written { Vec::new() } else { b"\\".to_vec() };
            for byte in Sha256::digest(&contents) {
                write!(line, "{byte:02x}").unwrap();
            }
            line.extend([b"  ", root, b"/", written, b"\n"].concat());
            lines.push(line);
        }
        lines
    }

    /// A file that cannot be read to its end, and that takes no room. It stands in the middle.
    fn endless_file(&self) -> PathBuf {
        let path = self.path("endless");
        File::create(&path).unwrap().set_len(1 << 42).unwrap();
        path
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let removed = fs::remove_dir_all(&self.root);
        assert!(removed.is_ok() || thread::panicking(), "{removed:?}");
    }
}

fn accepted_by_sha256sum(lines: &[u8]) {
    let mut check = Command::new("sha256sum");
    let check = check.args(["--quiet", "--strict", "-c"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let Ok(mut check) = check.spawn() else { return };
    check.stdin.take().unwrap().write_all(lines).unwrap();
    let output = check.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stdout));
}

/// The marked process that has `file` open.
fn reader_of(file: &Path, mark: &str) -> Option<u32> {
    marked(mark).into_iter().find(|id| {
        let open = fs::read_dir(format!("/proc/{id}/fd")).into_iter().flatten().flatten();
        open.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|target| target == file)
    })
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}
