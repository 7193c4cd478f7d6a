//! Reads Prometheus' text format, as far as the demo writes it.

use std::collections::{BTreeMap, BTreeSet};

/// The metrics in one response of `/metrics`.
pub struct Scrape {
    pub series: Vec<Series>,
    pub described: BTreeSet<String>,
}

pub struct Series {
    /// The name in the text. The series of a histogram end with `_bucket`, `_sum` or `_count`.
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Scrape {
    pub fn read(text: &str) -> Self {
        let described = text
            .lines()
            .filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next())
            .map(str::to_owned)
            .collect();
        let series = text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(|line| Series::read(line).unwrap_or_else(|| panic!("no series: {line}")))
            .collect();
        Self { series, described }
    }

    /// Returns the names of the metrics, without the suffixes of a histogram's series.
    pub fn names(&self) -> BTreeSet<String> {
        let bare = |name: &str| {
            ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|suffix| name.strip_suffix(suffix))
                .unwrap_or(name)
                .to_owned()
        };
        self.series.iter().map(|one| bare(&one.name)).collect()
    }

    pub fn has(&self, name: &str, label: &str, value: &str) -> bool {
        self.series.iter().any(|one| {
            one.name == name && one.labels.get(label).is_some_and(|found| found == value)
        })
    }

    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let fits = |one: &&Series| {
            one.name == name
                && labels.iter().all(|(label, value)| {
                    one.labels.get(*label).is_some_and(|found| found == value)
                })
        };
        self.series.iter().find(fits).map(|one| one.value)
    }
}

impl Series {
    fn read(line: &str) -> Option<Self> {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}')?),
            None => (series, ""),
        };
        let pair = |pair: &str| {
            let (label, value) = pair.split_once("=\"")?;
            Some((label.to_owned(), value.strip_suffix('"')?.to_owned()))
        };
        Some(Self {
            name: name.to_owned(),
            labels: labels
                .split(',')
                .filter(|part| !part.is_empty())
                .map(pair)
                .collect::<Option<_>>()?,
            value: value.parse().ok()?,
        })
    }
}
