//! A Redis Cluster of three primaries with a replica each.

use std::process::Command;
use std::time::Duration;

use super::redis_server::RedisServer;

pub struct RedisCluster {
    pub nodes: Vec<RedisServer>,
}

impl RedisCluster {
    pub async fn start() -> Self {
        Self::with_options(&[]).await
    }

    pub async fn with_options(options: &[&str]) -> Self {
        let nodes: Vec<_> = (0..6).map(|_| node(options)).collect();
        let cluster = Self { nodes };
        let mut arguments = vec!["--cluster".to_owned(), "create".to_owned()];
        arguments.extend(cluster.nodes.iter().map(RedisServer::address));
        let rest = ["--cluster-replicas", "1", "--cluster-yes"];
        arguments.extend(rest.map(str::to_owned));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        redis_cli(&arguments);
        super::eventually("the Cluster is up", Duration::from_secs(60), async || {
            cluster.nodes.iter().all(|node| {
                let info: String = ask(node, &["INFO"]);
                let shards: Vec<redis::Value> = ask(node, &["SLOTS"]);
                info.contains("cluster_state:ok") && shards.len() == 3
            })
        })
        .await;
        // A replica can become the primary only after its first synchronization.
        super::eventually(
            "the replicas are filled",
            Duration::from_secs(60),
            async || {
                let linked = |node: &&RedisServer| {
                    let info: String = redis::cmd("INFO")
                        .arg("replication")
                        .query(&mut node.connection())
                        .unwrap_or_default();
                    info.contains("master_link_status:up")
                };
                cluster.nodes.iter().filter(linked).count() == 3
            },
        )
        .await;
        cluster
    }

    /// Returns a `redis+cluster://` URL with three of the six nodes. `user` is `user:password@` or
    /// empty.
    pub fn url(&self, user: &str) -> String {
        let some: Vec<_> = self.nodes[..3].iter().map(RedisServer::address).collect();
        format!("redis+cluster://{user}{}", some.join(","))
    }

    /// Returns the index in `nodes` of the node that serves this key.
    pub fn owner_of(&self, key: &str) -> usize {
        self.known_owner_of(key).expect("a node serves the key")
    }

    /// Returns the index of the node that serves this key, or `None` if no node says that it does.
    /// Some nodes may be down.
    fn known_owner_of(&self, key: &str) -> Option<usize> {
        let slot: u16 = self.nodes.iter().find_map(|node| {
            let mut connection = node.try_connection()?;
            let mut ask = redis::cmd("CLUSTER");
            ask.arg("KEYSLOT").arg(key).query(&mut connection).ok()
        })?;
        let owners = self.nodes.iter().filter_map(|node| {
            let mut connection = node.try_connection()?;
            let nodes: String = redis::cmd("CLUSTER")
                .arg("NODES")
                .query(&mut connection)
                .ok()?;
            let myself = nodes
                .lines()
                .find(|line| line.contains("myself"))?
                .to_owned();
            Some((node.port(), myself))
        });
        // Of several nodes that claim the slot, the one with the highest configuration epoch serves
        // it. A node that was frozen may still claim the slot.
        let best = owners.filter_map(|(port, line)| {
            let parts: Vec<&str> = line.split(' ').collect();
            let serves = parts.get(2)?.contains("master")
                && parts.get(8..)?.iter().any(|range| {
                    let (from, to) = range.split_once('-').unwrap_or((range, range));
                    let in_range = |from: u16, to: u16| from <= slot && slot <= to;
                    matches!((from.parse(), to.parse()), (Ok(from), Ok(to)) if in_range(from, to))
                });
            serves.then_some((parts.get(6)?.parse::<u64>().ok()?, port))
        });
        let (_, port) = best.max()?;
        self.nodes.iter().position(|node| node.port() == port)
    }

    /// Waits until another node than `old` serves the key.
    pub async fn fails_over_from(&self, old: usize, key: &str) {
        super::eventually("a fail-over", Duration::from_secs(60), async || {
            self.known_owner_of(key).is_some_and(|owner| owner != old)
        })
        .await;
    }

    /// Moves `slots` slots from the node that serves a key to another primary.
    pub fn reshard_away(&self, key: &str, slots: u16) {
        let from = self.owner_of(key);
        let id = |at: usize| -> String { ask(&self.nodes[at], &["MYID"]) };
        let to = (0..self.nodes.len()).find(|at| {
            *at != from && {
                let role: Vec<redis::Value> = redis::cmd("ROLE")
                    .query(&mut self.nodes[*at].connection())
                    .unwrap();
                redis::from_redis_value::<String>(role.into_iter().next().unwrap()).unwrap()
                    == "master"
            }
        });
        let (from_id, to_id) = (id(from), id(to.expect("another primary")));
        redis_cli(&[
            "--cluster",
            "reshard",
            &self.nodes[from].address(),
            "--cluster-from",
            &from_id,
            "--cluster-to",
            &to_id,
            "--cluster-slots",
            &slots.to_string(),
            "--cluster-yes",
        ]);
    }
}

fn node(options: &[&str]) -> RedisServer {
    let bus = super::free_port().to_string();
    let cluster = [
        "--cluster-enabled",
        "yes",
        "--cluster-node-timeout",
        "1500",
        "--cluster-port",
        &bus,
        "--repl-diskless-sync-delay",
        "0",
    ];
    RedisServer::with_options(&[&cluster, options].concat())
}

fn ask<T: redis::FromRedisValue + Default>(node: &RedisServer, what: &[&str]) -> T {
    let Some(mut connection) = node.try_connection() else {
        return T::default();
    };
    redis::cmd("CLUSTER")
        .arg(what)
        .query(&mut connection)
        .unwrap_or_default()
}

fn redis_cli(arguments: &[&str]) {
    let ran = Command::new("redis-cli").args(arguments).output();
    let ran = ran.unwrap_or_else(|error| {
        panic!("redis-cli does not start ({error}); `apt-get install redis-tools` installs it")
    });
    assert!(
        ran.status.success(),
        "redis-cli {arguments:?}: {}{}",
        String::from_utf8_lossy(&ran.stdout),
        String::from_utf8_lossy(&ran.stderr)
    );
}
