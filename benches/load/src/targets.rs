//! The targets of the benchmark, and the checks whether a run met the targets.

use crate::results::{Results, Row};

pub struct TargetCheck {
    pub what: String,
    pub figure: String,
    pub target: String,
    /// `true` if the run met the target. `None` if the run did not measure the figure.
    pub met: Option<bool>,
}

pub fn check_targets(results: &Results) -> Vec<TargetCheck> {
    let mut checks = Vec::new();
    let rows = &results.throughput;
    for (name, throughput, cpu, instructions) in [
        ("cached-cookie", 0.90, 1.15, 22_000.0),
        ("cached-header", 0.94, 1.08, 16_500.0),
    ] {
        let row = rows.row(name);
        let figure = |read: fn(&Row) -> f64| row.map(read);
        let mut push =
            |what: &str, bound| checks.push(check_bound(&format!("{name}: {what}"), bound));
        push(
            "requests/s ÷ bare",
            (
                figure(|row| row.throughput.median),
                Bound::AtLeast(throughput),
            ),
        );
        push(
            "CPU ÷ bare",
            (figure(|row| row.cpu.median), Bound::AtMost(cpu)),
        );
        push(
            "p99 ÷ bare, within noise",
            (figure(|row| row.p99.median), Bound::AtMost(rows.p99_noise)),
        );
        push(
            "Redis commands/request",
            (figure(|row| row.redis_commands), Bound::AtMost(0.0)),
        );
        let counted = row.and_then(|row| row.instructions);
        push(
            "instructions/request",
            (counted, Bound::AtMost(instructions)),
        );
    }
    let naive = rows.row("naive-hget").map(|row| row.cpu.median);
    for name in ["uncached-keys", "uncached-hashes"] {
        let row = rows.row(name);
        let trips = row.and_then(|row| row.redis_round_trips);
        let against = row.zip(naive).map(|(row, naive)| row.cpu.median / naive);
        checks.push(check_bound(
            &format!("{name}: Redis round trips/request"),
            (trips, Bound::AtMost(1.0)),
        ));
        checks.push(check_bound(
            &format!("{name}: CPU ÷ naive HGET"),
            (against, Bound::AtMost(1.1)),
        ));
    }
    let memory = &results.memory;
    for (what, figure, target) in [
        ("bytes per cached user", memory.bytes_per_cached_user, 240.0),
        (
            "bytes of Redis per user, layout keys",
            memory.redis_bytes_per_user_keys,
            431.0,
        ),
    ] {
        checks.push(check_bound(what, (Some(figure), Bound::AtMost(target))));
    }
    for herd in &results.herds {
        let (users, processes, layout) = (herd.users, herd.processes, &herd.layout);
        checks.push(TargetCheck {
            what: format!(
                "herd for {users} expired, {processes} processes, {layout}: calls to WeChat"
            ),
            figure: format!("{}, {} refused", herd.calls_to_wechat, herd.refused),
            target: format!("{users}, 0 refused"),
            met: Some(herd.calls_to_wechat == users as u64 && herd.refused == 0),
        });
    }
    checks
}

enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

fn check_bound(what: &str, (figure, bound): (Option<f64>, Bound)) -> TargetCheck {
    let digits = match &bound {
        Bound::AtLeast(bound) | Bound::AtMost(bound) if *bound >= 10.0 => 0,
        _ => 2,
    };
    // The check compares rounded figures, because the report shows rounded figures.
    let rounded = |figure: f64| {
        let scale = 10f64.powi(digits);
        (figure * scale).round() / scale
    };
    TargetCheck {
        what: what.to_owned(),
        figure: figure.map_or_else(String::new, |figure| {
            format!("{figure:.*}", digits as usize)
        }),
        target: match bound {
            Bound::AtLeast(bound) => format!("≥ {bound:.*}", digits as usize),
            Bound::AtMost(bound) => format!("≤ {bound:.*}", digits as usize),
        },
        met: figure.map(|figure| match bound {
            Bound::AtLeast(bound) => rounded(figure) >= rounded(bound),
            Bound::AtMost(bound) => rounded(figure) <= rounded(bound),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_compare_rounded_figures() {
        let met = |figure, bound| check_bound("", (figure, bound)).met;
        assert_eq!(met(Some(0.896), Bound::AtLeast(0.90)), Some(true));
        assert_eq!(met(Some(0.894), Bound::AtLeast(0.90)), Some(false));
        assert_eq!(met(Some(240.4), Bound::AtMost(240.0)), Some(true));
        assert_eq!(met(Some(241.0), Bound::AtMost(240.0)), Some(false));
        assert_eq!(met(None, Bound::AtMost(1.0)), None);
    }
}
