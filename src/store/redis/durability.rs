//! The search for settings of Redis with which durable secrets may be lost.
//!
//! `CONFIG GET` shows the settings. Managed services forbid it, and `INFO` shows a part of them. A
//! server that permits neither counts as safe.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use redis::{Value, from_redis_value};

use super::store::RedisStore;
use crate::clock::{DAY, Timestamp};

/// Maximum time for the search: three seconds. A platform searches once, when it starts.
const SEARCH_TIMEOUT: Duration = Duration::from_secs(3);

/// The settings by which one server keeps its data. `None` is unknown.
#[derive(Debug, Default, PartialEq, Eq)]
struct ServerFacts {
    /// `true` if the server appends every write to a file.
    appends: Option<bool>,
    snapshots: Snapshots,
    /// The policy by which the server evicts keys.
    eviction_policy: Option<String>,
    /// `true` if the server evicts keys at a limit of its memory.
    has_memory_limit: Option<bool>,
}

/// The snapshots that a server writes.
#[derive(Debug, Default, PartialEq, Eq)]
enum Snapshots {
    #[default]
    Unknown,
    Configured,
    /// The settings contain no snapshots.
    Off,
    /// The server has written no snapshot for more than a day, although data have changed.
    Overdue,
}

impl ServerFacts {
    /// Reads the settings that `CONFIG GET` returned.
    fn from_config(settings: &HashMap<String, String>) -> Self {
        let get = |name: &str| settings.get(name).map(String::as_str);
        Self {
            appends: get("appendonly").map(|value| value == "yes"),
            snapshots: match get("save") {
                None => Snapshots::Unknown,
                Some("") => Snapshots::Off,
                Some(_) => Snapshots::Configured,
            },
            eviction_policy: get("maxmemory-policy").map(str::to_owned),
            has_memory_limit: get("maxmemory").map(|bytes| bytes != "0"),
        }
    }

    /// Reads the sections of `INFO`, whose lines are `NAME:VALUE`.
    fn from_info(info: &str, now: Timestamp) -> Self {
        let lines = info.lines().filter_map(|line| line.trim().split_once(':'));
        let values: HashMap<&str, &str> = lines.collect();
        let number = |name: &str| values.get(name).and_then(|value| value.parse::<i64>().ok());
        let last_save = number("rdb_last_save_time").map(|seconds| seconds.saturating_mul(1_000));
        let is_overdue = last_save.is_some_and(|last| {
            Timestamp::from_millis(last).duration_until(now) > DAY
                && number("rdb_changes_since_last_save").is_some_and(|changes| changes > 0)
        });
        Self {
            appends: number("aof_enabled").map(|enabled| enabled == 1),
            snapshots: match is_overdue {
                true => Snapshots::Overdue,
                false => Snapshots::Unknown,
            },
            eviction_policy: values.get("maxmemory_policy").map(|&name| name.to_owned()),
            has_memory_limit: number("maxmemory").map(|bytes| bytes != 0),
        }
    }

    /// Returns one sentence for each way in which the server may lose a durable secret.
    fn risks(&self, address: &str) -> Vec<String> {
        let mut risks = Vec::new();
        let lacking = match (self.appends, &self.snapshots) {
            (Some(false), Snapshots::Off) => {
                Some("writes neither an append-only file nor snapshots")
            }
            (Some(false), Snapshots::Overdue) => {
                Some("writes no append-only file, and has written no snapshot for more than a day")
            }
            (Some(false), Snapshots::Unknown | Snapshots::Configured) | (Some(true) | None, _) => {
                None
            }
        };
        if let Some(lacking) = lacking {
            risks.push(format!(
                "Redis at {address} {lacking}, so its restart loses the refresh tokens of all \
                 accounts; set appendonly yes"
            ));
        }
        let policy = self.eviction_policy.as_deref().unwrap_or_default();
        if policy.starts_with("allkeys-") && self.has_memory_limit != Some(false) {
            risks.push(format!(
                "Redis at {address} evicts keys without a TTL when its memory is full \
                 (maxmemory-policy {policy}), and so loses refresh tokens of accounts; set \
                 noeviction or a policy volatile-*"
            ));
        }
        risks
    }
}

impl RedisStore {
    /// Returns the risks of all primaries, without duplicates. Returns nothing if the servers do
    /// not reply in time.
    pub(super) async fn find_durability_risks(&self) -> Vec<String> {
        let reading = tokio::time::timeout(SEARCH_TIMEOUT, self.read_server_facts());
        let facts = reading.await.unwrap_or_default();
        let address = &self.0.address;
        let risks = facts.iter().flat_map(|facts| facts.risks(address));
        risks.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Reads the settings of every primary, or what `INFO` says if `CONFIG` is forbidden.
    async fn read_server_facts(&self) -> Vec<ServerFacts> {
        let mut servers: Vec<HashMap<String, String>> = Vec::new();
        for name in ["appendonly", "save", "maxmemory-policy", "maxmemory"] {
            let mut get = redis::cmd("CONFIG");
            get.arg("GET").arg(name);
            let replies = self.replies_of_primaries(&get).await;
            servers.resize_with(servers.len().max(replies.len()), HashMap::new);
            for (server, reply) in servers.iter_mut().zip(replies) {
                server
                    .extend(from_redis_value::<HashMap<String, String>>(reply).unwrap_or_default());
            }
        }
        if servers.iter().any(|settings| !settings.is_empty()) {
            return servers.iter().map(ServerFacts::from_config).collect();
        }
        let mut infos: Vec<String> = Vec::new();
        for section in ["persistence", "memory"] {
            let replies = self
                .replies_of_primaries(redis::cmd("INFO").arg(section))
                .await;
            infos.resize_with(infos.len().max(replies.len()), String::new);
            for (info, reply) in infos.iter_mut().zip(replies) {
                info.push_str(&from_redis_value::<String>(reply).unwrap_or_default());
                info.push('\n');
            }
        }
        let now = self.0.clock.now();
        let facts = infos.iter().map(|info| ServerFacts::from_info(info, now));
        facts.collect()
    }

    /// Returns the reply of each primary, or nothing after an error. The circuit breaker does not
    /// count these commands, because a server may forbid them for good reasons.
    async fn replies_of_primaries(&self, command: &redis::Cmd) -> Vec<Value> {
        let replies = self.0.connection.command_on_primaries(command).await;
        replies.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn config(settings: &[(&str, &str)]) -> Vec<String> {
        let settings = settings
            .iter()
            .map(|&(name, value)| (name.into(), value.into()));
        ServerFacts::from_config(&settings.collect()).risks("h:1")
    }

    fn info(text: &str) -> Vec<String> {
        ServerFacts::from_info(text, NOW).risks("h:1")
    }

    #[test]
    fn settings_without_any_file_are_a_risk() {
        let risks = config(&[("appendonly", "no"), ("save", "")]);
        assert_eq!(
            risks,
            [
                "Redis at h:1 writes neither an append-only file nor snapshots, so its restart \
                 loses the refresh tokens of all accounts; set appendonly yes"
            ]
        );
        for safe in [
            &[("appendonly", "yes"), ("save", "")][..],
            &[("appendonly", "no"), ("save", "3600 1 300 100")],
            &[("save", "")],
            &[("appendonly", "no")],
            &[],
        ] {
            assert!(config(safe).is_empty(), "{safe:?}");
        }
    }

    #[test]
    fn eviction_of_any_key_is_a_risk() {
        let risks = config(&[("maxmemory-policy", "allkeys-lru"), ("maxmemory", "100")]);
        assert_eq!(risks.len(), 1);
        assert!(
            risks[0].contains("(maxmemory-policy allkeys-lru)"),
            "{risks:?}"
        );
        assert_eq!(config(&[("maxmemory-policy", "allkeys-random")]).len(), 1);
        for policy in ["noeviction", "volatile-lru", "volatile-ttl"] {
            let settings = [("maxmemory-policy", policy), ("maxmemory", "100")];
            assert!(config(&settings).is_empty(), "{policy}");
        }
        assert!(config(&[("maxmemory-policy", "allkeys-lru"), ("maxmemory", "0")]).is_empty());
    }

    #[test]
    fn info_is_enough_where_config_is_forbidden() {
        let section = |aof: u8, age_hours: i64, changes: u32| {
            let saved = NOW.as_millis() / 1_000 - age_hours * 3_600;
            format!(
                "# Persistence\r\nrdb_changes_since_last_save:{changes}\r\n\
                 rdb_last_save_time:{saved}\r\naof_enabled:{aof}\r\n"
            )
        };
        assert_eq!(info(&section(0, 25, 1)).len(), 1);
        for safe in [section(1, 25, 1), section(0, 23, 1), section(0, 25, 0)] {
            assert!(info(&safe).is_empty(), "{safe}");
        }
        assert!(info("aof_enabled:0\r\n").is_empty());
        assert!(info("").is_empty());
        let evicting = "maxmemory:1\r\nmaxmemory_policy:allkeys-lfu\r\n";
        assert_eq!(info(evicting).len(), 1);
    }
}
