//! A picture of the Mandelbrot set, computed by all processors, row by row.
//!
//! Run it with `cargo run --release --example mandelbrot`, and open `mandelbrot.png`. `--help` says how to choose the
//! place, the size and the number of workers. Another place worth a visit:
//!
//! ```text
//! cargo run --release --example mandelbrot -- --centre=-0.7435669,0.1314023 --width 0.0023 seahorse.png
//! ```
//!
//! One task computes one row. Rows differ in how long they take, and each worker takes the next as soon as it is free;
//! `imap` gives them back in order, so each goes into the file as it comes, and a picture of any size needs memory for a
//! few rows. The same picture has the same bytes, however many workers there are.

use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::PathBuf;
use std::str::FromStr;

use clap::Parser;
use indicatif::{ProgressBar, ProgressIterator as _, ProgressStyle};
use png::{BitDepth, ColorType, Compression, Encoder};
use process_task::{Pool, process_task};
use serde::{Deserialize, Serialize};

/// A picture of the Mandelbrot set.
#[derive(Parser)]
struct Options {
    /// The file to write.
    #[arg(default_value = "mandelbrot.png")]
    output: PathBuf,
    /// How many pixels.
    #[arg(long, value_name = "WIDTHxHEIGHT", value_parser = pair::<'x', u32>, default_value = "1280x720")]
    size: (u32, u32),
    /// The point in the middle.
    #[arg(long, value_name = "RE,IM", value_parser = pair::<',', f64>, default_value = "-1.2506715,0.0201206")]
    centre: (f64, f64),
    /// How much of the plane there is from the left edge to the right one.
    #[arg(long, value_name = "LENGTH", default_value_t = 0.000_18)]
    width: f64,
    /// How many steps a point may take before it counts as one that never leaves.
    #[arg(long, value_name = "N", default_value_t = 5000)]
    steps: u32,
    /// Each pixel is the mean of this many points, squared.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=16))]
    samples: u32,
    /// How many processes work; one for each processor by default.
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
}

/// What is to be seen: all that a worker has to know, beside the number of its row.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct View {
    size: (u32, u32),
    centre: (f64, f64),
    /// The side of a pixel, in the plane.
    pixel: f64,
    steps: u32,
    samples: u32,
}

/// The bytes of one row: red, green and blue of each pixel.
#[process_task]
fn render(view: View, y: u32) -> Vec<u8> {
    (0..view.size.0).flat_map(|x| view.pixel(x, y)).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let (width, height) = options.size;
    let view = View {
        size: options.size,
        centre: options.centre,
        pixel: options.width / f64::from(width),
        steps: options.steps,
        samples: options.samples,
    };
    let mut encoder = Encoder::new(BufWriter::new(File::create(&options.output)?), width, height);
    encoder.set_color(ColorType::Rgb);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_compression(Compression::High);
    let mut header = encoder.write_header()?;
    let mut picture = header.stream_writer()?;

    let builder = Pool::builder().name("mandelbrot");
    let pool = if let Some(workers) = options.workers { builder.workers(workers) } else { builder }.build()?;
    // It draws nothing where stderr is no terminal.
    let bar = ProgressBar::new(height.into())
        .with_style(ProgressStyle::with_template("{wide_bar} {human_pos}/{human_len} rows, {eta} left")?);
    for row in pool.imap(render, (0..height).map(|y| (view, y))).progress_with(bar) {
        picture.write_all(&row?)?;
    }
    picture.finish()?;
    header.finish()?;
    Ok(())
}

/// Two numbers with a character between them.
fn pair<const BETWEEN: char, T: FromStr>(text: &str) -> Result<(T, T), String> {
    let number = |text: &str| text.parse().map_err(|_| format!("`{text}` is no such number"));
    let (one, other) = text.split_once(BETWEEN).ok_or_else(|| format!("no `{BETWEEN}` in it"))?;
    Ok((number(one)?, number(other)?))
}

impl View {
    /// The colour of a pixel: the mean of some points in it.
    fn pixel(&self, x: u32, y: u32) -> [u8; 3] {
        let points = self.samples * self.samples;
        let mut sum = [0.0; 3];
        for point in 0..points {
            let (right, down) = (point % self.samples, point / self.samples);
            let re = self.centre.0 + self.off_middle(x, right, self.size.0);
            let im = self.centre.1 - self.off_middle(y, down, self.size.1);
            let light = Escape::of(re, im, self.steps).map_or([0.0; 3], |escape| escape.light());
            sum = [0, 1, 2].map(|i| sum[i] + light[i]);
        }
        sum.map(|sum| to_srgb(sum / f64::from(points)))
    }

    /// How far a point is from the middle: in a pixel, which is one of `pixels` in that direction.
    fn off_middle(&self, pixel: u32, sample: u32, pixels: u32) -> f64 {
        let inside = (f64::from(sample) + 0.5) / f64::from(self.samples);
        (f64::from(pixel) + inside - f64::from(pixels) / 2.0) * self.pixel
    }
}

/// How a point leaves the disk that it would stay in if it were in the set.
struct Escape {
    /// After how many steps; a fraction makes it continuous in the plane.
    time: f64,
    /// In which direction points leave sooner: a vector of length 1.
    downhill: (f64, f64),
}

impl Escape {
    /// Nothing for a point that stays for `steps`, or that comes back to where it was.
    ///
    /// See "Boundary detection methods via distance estimators" in *The Science of Fractal Images* (Peitgen and Saupe,
    /// 1988) for the derivative, and Linas Vepstas, "Renormalizing the Mandelbrot Escape" (1997), for the fraction.
    fn of(re: f64, im: f64, steps: u32) -> Option<Self> {
        /// Far out, so that colours do not jump between neighbours with different numbers of steps.
        const RADIUS_SQUARED: f64 = 1e6;
        // z, its derivative by the point, and a former z: meeting it again means going round for ever.
        let ((mut x, mut y), (mut dx, mut dy), mut seen) = ((0.0, 0.0), (0.0, 0.0), (0.0, 0.0));
        for step in 0..steps {
            (dx, dy) = (2.0 * (x * dx - y * dy) + 1.0, 2.0 * (x * dy + y * dx));
            (x, y) = (x * x - y * y + re, 2.0 * x * y + im);
            let square = x * x + y * y;
            if square > RADIUS_SQUARED {
                let time = f64::from(step + 1) - (0.5 * square.ln()).log2();
                let (u, v) = (x * dx + y * dy, y * dx - x * dy);
                return Some(Self { time, downhill: (u / u.hypot(v), v / u.hypot(v)) });
            }
            if (x, y) == seen {
                return None;
            }
            if step.is_power_of_two() {
                seen = (x, y);
            }
        }
        None
    }

    /// Red, green and blue, as light: a colour for the time, lit by a lamp in the upper left.
    fn light(&self) -> [f64; 3] {
        let towards_lamp = (self.downhill.1 - self.downhill.0) / 2.0_f64.sqrt();
        let lit = 0.7 + 0.3 * towards_lamp;
        colour(self.time.max(1.0).ln()).map(|light| light * lit)
    }
}

/// Round and round from night to sea, ivory, amber, wine and back to night, once for each whole number.
fn colour(place: f64) -> [f64; 3] {
    const COLOURS: [(f64, [f64; 3]); 6] = [
        (0.00, [8.0, 16.0, 46.0]),
        (0.25, [22.0, 96.0, 134.0]),
        (0.48, [246.0, 238.0, 214.0]),
        (0.68, [236.0, 150.0, 40.0]),
        (0.86, [120.0, 22.0, 48.0]),
        (1.00, [8.0, 16.0, 46.0]),
    ];
    let place = place.rem_euclid(1.0);
    let mut pairs = COLOURS.windows(2).map(|pair| (pair[0], pair[1]));
    let Some(((start, from), (end, to))) = pairs.find(|(_, (end, _))| place < *end) else { return [0.0; 3] };
    let part = (place - start) / (end - start);
    let part = part * part * (3.0 - 2.0 * part);
    [0, 1, 2].map(|i| ((from[i] + (to[i] - from[i]) * part) / 255.0).powf(2.2))
}

/// Light from 0 to 1 as a byte, in the way of screens.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is within 0 and 255")]
fn to_srgb(light: f64) -> u8 {
    (light.clamp(0.0, 1.0).powf(1.0 / 2.2) * 255.0).round() as u8
}
