//! The text of results.md, which is the report of a run.

mod uncached;

use std::fmt::Write as _;

use crate::contender::Contender;
use crate::label::Language::{self, Chinese, English};
use crate::label::label;
use crate::results::{Results, Row, Spread};
use crate::targets::check_targets;

fn format_ratio(spread: Spread) -> String {
    format!(
        "{:.2} ({:.2}–{:.2})",
        spread.median, spread.low, spread.high
    )
}

pub fn group_thousands(number: f64) -> String {
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

/// Returns the label of a contender, which is in bold if the contender uses this crate.
pub fn shown_name(contender: Contender, language: Language) -> String {
    let name = label(contender, language);
    if contender.is_this_crate() {
        format!("**{name}**")
    } else {
        name
    }
}

pub fn format_latencies(row: &Row) -> String {
    format!(
        "{:.2}, {:.2} ms",
        row.p50_micros / 1e3,
        row.p99_micros / 1e3
    )
}

pub fn format_commands(row: &Row) -> String {
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
    let pairs = throughput.rows.iter().map(|row| row.pairs);
    let pairs = pairs.max().unwrap_or(0);
    let mut out = match language {
        English => format!(
            "{processor}, {cores} cores, shared by the server, Redis and the load; Linux {kernel}, \
             Rust {rust}, Redis {redis}. {} users, {connections} connections; bare axum answered \
             {bare} requests/s. Medians, and in parentheses the middle half, of up to {} pairs of \
             slices.",
            group_thousands(users as f64),
            pairs,
        ),
        Chinese => format!(
            "{processor}，{cores} 核，被测服务、Redis 与压测程序共用；Linux {kernel}，Rust {rust}，Redis \
             {redis}。{} 个用户，{connections} 条连接；裸 axum 每秒 {bare} 个请求。数值为中位数，括号内为中间一半的\
             范围，每行至多 {} 对时间片。",
            group_thousands(users as f64),
            pairs,
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

/// Returns the full text of results.md.
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
                row.redis_round_trips.unwrap_or_default(),
            );
        }
    }
    out.push_str(
        "\nThe row of bare axum shows bare axum against itself. Round trips are counted with one \
         request under way.\n",
    );
    out.push_str(&uncached::chapter(&results.uncached));
    append_other_parts(results, &mut out);
    out.push_str("\n## Targets\n\n| what | figure | target | |\n|---|---|---|---|\n");
    for check in check_targets(results) {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} |",
            check.what,
            check.figure,
            check.target,
            match check.met {
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
         tokens have expired. WeChat is the simulator and takes 100 ms for a renewal. Times are those of the \
         run with the median time, and refusals are those of all runs.\n\n\
         | requests | users | processes | layout | runs | calls to WeChat | refused | all answered after | \
         median wait | longest wait | Redis commands |\n\
         |---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for herd in &results.herds {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} | {:.0} ms | {:.0} ms | {:.0} ms | {} |",
            group_thousands(herd.requests as f64),
            group_thousands(herd.users as f64),
            herd.processes,
            herd.layout,
            herd.runs,
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
        "\n## After a restart\n\nEvery one of {} users asks once, on {} connections. Medians of {} \
         processes, each measured after its start. Empty ÷ full: {}.\n\n\
         | memory of the process | all answered after | p99 | Redis commands/request |\n|---|---|---|---|\n",
        group_thousands(restart.users as f64),
        results.throughput.connections,
        restart.processes,
        format_ratio(restart.ratio),
    );
    for (memory, pass) in [("empty", restart.empty), ("full", restart.full)] {
        let _ = writeln!(
            out,
            "| {memory} | {:.0} ms | {:.2} ms | {:.2} |",
            pass.ms,
            pass.p99_micros / 1e3,
            pass.redis_commands,
        );
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        assert_eq!(group_thousands(999.4), "999");
        assert_eq!(group_thousands(1_234_567.0), "1,234,567");
    }
}
