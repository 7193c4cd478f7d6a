//! A primary with two replicas, and three Sentinels that watch them.

use std::collections::HashMap;
use std::time::Duration;

use super::redis_server::RedisServer;

pub const GROUP: &str = "wechat-main";

pub struct SentinelGroup {
    pub servers: Vec<RedisServer>,
    pub sentinels: Vec<RedisServer>,
}

impl SentinelGroup {
    pub async fn start() -> Self {
        Self::with_options(&[], "").await
    }

    /// Starts the group with these options for each data server and these lines in each Sentinel's
    /// configuration.
    pub async fn with_options(options: &[&str], lines: &str) -> Self {
        let primary = RedisServer::with_options(options);
        let port = primary.port().to_string();
        let mut servers = vec![primary];
        for _ in 0..2 {
            let of = ["--replicaof", "127.0.0.1", &port];
            servers.push(RedisServer::with_options(&[options, &of].concat()));
        }
        let watch = format!(
            "sentinel monitor {GROUP} 127.0.0.1 {port} 2\n\
             sentinel down-after-milliseconds {GROUP} 1000\n\
             sentinel failover-timeout {GROUP} 3000\n\
             sentinel parallel-syncs {GROUP} 2\n{lines}\n"
        );
        let sentinels = (0..3).map(|_| RedisServer::sentinel(&watch)).collect();
        let group = Self { servers, sentinels };
        super::eventually(
            "the Sentinels know all",
            Duration::from_secs(40),
            async || {
                group.sentinels.iter().all(|sentinel| {
                    let knows = |what: &str| said(sentinel).get(what).cloned().unwrap_or_default();
                    knows("num-slaves") == "2" && knows("num-other-sentinels") == "2"
                })
            },
        )
        .await;
        // A replica can become the primary only after its first synchronization.
        for replica in &group.servers[1..] {
            super::eventually("a replica is filled", Duration::from_secs(40), async || {
                let info: String = redis::cmd("INFO")
                    .arg("replication")
                    .query(&mut replica.connection())
                    .unwrap_or_default();
                info.contains("master_link_status:up") && !info.contains("role:master")
            })
            .await;
        }
        group
    }

    /// Returns a `redis+sentinel://` URL with all Sentinels. `user` is `user:password@` of the data
    /// servers, or empty.
    pub fn url(&self, user: &str) -> String {
        let all: Vec<_> = self.sentinels.iter().map(RedisServer::address).collect();
        format!("redis+sentinel://{user}{}/{GROUP}", all.join(","))
    }

    /// Returns the index in `servers` of the primary, as the Sentinel with the newest configuration
    /// names it.
    pub fn primary(&self) -> usize {
        let ports = self.sentinels.iter().filter_map(|sentinel| {
            let said = said(sentinel);
            let epoch: u64 = said.get("config-epoch")?.parse().ok()?;
            Some((epoch, said.get("port")?.parse::<u16>().ok()?))
        });
        let (_, port) = ports.max().expect("a Sentinel replies");
        let at = self.servers.iter().position(|server| server.port() == port);
        at.expect("a server of this group")
    }

    /// Waits until another server than `old` is the primary.
    pub async fn fails_over_from(&self, old: usize) {
        super::eventually("a fail-over", Duration::from_secs(60), async || {
            self.primary() != old
        })
        .await;
    }
}

fn said(sentinel: &RedisServer) -> HashMap<String, String> {
    let Some(mut connection) = sentinel.try_connection() else {
        return HashMap::new();
    };
    let mut ask = redis::cmd("SENTINEL");
    ask.arg("MASTER").arg(GROUP);
    ask.query(&mut connection).unwrap_or_default()
}
