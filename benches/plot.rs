//! Draws the cost of scans against the number of threads, both axes logarithmic, as SVG.

use crate::figures::{Point, grouped};
use std::fmt::Write;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 480.0;
/// The axes cross at `LEFT` and `BOTTOM`. The names of the lines stand to the right of `RIGHT`.
const LEFT: f64 = 80.0;
const RIGHT: f64 = 620.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 420.0;

/// Colors that differ for colour-blind readers as well.
const COLORS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

/// The least distance between the names of two lines.
const LINE_HEIGHT: f64 = 18.0;

pub fn svg(points: &[Point]) -> String {
    let mut series: Vec<&str> = points.iter().map(|point| point.series.as_str()).collect();
    series.sort_unstable();
    series.dedup();
    let x = Axis::over(points.iter().map(|point| point.threads as f64), LEFT, RIGHT);
    let y = Axis::over(points.iter().map(|point| point.micros), BOTTOM, TOP);

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<title>The cost of a scan</title>\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n"
    );
    for at in x.decades() {
        let (place, label) = (x.place(at), grouped(at as usize));
        svg += &line((place, TOP), (place, BOTTOM));
        svg += &text(place, BOTTOM + 20.0, "middle", "#333333", &label);
    }
    for at in y.decades() {
        let place = y.place(at);
        svg += &line((LEFT, place), (RIGHT, place));
        svg += &text(LEFT - 8.0, place + 4.0, "end", "#333333", &duration(at));
    }
    svg += &text(f64::midpoint(LEFT, RIGHT), BOTTOM + 45.0, "middle", "#000000", "threads on the machine");
    svg += &text(LEFT, TOP - 20.0, "start", "#000000", "time for one scan");

    let mut names = Vec::new();
    for (name, color) in series.iter().zip(COLORS.iter().cycle()) {
        let of = points.iter().filter(|point| point.series == *name);
        let places: Vec<(f64, f64)> =
            of.map(|point| (x.place(point.threads as f64), y.place(point.micros))).collect();
        let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{color}\" stroke-width=\"2\" points=\"{}\"/>",
            path.join(" ")
        );
        for (x, y) in &places {
            let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{color}\"/>");
        }
        names.extend(places.last().map(|(x, y)| (x + 10.0, *y, *color, *name)));
    }
    names.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut lowest = f64::NEG_INFINITY;
    for (x, y, color, name) in names {
        let y = y.max(lowest + LINE_HEIGHT);
        lowest = y;
        svg += &text(x, y + 4.0, "start", color, name);
    }
    svg + "</svg>\n"
}

/// A logarithmic axis: from a whole decade to the largest value, and the places of its ends.
struct Axis {
    first: f64,
    last: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64> + Clone, from: f64, to: f64) -> Axis {
        // A measured time can be 0.
        let logarithm = |value: f64| value.max(1e-3).log10();
        let first = logarithm(values.clone().fold(f64::INFINITY, f64::min)).floor();
        Axis { first, last: logarithm(values.fold(0.0, f64::max)).max(first + 1.0), from, to }
    }

    fn decades(&self) -> impl Iterator<Item = f64> + use<> {
        (self.first as i32..=self.last.floor() as i32).map(|exponent| 10f64.powi(exponent))
    }

    fn place(&self, value: f64) -> f64 {
        let share = (value.max(1e-3).log10() - self.first) / (self.last - self.first);
        self.from + share * (self.to - self.from)
    }
}

fn duration(micros: f64) -> String {
    match micros {
        1e6.. => format!("{} s", micros / 1e6),
        1e3.. => format!("{} ms", micros / 1e3),
        1.0.. => format!("{micros} us"),
        _ => format!("{:.0} ns", micros * 1e3),
    }
}

fn line((x1, y1): (f64, f64), (x2, y2): (f64, f64)) -> String {
    format!("<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"#dddddd\"/>\n")
}

fn text(x: f64, y: f64, anchor: &str, color: &str, text: &str) -> String {
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{color}\">{text}</text>\n")
}
