//! A picture of the latencies as SVG: over time, and by share of requests.

use std::fmt::Write as _;

use super::summary::{Summary, milliseconds};
use super::tally::Tally;

/// Two panels: p50 and p99 of each second, with the failures below; and the latency that each share stays under.
pub(crate) fn svg(tally: &Tally, summary: &Summary) -> String {
    let all = tally.issued();
    let longest = milliseconds(all.longest()).max(1.0);
    let scale = Scale {
        lowest: all
            .quantile(0.01)
            .map_or(0.1, milliseconds)
            .clamp(0.01, longest / 10.0),
        highest: longest,
    };
    let mut svg = String::from(HEAD);
    let mut text = |x: f64, y: f64, anchor: &str, text: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(
            svg,
            "<text x='{x:.0}' y='{y:.0}' text-anchor='{anchor}'>{text}</text>"
        );
    };
    let title = format!(
        "{:.0} certificates a second for {:.0} s; {} failed",
        summary.issued_per_second, summary.seconds, summary.failed
    );
    text(LEFT, 22.0, "start", &title);
    text(
        LEFT,
        TOP - 8.0,
        "start",
        "ms, each second: p50 and p99; failures",
    );
    text(SECOND, TOP - 8.0, "start", "ms, by share of requests");
    for tick in scale.ticks() {
        for panel in [LEFT, SECOND] {
            text(panel - 4.0, scale.y(tick) + 4.0, "end", &format!("{tick}"));
        }
    }
    for (share, label) in SHARES {
        text(
            SECOND + WIDTH * position(share),
            TOP + HEIGHT + 16.0,
            "middle",
            label,
        );
    }
    text(LEFT, TOP + HEIGHT + 16.0, "start", "0 s");
    let seconds = tally.seconds.len().max(1);
    text(
        LEFT + WIDTH,
        TOP + HEIGHT + 16.0,
        "end",
        &format!("{seconds} s"),
    );
    for tick in scale.ticks() {
        for panel in [LEFT, SECOND] {
            let y = scale.y(tick);
            let _ = writeln!(svg, "<path class='grid' d='M{panel} {y:.1}h{WIDTH}'/>");
        }
    }
    let x = |second: usize| LEFT + WIDTH * (second as f64 + 0.5) / seconds as f64;
    let most = tally
        .seconds
        .iter()
        .map(|second| second.failed)
        .max()
        .unwrap_or(0);
    for (number, second) in tally
        .seconds
        .iter()
        .enumerate()
        .filter(|(_, s)| s.failed > 0)
    {
        let height = HEIGHT / 4.0 * second.failed as f64 / most as f64;
        let _ = writeln!(
            svg,
            "<path class='failed' d='M{:.1} {:.1}v{:.1}'/>",
            x(number),
            TOP + HEIGHT,
            -height.max(2.0)
        );
    }
    for (class, share) in [("p50", 0.5), ("p99", 0.99)] {
        let points = tally
            .seconds
            .iter()
            .enumerate()
            .filter_map(|(number, second)| {
                let latency = milliseconds(second.issued.quantile(share)?);
                Some((x(number), scale.y(latency)))
            });
        line(&mut svg, class, points);
    }
    let points = (0..=100).filter_map(|step| {
        let share = 1.0 - 10_f64.powf(-DECADES * f64::from(step) / 100.0);
        let latency = milliseconds(all.quantile(share)?);
        Some((SECOND + WIDTH * position(share), scale.y(latency)))
    });
    line(&mut svg, "all", points);
    svg.push_str("</svg>\n");
    svg
}

fn line(svg: &mut String, class: &str, points: impl Iterator<Item = (f64, f64)>) {
    let points: Vec<_> = points.map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = writeln!(
        svg,
        "<polyline class='{class}' points='{}'/>",
        points.join(" ")
    );
}

/// Latencies differ by powers of ten, and so do shares: 90 %, 99 %, 99.9 %.
struct Scale {
    lowest: f64,
    highest: f64,
}

impl Scale {
    fn y(&self, value: f64) -> f64 {
        let share = (value / self.lowest).ln() / (self.highest / self.lowest).ln();
        TOP + HEIGHT * (1.0 - share.clamp(0.0, 1.0))
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let all = (-2..6).flat_map(|power| [1.0, 3.0].map(|step| step * 10_f64.powi(power)));
        all.filter(|tick| (self.lowest..=self.highest).contains(tick))
            .map(|tick| (tick * 100.0).round() / 100.0)
    }
}

fn position(share: f64) -> f64 {
    -(1.0 - share).log10() / DECADES
}

const DECADES: f64 = 4.0;
const SHARES: [(f64, &str); 5] = [
    (0.0, "0"),
    (0.9, "90 %"),
    (0.99, "99 %"),
    (0.999, "99.9 %"),
    (0.9999, "99.99 %"),
];
const LEFT: f64 = 50.0;
const SECOND: f64 = 520.0;
const WIDTH: f64 = 400.0;
const TOP: f64 = 56.0;
const HEIGHT: f64 = 240.0;
const HEAD: &str = "\
<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 960 330' font-family='sans-serif' font-size='12'>
<style>
svg { background: #fff } text { fill: #333 }
.grid { stroke: #ddd } .failed { stroke: #c00; stroke-width: 4 }
polyline { fill: none; stroke-width: 2 } .p50, .all { stroke: #06c } .p99 { stroke: #e80 }
</style>
";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::failure::Failure;
    use super::*;

    #[test]
    fn every_line_stays_on_the_sheet_also_of_nothing() {
        let mut tally = Tally::default();
        for part in 0..2 {
            let summary = Summary::new(&tally, Duration::from_secs(3), &[], None);
            let svg = svg(&tally, &summary);
            assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
            assert!(
                !svg.contains("NaN") && !svg.contains("inf"),
                "{part}: {svg}"
            );
            for millis in 1..3000 {
                let at = Duration::from_millis(millis);
                tally.add(at, Duration::from_micros(300 + millis), Ok(()));
            }
            let at = Duration::from_secs(2);
            tally.add(at, Duration::from_secs(5), Err(Failure::Deadline));
        }
    }
}
