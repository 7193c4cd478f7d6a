//! Reads the queries of the dashboard and of the alert rules.

use std::collections::BTreeSet;

use serde_json::Value;

use super::file;

/// One metric in a query, with the label values that the query names.
#[derive(Debug)]
pub struct Selector {
    pub metric: String,
    pub wants: Vec<(String, String)>,
}

/// Returns every query of the dashboard and of the rules, with the name of its panel or alert.
pub fn all() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&file("examples/observability/dashboard.json"))
        .expect("the dashboard is JSON");
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().expect("an expression").to_owned();
            found.push((format!("panel {}", panel["title"]), expression));
        }
    }
    let rules = file("examples/observability/alerts.yaml");
    let mut alert = "";
    for line in rules.lines() {
        let line = line.trim();
        if let Some(name) = line.strip_prefix("- alert: ") {
            alert = name;
        }
        if let Some(expression) = line.strip_prefix("expr: ") {
            found.push((format!("alert {alert}"), expression.to_owned()));
        }
    }
    found
}

/// Returns the metrics in a query, with their label values.
pub fn selectors(expression: &str) -> Vec<Selector> {
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(at) = rest.find("wechat_") {
        let name = &rest[at..];
        let end = name
            .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
            .unwrap_or(name.len());
        let (metric, after) = name.split_at(end);
        let matchers = match after.strip_prefix('{') {
            Some(inside) => inside.split('}').next().unwrap_or_default(),
            None => "",
        };
        found.push(Selector {
            metric: metric.to_owned(),
            wants: matchers.split(',').flat_map(wanted).collect(),
        });
        rest = after;
    }
    found
}

/// Returns the label and the values that a matcher selects or excludes. Variables of Grafana are
/// left out, because they stand for labels that Prometheus adds.
fn wanted(matcher: &str) -> Vec<(String, String)> {
    let Some((label, value)) = matcher.split_once('=') else {
        return match matcher.split_once("!~") {
            Some((label, values)) => alternatives(label, values),
            None => Vec::new(),
        };
    };
    alternatives(label.trim_end_matches('!'), value.trim_start_matches('~'))
}

fn alternatives(label: &str, quoted: &str) -> Vec<(String, String)> {
    quoted
        .trim_matches('"')
        .split('|')
        .filter(|value| !value.starts_with('$'))
        .map(|value| (label.to_owned(), value.to_owned()))
        .collect()
}

/// Returns the labels by which a query groups, without those that Prometheus and histograms add.
pub fn grouped_by(expression: &str) -> BTreeSet<String> {
    expression
        .split(" by (")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .flat_map(|labels| labels.split(','))
        .map(|label| label.trim().to_owned())
        .filter(|label| !["instance", "job", "le"].contains(&label.as_str()))
        .collect()
}

#[test]
fn selectors_are_found() {
    let found = selectors(
        r#"sum(rate(wechat_a_total{job=~"$job",outcome=~"cache|store"}[5m])) / wechat_b{x!="y",z!~"v|w"}"#,
    );
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found[0].metric, "wechat_a_total");
    let pair = |label: &str, value: &str| (label.to_owned(), value.to_owned());
    assert_eq!(
        found[0].wants,
        [pair("outcome", "cache"), pair("outcome", "store")]
    );
    assert_eq!(
        found[1].wants,
        [pair("x", "y"), pair("z", "v"), pair("z", "w")]
    );
}
