//! What an operator sees is what the guide says, and what the dashboard and the alert rules ask for
//! is there to be found.

mod exposition;
mod gauges;
mod health;
mod metrics;
mod queries;
mod words;

/// A file of the repository.
fn file(name: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

const GUIDE: &str = "src/guide/observability.md";
