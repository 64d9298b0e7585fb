//! Prints what its children said: the same words however it was built, whatever surrounds it.
//!
//! Owns: the transcript. Runs in: a process that `tests/boot.rs` starts. Never: prints a number that may differ.
//!
//! `program` writes the transcript to stdout, `program to FILE` to a file (stdout may be closed), `program close FILE`, too,
//! closing the standard streams itself, and `program twice` writes it twice, each time after a line on stdin. `program read
//! N` prints what descriptor N gives, through another program.

use std::fs::File;
use std::io::{self, Write};
use std::process::Command;

use process_task::{ErrorKind, Pool, ProcessBuilder, Result, StartMethod, process_task};

/// The two ways to start a process.
const METHODS: [StartMethod; 2] = [StartMethod::ForkServer, StartMethod::Exec];

#[process_task]
fn square(x: i64) -> i64 {
    x * x
}

#[process_task]
fn fail(what: &str) {
    panic!("no {what} here");
}

#[process_task]
fn arguments() -> Vec<String> {
    std::env::args().collect()
}

/// What stands where the three standard streams should be; a file opened later must not.
#[process_task]
fn streams_are_open() -> bool {
    let _file = File::open("/");
    (0..3).all(|number| std::fs::read_link(format!("/proc/self/fd/{number}")).is_ok_and(|to| to != *"/"))
}

#[process_task]
fn nested(x: i64) -> i64 {
    square.spawn(x).join().unwrap()
}

fn main() {
    let given: Vec<_> = std::env::args().skip(1).collect();
    let given: Vec<_> = given.iter().map(String::as_str).collect();
    match given[..] {
        [] => transcript(&mut io::stdout()).unwrap(),
        ["to", path] => transcript(&mut File::create(path).unwrap()).unwrap(),
        ["close", path] => {
            // std opens `/dev/null` on what is closed before `main`, so this is another case.
            let mut file = File::create(path).unwrap();
            (0..3).for_each(|stream| nix::unistd::close(stream).unwrap());
            transcript(&mut file).unwrap();
        }
        ["twice"] => {
            for _ in 0..2 {
                println!("waiting");
                io::stdin().read_line(&mut String::new()).unwrap();
                transcript(&mut io::stdout()).unwrap();
            }
        }
        ["read", number] => {
            // By way of a shell, which inherits the descriptor only if it was not closed or marked to be closed.
            let read = Command::new("sh").args(["-c", &format!("cat <&{number}")]).output().unwrap();
            io::stdout().write_all(&read.stdout).unwrap();
            transcript(&mut io::stdout()).unwrap();
        }
        _ => panic!("see the top of main.rs"),
    }
}

fn transcript(to: &mut dyn Write) -> Result<()> {
    let mut say = |line: String| writeln!(to, "{line}").unwrap();
    say(format!("here: {} {}", square(3), named::triple(3)));
    for method in METHODS {
        let mut builder = ProcessBuilder::new();
        builder.start_method(method);
        say(format!("{method:?}"));
        say(format!("  square: {}", builder.spawn(square, 10)?.join()?));
        say(format!("  in a dependency: {}", builder.spawn(named::triple, 7)?.join()?));
        say(format!("  preloaded: {:?}", builder.spawn(named::notes, ())?.join()?));
        let pool = Pool::builder().workers(2).start_method(method).build()?;
        say(format!("  pool: {:?}", pool.map(square, 0..4)?));
        drop(pool);
        say(format!("  nested: {}", builder.spawn(nested, 5)?.join()?));
        let own = std::env::args().collect::<Vec<_>>();
        say(format!("  arguments are ours: {}", builder.spawn(arguments, ())?.join()? == own));
        let variables = builder.spawn(named::variables, ())?.join()?;
        say(format!("  the mark is seen: {}", variables.iter().any(|name| name.starts_with("PROCESS_TASK_BOOT"))));
        let variables = ProcessBuilder::new().start_method(method).env_clear().env("ONLY", "1").spawn(named::variables, ())?.join()?;
        say(format!("  after env_clear: {variables:?}"));
        say(format!("  streams are open: {}", builder.spawn(streams_are_open, ())?.join()?));
        say(format!("  a panic: {}", panic_of(&builder)));
    }
    Ok(())
}

fn panic_of(builder: &ProcessBuilder) -> String {
    let error = builder.spawn(fail, "luck").and_then(process_task::Process::join).unwrap_err();
    match error.kind() {
        ErrorKind::Panicked { message, location, .. } => {
            let file = location.as_deref().and_then(|place| place.split(':').next());
            format!("caught in {}: {message}", file.unwrap_or("?"))
        }
        ErrorKind::Killed { signal, message, .. } => {
            format!("signal {signal}: {}", message.as_deref().unwrap_or("?"))
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transcript_is_whole() {
        let mut text = Vec::new();
        transcript(&mut text).unwrap();
        assert_eq!(String::from_utf8(text).unwrap().lines().count(), 23);
    }

    #[test]
    fn a_child_of_a_test_runs_the_task_and_not_the_tests() {
        for method in METHODS {
            assert_eq!(ProcessBuilder::new().start_method(method).spawn(square, 4).unwrap().join().unwrap(), 16);
        }
    }
}
