//! A group of Sentinels and a Cluster for all tests of this program, because each takes seconds to
//! start.

use std::process::{Command, Stdio};

use tokio::sync::OnceCell;

use crate::support::redis_cluster::RedisCluster;
use crate::support::redis_server::RedisServer;
use crate::support::sentinel_group::SentinelGroup;

/// The URL of a primary with two replicas behind three Sentinels.
pub async fn sentinels() -> String {
    static URL: OnceCell<String> = OnceCell::const_new();
    let start = async || {
        let group = SentinelGroup::start().await;
        end_with_this_program(group.servers.iter().chain(&group.sentinels));
        let url = group.url("");
        std::mem::forget(group);
        url
    };
    URL.get_or_init(start).await.clone()
}

/// The URL of three primaries with a replica each.
pub async fn cluster() -> String {
    static URL: OnceCell<String> = OnceCell::const_new();
    let start = async || {
        let cluster = RedisCluster::start().await;
        end_with_this_program(&cluster.nodes);
        let url = cluster.url("");
        std::mem::forget(cluster);
        url
    };
    URL.get_or_init(start).await.clone()
}

/// Nothing is dropped at the end of a test program. So a shell waits for that: its input ends with
/// the program, however that ends.
fn end_with_this_program<'a>(servers: impl IntoIterator<Item = &'a RedisServer>) {
    const WAIT_AND_KILL: &str = r#"
        trap '' INT TERM HUP
        cat
        while [ $# -gt 0 ]; do kill -KILL "$1"; rm -rf "$2"; shift 2; done
    "#;
    let mut shell = Command::new("sh");
    shell.args(["-c", WAIT_AND_KILL, "sh"]);
    for server in servers {
        let (process, folder) = server.process();
        shell.arg(process.to_string()).arg(folder);
    }
    let shell = shell.stdin(Stdio::piped()).stdout(Stdio::null());
    let shell = shell.stderr(Stdio::null()).spawn();
    std::mem::forget(shell.expect("a shell"));
}
