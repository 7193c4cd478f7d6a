//! The load benchmark: this crate and its alternatives side by side, with a real redis-server.
//! `benches/load/run` builds and starts this program.
//!
//! ```text
//! run [--quick] [PART]   PART: throughput, uncached, instructions, memory, herds, restart or
//!                        growth; none: all, and the results are written
//! run readme             writes results.json into the READMEs
//! ```

mod account;
mod comparison;
mod contender;
mod delay_proxy;
mod environment;
mod generator;
mod growth;
mod herds;
mod histogram;
mod instructions;
mod label;
mod machine;
mod memory;
mod plot;
mod population;
mod processes;
mod readme;
mod report;
mod restart;
mod results;
mod servers;
mod targets;
mod throughput;
mod uncached;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::label::Language;
use crate::machine::Machine;
use crate::processes::{Redis, RedisCounters};
use crate::results::Results;

#[tokio::main]
async fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let quick = words.contains(&"--quick");
    let words: Vec<&str> = words
        .into_iter()
        .filter(|word| *word != "--quick")
        .collect();
    let outcome = match words.as_slice() {
        ["serve", contender] => match contender.parse() {
            Ok(contender) => {
                servers::serve(contender).await;
                Ok(())
            }
            Err(error) => Err(error),
        },
        ["fill", users] => {
            memory::fill_cache(users.parse().expect("a number")).await;
            Ok(())
        }
        [] => run_all(&Plans::new(quick)).await,
        ["readme"] => update_readmes(),
        [part] => run_part(part, &Plans::new(quick)).await,
        _ => Err("one part at a time".to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

struct Plans {
    quick: bool,
    comparison: comparison::Plan,
    instructions: instructions::Plan,
    memory: memory::Plan,
    herds: herds::Plan,
    restart: restart::Plan,
    growth: growth::Plan,
}

impl Plans {
    fn new(quick: bool) -> Self {
        let of = |short, full| if quick { short } else { full };
        let millis = |short, full| Duration::from_millis(if quick { short } else { full });
        Self {
            quick,
            comparison: comparison::Plan {
                slice: millis(150, 1_000),
                rounds: of(1, 9),
                rounds_at_most: of(1, 12),
            },
            instructions: instructions::Plan {
                few: of(100, 500),
                many: of(200, 2_500),
            },
            memory: memory::Plan {
                cached: of(20_000, 1_000_000),
                stored: of(10_000, 100_000),
            },
            herds: herds::Plan {
                requests: of(500, 10_000),
                runs: of(1, 3),
            },
            restart: restart::Plan {
                processes: of(2, 9),
            },
            growth: growth::Plan {
                slice: millis(150, 1_000),
                slices: of(1, 5),
            },
        }
    }
}

async fn run_all(plans: &Plans) -> Result<(), String> {
    let began = Instant::now();
    let redis = Redis::start();
    let machine = Machine::detect(&RedisCounters::new(&redis).version());
    population::store_users_and_sessions(&redis.url(), population::USERS).await;
    let mut throughput = throughput::measure(&redis, &plans.comparison);
    let uncached = uncached::measure(&redis, &plans.comparison);
    let restart = restart::measure(&redis, &plans.restart);
    let growth = growth::measure(&redis, &plans.growth);
    let counted = instructions::measure(&redis, &plans.instructions);
    for (contender, instructions) in counted.into_iter().flatten() {
        let mut rows = throughput.rows.iter_mut();
        if let Some(row) = rows.find(|row| row.contender == contender.name()) {
            row.instructions = Some(instructions);
        }
    }
    drop(redis);
    let results = Results {
        quick: plans.quick,
        machine,
        throughput,
        uncached,
        memory: memory::measure(&plans.memory).await,
        herds: herds::measure(&plans.herds).await,
        restart,
        growth,
    };
    let folder = if plans.quick {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        program.with_file_name("quick-load")
    } else {
        package_folder()
    };
    let text = report::full_report(&results);
    println!("{text}");
    write(&folder, "results.md", &text)?;
    write(&folder, "results.svg", &plot::draw(&results))?;
    write(&folder, "results.json", &(json(&results)? + "\n"))?;
    eprintln!(
        "{} s; the results are in {}",
        began.elapsed().as_secs(),
        folder.display()
    );
    Ok(())
}

async fn run_part(part: &str, plans: &Plans) -> Result<(), String> {
    const WITH_USERS: [&str; 5] = [
        "throughput",
        "uncached",
        "instructions",
        "restart",
        "growth",
    ];
    let redis = Redis::start();
    if WITH_USERS.contains(&part) {
        population::store_users_and_sessions(&redis.url(), population::USERS).await;
    }
    let text = match part {
        "throughput" => json(&throughput::measure(&redis, &plans.comparison)),
        "uncached" => json(&uncached::measure(&redis, &plans.comparison)),
        "instructions" => {
            let counted = instructions::measure(&redis, &plans.instructions);
            let counted = counted.into_iter().flatten();
            let named: Vec<_> = counted.map(|(who, each)| (who.name(), each)).collect();
            json(&named)
        }
        "memory" => json(&memory::measure(&plans.memory).await),
        "herds" => json(&herds::measure(&plans.herds).await),
        "restart" => json(&restart::measure(&redis, &plans.restart)),
        "growth" => json(&growth::measure(&redis, &plans.growth)),
        other => Err(format!("there is no part {other:?}")),
    };
    println!("{}", text?);
    Ok(())
}

/// Writes the comparison of the last full run into both READMEs.
fn update_readmes() -> Result<(), String> {
    let file = package_folder().join("results.json");
    let text = std::fs::read_to_string(&file)
        .map_err(|error| format!("{}: {error}; a full run writes it", file.display()))?;
    let results: Results = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let root = package_folder().join("../..");
    for (name, language) in [
        ("README.md", Language::English),
        ("README.zh-CN.md", Language::Chinese),
    ] {
        readme::update_readme(&root.join(name), &results, language)?;
    }
    Ok(())
}

/// Returns the folder of this package, into which a full run writes its results.
fn package_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn json(value: &impl Serialize) -> Result<String, String> {
    serde_json::to_string_pretty(value).map_err(|error| error.to_string())
}

fn write(folder: &Path, name: &str, text: &str) -> Result<(), String> {
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(folder.join(name), text))
        .map_err(|error| format!("{}: {error}", folder.join(name).display()))
}
