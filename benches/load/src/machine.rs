//! The machine of a run: its description, and the processor time and memory that processes use.

use std::fs;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Number of ticks per second in which Linux reports processor time: 100 on every architecture.
const TICKS_PER_SECOND: f64 = 100.0;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Machine {
    pub processor: String,
    pub cores: usize,
    pub kernel: String,
    pub rust: String,
    pub redis: String,
    /// The version of valgrind. `None` if valgrind is not installed, and instructions are then not
    /// counted.
    pub valgrind: Option<String>,
}

impl Machine {
    pub fn detect(redis: &str) -> Self {
        Self {
            processor: processor(),
            cores: cores(),
            kernel: kernel(),
            rust: program_version("rustc").unwrap_or_else(|| "unknown".into()),
            redis: redis.to_owned(),
            valgrind: program_version("valgrind")
                .map(|version| version.trim_start_matches("valgrind-").to_owned()),
        }
    }
}

/// Returns the version of the kernel, without the suffix of its distribution.
fn kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let version = release.trim().split('-').next().unwrap_or_default();
    match version {
        "" => "unknown".to_owned(),
        version => version.to_owned(),
    }
}

fn processor() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        (name.trim() == "model name").then(|| value.trim().to_owned())
    });
    model.unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Returns the version that a program prints: the second word of its output, or the first if there
/// is only one.
fn program_version(program: &str) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let mut words = text.split_whitespace();
    let first = words.next()?.to_owned();
    Some(words.next().map_or(first, str::to_owned))
}

pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

/// The time that all cores were busy, and the time that a hypervisor took from them, in seconds.
#[derive(Debug, Clone, Copy)]
pub struct CpuTimes {
    pub busy: f64,
    pub stolen: f64,
}

/// Returns the times of all cores since the start of the system. Returns `None` if the system does
/// not report them.
pub fn cpu_times() -> Option<CpuTimes> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let numbers: Vec<f64> = stat
        .lines()
        .next()?
        .split_whitespace()
        .skip(1)
        .filter_map(|number| number.parse::<f64>().ok())
        .map(|ticks| ticks / TICKS_PER_SECOND)
        .collect();
    // The numbers are the times of user, nice, system, idle, iowait, irq, softirq and steal.
    // Interrupts (irq, softirq) do not count as busy, because the measured traffic on the loopback
    // causes them.
    Some(CpuTimes {
        busy: numbers.get(..3)?.iter().sum(),
        stolen: *numbers.get(7)?,
    })
}

/// Returns the processor time that the living threads of a process have used.
///
/// The scheduler counts it in nanoseconds. A kernel without this count reports ticks of 10 ms, which
/// are coarse for a slice with little load.
pub fn process_cpu(process: u32) -> Duration {
    scheduler_time(process).unwrap_or_else(|| ticked_time(process))
}

fn scheduler_time(process: u32) -> Option<Duration> {
    let threads = fs::read_dir(format!("/proc/{process}/task")).ok()?;
    let times = threads.flatten().filter_map(|thread| {
        let counts = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        let nanos = counts.split_whitespace().next()?.parse().ok()?;
        Some(Duration::from_nanos(nanos))
    });
    Some(times.sum()).filter(|time: &Duration| !time.is_zero())
}

/// Returns the sum of `utime` and `stime` of a process.
fn ticked_time(process: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name of the program, in parentheses, may contain spaces and parentheses.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: f64 = rest
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|number| number.parse::<f64>().ok())
        .sum();
    Duration::from_secs_f64(ticks / TICKS_PER_SECOND)
}

/// Returns the resident memory of a process, in bytes.
pub fn resident_bytes(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
    kilobytes.unwrap_or(0) * 1_024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_counts_of_processor_time_agree() {
        let ours = std::process::id();
        let (began, ticked) = (process_cpu(ours), ticked_time(ours));
        while process_cpu(ours) < began + Duration::from_millis(50) {
            std::hint::spin_loop();
        }
        // A tick has 10 ms, so that each end of the interval is uncertain by as much.
        assert!(ticked_time(ours) >= ticked + Duration::from_millis(30));
    }
}
