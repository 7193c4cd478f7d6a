//! The table of the READMEs, and its place between two markers.

use std::fmt::Write as _;
use std::path::Path;

use crate::contender::Contender;
use crate::label::Language::{self, Chinese, English};
use crate::report::{format_commands, format_latencies, group_thousands, shown_name};
use crate::results::Results;

const BEGIN: &str = "<!-- benchmark: written by benches/load/run -->";
const END: &str = "<!-- benchmark: end -->";

/// The servers that the READMEs show. `results.md` shows all servers.
const README_CONTENDERS: [Contender; 4] = [
    Contender::CachedHeader,
    Contender::CachedCookie,
    Contender::Naive,
    Contender::SignedSessions,
];

/// Returns the table of the READMEs: four servers and the machine.
fn readme_table(results: &Results, language: Language) -> String {
    let mut out = String::from(language.pick(
        "| server | requests/s | CPU | p50, p99 | Redis commands/request |\n",
        "| 服务 | 每秒请求数 | CPU | p50、p99 | Redis 命令/请求 |\n",
    ));
    out.push_str("|---|---|---|---|---|\n");
    for contender in README_CONTENDERS {
        if let Some(row) = results.throughput.row(contender.name()) {
            let (throughput, cpu) = (row.throughput.median, row.cpu.median);
            let _ = writeln!(
                out,
                "| {} | {throughput:.2} | {cpu:.2} | {} | {} |",
                shown_name(contender, language),
                format_latencies(row),
                format_commands(row),
            );
        }
    }
    let (machine, throughput) = (&results.machine, &results.throughput);
    let (processor, cores, redis) = (&machine.processor, machine.cores, &machine.redis);
    let bare = throughput.row(Contender::Bare.name());
    let bare = group_thousands(bare.map_or(0.0, |row| row.requests_per_second));
    let _ = match language {
        English => writeln!(
            out,
            "\n{processor}, {cores} cores for server, Redis and load; Redis {redis}; bare axum: {bare} requests/s.",
        ),
        Chinese => writeln!(
            out,
            "\n{processor}，{cores} 核，被测服务、Redis 与压测程序共用；Redis {redis}；裸 axum 每秒 {bare} 个请求。",
        ),
    };
    out
}

/// Writes the table of the READMEs between the markers of a file.
pub fn update_readme(file: &Path, results: &Results, language: Language) -> Result<(), String> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| format!("{shown}: {error}"))?;
    let replaced = replace_between_markers(&text, &readme_table(results, language));
    let replaced = replaced.ok_or_else(|| format!("{shown} lacks {BEGIN} and {END}"))?;
    std::fs::write(file, replaced).map_err(|error| format!("{shown}: {error}"))
}

fn replace_between_markers(text: &str, table: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{table}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_text_between_the_markers_changes() {
        let text = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let new = replace_between_markers(&text, "new\n").unwrap();
        assert_eq!(new, format!("before\n{BEGIN}\nnew\n{END}\nafter\n"));
        assert_eq!(replace_between_markers("no marks", "new"), None);
    }
}
