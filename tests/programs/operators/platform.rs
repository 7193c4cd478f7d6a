//! Tests of `reseal` and `migrate` on a third-party platform, whose names contain the AppID.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use redis::Commands;

use super::program::{Ran, run};
use crate::support::harness::now_ms;
use crate::support::redis_server::RedisServer;

const COMPONENT: &str = "wxc";
const REFRESH: &str = "sys.wxRefreshToken.wxa";

/// A platform with one account, as services store it in the hash layout.
struct Platform {
    redis: RedisServer,
}

impl Platform {
    fn start() -> Self {
        let redis = RedisServer::start();
        let (now, far) = (now_ms(), now_ms() + 315_360_000_000);
        let mut connection = redis.connection();
        let accounts = format!("wechat:{COMPONENT}:platform:accounts");
        let () = connection
            .hset(accounts, "wxa", format!("authorized#{now}"))
            .unwrap();
        let ticket = format!("wechat:{COMPONENT}:platform:ticket");
        for (key, secret) in [
            (ticket.as_str(), "ticket@@@one"),
            (REFRESH, "refreshtoken@@@one"),
        ] {
            let () = connection
                .set(key, format!("{secret}#{far}#{now}"))
                .unwrap();
        }
        let (users, later) = (["Access", "Refresh"], now + 5_000_000);
        for kind in users {
            let hash = format!("user.wxUser{kind}Token.wxa");
            let () = connection
                .hset(hash, "oUser", format!("{kind}#{later}"))
                .unwrap();
        }
        Self { redis }
    }

    async fn run(&self, arguments: &[&str], variables: &[(&str, &str)]) -> Ran {
        let url = self.redis.url();
        let mut all = vec![("REDIS_URL", url.as_str())];
        all.extend(variables);
        run(arguments, &all).await
    }

    fn get(&self, key: &str) -> Option<String> {
        self.redis.connection().get(key).unwrap()
    }

    /// Returns the ids of the sealing keys that are in use.
    fn marks(&self) -> Vec<String> {
        self.redis.connection().hkeys("wechat:sealing").unwrap()
    }
}

/// Returns the id of the key with which a value is sealed.
fn seal(value: &str) -> &str {
    let id = value.strip_prefix("#0#s1#").expect("a sealed value");
    id.split('#').next().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn reseal_of_a_platform_covers_its_accounts() {
    for variable in ["WECHAT_APPID", "PLATFORM_APPID"] {
        let platform = Platform::start();
        let [a, b] = [b'a', b'b'].map(|letter| STANDARD.encode([letter; 32]));
        let both = format!("{b},{a}");
        let app = (variable, COMPONENT);
        let reseal = ["reseal", "--json"];
        let begun = platform.run(&reseal, &[app, ("SEALING_KEY", &a)]).await;
        assert_eq!(begun.result()["written"], 2, "{}", begun.stdout);
        let first = platform.get(REFRESH).unwrap();
        let first = seal(&first);
        let moved = platform.run(&reseal, &[app, ("SEALING_KEY", &both)]).await;
        assert_eq!(moved.result()["written"], 2, "{}", moved.stdout);
        let second = platform.get(REFRESH).unwrap();
        assert_ne!(seal(&second), first);
        assert_eq!(platform.marks(), [seal(&second)]);
        let last = platform.run(&reseal, &[app, ("SEALING_KEY", &b)]).await;
        assert_eq!(last.result()["same"], 2, "{}", last.stdout);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reseal_of_one_account_needs_its_platform() {
    let platform = Platform::start();
    let [a, b] = [b'a', b'b'].map(|letter| STANDARD.encode([letter; 32]));
    let both = format!("{b},{a}");
    let (account, component) = (("WECHAT_APPID", "wxa"), ("PLATFORM_APPID", COMPONENT));
    let keep = ["reseal", "--json", "--keep-marks"];
    let variables = [account, component, ("SEALING_KEY", &*a)];
    let begun = platform.run(&keep, &variables).await;
    // The refresh token and the user.
    assert_eq!(begun.result()["written"], 2, "{}", begun.stdout);
    let marks = platform.marks();
    let alone = platform
        .run(&["reseal"], &[account, ("SEALING_KEY", &both)])
        .await;
    assert_eq!(alone.code, 1, "{}", alone.stdout);
    assert_eq!(alone.stderr.lines().count(), 1, "{}", alone.stderr);
    assert!(alone.stderr.contains("PLATFORM_APPID"), "{}", alone.stderr);
    for mark in marks {
        assert!(platform.marks().contains(&mark), "{mark} is in use");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn migrate_copies_the_refresh_token_of_the_only_account() {
    for variable in ["WECHAT_APPID", "PLATFORM_APPID"] {
        let platform = Platform::start();
        let app = [(variable, COMPONENT)];
        let target = "wechat:wxa:account:refresh_token";
        let arguments = ["migrate", "--to", "keys", "--json"];
        let copied = platform.run(&arguments, &app).await.result();
        assert_eq!(copied["written"], 1, "{copied}");
        let copy = platform.get(target).unwrap();
        assert!(copy.starts_with("refreshtoken@@@one#"), "{copy}");
        let () = platform.redis.connection().del(REFRESH).unwrap();
        let back = platform
            .run(&["migrate", "--to", "hashes", "--json"], &app)
            .await;
        assert_eq!(back.result()["written"], 1, "{}", back.stdout);
        assert!(platform.get(REFRESH).is_some());
        let alone = platform.run(&arguments, &[("WECHAT_APPID", "wxa")]).await;
        assert_eq!(alone.code, 1, "{}", alone.stdout);
        assert!(alone.stderr.contains("PLATFORM_APPID"), "{}", alone.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_platform_is_named() {
    let platform = Platform::start();
    for (app, code) in [(COMPONENT, 0), ("wxtypo", 1)] {
        let ran = platform
            .run(&["accounts"], &[("PLATFORM_APPID", app)])
            .await;
        assert_eq!(ran.code, code, "{}", ran.stderr);
        assert_eq!(ran.stdout.is_empty(), code == 1, "{}", ran.stdout);
        assert_eq!(ran.stderr.contains("wxtypo"), code == 1, "{}", ran.stderr);
    }
    for arguments in [&["accounts"][..], &["import", "--from", "wxjava"]] {
        let ran = platform.run(arguments, &[]).await;
        assert_eq!(ran.code, 2, "{}", ran.stderr);
        assert!(ran.stderr.contains("which platform?"), "{}", ran.stderr);
    }
}
