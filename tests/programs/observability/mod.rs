//! Tests that the demo's metrics and logs match the guide, the dashboard and the alert rules.

mod events;
mod exposition;
mod gauges;
mod health;
mod metrics;
mod queries;

/// Returns the text of a file of the repository.
fn file(name: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

const GUIDE: &str = "src/guide/observability.md";
