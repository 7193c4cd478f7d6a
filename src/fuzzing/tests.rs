//! A replay of the corpora and of mutations of them. `FUZZ_RUNS` sets the number of mutations for
//! each entry point.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use super::TARGETS;

/// Default number of mutations for each entry point: 3,000. `FUZZ_RUNS` replaces this number.
const DEFAULT_RUNS: usize = 3_000;

/// Maximum length of a mutated input: 2,048 bytes.
const MAX_INPUT_BYTES: usize = 2_048;

fn read_corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(name);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// Returns an input of the corpus with a part removed, doubled, changed, or replaced by a part of
/// another input.
fn mutate(random: &mut fastrand::Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut input = corpus[random.usize(..corpus.len())].clone();
    for _ in 0..random.usize(1..=6) {
        let from = random.usize(..=input.len());
        let to = random.usize(from..=input.len().min(from + 32));
        match random.u8(..6) {
            0 => drop(input.drain(from..to)),
            1 => {
                let part = input[from..to].to_vec();
                input.splice(from..from, part);
            }
            2 => input[from..to]
                .iter_mut()
                .for_each(|byte| *byte ^= 1 << random.u8(..8)),
            3 => input.insert(from, random.u8(..)),
            4 => {
                const TELLING: &[u8] = b"#.=;/\\\\\"{}%\0\n\x7f\xff 0aA-";
                input.insert(from, TELLING[random.usize(..TELLING.len())]);
            }
            _ => {
                let other = &corpus[random.usize(..corpus.len())];
                let start = random.usize(..=other.len());
                let end = random.usize(start..=other.len());
                input.splice(from..to, other[start..end].iter().copied());
            }
        }
    }
    input.truncate(MAX_INPUT_BYTES);
    input
}

#[test]
fn every_target_has_a_corpus_and_a_program() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let names = |folder: &str| {
        let files = fs::read_dir(root.join(folder)).unwrap();
        let stem = |file: fs::DirEntry| file.path().file_stem().unwrap().to_owned();
        let mut names: Vec<_> = files.map(|file| stem(file.unwrap())).collect();
        names.sort();
        names
    };
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let programs = names("fuzz_targets");
    assert_eq!(names("corpus"), programs);
    for (name, _) in TARGETS {
        assert!(programs.contains(&(*name).into()), "{name}");
        let program = format!("name = \"{name}\"");
        assert!(manifest.contains(&program), "{name}");
    }
    #[cfg(all(feature = "redis", feature = "platform"))]
    assert_eq!(programs.len(), TARGETS.len());
}

#[test]
fn corpora_and_mutations_never_panic() {
    // The published package contains this test and no corpora, so the test does nothing there.
    if Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("Cargo.toml.orig")
        .exists()
    {
        return;
    }
    let runs = std::env::var("FUZZ_RUNS")
        .ok()
        .and_then(|runs| runs.parse().ok());
    let seed = std::env::var("FUZZ_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    for (name, target) in TARGETS {
        let corpus = read_corpus(name);
        assert!(!corpus.is_empty(), "{name} has no corpus");
        let mut random = fastrand::Rng::with_seed(seed);
        let mutations = (0..runs.unwrap_or(DEFAULT_RUNS)).map(|_| mutate(&mut random, &corpus));
        for input in corpus.iter().cloned().chain(mutations) {
            if catch_unwind(AssertUnwindSafe(|| target(&input))).is_err() {
                panic!(
                    "{name}: FUZZ_SEED={seed}, put this into fuzz/corpus/{name}: {:?}",
                    String::from_utf8_lossy(&input)
                );
            }
        }
    }
}
