//! Tests that the guide lists every span and event of the source, with its target.

use std::path::Path;

use super::{GUIDE, file};

/// Collects the source files of the library with their paths, without unit tests.
fn sources(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.to_string_lossy().into_owned();
        if path.is_dir() {
            if !name.ends_with("/tests") {
                sources(&path, found);
            }
        } else if name.ends_with(".rs") && !name.ends_with("/tests.rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            found.push((name, text.to_owned()));
        }
    }
}

/// Returns the calls of tracing's macros in a text: the name of each macro and the text between its
/// parentheses.
fn calls(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for rest in text.split("tracing::").skip(1) {
        let Some((name, body)) = rest.split_once("!(") else {
            continue;
        };
        let plain = |c: char| c.is_ascii_lowercase() || c == '_';
        if name.is_empty() || !name.chars().all(plain) {
            continue;
        }
        let (mut depth, mut quoted, mut before) = (1, false, ' ');
        let end = body.find(|c: char| {
            match c {
                '"' if before != '\\' => quoted = !quoted,
                '(' if !quoted => depth += 1,
                ')' if !quoted => depth -= 1,
                _ => {}
            }
            before = c;
            depth == 0
        });
        found.push((
            name.to_owned(),
            body[..end.expect("a closing parenthesis")].to_owned(),
        ));
    }
    found
}

/// Returns the texts in quotes. A text that continues on the next line is joined.
fn texts(body: &str) -> Vec<String> {
    body.split('"')
        .skip(1)
        .step_by(2)
        .map(|text| {
            let lines = text.split("\\\n").map(str::trim_start);
            lines.collect::<Vec<_>>().concat()
        })
        .collect()
}

/// Returns the messages in the guide's tables of events.
fn events() -> Vec<String> {
    let guide = file(GUIDE);
    let events = guide.split("\n## Events").nth(1).expect("its heading");
    let rows = events.split("\n### ").skip(1).flat_map(str::lines);
    rows.filter_map(|row| row.strip_prefix("| `")?.split('`').next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_guide_lists_every_span_and_event() {
    let guide = file(GUIDE);
    let events = events();
    let mut found = Vec::new();
    sources(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut found,
    );
    let mut checked = 0;
    for (path, text) in &found {
        for (name, body) in calls(text) {
            let texts = texts(&body);
            let place = format!("{path}: tracing::{name}!({body})");
            let Some(target) = texts
                .first()
                .filter(|_| body.trim_start().starts_with("target: "))
            else {
                panic!("{place}\nneeds one of the guide's targets: they are stable, modules move");
            };
            assert!(
                guide.contains(&format!("`{target}`")),
                "{place}\nis of a target that {GUIDE} lacks"
            );
            if name.ends_with("_span") {
                let span = &texts[1];
                assert!(
                    guide.contains(&format!("`{span}`")),
                    "{place}\nis not in {GUIDE}"
                );
            } else {
                let message = texts.last().unwrap();
                // The guide lists a message with a variable part by its beginning.
                let known = message.starts_with('{')
                    || events.iter().any(|event| message.starts_with(event));
                assert!(known, "{place}\nadd \"{message}\" to the events of {GUIDE}");
            }
            checked += 1;
        }
    }
    assert!(checked > 30, "{checked} calls were checked");
}

/// Fails if the guide lists a message that the source does not log.
#[test]
fn the_guide_lists_nothing_else() {
    let mut found = Vec::new();
    sources(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut found,
    );
    let all: Vec<String> = found.iter().flat_map(|(_, text)| texts(text)).collect();
    let events = events();
    for message in &events {
        assert!(
            all.iter().any(|text| text.starts_with(message)),
            "nothing says {message:?} any more; take it out of {GUIDE}"
        );
    }
    assert!(events.len() > 30, "{events:?}");
}
