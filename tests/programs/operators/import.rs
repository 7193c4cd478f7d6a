//! Tests of `import` and `accounts`: a third-party platform moves from WxJava or wechatpy to this
//! crate.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use redis::{Commands, Connection};
use serde_json::{Value, json};
use tower_wechat::credential::AppId;
use tower_wechat::platform::Platform;
use tower_wechat::redis::{Layout as StoreLayout, RedisNames};
use tower_wechat::{ErrorKind, RedisStore};

use super::program::{Ran, command, run};
use crate::support::harness::{Layout, now_ms};
use crate::support::redis_server::RedisServer;
use crate::support::wx_java::{COMPONENT, Java, SHOP};

const IMPORT: [&str; 4] = ["import", "--from", "wxjava", "--json"];

/// A platform as WxJava keeps it: raw strings, with a TTL for all values but refresh tokens.
struct WxJava {
    redis: Connection,
    prefix: &'static str,
}

impl WxJava {
    fn on(redis: &RedisServer) -> Self {
        Self {
            redis: redis.connection(),
            prefix: "wx:open:",
        }
    }

    fn set(&mut self, name: &str, value: impl AsRef<[u8]>, ttl_secs: u64) {
        let key = format!("{}{name}", self.prefix);
        let () = match ttl_secs {
            0 => self.redis.set(key, value.as_ref()).unwrap(),
            ttl => self.redis.set_ex(key, value.as_ref(), ttl).unwrap(),
        };
    }

    fn set_ticket(&mut self, ticket: &str, ttl_secs: u64) {
        let name = format!("wechat_component_verify_ticket:{COMPONENT}");
        self.set(&name, ticket, ttl_secs);
    }

    fn set_component_token(&mut self, token: &str, ttl_secs: u64) {
        let name = format!("wechat_component_access_token:{COMPONENT}");
        self.set(&name, token, ttl_secs);
    }

    fn set_refresh_token(&mut self, account: &str, token: impl AsRef<[u8]>) {
        let name = format!("wechat_authorizer_refresh_token:{COMPONENT}:{account}");
        self.set(&name, token, 0);
    }

    fn set_access_token(&mut self, account: &str, token: &str, ttl_secs: u64) {
        let name = format!("wechat_authorizer_access_token:{COMPONENT}:{account}");
        self.set(&name, token, ttl_secs);
    }

    /// Writes a platform with a ticket, a component token and three accounts. The access token of
    /// the second account has expired, and the one of the third is about to.
    fn fill(&mut self) {
        self.set_ticket("ticket@@@hidden-one", 43_000);
        self.set_component_token("component-hidden", 5_000);
        for account in ["wxa1", "wxa2", "wxa3"] {
            let token = format!("refreshtoken@@@hidden-{account}");
            self.set_refresh_token(account, token);
        }
        self.set_access_token("wxa1", "access-hidden-wxa1", 6_000);
        self.set_access_token("wxa3", "access-hidden-wxa3", 2);
    }
}

/// Runs the program on `redis` with the layout, and checks that the output has no secret.
async fn on(redis: &RedisServer, layout: Layout, arguments: &[&str], more: &[(&str, &str)]) -> Ran {
    let url = redis.url();
    let mut variables = vec![
        ("REDIS_URL", url.as_str()),
        ("REDIS_LAYOUT", layout.name()),
        ("PLATFORM_APPID", COMPONENT),
    ];
    variables.extend(more);
    let ran = run(arguments, &variables).await;
    for text in [&ran.stdout, &ran.stderr] {
        assert!(!text.contains("hidden"), "{text}");
    }
    ran
}

/// Returns all keys with their types and values.
fn dump(redis: &RedisServer) -> BTreeMap<String, String> {
    let mut redis = redis.connection();
    let keys: Vec<String> = redis.keys("*").unwrap();
    let mut all = BTreeMap::new();
    for key in keys {
        let kind: String = redis::cmd("TYPE").arg(&key).query(&mut redis).unwrap();
        let value = match kind.as_str() {
            "string" => {
                let bytes: Vec<u8> = redis.get(&key).unwrap();
                String::from_utf8_lossy(&bytes).into_owned()
            }
            "hash" => {
                let fields: BTreeMap<String, String> = redis.hgetall(&key).unwrap();
                format!("{fields:?}")
            }
            kind => panic!("{key} is a {kind}"),
        };
        all.insert(key, value);
    }
    all
}

fn account_key(layout: Layout, account: &str, name: &str) -> String {
    match (layout, name) {
        (Layout::Hashes, "refresh_token") => format!("sys.wxRefreshToken.{account}"),
        (Layout::Hashes, _) => format!("sys.wxAccessToken.{account}"),
        (Layout::Keys, name) => format!("wechat:{account}:account:{name}"),
    }
}

/// Returns the parts of a stored value between its `#`.
fn parts(redis: &RedisServer, key: &str) -> Vec<String> {
    let value: Option<String> = redis.connection().get(key).unwrap();
    let value = value.unwrap_or_else(|| panic!("nothing under {key}"));
    value.split('#').map(str::to_owned).collect()
}

fn counts(result: &Value) -> [u64; 7] {
    [
        "accounts",
        "seen",
        "written",
        "same",
        "newer",
        "dead",
        "unreadable",
    ]
    .map(|name| {
        result[name]
            .as_u64()
            .unwrap_or_else(|| panic!("{name}: {result}"))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_of_wx_java_is_copied_once() {
    for layout in Layout::BOTH {
        let redis = RedisServer::start();
        let mut java = WxJava::on(&redis);
        java.fill();
        let before = dump(&redis);

        let dry = [&IMPORT[..], &["--dry-run"]].concat();
        let would = on(&redis, layout, &dry, &[]).await.result();
        assert_eq!(counts(&would), [3, 7, 6, 0, 0, 1, 0], "{would}");
        assert_eq!(would["dry_run"], true);
        assert_eq!(dump(&redis), before, "a dry run writes nothing");

        let started = now_ms();
        let copied = on(&redis, layout, &IMPORT, &[]).await.result();
        assert_eq!(counts(&copied), [3, 7, 6, 0, 0, 1, 0], "{copied}");
        let ticket = parts(&redis, &format!("wechat:{COMPONENT}:platform:ticket"));
        assert_eq!(ticket[0], "ticket@@@hidden-one");
        // WxJava has stored the ticket 200 seconds ago, by its TTL.
        let since: i64 = ticket[2].parse().unwrap();
        assert!(
            (started - 203_000..started - 190_000).contains(&since),
            "{since}"
        );
        let token = parts(&redis, &format!("wechat:{COMPONENT}:platform:access_token"));
        assert_eq!(token[0], "component-hidden");
        for account in ["wxa1", "wxa2", "wxa3"] {
            let key = account_key(layout, account, "refresh_token");
            let refresh = parts(&redis, &key);
            assert_eq!(refresh[0], format!("refreshtoken@@@hidden-{account}"));
            assert!(refresh[1].parse::<i64>().unwrap() > started + 9 * 365 * 86_400_000);
            let since: i64 = refresh[2].parse().unwrap();
            assert!(
                (started - 610_000..started - 590_000).contains(&since),
                "older than a push that is under way: {since}"
            );
            assert_eq!(redis.connection().ttl::<_, i64>(&key).unwrap(), -1);
        }
        let access = parts(&redis, &account_key(layout, "wxa1", "access_token"));
        assert_eq!(access[0], "access-hidden-wxa1");
        let renew_at: i64 = access[1].parse().unwrap();
        let expected = started + (6_000 - 2 - 900) * 1_000;
        assert!(
            (expected - 10_000..expected + 10_000).contains(&renew_at),
            "{renew_at}"
        );
        for account in ["wxa2", "wxa3"] {
            let key = account_key(layout, account, "access_token");
            assert!(!redis.connection().exists::<_, bool>(key).unwrap());
        }

        let after = dump(&redis);
        for (key, value) in &before {
            assert!(
                key.contains("wxa3") || after.get(key) == Some(value),
                "{key}"
            );
        }
        let again = on(&redis, layout, &IMPORT, &[]).await.result();
        let [accounts, _, written, same, newer, ..] = counts(&again);
        assert_eq!([accounts, written, same, newer], [3, 0, 6, 0], "{again}");
        assert_eq!(
            without_expired(dump(&redis)),
            without_expired(after),
            "another run changes nothing"
        );
    }
}

/// Removes the token of WxJava that expires during the test.
fn without_expired(mut dump: BTreeMap<String, String>) -> BTreeMap<String, String> {
    dump.retain(|key, _| !key.ends_with(&format!("access_token:{COMPONENT}:wxa3")));
    dump
}

#[tokio::test(flavor = "multi_thread")]
async fn another_redis_is_read_and_not_written() {
    let (source, target) = (RedisServer::start(), RedisServer::start());
    let mut java = WxJava::on(&source);
    java.prefix = "";
    java.fill();
    let before = dump(&source);
    let url = source.url();
    let arguments = [&IMPORT[..], &["--prefix", "", "--source-url", &url]].concat();
    let copied = on(&target, Layout::Keys, &arguments, &[]).await.result();
    assert_eq!(
        (&copied["accounts"], &copied["written"]),
        (&3.into(), &6.into())
    );
    let after = dump(&source);
    assert_eq!(without_expired(after), without_expired(before));
    let key = account_key(Layout::Keys, "wxa1", "access_token");
    assert!(parts(&target, &key).contains(&"access-hidden-wxa1".to_owned()));

    let listed = on(&target, Layout::Keys, &["accounts", "--json"], &[]).await;
    let lines = listed.lines();
    assert_eq!(lines[0]["platform"], COMPONENT);
    assert_eq!(lines[0]["component_token"], "fresh");
    assert_eq!(lines[0]["accounts"], 3);
    assert_eq!(lines.len(), 4, "{}", listed.stdout);
    assert_eq!(lines[1]["account"], "wxa1");
    assert_eq!(lines[1]["state"], "authorized");
    assert_eq!(lines[1]["refresh_token"], true);
    let text = on(&target, Layout::Keys, &["accounts"], &[]).await.stdout;
    assert!(text.contains("wxa1  authorized for "), "{text}");
}

/// Secrets that this crate has received itself are newer than those of WxJava.
#[tokio::test(flavor = "multi_thread")]
async fn newer_secrets_of_this_crate_stay() {
    for layout in Layout::BOTH {
        let redis = RedisServer::start();
        let mut java = WxJava::on(&redis);
        java.fill();
        on(&redis, layout, &IMPORT, &[]).await.result();
        let (now, far) = (now_ms(), now_ms() + 10 * 365 * 86_400_000);
        let mut ours = redis.connection();
        let ticket_key = format!("wechat:{COMPONENT}:platform:ticket");
        let newer_ticket = format!("ticket@@@hidden-two#{far}#{now}");
        let newer_refresh = format!("refreshtoken@@@hidden-new#{far}#{now}");
        let newer_access = format!("access-hidden-new#{}", now + 6_000_000);
        let refresh_key = account_key(layout, "wxa1", "refresh_token");
        let access_key = account_key(layout, "wxa1", "access_token");
        let () = ours.set(&ticket_key, &newer_ticket).unwrap();
        let () = ours.set(&refresh_key, &newer_refresh).unwrap();
        let () = ours.set(&access_key, &newer_access).unwrap();
        // The second account has left the platform. WxJava keeps its tokens.
        let () = ours
            .hset(
                format!("wechat:{COMPONENT}:platform:accounts"),
                "wxa2",
                format!("unauthorized#{now}"),
            )
            .unwrap();
        let () = ours
            .del(account_key(layout, "wxa2", "refresh_token"))
            .unwrap();
        java.set_access_token("wxa2", "access-hidden-wxa2", 6_000);
        // WxJava has another refresh token of the third account. Nothing shows which is newer.
        java.set_refresh_token("wxa3", "refreshtoken@@@hidden-later");

        let again = on(&redis, layout, &IMPORT, &[]).await.result();
        let [_, _, written, _, newer, ..] = counts(&again);
        assert_eq!((written, newer), (0, 6), "{again}");
        assert_eq!(ours.get::<_, String>(&ticket_key).unwrap(), newer_ticket);
        assert_eq!(ours.get::<_, String>(&refresh_key).unwrap(), newer_refresh);
        assert_eq!(ours.get::<_, String>(&access_key).unwrap(), newer_access);
        for name in ["refresh_token", "access_token"] {
            let key = account_key(layout, "wxa2", name);
            assert!(!ours.exists::<_, bool>(key).unwrap(), "{name}");
        }
        let third = parts(&redis, &account_key(layout, "wxa3", "refresh_token"));
        assert_eq!(third[0], "refreshtoken@@@hidden-wxa3");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn copied_secrets_are_sealed() {
    use base64::Engine as _;
    let key = base64::engine::general_purpose::STANDARD.encode([7; 32]);
    let sealing = [("SEALING_KEY", key.as_str())];
    for layout in Layout::BOTH {
        let (source, target) = (RedisServer::start(), RedisServer::start());
        WxJava::on(&source).fill();
        let url = source.url();
        let arguments = [&IMPORT[..], &["--source-url", &url]].concat();
        let copied = on(&target, layout, &arguments, &sealing).await.result();
        assert_eq!(copied["written"], 6, "{copied}");
        let stored = dump(&target);
        for (key, value) in &stored {
            assert!(!value.contains("hidden"), "{key}: {value}");
        }
        let again = on(&target, layout, &arguments, &sealing).await.result();
        assert_eq!((&again["written"], &again["same"]), (&0.into(), &6.into()));
        assert_eq!(dump(&target), stored);
        let listed = on(&target, layout, &["accounts", "--json"], &sealing).await;
        assert_eq!(listed.lines()[1]["refresh_token"], true);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_prefix_or_platform_is_named() {
    let redis = RedisServer::start();
    let mut java = WxJava::on(&redis);
    java.prefix = "wx:";
    java.fill();
    for (arguments, says) in [
        (&IMPORT[..], "run it again with --prefix 'wx'"),
        (
            &["import", "--from", "wxjava", "--component", "wxother"],
            "check the AppID of the platform",
        ),
        (&["import", "--from", "wechatpy"], "nothing of wechatpy"),
        (
            &[
                "import",
                "--from",
                "wxjava",
                "--source-url",
                "redis://127.0.0.1:1/",
            ],
            "--source-url: ",
        ),
        (
            &["import", "--from", "wxjava", "--component", "wx c"],
            "PLATFORM_APPID: ",
        ),
    ] {
        let ran = on(&redis, Layout::Hashes, arguments, &[]).await;
        let code = if says == "PLATFORM_APPID: " { 2 } else { 1 };
        assert_eq!(ran.code, code, "{arguments:?}: {}", ran.stdout);
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
        assert!(ran.stderr.contains(says), "{says:?}: {}", ran.stderr);
    }
    let url = redis.url();
    let without = run(&IMPORT, &[("REDIS_URL", &url)]).await;
    assert!(
        without.stderr.contains("which platform?"),
        "{}",
        without.stderr
    );
    let copied = [&IMPORT[..], &["--prefix", "wx"]].concat();
    assert_eq!(
        on(&redis, Layout::Hashes, &copied, &[]).await.result()["written"],
        6
    );
}

/// Redisson writes its own codec by default. Nothing is guessed from such a value.
#[tokio::test(flavor = "multi_thread")]
async fn values_of_a_codec_are_left_with_a_remedy() {
    let redis = RedisServer::start();
    let mut java = WxJava::on(&redis);
    java.fill();
    java.set_refresh_token("wxa2", b"\x03\x01refreshtoken@@@hidde\xee");
    // A JSON codec writes quotes.
    java.set_refresh_token("wxa3", "\"refreshtoken@@@hidden-wxa3\"");
    let ran = on(&redis, Layout::Keys, &IMPORT, &[]).await;
    assert_eq!(ran.code, 1);
    assert_eq!(
        counts(&ran.lines()[0]),
        [3, 7, 5, 0, 0, 1, 1],
        "{}",
        ran.stdout
    );
    assert!(ran.stderr.contains("StringCodec"), "{}", ran.stderr);
    let third = parts(&redis, &account_key(Layout::Keys, "wxa3", "refresh_token"));
    assert_eq!(third[0], "refreshtoken@@@hidden-wxa3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_platform_of_wechatpy_is_copied() {
    let redis = RedisServer::start();
    let mut python = redis.connection();
    let quoted = |text: &str| format!("\"{text}\"");
    for (key, value, ttl) in [
        (
            format!("{COMPONENT}_component_verify_ticket"),
            "ticket@@@hidden",
            0,
        ),
        (
            format!("{COMPONENT}_component_access_token"),
            "component-hidden",
            7_000,
        ),
        ("wxa1_refresh_token".to_owned(), "refreshtoken@@@hidden", 0),
        ("wxa1_access_token".to_owned(), "access-hidden", 7_000),
        // An account that does not belong to a platform.
        ("wxother_access_token".to_owned(), "other-hidden", 7_000),
    ] {
        let key = format!("wechatpy:{key}");
        let () = match ttl {
            0 => python.set(key, quoted(value)).unwrap(),
            ttl => python.set_ex(key, quoted(value), ttl).unwrap(),
        };
    }
    let import = ["import", "--from", "wechatpy", "--json"];
    let copied = on(&redis, Layout::Keys, &import, &[]).await.result();
    assert_eq!(counts(&copied), [1, 4, 4, 0, 0, 0, 0], "{copied}");
    let refresh = parts(&redis, &account_key(Layout::Keys, "wxa1", "refresh_token"));
    assert_eq!(refresh[0], "refreshtoken@@@hidden");
    let again = on(&redis, Layout::Keys, &import, &[]).await.result();
    assert_eq!(again["written"], 0, "{again}");
}

/// A service renews a token while the import runs. The import waits until the lease is released.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_under_renewal_is_copied_afterwards() {
    for layout in Layout::BOTH {
        let redis = RedisServer::start();
        WxJava::on(&redis).fill();
        let url = redis.url();
        let names = RedisNames::default().with_appid();
        let store_layout = match layout {
            Layout::Hashes => StoreLayout::Hashes,
            Layout::Keys => StoreLayout::Keys,
        };
        let store = RedisStore::builder(&url).layout(store_layout).names(names);
        let _service = store.connect().await.unwrap();
        let record = account_key(layout, "wxa1", "access_token");
        let lease = format!("wechat:wxa1:lease:{{{record}}}");
        let () = redis.connection().pset_ex(&lease, "holder", 1_500).unwrap();
        let started = Instant::now();
        let copied = on(&redis, layout, &IMPORT, &[]).await.result();
        assert_eq!(
            (&copied["written"], &copied["left"]),
            (&6.into(), &0.into()),
            "{copied}"
        );
        assert!(
            started.elapsed() > Duration::from_secs(1),
            "it was waited for"
        );
        assert_eq!(parts(&redis, &record)[0], "access-hidden-wxa1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_accounts_are_copied_with_progress() {
    let (source, target) = (RedisServer::start(), RedisServer::start());
    let mut java = WxJava::on(&source);
    java.set_ticket("ticket@@@hidden", 2_147_483_000);
    let mut fill = redis::pipe();
    for number in 0..5_000 {
        let key = format!("wx:open:wechat_authorizer_refresh_token:{COMPONENT}:wxa{number}");
        fill.set(key, format!("refreshtoken@@@hidden{number}"))
            .ignore();
        let key = format!("wx:open:wechat_authorizer_access_token:{COMPONENT}:wxa{number}");
        fill.set_ex(key, format!("access-hidden{number}"), 6_000)
            .ignore();
    }
    let () = fill.query(&mut java.redis).unwrap();
    let url = source.url();
    let arguments = [&IMPORT[..], &["--source-url", &url, "--pause-ms", "60"]].concat();
    let ran = on(&target, Layout::Keys, &arguments, &[]).await;
    assert_eq!(
        counts(&ran.result())[..3],
        [5_000, 10_001, 10_001],
        "{}",
        ran.stdout
    );
    let progress: Vec<&str> = ran.stderr.lines().collect();
    assert!(!progress.is_empty(), "a line each second");
    assert!(
        progress.iter().all(|line| line.contains(" looked at, ")),
        "{progress:?}"
    );
    assert!(
        source.calls("scan") > 20 && source.calls("keys") == 0,
        "in small steps"
    );
    let again = on(&target, Layout::Keys, &arguments, &[]).await.result();
    assert_eq!(counts(&again)[..4], [5_000, 10_001, 0, 10_001], "{again}");
    let listed = on(&target, Layout::Keys, &["accounts", "--json"], &[]).await;
    assert_eq!(listed.lines().len(), 5_001);
    assert_eq!(listed.lines()[0]["accounts"], json!(5_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_import_is_completed_by_another_run() {
    let (source, target) = (RedisServer::start(), RedisServer::start());
    let mut java = WxJava::on(&source);
    for number in 0..1_000 {
        java.set_refresh_token(
            &format!("wxa{number}"),
            format!("refreshtoken@@@hidden{number}"),
        );
    }
    let (from, to) = (source.url(), target.url());
    let arguments = [&IMPORT[..], &["--source-url", &from, "--pause-ms", "200"]].concat();
    let variables = [
        ("REDIS_URL", &*to),
        ("REDIS_LAYOUT", "keys"),
        ("PLATFORM_APPID", COMPONENT),
    ];
    let mut killed = command(&arguments, &variables).spawn().unwrap();
    let mut redis = target.connection();
    let give_up = Instant::now() + Duration::from_secs(20);
    while redis::cmd("DBSIZE").query::<u64>(&mut redis).unwrap() < 50 {
        assert!(Instant::now() < give_up);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    let copied = on(&target, Layout::Keys, &arguments[..6], &[])
        .await
        .result();
    let [accounts, _, written, same, ..] = counts(&copied);
    assert_eq!((accounts, written + same), (1_000, 1_000), "{copied}");
    assert!(written > 0 && same > 0, "{copied}");
    let listed = on(&target, Layout::Keys, &["accounts", "--json"], &[]).await;
    assert_eq!(listed.lines()[0]["accounts"], json!(1_000));
}

/// A platform of this crate runs while the import takes over the platform of WxJava. It serves the
/// imported accounts at once, with the tokens of WxJava.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_platform_serves_the_imported_accounts() {
    let java = Java::start().await;
    java.authorize("wxa000000000000002").await;
    java.forget_calls();
    let target = RedisServer::start();
    let url = target.url();
    let names = RedisNames::default().with_appid();
    let store = RedisStore::builder(&url)
        .names(names)
        .connect()
        .await
        .unwrap();
    let component = java.platform.client().unwrap();
    let platform = Platform::builder(component, store).build().unwrap();
    let starting = platform.app_ids().await.unwrap_err();
    assert_eq!(starting.kind(), ErrorKind::PlatformStarting, "{starting}");

    let from = java.redis.url();
    let arguments = [&IMPORT[..], &["--source-url", &from]].concat();
    let copied = on(&target, Layout::Hashes, &arguments, &[]).await.result();
    // The platform calls WeChat only after it has a component token, which follows the accounts.
    assert_eq!(counts(&copied)[..5], [2, 6, 6, 0, 0], "{copied}");
    platform.prefetch().await.unwrap();
    for account in [SHOP, "wxa000000000000002"] {
        let app = AppId::new(account).unwrap();
        let token = platform.account_tokens(&app).get().await.unwrap();
        let current = java.platform.authorizer_token(account).unwrap();
        assert_eq!(token.access_token().expose(), current, "{account}");
    }
    let calls = java.wechat.calls();
    for fetched in ["api_component_token", "api_authorizer_token"] {
        let path = format!("/cgi-bin/component/{fetched}");
        assert_eq!(calls.get(&path), None, "{calls:?}");
    }
    // When the copied token expires, the copied refresh token renews it.
    java.wechat.advance(Duration::from_secs(7_200));
    let app = AppId::new(SHOP).unwrap();
    let tokens = platform.account_tokens(&app);
    let old = tokens.get().await.unwrap();
    let next = tokens.report_invalid(old.access_token()).await.unwrap();
    assert_ne!(next.access_token().expose(), old.access_token().expose());
    let current = java.platform.authorizer_token(SHOP).unwrap();
    assert_eq!(next.access_token().expose(), current);
}
