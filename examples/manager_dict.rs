//! Counts words in many processes, all in one dictionary: each `+= 1` is one call, and none is lost.
//!
//! Run it with `cargo run --example manager_dict`. It prints:
//!
//! ```text
//! 8 processes have counted 1000 words
//!  250 the
//!  125 brown
//!  125 dog
//!  125 fox
//!  125 jumps
//!  125 over
//!  125 quick
//! ```

use process_task::managed::Dict;
use process_task::{Manager, Pool, process_task};

const TEXT: &str = "the quick brown fox jumps over the dog";

/// Runs in the manager, under the entry's lock: Python's `counts[word] += more`.
#[process_task]
#[expect(clippy::unnecessary_wraps, reason = "`None` would remove the entry")]
fn add(count: Option<u64>, more: u64) -> Option<u64> {
    Some(count.unwrap_or(0) + more)
}

#[process_task]
fn count_words(text: &str, counts: Dict<String, u64>) -> u64 {
    let words = text.split_whitespace();
    words.map(|word| counts.update(word, add, 1).map(drop).unwrap()).count() as u64
}

fn main() -> process_task::Result<()> {
    let manager = Manager::start()?;
    let counts: Dict<String, u64> = Dict::new(&manager)?;
    let pool = Pool::builder().workers(8).build()?;
    let counted: u64 = pool.map(count_words, (0..125).map(|_| (TEXT, counts.clone())))?.into_iter().sum();
    println!("8 processes have counted {counted} words");
    let mut all = counts.to_vec()?;
    all.sort_by(|(word, count), (other, others)| others.cmp(count).then_with(|| word.cmp(other)));
    for (word, count) in all {
        println!("{count:4} {word}");
    }
    Ok(())
}
