//! A product of matrices, computed by all processors: every worker reads both factors, and writes its rows in place.
//!
//! Run it with `cargo run --release --example matrix`; `--size N` and `--workers N` choose how large the matrices are, and
//! how many processes work. It checks the product against that of one thread, and says what both took: for example
//!
//! ```text
//! 2000 x 2000, and one thread finds the same product
//! 2 workers:  806.6 ms, 19.84 GFLOPS
//! one thread: 1591.2 ms, 10.06 GFLOPS
//! in memory:  93750 KiB once for all, and 412 KiB of its own in a worker
//! ```
//!
//! The matrices travel as handles: each is in memory once, however many processes read it. `SharedMut` is written by one
//! process until it freezes; `split` makes ranges of it, of which each has one writer at a time. A worker that is killed
//! costs its call, which is made again, and writes its rows anew.
//!
//! All numbers are small integers, so every sum is exact, and the two products must be equal to the last bit.

use std::error::Error;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use clap::Parser;
use process_task::{Pool, Shared, SharedMut, SharedRanges, process_task};

/// A product of two square matrices.
#[derive(Parser)]
struct Options {
    /// How many rows a matrix has, and how many columns.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u16).range(1..))]
    size: u16,
    /// How many rows are computed by one call.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..))]
    rows: u16,
    /// How many processes work; one for each processor by default.
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// Print the two matrices and their product first, row by row, with an empty line after each.
    #[arg(long)]
    print: bool,
}

/// Computes one range of the product of `a` and `b`, which are of `size` rows and columns, row by row.
#[process_task(retries = 3)]
fn compute(
    a: Shared<[f64]>,
    b: Shared<[f64]>,
    product: SharedRanges<f64>,
    size: usize,
    range: usize,
    first_row: usize,
) {
    // What a killed writer left there is written over.
    let mut rows = product.write(range).unwrap_or_else(PoisonError::into_inner);
    multiply(&a[first_row * size..][..rows.len()], &b, &mut rows, size);
}

/// Makes `product` that of some rows and a matrix. Each row of the matrix is read once, and goes into all sums.
fn multiply(rows: &[f64], matrix: &[f64], product: &mut [f64], size: usize) {
    product.fill(0.0);
    for (column, row_of_matrix) in matrix.chunks(size).enumerate() {
        for (row, sums) in rows.chunks(size).zip(product.chunks_mut(size)) {
            let factor = row[column];
            for (sum, number) in sums.iter_mut().zip(row_of_matrix) {
                *sum += factor * number;
            }
        }
    }
}

/// The numbers of a matrix: integers from -4 to 4, which look as if in no order.
fn numbers(count: usize, seed: u64) -> impl ExactSizeIterator<Item = f64> {
    (0..count).map(move |place| {
        let mixed = (place as u64 + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        f64::from((mixed >> 32) as u32 % 9) - 4.0
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let (size, rows) = (usize::from(options.size), usize::from(options.rows));
    let a = Shared::from_iter(numbers(size * size, 1))?;
    let b = Shared::from_iter(numbers(size * size, 1 << 40))?;
    let product = SharedMut::zeroed(size * size)?.split(rows * size)?;

    let builder = Pool::builder().name("matrix");
    let pool = if let Some(workers) = options.workers { builder.workers(workers) } else { builder }.build()?;
    let start = Instant::now();
    let ranges = 0..product.len();
    pool.map(compute, ranges.map(|range| (a.clone(), b.clone(), product.clone(), size, range, range * rows)))?;
    let by_all = start.elapsed();
    let stats = pool.stats();
    // The workers have let go of it, so no process can write to it any more, and the kernel seals it.
    let product = product.freeze()?;

    let start = Instant::now();
    let mut by_hand = vec![0.0; size * size];
    for (rows_of_a, sums) in a.chunks(rows * size).zip(by_hand.chunks_mut(rows * size)) {
        multiply(rows_of_a, &b, sums, size);
    }
    let by_one = start.elapsed();
    if *product != *by_hand {
        return Err("one thread finds another product".into());
    }

    if options.print {
        for matrix in [&a, &b, &product] {
            for row in matrix.chunks(size) {
                println!("{}", row.iter().map(f64::to_string).collect::<Vec<_>>().join(" "));
            }
            println!();
        }
    }
    println!("{size} x {size}, and one thread finds the same product");
    println!("{:<11} {}", format!("{} workers:", stats.workers.len()), speed(options.size, by_all));
    println!("one thread: {}", speed(options.size, by_one));
    let (all, own) = (3 * size_of_val(&*product), stats.workers.iter().filter_map(|worker| worker.memory).max());
    println!("in memory:  {} KiB once for all, and {} KiB of its own in a worker", all >> 10, own.unwrap_or(0) >> 10);
    Ok(())
}

/// How long a product took, and how many sums and products of numbers that is.
fn speed(size: u16, time: Duration) -> String {
    let operations = 2.0 * f64::from(size).powi(3);
    format!("{:.1} ms, {:.2} GFLOPS", 1e3 * time.as_secs_f64(), operations / time.as_secs_f64() / 1e9)
}
