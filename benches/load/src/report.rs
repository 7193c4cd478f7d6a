//! The tables, in English and Chinese, and their place in the READMEs.

use std::fmt::Write as _;
use std::path::Path;

use crate::contender::Contender;
use crate::results::{Results, Row, Spread};
use crate::targets::check_targets;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Language {
    English,
    Chinese,
}

use Language::{Chinese, English};

const BEGIN: &str = "<!-- benchmark: written by benches/load/run -->";
const END: &str = "<!-- benchmark: end -->";

impl Language {
    fn pick<'a>(self, english: &'a str, chinese: &'a str) -> &'a str {
        if self == English { english } else { chinese }
    }
}

/// What a contender is called in tables and in the plot.
pub fn label(contender: Contender, language: Language) -> String {
    let sessions = || {
        let (sessions, store) = (
            version("tower-sessions"),
            version("tower-sessions-redis-store"),
        );
        match language {
            English => format!("tower-sessions {sessions}, Redis store {store}"),
            Chinese => format!("tower-sessions {sessions}，Redis store {store}"),
        }
    };
    let pool = |name| match language {
        English => format!("HGET through {name} {}, header", version(name)),
        Chinese => format!("经 {name} {} 的 HGET，请求头", version(name)),
    };
    let text = match contender {
        Contender::Bare => {
            return format!(
                "{} {}",
                language.pick("bare axum", "裸 axum"),
                version("axum")
            );
        }
        Contender::Bb8 => return pool("bb8-redis"),
        Contender::Deadpool => return pool("deadpool-redis"),
        Contender::Sessions => return sessions(),
        Contender::SignedSessions => {
            return sessions() + language.pick(", signed cookie", "，签名 cookie");
        }
        Contender::OwnCacheHeader => ("hand-written cache, header", "手写进程内缓存，请求头"),
        Contender::OwnCacheCookie => (
            "hand-written cache, HMAC cookie",
            "手写进程内缓存，HMAC cookie",
        ),
        Contender::CachedHeader => (
            "tower-wechat, cached, header",
            "tower-wechat，命中缓存，请求头",
        ),
        Contender::CachedCookie => (
            "tower-wechat, cached, signed cookie",
            "tower-wechat，命中缓存，签名 cookie",
        ),
        Contender::Naive => ("HGET per request, header", "每个请求一次 HGET，请求头"),
        Contender::UncachedKeys => (
            "tower-wechat, no cache, keys, header",
            "tower-wechat，不缓存，keys 布局，请求头",
        ),
        Contender::UncachedHashes => (
            "tower-wechat, no cache, hashes, header",
            "tower-wechat，不缓存，hashes 布局，请求头",
        ),
        Contender::UncachedKeysCookie => (
            "tower-wechat, no cache, keys, signed cookie",
            "tower-wechat，不缓存，keys 布局，签名 cookie",
        ),
    };
    language.pick(text.0, text.1).to_owned()
}

/// The version of a dependency that this program was built with.
fn version(package: &str) -> &'static str {
    let name = format!("name = \"{package}\"\nversion = \"");
    let lock = include_str!("../Cargo.lock");
    let version = lock
        .split(&name)
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    version.unwrap_or_default()
}

fn format_ratio(spread: Spread) -> String {
    format!(
        "{:.2} ({:.2}–{:.2})",
        spread.median, spread.low, spread.high
    )
}

fn group_thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// The servers that the READMEs show; `results.md` has all of them.
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

/// Returns the full comparison for `results.md`, with its plot above and the machine below.
fn comparison_table(results: &Results, language: Language) -> String {
    let mut out = String::new();
    let alt = language.pick(
        "Requests per second and CPU per request, each divided by bare axum's",
        "每秒请求数与每请求 CPU，均以裸 axum 为 1",
    );
    let _ = writeln!(out, "![{alt}](results.svg)\n");
    let _ = writeln!(
        out,
        "{}",
        language.pick(
            "| server | requests/s ÷ bare | CPU ÷ bare | p50, p99 | Redis commands/request | instructions/request |",
            "| 服务 | 每秒请求数 ÷ 裸 axum | CPU ÷ 裸 axum | p50、p99 | Redis 命令/请求 | 指令/请求 |",
        )
    );
    let _ = writeln!(out, "|---|---|---|---|---|---|");
    for contender in Contender::ALL {
        if let Some(row) = results.throughput.row(contender.name()) {
            let _ = writeln!(out, "{}", table_row(contender, row, language));
        }
    }
    let _ = write!(out, "\n{}\n", machine_note(results, language));
    out
}

fn table_row(contender: Contender, row: &Row, language: Language) -> String {
    let name = shown_name(contender, language);
    let (throughput, cpu) = if contender == Contender::Bare {
        ("1".to_owned(), "1".to_owned())
    } else {
        (format_ratio(row.throughput), format_ratio(row.cpu))
    };
    let (latencies, commands) = (format_latencies(row), format_commands(row));
    let instructions = row.instructions.map_or_else(String::new, group_thousands);
    format!("| {name} | {throughput} | {cpu} | {latencies} | {commands} | {instructions} |")
}

/// Returns the label of a contender, in bold for this crate.
fn shown_name(contender: Contender, language: Language) -> String {
    let name = label(contender, language);
    if contender.is_this_crate() {
        format!("**{name}**")
    } else {
        name
    }
}

fn format_latencies(row: &Row) -> String {
    format!(
        "{:.2}, {:.2} ms",
        row.p50_micros / 1e3,
        row.p99_micros / 1e3
    )
}

fn format_commands(row: &Row) -> String {
    match row.redis_commands {
        none if none < 0.005 => "0".to_owned(),
        some => format!("{some:.2}"),
    }
}

fn machine_note(results: &Results, language: Language) -> String {
    let (machine, throughput) = (&results.machine, &results.throughput);
    let (processor, cores, kernel) = (&machine.processor, machine.cores, &machine.kernel);
    let (rust, redis) = (&machine.rust, &machine.redis);
    let bare = throughput.row(Contender::Bare.name());
    let bare = group_thousands(bare.map_or(0.0, |row| row.requests_per_second));
    let (users, connections) = (throughput.users, throughput.connections);
    let mut out = match language {
        English => format!(
            "{processor}, {cores} cores, shared by the server, Redis and the load; Linux {kernel}, \
             Rust {rust}, Redis {redis}. {} users, {connections} connections; bare axum answered \
             {bare} requests/s. Medians, and in parentheses the middle half, of up to {} pairs of \
             slices.",
            group_thousands(users as f64),
            throughput
                .rows
                .iter()
                .map(|row| row.pairs)
                .max()
                .unwrap_or(0),
        ),
        Chinese => format!(
            "{processor}，{cores} 核，被测服务、Redis 与压测程序共用；Linux {kernel}，Rust {rust}，Redis \
             {redis}。{} 个用户，{connections} 条连接；裸 axum 每秒 {bare} 个请求。数值为中位数，括号内为中间一半的\
             范围，每行至多 {} 对时间片。",
            group_thousands(users as f64),
            throughput
                .rows
                .iter()
                .map(|row| row.pairs)
                .max()
                .unwrap_or(0),
        ),
    };
    if machine.valgrind.is_some() {
        out.push_str(language.pick(
            " Instructions are counted by callgrind, which hides the processor's SHA instructions, so \
             that rows with a signed cookie are overstated.",
            "指令数由 callgrind 统计，它看不到处理器的 SHA 指令，所以带签名 cookie 的行偏高。",
        ));
    } else {
        out.push_str(language.pick(
            " Instructions were not counted: there was no valgrind.",
            "没有 valgrind，未统计指令数。",
        ));
    }
    if !throughput.quiet {
        out.push_str(language.pick(
            " **The machine was not quiet.**",
            "**测量时机器并不空闲。**",
        ));
    }
    out
}

/// All of a run, as results.md has it.
pub fn full_report(results: &Results) -> String {
    let mut out = String::from(
        "# The load benchmark\n\nWritten by `benches/load/run`; `../README.md` says how \
         it is measured.\n",
    );
    if results.quick {
        out.push_str("\n**A quick run: these figures show that all works, and nothing else.**\n");
    }
    let comparison = comparison_table(results, English);
    let _ = write!(out, "\n## Against each other\n\n{comparison}\n");
    let throughput = &results.throughput;
    let _ = writeln!(
        out,
        "{} of {} pairs were thrown away as disturbed. The p99 of nine in ten neighbouring slices of \
         bare axum differed by at most a factor of {:.2}.\n",
        throughput.discarded, throughput.pairs, throughput.p99_noise
    );
    out.push_str(
        "| server | pairs | requests/s | CPU µs/request | p99 ÷ bare | Redis round trips/request |\n\
         |---|---|---|---|---|---|\n",
    );
    for contender in Contender::ALL {
        if let Some(row) = throughput.row(contender.name()) {
            let _ = writeln!(
                out,
                "| {} | {} | {} | {:.1} | {} | {:.2} |",
                label(contender, English),
                row.pairs,
                group_thousands(row.requests_per_second),
                row.cpu_micros,
                format_ratio(row.p99),
                row.redis_round_trips,
            );
        }
    }
    out.push_str(
        "\nThe row of bare axum shows bare axum against itself. Round trips are counted with one \
         request under way.\n",
    );
    append_other_parts(results, &mut out);
    out.push_str("\n## Targets\n\n| what | figure | target | |\n|---|---|---|---|\n");
    for mark in check_targets(results) {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} |",
            mark.what,
            mark.figure,
            mark.target,
            match mark.met {
                Some(true) => "met",
                Some(false) => "**not met**",
                None => "not measured",
            }
        );
    }
    out
}

fn append_other_parts(results: &Results, out: &mut String) {
    let memory = &results.memory;
    let _ = write!(
        out,
        "\n## Memory\n\n| what | users | bytes/user |\n|---|---|---|\n\
         | a process, cached users (growth of its resident memory) | {} | {:.0} |\n\
         | Redis, layout hashes | {} | {:.0} |\n\
         | Redis, layout keys | {} | {:.0} |\n\n\
         Tokens have 110 characters, ids 28.\n",
        group_thousands(memory.cached_users as f64),
        memory.bytes_per_cached_user,
        group_thousands(memory.stored_users as f64),
        memory.redis_bytes_per_user_hashes,
        group_thousands(memory.stored_users as f64),
        memory.redis_bytes_per_user_keys,
    );
    out.push_str(
        "\n## Herds\n\nRequests at the same moment, each on a connection of its own, for users whose \
         tokens have expired. WeChat is the simulator and takes 100 ms for a renewal.\n\n\
         | requests | users | processes | layout | calls to WeChat | refused | all answered after | \
         median wait | longest wait | Redis commands |\n\
         |---|---|---|---|---|---|---|---|---|---|\n",
    );
    for herd in &results.herds {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {:.0} ms | {:.0} ms | {:.0} ms | {} |",
            group_thousands(herd.requests as f64),
            group_thousands(herd.users as f64),
            herd.processes,
            herd.layout,
            group_thousands(herd.calls_to_wechat as f64),
            group_thousands(herd.refused as f64),
            herd.all_answered_ms,
            herd.median_wait_ms,
            herd.longest_wait_ms,
            group_thousands(herd.redis_commands as f64),
        );
    }
    let restart = &results.restart;
    let _ = write!(
        out,
        "\n## After a restart\n\nEvery one of {} users asks once, on {} connections.\n\n\
         | memory of the process | all answered after | p99 | Redis commands/request |\n|---|---|---|---|\n\
         | empty | {:.0} ms | {:.2} ms | {:.2} |\n| full | {:.0} ms | {:.2} ms | {:.2} |\n",
        group_thousands(restart.users as f64),
        results.throughput.connections,
        restart.cold_ms,
        restart.cold_p99_micros / 1e3,
        restart.cold_redis_commands,
        restart.warm_ms,
        restart.warm_p99_micros / 1e3,
        restart.warm_redis_commands,
    );
    let _ = write!(
        out,
        "\n## More processes\n\nThe same load, spread over several processes. {}\n\n\
         | processes | requests/s | CPU µs/request | Redis commands to fill each cache, a user | Redis \
         commands/request then |\n|---|---|---|---|---|\n",
        if results.machine.cores < 8 {
            format!(
                "This machine has {} cores, which they share with the load: CPU per request tells more \
                 than requests per second.",
                results.machine.cores
            )
        } else {
            String::new()
        }
    );
    for growth in &results.growth {
        let _ = writeln!(
            out,
            "| {} | {} | {:.1} | {:.2} | {:.3} |",
            growth.processes,
            group_thousands(growth.requests_per_second),
            growth.cpu_micros,
            growth.redis_commands_to_fill,
            growth.redis_commands,
        );
    }
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

    #[test]
    fn labels_contain_known_versions() {
        for contender in Contender::ALL {
            for language in [English, Chinese] {
                assert!(!label(contender, language).contains("  "), "{contender}");
            }
        }
        assert!(version("tower-sessions").starts_with("0.14."));
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!(group_thousands(999.4), "999");
        assert_eq!(group_thousands(1_234_567.0), "1,234,567");
    }
}
