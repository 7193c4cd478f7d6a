//! A group of Sentinels and a Cluster for all tests of this program, because each takes seconds to
//! start.

use std::process::{Command, Stdio};

use tokio::sync::OnceCell;

use crate::support::redis_cluster::RedisCluster;
use crate::support::redis_server::RedisServer;
use crate::support::sentinel_group::SentinelGroup;

/// Returns the URL of a primary with two replicas behind three Sentinels. The first call starts
/// them.
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

/// Returns the URL of a Cluster of three primaries with a replica each. The first call starts it.
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

/// Ends these servers when the test program ends, in which statics are not dropped. A shell waits
/// for the end of its input, which this program holds open, and kills them.
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
