use super::*;
use crate::results::{Delay, Pass, Spread};

fn one(median: f64) -> Spread {
    Spread {
        low: median,
        median,
        high: median,
    }
}

fn row(contender: &str) -> Row {
    Row {
        contender: contender.to_owned(),
        pairs: 9,
        requests_per_second: 50_000.0,
        throughput: one(1.0),
        cpu_micros: 20.0,
        cpu: one(1.0),
        redis_cpu_micros: 5.0,
        total_cpu: one(1.0),
        p50_micros: 100.0,
        p50: one(1.0),
        p99_micros: 200.0,
        p99: one(1.0),
        redis_commands: 0.0,
        redis_round_trips: None,
        instructions: None,
    }
}

fn comparison(connections: usize, rows: Vec<Row>) -> Comparison {
    Comparison {
        reference: "naive-hget".to_owned(),
        users: 10,
        connections,
        delay: None,
        slice_secs: 1.0,
        pairs: 9,
        discarded: 0,
        quiet: true,
        p99_noise: 1.1,
        rows,
    }
}

fn unmet(checks: Vec<TargetCheck>) -> Vec<String> {
    let unmet = checks.into_iter().filter(|check| check.met == Some(false));
    unmet.map(|check| check.what).collect()
}

#[test]
fn targets_compare_rounded_figures() {
    let met = |figure, bound| check_bound(String::new(), figure, bound).met;
    assert_eq!(met(Some(0.896), Bound::AtLeast(0.90)), Some(true));
    assert_eq!(met(Some(0.894), Bound::AtLeast(0.90)), Some(false));
    assert_eq!(met(Some(240.4), Bound::AtMost(240.0)), Some(true));
    assert_eq!(met(Some(241.0), Bound::AtMost(240.0)), Some(false));
    assert_eq!(met(None, Bound::AtMost(1.0)), None);
}

#[test]
fn a_cookie_may_cost_two_blocks_of_sha256() {
    let instructions = |header, cookie| {
        let (mut cached, mut signed) = (row("cached-header"), row("cached-cookie"));
        (cached.instructions, signed.instructions) = (Some(header), Some(cookie));
        unmet(check_cached(&comparison(64, vec![cached, signed])))
    };
    assert!(instructions(17_800.0, 25_544.0).is_empty());
    let beyond = "cached-cookie: instructions/request beyond cached-header";
    assert_eq!(instructions(17_800.0, 25_546.0), [beyond]);
    assert_eq!(
        instructions(17_802.0, 25_546.0),
        ["cached-header: instructions/request"]
    );
}

#[test]
fn sixty_four_connections_compare_processor_time() {
    let (mut keys, mut hashes) = (row("uncached-keys"), row("uncached-hashes"));
    (keys.cpu, hashes.cpu) = (one(1.06), one(1.08));
    keys.p50 = one(2.0);
    hashes.total_cpu = one(1.01);
    hashes.throughput = one(0.99);
    let unmet = unmet(check_uncached(&comparison(64, vec![keys, hashes])));
    let whats = [
        "uncached-keys, 64 connections, loopback: server CPU ÷ HGET",
        "uncached-hashes, 64 connections, loopback: server + Redis CPU ÷ HGET",
        "uncached-hashes, 64 connections, loopback: requests/s ÷ HGET",
    ];
    assert_eq!(unmet, whats);
}

#[test]
fn few_connections_compare_the_latency() {
    let mut keys = row("uncached-keys");
    (keys.p50, keys.cpu) = (one(1.06), one(2.0));
    let mut delayed = comparison(8, vec![keys, row("uncached-hashes")]);
    delayed.delay = Some(Delay {
        intended_ms: 0.5,
        measured_ms: 0.52,
    });
    let unmet = unmet(check_uncached(&delayed));
    assert_eq!(
        unmet,
        ["uncached-keys, 8 connections, 0.5 ms away: p50 ÷ HGET"]
    );
}

#[test]
fn many_connections_have_no_targets() {
    assert!(check_uncached(&comparison(256, vec![row("uncached-keys")])).is_empty());
}

#[test]
fn herds_have_targets_for_commands_and_time() {
    let mut herd = Herd {
        layout: "keys".to_owned(),
        processes: 1,
        requests: 10_000,
        users: 10_000,
        runs: 3,
        calls_to_wechat: 10_000,
        refused: 0,
        all_answered_ms: 2_200.0,
        median_wait_ms: 1_000.0,
        longest_wait_ms: 2_200.0,
        redis_commands: 60_000,
    };
    assert!(unmet(check_herd(&herd)).is_empty());
    (herd.refused, herd.redis_commands, herd.all_answered_ms) = (1, 61_000, 2_201.0);
    assert_eq!(unmet(check_herd(&herd)).len(), 3);

    herd.processes = 4;
    assert_eq!(unmet(check_herd(&herd)).len(), 2);
    herd.layout = "hashes".to_owned();
    assert_eq!(unmet(check_herd(&herd)).len(), 1);
    (herd.users, herd.redis_commands, herd.calls_to_wechat) = (1, 1_000, 1);
    assert_eq!(check_herd(&herd).len(), 1);
}

#[test]
fn a_herd_needs_the_time_of_its_last_round() {
    assert_eq!(shortest_herd_ms(512), 100.0);
    assert_eq!(shortest_herd_ms(513), 200.0);
    assert_eq!(shortest_herd_ms(10_000), 2_000.0);
}

#[test]
fn a_restart_has_a_target_for_its_ratio() {
    let pass = Pass {
        ms: 100.0,
        p99_micros: 1.0,
        redis_commands: 2.0,
    };
    let restart = |ratio| Restart {
        users: 10,
        processes: 9,
        empty: pass,
        full: pass,
        ratio: one(ratio),
    };
    assert_eq!(check_restart(&restart(1.3)).met, Some(true));
    assert_eq!(check_restart(&restart(1.31)).met, Some(false));
}
