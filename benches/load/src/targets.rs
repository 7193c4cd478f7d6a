//! The targets of the benchmark, and the checks whether a run met the targets.

use crate::herds::RENEWAL_DELAY;
use crate::results::{Comparison, Herd, Memory, Restart, Results, Row};

/// Maximum number of renewals that one process of this crate runs at once: 512, the engine's
/// default.
const RENEWALS_AT_ONCE: usize = 512;

/// Maximum number of instructions that a signed cookie may cost beyond a header: 1,000, and two
/// blocks of SHA-256 of 3,372 instructions. Callgrind counts them in software.
const COOKIE_INSTRUCTIONS: f64 = 1_000.0 + 2.0 * 3_372.0;

pub struct TargetCheck {
    pub what: String,
    pub figure: String,
    pub target: String,
    /// `true` if the run met the target. `None` if the run did not measure the figure.
    pub met: Option<bool>,
}

pub fn check_targets(results: &Results) -> Vec<TargetCheck> {
    let mut checks = check_cached(&results.throughput);
    checks.extend(check_round_trips(&results.throughput));
    checks.extend(results.uncached.iter().flat_map(check_uncached));
    checks.extend(check_memory(&results.memory));
    checks.extend(results.herds.iter().flat_map(check_herd));
    checks.push(check_restart(&results.restart));
    checks
}

fn check_cached(comparison: &Comparison) -> Vec<TargetCheck> {
    let mut checks = Vec::new();
    for (name, throughput, cpu) in [("cached-cookie", 0.90, 1.15), ("cached-header", 0.94, 1.08)] {
        let row = comparison.row(name);
        let figure = |read: fn(&Row) -> f64| row.map(read);
        let p99 = Bound::AtMost(comparison.p99_noise);
        for (what, figure, bound) in [
            (
                "requests/s ÷ bare",
                figure(|row| row.throughput.median),
                Bound::AtLeast(throughput),
            ),
            (
                "CPU ÷ bare",
                figure(|row| row.cpu.median),
                Bound::AtMost(cpu),
            ),
            (
                "p99 ÷ bare, within noise",
                figure(|row| row.p99.median),
                p99,
            ),
            (
                "Redis commands/request",
                figure(|row| row.redis_commands),
                Bound::AtMost(0.0),
            ),
        ] {
            checks.push(check_bound(format!("{name}: {what}"), figure, bound));
        }
    }
    let instructions = |name| comparison.row(name).and_then(|row| row.instructions);
    let (header, cookie) = (instructions("cached-header"), instructions("cached-cookie"));
    checks.push(check_bound(
        "cached-header: instructions/request".to_owned(),
        header,
        Bound::AtMost(17_800.0),
    ));
    checks.push(check_bound(
        "cached-cookie: instructions/request beyond cached-header".to_owned(),
        cookie.zip(header).map(|(cookie, header)| cookie - header),
        Bound::AtMost(COOKIE_INSTRUCTIONS),
    ));
    checks
}

fn check_round_trips(comparison: &Comparison) -> impl Iterator<Item = TargetCheck> {
    ["uncached-keys", "uncached-hashes"]
        .into_iter()
        .map(|name| {
            check_bound(
                format!("{name}: Redis round trips/request"),
                comparison.row(name).and_then(|row| row.redis_round_trips),
                Bound::AtMost(1.0),
            )
        })
}

/// Checks processor time and throughput with 64 connections, and the latency with few.
fn check_uncached(comparison: &Comparison) -> Vec<TargetCheck> {
    let mut checks = Vec::new();
    for (name, server_cpu) in [("uncached-keys", 1.05), ("uncached-hashes", 1.08)] {
        let row = comparison.row(name);
        let mut push = |what: &str, read: fn(&Row) -> f64, bound| {
            let (connections, place) = (comparison.connections, comparison.redis_place());
            let what = format!("{name}, {connections} connections, {place}: {what} ÷ HGET");
            checks.push(check_bound(what, row.map(read), bound));
        };
        match comparison.connections {
            64 => {
                push(
                    "server + Redis CPU",
                    |row| row.total_cpu.median,
                    Bound::AtMost(1.0),
                );
                push(
                    "server CPU",
                    |row| row.cpu.median,
                    Bound::AtMost(server_cpu),
                );
                push(
                    "requests/s",
                    |row| row.throughput.median,
                    Bound::AtLeast(1.0),
                );
            }
            ..64 => push("p50", |row| row.p50.median, Bound::AtMost(1.05)),
            _ => {}
        }
    }
    checks
}

fn check_memory(memory: &Memory) -> [TargetCheck; 2] {
    [
        ("bytes per cached user", memory.bytes_per_cached_user, 240.0),
        (
            "bytes of Redis per user, layout keys",
            memory.redis_bytes_per_user_keys,
            431.0,
        ),
    ]
    .map(|(what, figure, target)| check_bound(what.to_owned(), Some(figure), Bound::AtMost(target)))
}

/// Checks the calls to WeChat. With many users, also checks the commands of Redis, and the time of
/// one process.
fn check_herd(herd: &Herd) -> Vec<TargetCheck> {
    let (users, processes, layout) = (herd.users, herd.processes, &herd.layout);
    let name = format!("herd for {users} expired, {processes} processes, {layout}");
    let mut checks = vec![TargetCheck {
        what: format!("{name}: calls to WeChat"),
        figure: format!("{}, {} refused", herd.calls_to_wechat, herd.refused),
        target: format!("{users}, 0 refused"),
        met: Some(herd.calls_to_wechat == users as u64 && herd.refused == 0),
    }];
    if users > 1 {
        let commands = herd.redis_commands as f64 / users as f64;
        let bound = if layout == "keys" { 6.0 } else { 8.0 };
        checks.push(check_bound(
            format!("{name}: Redis commands/renewal"),
            Some(commands),
            Bound::AtMost(bound),
        ));
    }
    if users > 1 && processes == 1 {
        checks.push(check_bound(
            format!("{name}: ms until all are answered"),
            Some(herd.all_answered_ms),
            Bound::AtMost(1.1 * shortest_herd_ms(users)),
        ));
    }
    checks
}

/// Returns the time that one process needs at least to renew the tokens of this number of users.
fn shortest_herd_ms(users: usize) -> f64 {
    users.div_ceil(RENEWALS_AT_ONCE) as f64 * RENEWAL_DELAY.as_secs_f64() * 1e3
}

fn check_restart(restart: &Restart) -> TargetCheck {
    check_bound(
        "restart: time with an empty cache ÷ full cache".to_owned(),
        Some(restart.ratio.median),
        Bound::AtMost(1.3),
    )
}

#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

fn check_bound(what: String, figure: Option<f64>, bound: Bound) -> TargetCheck {
    let (Bound::AtLeast(limit) | Bound::AtMost(limit)) = bound;
    let digits = match limit {
        10.0.. => 0,
        2.0.. => 1,
        _ => 2,
    };
    // The check compares rounded figures, because the report shows rounded figures.
    let rounded = |figure: f64| {
        let scale = 10f64.powi(digits);
        (figure * scale).round() / scale
    };
    let shown = |figure: f64| format!("{figure:.*}", digits as usize);
    TargetCheck {
        what,
        figure: figure.map_or_else(String::new, shown),
        target: match bound {
            Bound::AtLeast(_) => format!("≥ {}", shown(limit)),
            Bound::AtMost(_) => format!("≤ {}", shown(limit)),
        },
        met: figure.map(|figure| match bound {
            Bound::AtLeast(_) => rounded(figure) >= rounded(limit),
            Bound::AtMost(_) => rounded(figure) <= rounded(limit),
        }),
    }
}

#[cfg(test)]
mod tests;
