//! The plot of a run as SVG: bars of throughput and of CPU. The white background makes the plot
//! readable on light and on dark pages.

use std::fmt::Write as _;

use crate::contender::Contender;
use crate::label::{Language, label};
use crate::results::{Results, Spread};

const WIDTH: f64 = 960.0;
const LABELS: f64 = 402.0;
const PANEL: f64 = 222.0;
const GAP: f64 = 55.0;
const TOP: f64 = 64.0;
const ROW: f64 = 27.0;
const BAR: f64 = 16.0;

const OURS: &str = "#07a050";
const THEIRS: &str = "#8a94a6";
const BARE: &str = "#3c4657";

pub fn draw(results: &Results) -> String {
    let rows: Vec<_> = Contender::ALL
        .into_iter()
        .filter_map(|contender| Some((contender, results.throughput.row(contender.name())?)))
        .collect();
    let height = TOP + ROW * rows.len() as f64 + 16.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" font-size=\"13\" \
         font-family=\"system-ui, -apple-system, 'Segoe UI', 'Noto Sans', sans-serif\">\n\
         <title>Requests per second and CPU per request, each divided by bare axum's</title>\n\
         <rect x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"8\" fill=\"#ffffff\" \
         stroke=\"#d0d7de\"/>\n",
        WIDTH - 1.0,
        height - 1.0
    );
    let one = Spread {
        low: 1.0,
        median: 1.0,
        high: 1.0,
    };
    let columns = [
        ("requests/s ÷ bare axum", "longer is better", LABELS),
        (
            "CPU per request ÷ bare axum",
            "shorter is better",
            LABELS + PANEL + GAP,
        ),
    ];
    for (column, (title, hint, left)) in columns.into_iter().enumerate() {
        let spreads: Vec<Spread> = rows
            .iter()
            .map(|(contender, row)| match (contender, column) {
                (Contender::Bare, _) => one,
                (_, 0) => row.throughput,
                _ => row.cpu,
            })
            .collect();
        let greatest = spreads
            .iter()
            .fold(1.0, |most: f64, spread| most.max(spread.high));
        let scale = PANEL / greatest;
        let at_one = left + scale;
        let _ = write!(
            out,
            "<text x=\"{left}\" y=\"26\" fill=\"#1f2328\" font-weight=\"600\">{title}</text>\n\
             <text x=\"{left}\" y=\"44\" fill=\"#59636e\" font-size=\"12\">{hint}</text>\n\
             <line x1=\"{at_one:.1}\" y1=\"{}\" x2=\"{at_one:.1}\" y2=\"{}\" stroke=\"#b6bec9\" \
             stroke-dasharray=\"3 3\"/>\n",
            TOP - 10.0,
            height - 12.0
        );
        for (at, ((contender, _), spread)) in rows.iter().zip(&spreads).enumerate() {
            let middle = TOP + ROW * at as f64 + ROW / 2.0 - 4.0;
            let colour = match contender {
                Contender::Bare => BARE,
                contender if contender.is_this_crate() => OURS,
                _ => THEIRS,
            };
            let (width, end) = (spread.median * scale, spread.high * scale);
            let _ = write!(
                out,
                "<rect x=\"{left}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{BAR}\" rx=\"2\" \
                 fill=\"{colour}\"/>\n\
                 <line x1=\"{:.1}\" y1=\"{middle:.1}\" x2=\"{:.1}\" y2=\"{middle:.1}\" \
                 stroke=\"#1f2328\" stroke-opacity=\"0.55\"/>\n\
                 <text x=\"{:.1}\" y=\"{:.1}\" fill=\"#1f2328\">{:.2}</text>\n",
                middle - BAR / 2.0,
                left + spread.low * scale,
                left + end,
                left + end.max(width) + 6.0,
                middle + 4.5,
                spread.median,
            );
        }
    }
    for (at, (contender, _)) in rows.iter().enumerate() {
        let weight = if contender.is_this_crate() {
            "600"
        } else {
            "400"
        };
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#1f2328\" \
             font-weight=\"{weight}\" font-size=\"12.5\">{}</text>",
            LABELS - 10.0,
            TOP + ROW * at as f64 + ROW / 2.0,
            escape_xml(&label(*contender, Language::English)),
        );
    }
    out.push_str("</svg>\n");
    out
}

fn escape_xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
