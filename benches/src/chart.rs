//! The ratios as a bar chart, in SVG.
//!
//! Runs in: the parent. Never: needs a font of the machine; the viewer of the picture chooses it.
//!
//! A bar begins at 1x, where both need the same: to the left we need less than the peer, to the right more. The scale is
//! logarithmic, and a bar that does not fit ends at its border; the number beside the name is right.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::Outcome;
use crate::measure::Figure;
use crate::race::Peer;
use crate::table::{Line, show_ratio};

type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const WIDTH: u32 = 1000;
const LINE: u32 = 16;
const HEAD: u32 = 84;
/// Where the number ends, from the left edge.
const NUMBER: i32 = 400;
/// Where bars may begin and end, from the left edge.
const BARS: (i32, i32) = (420, 980);
/// The ratios at those places.
const RATIOS: (f64, f64) = (0.001, 10.0);

const REACHED: RGBColor = RGBColor(46, 139, 87);
const MISSED: RGBColor = RGBColor(205, 92, 50);
const NO_AIM: RGBColor = RGBColor(100, 130, 180);
const INK: RGBColor = RGBColor(40, 40, 40);
const GRID: RGBColor = RGBColor(215, 215, 215);

/// Replaces the file.
pub(crate) fn write(path: &Path, machine: &str, lines: &[Line]) -> Outcome<()> {
    let peers: usize = lines.iter().map(|line| line.measured.peers.len()).sum();
    let height = HEAD + LINE * u32::try_from(lines.len() + peers + 1)?;
    let canvas = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    canvas.fill(&WHITE)?;
    write_text(
        &canvas,
        "process-task's time (or memory) divided by its peers': left of 1x is less, and better",
        (10, 12),
        19,
    )?;
    write_text(&canvas, machine, (10, 32), 15)?;
    draw_legend(&canvas)?;
    draw_scale(&canvas, i32::try_from(height)?)?;
    let mut top = i32::try_from(HEAD)?;
    for line in lines {
        write_text(&canvas, line.name, (10, top + 8), 16)?;
        top += i32::try_from(LINE)?;
        for peer in &line.measured.peers {
            draw_peer(&canvas, peer, &line.measured.ours, top)?;
            top += i32::try_from(LINE)?;
        }
    }
    canvas.present()?;
    Ok(())
}

fn draw_legend(canvas: &Canvas<'_>) -> Outcome<()> {
    let entries = [(REACHED, 10, "aim (the tick) reached"), (MISSED, 200, "aim missed"), (NO_AIM, 310, "no aim")];
    for (color, left, meaning) in entries {
        canvas.draw(&Rectangle::new([(left, 46), (left + 12, 57)], color.filled()))?;
        write_text(canvas, meaning, (left + 18, 52), 15)?;
    }
    Ok(())
}

/// A line and a number for each power of ten; a dark line where both sides need the same.
fn draw_scale(canvas: &Canvas<'_>, height: i32) -> Outcome<()> {
    let first = i32::try_from(HEAD)?;
    for (ratio, label) in [(0.001, "0.001x"), (0.01, "0.01x"), (0.1, "0.1x"), (1.0, "1x"), (10.0, "10x")] {
        let color = if label == "1x" { INK } else { GRID };
        let place = place_of(ratio);
        canvas.draw(&PathElement::new([(place, first), (place, height - 6)], color))?;
        let style = style(14).pos(Pos::new(HPos::Center, VPos::Bottom));
        canvas.draw(&Text::new(label, (place, first - 2), style))?;
    }
    Ok(())
}

/// The name, the number, the bar, and a tick at the aim.
fn draw_peer(canvas: &Canvas<'_>, peer: &Peer, ours: &Figure, top: i32) -> Outcome<()> {
    let middle = top + 8;
    write_text(canvas, peer.name, (30, middle), 15)?;
    let Some(ratio) = peer.ratio(ours) else {
        let reason = peer.figure.as_ref().err().map_or("", String::as_str);
        return write_text(canvas, reason, (BARS.0, middle), 15);
    };
    let number = style(15).pos(Pos::new(HPos::Right, VPos::Center));
    canvas.draw(&Text::new(show_ratio(ratio), (NUMBER, middle), number))?;
    let color = match peer.verdict(ours) {
        Some(true) => REACHED,
        Some(false) => MISSED,
        None => NO_AIM,
    };
    let (end, start) = (place_of(ratio), place_of(1.0));
    let bar = [(end.min(start), top + 3), (end.max(start), top + 13)];
    canvas.draw(&Rectangle::new(bar, color.filled()))?;
    if let Some(aim) = peer.aim {
        let place = place_of(aim);
        canvas.draw(&PathElement::new([(place, top + 1), (place, top + 15)], INK.stroke_width(2)))?;
    }
    Ok(())
}

/// Where a ratio lies from the left edge, on a logarithmic scale; what lies outside is drawn at its border.
fn place_of(ratio: f64) -> i32 {
    let (least, most) = RATIOS;
    let share = (ratio.clamp(least, most) / least).log10() / (most / least).log10();
    let (left, right) = BARS;
    #[expect(clippy::cast_possible_truncation, reason = "lies between the two places")]
    let offset = (f64::from(right - left) * share).round() as i32;
    left + offset
}

/// Text that begins here, centred on this height.
fn write_text(canvas: &Canvas<'_>, text: &str, place: (i32, i32), size: u32) -> Outcome<()> {
    canvas.draw(&Text::new(text, place, style(size).pos(Pos::new(HPos::Left, VPos::Center))))?;
    Ok(())
}

fn style(size: u32) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&INK)
}
