//! The table of the servers without a cache in results.md.

use std::fmt::Write as _;

use super::{format_commands, format_ratio};
use crate::label::Language::English;
use crate::label::label;
use crate::results::{Comparison, Row};

/// Returns the chapter with the comparisons without a cache.
pub(super) fn chapter(comparisons: &[Comparison]) -> String {
    let mut out = String::from(
        "\n## Without a cache\n\nServers that ask Redis for each request, against a hand-written \
         `HGET`. The first row of each load shows the `HGET` against itself. CPU is per request.\n\n\
         | connections | Redis | server | requests/s ÷ HGET | server CPU ÷ HGET | \
         server + Redis CPU ÷ HGET | Redis CPU µs | p50 ÷ HGET | p50, p99 | Redis commands/request |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    for comparison in comparisons {
        for row in &comparison.rows {
            let _ = writeln!(out, "{}", table_row(comparison, row));
        }
    }
    out.push('\n');
    for comparison in comparisons {
        if let Some(delay) = comparison.delay {
            let _ = writeln!(
                out,
                "With {} connections, the proxy before Redis added {:.3} ms to the median round trip \
                 instead of {:.3} ms.",
                comparison.connections, delay.measured_ms, delay.intended_ms
            );
        }
    }
    let sum = |count: fn(&Comparison) -> usize| comparisons.iter().map(count).sum::<usize>();
    let _ = writeln!(
        out,
        "{} of {} pairs were thrown away as disturbed.{}",
        sum(|each| each.discarded),
        sum(|each| each.pairs),
        if comparisons.iter().all(|each| each.quiet) {
            ""
        } else {
            " **The machine was not quiet.**"
        }
    );
    out
}

fn table_row(comparison: &Comparison, row: &Row) -> String {
    let contender = row.contender.parse();
    let name = contender.map_or_else(|_| row.contender.clone(), |found| label(found, English));
    format!(
        "| {} | {} | {name} | {} | {} | {} | {:.1} | {} | {:.3}, {:.3} ms | {} |",
        comparison.connections,
        comparison.redis_place(),
        format_ratio(row.throughput),
        format_ratio(row.cpu),
        format_ratio(row.total_cpu),
        row.redis_cpu_micros,
        format_ratio(row.p50),
        row.p50_micros / 1e3,
        row.p99_micros / 1e3,
        format_commands(row),
    )
}
