//! Tests of a Redis user with the rights in the Redis guide, and one more command for each
//! topology.

use std::time::Duration;

use tower_wechat::client::UserTokenResponse;
use tower_wechat::redis::Layout;
use tower_wechat::{RedisStore, UserId, UserTokens, WechatClient};

use crate::support::eventually;
use crate::support::free_port;
use crate::support::redis_server::RedisServer;

/// Returns the commands that the Redis guide lists for one server.
fn commands() -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/guide/redis.md");
    let guide = std::fs::read_to_string(path).unwrap();
    let list = guide.split('`').find(|text| text.starts_with("+get "));
    let list = list.expect("the guide lists the commands");
    list.split(' ').map(str::to_owned).collect()
}

fn with_user(server: &RedisServer, more: &str) {
    let mut create = redis::cmd("ACL");
    create.arg(&["SETUSER", "app", "on", ">word", "&wechat:*"]);
    create.arg(&["~user.wx*", "~sys.wx*", "~wechat:*", "~{wechat}*"]);
    create.arg(commands()).arg(more);
    let () = create.query(&mut server.connection()).unwrap();
}

async fn works(store: RedisStore) {
    let users = UserTokens::new(WechatClient::new("wx0", "secret").unwrap(), store);
    let user = UserId::new("oUser").unwrap();
    let grant = UserTokenResponse::new("token")
        .expires_in(7_200)
        .refresh_token("r");
    users.store(&user, &grant).await.unwrap();
    users.revoke(&user).await.unwrap();
    users.health().await.unwrap();
}

#[tokio::test]
async fn sentinels_require_the_role_command() {
    let server = RedisServer::start();
    with_user(&server, "+role");
    let sentinel = RedisServer::sentinel(&format!(
        "sentinel monitor main 127.0.0.1 {} 1\nuser default on nopass ~* &* +@all\n\
         user app on >other -@all +auth +hello +client +sentinel|master +sentinel|masters\n",
        server.port()
    ));
    let url = format!("redis+sentinel://app:word@{}/main", sentinel.address());
    let builder = RedisStore::builder(&url).sentinel_credentials("app", "other");
    for layout in [Layout::Hashes, Layout::Keys] {
        works(builder.clone().layout(layout).connect().await.unwrap()).await;
    }
}

#[tokio::test]
async fn a_cluster_requires_cluster_slots() {
    let bus = free_port().to_string();
    let node = RedisServer::with_options(&["--cluster-enabled", "yes", "--cluster-port", &bus]);
    let mut take = redis::cmd("CLUSTER");
    take.arg(&["ADDSLOTSRANGE", "0", "16383"]);
    let () = take.query(&mut node.connection()).unwrap();
    with_user(&node, "+cluster|slots");
    let url = format!("redis+cluster://app:word@{}", node.address());
    let builder = RedisStore::builder(&url).layout(Layout::Keys);
    let up = async || builder.clone().connect().await.is_ok();
    eventually("the Cluster is up", Duration::from_secs(30), up).await;
    works(builder.connect().await.unwrap()).await;
}
