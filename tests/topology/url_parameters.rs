//! Tests of parameters in URLs of Redis, such as `?db=2`.

use redis::Commands;
use tower_wechat::ErrorKind;
use tower_wechat::redis::Layout;

use crate::mistakes::{SECRET, demo_refuses, refused, sign_in, to};
use crate::support::free_port;
use crate::support::redis_server::RedisServer;

#[tokio::test]
async fn a_database_that_is_named_as_a_parameter() {
    let redis = RedisServer::start();
    let url = format!("redis://{}?db=2", redis.address());
    sign_in(to(&url).layout(Layout::Keys).connect().await.unwrap()).await;
    let keys_of = |database: u32| -> usize {
        let mut connection = redis.connection();
        let () = redis::cmd("SELECT")
            .arg(database)
            .query(&mut connection)
            .unwrap();
        connection
            .keys::<_, Vec<String>>("wechat:wx0:user:*")
            .unwrap()
            .len()
    };
    assert_eq!((keys_of(0), keys_of(2)), (0, 1));
    for (parameters, says) in [("/1?db=2", "two databases"), ("/?ssl=true", "no effect")] {
        let url = format!("redis://:{SECRET}@{}{parameters}", redis.address());
        refused(to(&url), ErrorKind::Configuration, &[says]).await;
        demo_refuses(&url, &[says]).await;
    }
}

/// A URL with wrong or contradictory parameters is rejected. Otherwise it would lead to database 0.
#[tokio::test]
async fn urls_with_unknown_parameters() {
    let nobody = free_port();
    let at = format!(":{SECRET}@127.0.0.1:{nobody}");
    for (url, says) in [
        (format!("redis://{at}/?db=2&db=3"), "two databases"),
        (format!("redis://{at}?db=3&db=2"), "two databases"),
        (
            format!("redis+sentinel://{at}/m?db=2&db=3"),
            "two databases",
        ),
        (format!("redis+cluster://{at}?db=0&db=2"), "two databases"),
        (
            format!("redis+unix:///tmp/{nobody}?db=2&db=3"),
            "two databases",
        ),
        (
            format!("redis://{at}/?protocol=resp2&protocol=resp3"),
            "two protocols",
        ),
        (format!("redis://{at}/#db2"), "?db=2"),
        (format!("redis://{at}#2"), "?db=2"),
        (format!("redis://{at}/2#"), "?db=2"),
        (format!("rediss://{at}/2?db=2#db3"), "?db=2"),
        (format!("redis+sentinel://{at}/m#db2"), "?db=2"),
        (format!("redis+cluster://{at}#db2"), "?db=2"),
        (format!("redis+unix:///tmp/{nobody}#db2"), "?db=2"),
        (format!("redis://:{SECRET}#1@127.0.0.1:{nobody}/"), "%23"),
        (format!("redis://{at}/?database=2"), "no effect, database"),
        (
            format!("redis+sentinel://{at}/m?master=x"),
            "no effect, master",
        ),
        (format!("redis+cluster://{at}?ssl=true"), "no effect, ssl"),
        (
            format!("redis+unix:///tmp/{nobody}?db=2&timeout=3"),
            "no effect, timeout",
        ),
        (format!("redis+sentinel://{at}/m/2/3"), "after its database"),
        (format!("redis+cluster://{at}/0/2"), "after its database"),
    ] {
        let builder = to(&url).layout(Layout::Keys);
        refused(builder, ErrorKind::Configuration, &[says]).await;
        if url.starts_with("redis://") {
            demo_refuses(&url, &[says]).await;
        }
    }
    let same = format!("redis://{at}/2?db=2&db=2&protocol=2&protocol=resp2");
    refused(to(&same), ErrorKind::StoreUnavailable, &["reached"]).await;
}
