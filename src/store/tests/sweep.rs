//! Test of the sweep of expired tokens.

use ::redis::Commands;

use super::*;

#[tokio::test]
async fn sweep_removes_only_expired_users() {
    let server = RedisServer::start();
    let store = connect_redis(&server, Layout::Hashes).await;
    let mut connection = server.connection();
    let now = Clock::system().now().as_millis();
    // A refresh token counts as expired only 31 days after its stored time.
    let (past, long_past) = (now - 29 * 86_400_000, now - 32 * 86_400_000);
    let (access, refresh) = ("user.wxUserAccessToken", "user.wxUserRefreshToken");
    for (id, access_ms, refresh_ms) in [
        ("fresh", Some(now + 1_000), Some(now + 1_000)),
        ("renewable", Some(long_past), Some(now + 1_000)),
        ("recently-expired", Some(long_past), Some(past)),
        ("expired", Some(long_past), Some(long_past)),
        ("access-only", Some(now + 1_000), None),
        ("expired-access-only", Some(long_past), None),
    ] {
        let mut set = |hash: &str, ms: Option<i64>| {
            if let Some(ms) = ms {
                let _: () = connection.hset(hash, id, format!("tok#{ms}")).unwrap();
            }
        };
        set(access, access_ms);
        set(refresh, refresh_ms);
    }
    let _: () = connection.hset(refresh, "garbage", "abc").unwrap();
    for n in 0..3_000 {
        let _: () = connection
            .hset(refresh, format!("old{n}"), format!("r#{long_past}"))
            .unwrap();
    }
    let report = store
        .sweep(&AppId::new("wx1").unwrap(), Duration::ZERO)
        .await
        .unwrap();
    assert_eq!(report.removed, 3_000 + 3, "{report:?}");
    let mut left: Vec<String> = connection.hkeys(refresh).unwrap();
    left.sort();
    assert_eq!(left, ["fresh", "garbage", "recently-expired", "renewable"]);
    let mut left: Vec<String> = connection.hkeys(access).unwrap();
    left.sort();
    assert_eq!(
        left,
        ["access-only", "fresh", "recently-expired", "renewable"]
    );
}
