//! Tests of the compiler's errors for mistakes in the use of the crate: each error names the remedy.
//!
//! Each file in `cases` is a program that the test compiles with the crate's features of this
//! build, or with those in a line `//@ features: NAMES`. Each line `//~ WORDS` quotes a part of the
//! expected error. A program without such lines must compile.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

/// Crates that the cases import, apart from [`OWN_CRATE`].
const CRATES: [&str; 7] = [
    "axum",
    "bytes",
    "http",
    "http_body_util",
    "hyper",
    "tower",
    "tower_http",
];

/// The crate of this repository.
const OWN_CRATE: &str = "tower_wechat";

/// Returns the files of all libraries that were built for this test, by crate. Cargo only lists the
/// files, because they are already built.
fn libraries() -> BTreeMap<String, PathBuf> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args([
            "test",
            "--no-run",
            "--locked",
            "--offline",
            "--message-format=json",
        ])
        .args(["--test", "diagnostics"]);
    if cfg!(feature = "cli") {
        cargo.arg("--all-features");
    }
    if !cfg!(debug_assertions) {
        cargo.arg("--release");
    }
    let output = cargo.output().expect("cargo runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let mut found = BTreeMap::new();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let message: Value = serde_json::from_str(line).expect("JSON of cargo");
        if message["reason"] != "compiler-artifact" {
            continue;
        }
        let name = message["target"]["name"]
            .as_str()
            .unwrap_or_default()
            .replace('-', "_");
        let files = message["filenames"].as_array().into_iter().flatten();
        let library = files
            .filter_map(Value::as_str)
            .find(|file| file.ends_with(".rlib") || file.ends_with(std::env::consts::DLL_SUFFIX));
        // If a crate is linked in two versions, the test uses the newer one.
        let version = message["package_id"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        if let Some(library) = library {
            let known = found
                .entry(name)
                .or_insert((version.clone(), PathBuf::from(library)));
            if known.0 < version {
                *known = (version, PathBuf::from(library));
            }
        }
    }
    found
        .into_iter()
        .map(|(name, (_, file))| (name, file))
        .collect()
}

/// Returns a command that runs rustc for the metadata of a library with these dependencies.
fn rustc<'a>(dependencies: impl IntoIterator<Item = (&'a str, &'a Path)>) -> Command {
    let mut rustc = Command::new(std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned()));
    rustc
        .args([
            "--edition=2024",
            "--crate-type=lib",
            "--emit=metadata",
            "--cap-lints=allow",
        ])
        .args(["--color=never", "--diagnostic-width=400"]);
    for (name, file) in dependencies {
        rustc
            .arg("--extern")
            .arg(format!("{name}={}", file.display()));
        let deps = file.parent().expect("a directory");
        rustc
            .arg("-L")
            .arg(format!("dependency={}", deps.display()));
    }
    rustc
}

/// Compiles this crate with a list of features, and returns the file.
fn own_crate_with(features: &str, libraries: &BTreeMap<String, PathBuf>) -> PathBuf {
    let file = format!("lib{OWN_CRATE}-{}.rmeta", features.replace(' ', "-"));
    let file = tempfile_directory().join(file);
    let dependencies = libraries.iter().filter(|(name, _)| *name != OWN_CRATE);
    let mut rustc = rustc(dependencies.map(|(name, file)| (name.as_str(), file.as_path())));
    for feature in features.split(' ') {
        rustc.arg("--cfg").arg(format!("feature={feature:?}"));
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs");
    rustc
        .arg("--crate-name")
        .arg(OWN_CRATE)
        .arg("-o")
        .arg(&file);
    rustc.env("CARGO_PKG_VERSION", env!("CARGO_PKG_VERSION"));
    let output = rustc.arg(root).output().expect("rustc runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    file
}

fn compile(case: &Path, libraries: &BTreeMap<String, PathBuf>) -> Result<(), String> {
    let source = std::fs::read_to_string(case).expect("a text");
    let mut features = source
        .lines()
        .filter_map(|line| line.strip_prefix("//@ features: "));
    let own_crate = match features.next() {
        Some(features) => own_crate_with(features, libraries),
        None => libraries[OWN_CRATE].clone(),
    };
    let dependencies = CRATES.map(|name| (name, libraries[name].as_path()));
    let dependencies = dependencies
        .into_iter()
        .chain([(OWN_CRATE, own_crate.as_path())]);
    let mut rustc = rustc(dependencies);
    rustc.arg("--out-dir").arg(tempfile_directory()).arg(case);
    let output = rustc.output().expect("rustc runs");
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

fn tempfile_directory() -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("diagnostics");
    std::fs::create_dir_all(&directory).expect("a directory");
    directory
}

/// Returns the parts of the compiler's output that a case expects.
fn expected_words(case: &Path) -> Vec<String> {
    let source = std::fs::read_to_string(case).expect("a text");
    let words = source.lines().filter_map(|line| line.strip_prefix("//~ "));
    words.map(str::to_owned).collect()
}

fn cases() -> Vec<PathBuf> {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/diagnostics/cases");
    let cases = std::fs::read_dir(cases).expect("cases");
    cases.map(|case| case.expect("a case").path()).collect()
}

/// Returns what is wrong with the compiler's output for a case, if anything is.
fn check(case: &Path, libraries: &BTreeMap<String, PathBuf>) -> Option<String> {
    let expected = expected_words(case);
    let output = compile(case, libraries).err();
    let is_right = match &output {
        None => expected.is_empty(),
        Some(output) => !expected.is_empty() && expected.iter().all(|words| output.contains(words)),
    };
    let output = output.as_deref().unwrap_or("it compiles");
    (!is_right).then(|| format!("{}: {expected:?}\n{output}", case.display()))
}

#[test]
fn compiler_errors_name_the_remedy() {
    let libraries = libraries();
    let cases = cases();
    assert!(cases.len() >= 20, "{} cases", cases.len());
    let next = AtomicUsize::new(0);
    let check_next = || {
        let mut wrong = Vec::new();
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            wrong.extend(check(case, &libraries));
        }
        wrong
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let wrong: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(check_next)).collect();
        let results = threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"));
        results.flatten().collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The guide's table of errors quotes words that a case reads in the compiler's output.
#[test]
fn errors_in_the_guide_are_those_of_cases() {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/guide/login.md");
    let guide = std::fs::read_to_string(guide).expect("a page");
    let (_, table) = guide.split_once("| the compiler says |").expect("a table");
    let rows = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with("| "));
    let shown: Vec<_> = rows.filter_map(|row| row.split(" | ").next()).collect();
    assert!(shown.len() >= 10, "{shown:?}");
    let expected: Vec<_> = cases()
        .iter()
        .flat_map(|case| expected_words(case))
        .collect();
    for words in shown {
        let words = words.trim_start_matches("| ");
        assert!(
            expected.iter().any(|line| line.contains(words)),
            "no case reads {words:?}"
        );
    }
}
