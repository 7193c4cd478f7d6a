//! Tests of a wrong set-up: the demo prints one sentence and exits with 1, and the library returns
//! an error. Neither hangs or shows a secret. Correct URLs of Redis work.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use tower_wechat::{ErrorKind, RedisStore};

use crate::support::demo_process::{DemoProcess, USER_HEADER};
use crate::support::free_port;
use crate::support::harness::{Age, Harness, Layout, variables};
use crate::support::http_client::Asked;
use crate::support::redis_server::RedisServer;

/// Maximum time for a wrong set-up to be reported, 10 s. A connection attempt takes 3 s; the rest
/// is for slow machines.
const SOON: Duration = Duration::from_secs(10);

pub(super) const PASSWORD: &str = "s3cret-of-redis";

/// Part of the command that the demo shows for a new key.
const OPENSSL: &str = "openssl rand -base64 64";

/// Checks that the demo exits with one sentence that contains all of `says` and no secret.
pub(super) async fn gives_up(pairs: &[(&str, &str)], says: &[&str]) {
    let ended = DemoProcess::start_in_vain(&variables(pairs)).await;
    let said = &ended.stderr;
    assert_eq!(ended.status.code(), Some(1), "{pairs:?}: {said}");
    assert!(ended.took < SOON, "{pairs:?}: {:?}", ended.took);
    assert_eq!(ended.stdout, "", "{pairs:?}");
    assert_eq!(
        said.lines().count(),
        1,
        "one sentence for {pairs:?}: {said}"
    );
    assert!(said.starts_with("demo: "), "{pairs:?}: {said}");
    for word in says {
        assert!(said.contains(word), "{word:?} for {pairs:?}: {said}");
    }
    assert!(!said.contains(PASSWORD), "{said}");
}

/// Checks that the library returns an error for this URL, and that the demo exits.
async fn redis_fails(url: &str, kind: ErrorKind, says: &[&str]) {
    let started = Instant::now();
    let error = RedisStore::connect(url).await.expect_err(url);
    assert!(started.elapsed() < SOON, "{url}: {:?}", started.elapsed());
    assert_eq!(error.kind(), kind, "{url}: {error}");
    let texts = [error.to_string(), format!("{error:?}")];
    assert!(
        !texts.iter().any(|text| text.contains(PASSWORD)),
        "{texts:?}"
    );
    gives_up(&[("REDIS_URL", url)], says).await;
}

#[tokio::test]
async fn invalid_urls_fail_the_start() {
    for url in [
        "nonsense",
        "127.0.0.1:6379",
        "http://127.0.0.1:6379/",
        "redis://",
        "redis://:s3cret-of-redis@/0",
        "redis://:s3cret-of-redis@127.0.0.1:port/0",
        "redis://:s3cret-of-redis@127.0.0.1:6379/first",
    ] {
        redis_fails(url, ErrorKind::Configuration, &["Redis"]).await;
    }
}

#[tokio::test]
async fn a_redis_that_is_not_there() {
    let port = free_port().to_string();
    let url = format!("redis://:{PASSWORD}@127.0.0.1:{port}/");
    redis_fails(&url, ErrorKind::StoreUnavailable, &["Redis", &port]).await;
    let url = format!("redis://:{PASSWORD}@no-such-host.invalid/");
    redis_fails(&url, ErrorKind::StoreUnavailable, &["no-such-host.invalid"]).await;
}

/// The server accepts connections and sends nothing.
#[tokio::test]
async fn a_redis_that_does_not_answer() {
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = mute.local_addr().unwrap().to_string();
    for scheme in ["redis", "rediss"] {
        let url = format!("{scheme}://:{PASSWORD}@{address}/");
        redis_fails(&url, ErrorKind::StoreUnavailable, &["Redis", &address]).await;
    }
}

/// The server is not a Redis and responds in HTTP.
#[tokio::test]
async fn a_redis_that_is_a_web_server() {
    let harness = Harness::new(Layout::Hashes).await;
    let address = harness
        .wechat
        .url()
        .trim_start_matches("http://")
        .to_owned();
    let url = format!("redis://{address}/");
    let started = Instant::now();
    assert!(RedisStore::connect(&url).await.is_err());
    assert!(started.elapsed() < SOON);
    gives_up(&[("REDIS_URL", &url)], &["Redis", &address]).await;
}

#[tokio::test]
async fn a_wrong_password() {
    let redis = RedisServer::with_options(&["--requirepass", "the right one"]);
    let at = format!("127.0.0.1:{}", redis.port());
    for user in [
        format!(":{PASSWORD}@"),
        format!("unknown:{PASSWORD}@"),
        String::new(),
    ] {
        let url = format!("redis://{user}{at}/");
        redis_fails(&url, ErrorKind::Configuration, &["Redis", &at, "password"]).await;
    }
}

#[tokio::test]
async fn a_database_that_is_not_there() {
    let redis = RedisServer::start();
    let url = format!("{}99", redis.url());
    redis_fails(&url, ErrorKind::Configuration, &["Redis", "DB index"]).await;
}

#[tokio::test]
async fn invalid_variables_fail_the_start() {
    for (pair, says) in [
        (("REDIS_LAYOUT", "tables"), "hashes nor keys"),
        (("RENEW_MARGIN_SECS", "soon"), "seconds, such as 900"),
        (("RENEW_MARGIN_SECS", "-1"), "seconds, such as 900"),
        (("CACHE_TTL_SECS", "1.5"), "seconds, such as 60"),
        (("COOKIE_KEY", "s3cret-of-redis, no base64"), OPENSSL),
        (("COOKIE_KEY", "dG9vIHNob3J0"), OPENSSL),
        (("PUBLIC_URL", "h5.example.com"), "https://h5.example.com"),
        (("WECHAT_SCOPE", "base"), "snsapi_userinfo nor snsapi_base"),
        (("TRUSTED_USER_HEADER", "x user id"), "use letters"),
        (("CENTER_TOKEN", ","), "set a long random one"),
        (("LISTEN", "nowhere"), "looks like 127.0.0.1:3000"),
        (("LISTEN", "192.0.2.1:0"), "0.0.0.0 stands for all"),
        (("WECHAT_SECRET", PASSWORD), "WECHAT_APPID"),
        (("WECHAT_APPID", "wx0123456789abcdef"), "WECHAT_SECRET"),
        (("SEALING_MODE", "seal"), "without SEALING_KEY"),
        (("SIMULATOR_CONSENT", "yes"), "ask"),
        (("REDIS_LAYOUT", "KEYS"), "hashes nor keys"),
        (("RENEW_MARGIN_SECS", "18446744073709551615"), "30 days"),
        (("CACHE_TTL_SECS", "60000000"), "30 days"),
        (("PUBLIC_URL", "https://h5.exa\nmple.com"), "line break"),
        (("PUBLIC_URL", "https://例 子.example"), "https://例子.com"),
        (("PUBLIC_URL", "https：//例子.example"), "must begin with"),
        (("PUBLIC_URL", "https://*.example.com"), "no host and port"),
        (
            ("PUBLIC_URL", "https://h5.example.com:"),
            "no host and port",
        ),
        (
            ("PUBLIC_URL", "https://h5.example.com:99999"),
            "no host and port",
        ),
        (("PUBLIC_URL", "https://用户@例子.example"), "and no user"),
        (("PUBLIC_URL", "https://h5.example.com/app?x"), "its \"?\""),
        (("PUBLIC_URL", "https://例子.example/a?b"), "its \"?\""),
        (("PUBLIC_URL", "https://例子.example/#/a"), "its \"#\""),
        (("PUBLIC_URL", "https://h5.example.com/a b"), "holds ' '"),
        (("PUBLIC_URL", "https://h5.example.com/%zz"), "holds '%'"),
        (("PUBLIC_URL", "https://例子.example/茶"), "holds '茶'"),
        (("PUBLIC_URL", "https://例子.example/a\\b"), "holds '\\\\'"),
        (("PUBLIC_URL", "https://例子.example/../b"), "one of dots"),
        (("PUBLIC_URL", "https://h5.example.com//a"), "empty segment"),
        (
            ("PUBLIC_URL", "https://h5.example.com/wechat/callback"),
            "leave /wechat/callback out",
        ),
        (("TRUSTED_USER_HEADER", "x-user\n-id"), "line break"),
        (("SESSION_NAME", "my session"), "is no name of a cookie"),
        (("WECHAT_SCOPE", "SNSAPI_BASE"), "snsapi_userinfo nor"),
        (("RETURN_ORIGINS", "*"), "must begin with https://"),
        (
            ("RETURN_ORIGINS", "https://a.b,"),
            "must begin with https://",
        ),
        (
            ("RETURN_ORIGINS", "https://a.b, c.d"),
            "origin \"c.d\" must begin",
        ),
        (("RETURN_ORIGINS", "https://*.a.b"), "no host and port"),
        (
            ("RETURN_ORIGINS", "https://A.b:443/"),
            "write it as \"https://a.b\"",
        ),
        (
            ("RETURN_ORIGINS", "https://a.b/茶"),
            "end after its host and port",
        ),
        (
            ("RETURN_ORIGINS", "https://s3cret-of-redis@a.b"),
            "and no user",
        ),
        (("RETURN_ORIGINS", "https://例 子.com"), "is no host"),
    ] {
        gives_up(&[pair], &[pair.0, says]).await;
    }
    let pairs = [
        ("PUBLIC_URL", "https://api.example.com"),
        ("RETURN_ORIGINS", "http://www.example.com"),
    ];
    gives_up(&pairs, &["RETURN_ORIGINS", "must begin with https://"]).await;
    gives_up(&[("WECHAT_API_URL", "ftp://127.0.0.1")], &["ftp", "http"]).await;
    let account = [("WECHAT_APPID", "wx 1"), ("WECHAT_SECRET", PASSWORD)];
    gives_up(&account, &["app id"]).await;
}

/// The demo ignores blanks and line breaks around a value, which files and dashboards may add.
#[tokio::test]
async fn blanks_around_a_value_are_ignored() {
    let redis = RedisServer::start();
    let wechat = tower_wechat::simulator::Simulator::start().await.unwrap();
    let padded = |text: &str| format!(" {text}\r\n");
    let key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3\n\
               ODkwMTIzNDU2Nzg5MDEyMw==";
    let sealing = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
    let pairs = [
        ("LISTEN", "127.0.0.1:0"),
        ("PUBLIC_URL", "https://h5.example.com"),
        (
            "RETURN_ORIGINS",
            "https://www.example.com , https://m.example.com",
        ),
        ("REDIS_URL", &redis.url()),
        ("REDIS_LAYOUT", "keys"),
        ("SEALING_KEY", sealing),
        ("SEALING_MODE", "open"),
        ("WECHAT_APPID", wechat.app_id()),
        ("WECHAT_SECRET", wechat.app_secret()),
        ("WECHAT_API_URL", wechat.url()),
        ("WECHAT_OPEN_URL", wechat.url()),
        ("WECHAT_SCOPE", "snsapi_base"),
        ("COOKIE_KEY", key),
        ("TRUSTED_USER_HEADER", USER_HEADER),
        ("RENEW_MARGIN_SECS", "900"),
        ("CACHE_TTL_SECS", "60"),
        ("CENTER_TOKEN", "a-long-random-secret"),
        ("SIMULATOR_CONSENT", "ask"),
    ];
    let padded: Vec<_> = pairs
        .map(|(name, value)| (name.to_owned(), padded(value)))
        .into();
    let demo = DemoProcess::start(&padded).await;
    demo.me("oUnknown").await.is_rejected(401, "login_required");
    let page = demo
        .ask(Asked::get("/").header("accept", "text/html"))
        .await;
    let location = page.header("location");
    assert!(location.starts_with(wechat.url()), "{page:?}");
    assert!(
        location.contains("redirect_uri=https%3A%2F%2Fh5.example.com%2Fwechat%2Fcallback&"),
        "{page:?}"
    );
    assert!(location.contains("&scope=snsapi_base&"), "{page:?}");
    let bearer = "Bearer a-long-random-secret";
    let asked = Asked::get("/center/access_token").header("authorization", bearer);
    assert_eq!(demo.ask(asked).await.status, 200);

    // The demo treats a variable of blanks alone as unset.
    let blank = pairs.map(|(name, _)| (name, " \n"));
    let blank = blank.iter().filter(|(name, _)| *name != "LISTEN");
    let blank: Vec<_> = blank.copied().collect();
    let demo = DemoProcess::start(&variables(&blank)).await;
    assert_eq!(demo.ask(Asked::get("/healthz")).await.status, 200);
    demo.says(1, &["WARN", "COOKIE_KEY is not set"]).await;
}

/// Browsers convert a host in Chinese to ASCII, so the demo sends that form to WeChat.
#[tokio::test]
async fn a_chinese_host_is_converted_as_in_browsers() {
    for (url, origin) in [
        ("https://例子.example\n", "https://xn--fsqu00a.example"),
        (
            "https://例子。example:8443/",
            "https://xn--fsqu00a.example:8443",
        ),
        ("HTTPS://H5.Example.com:443", "https://h5.example.com"),
    ] {
        let demo = DemoProcess::start(&variables(&[("PUBLIC_URL", url)])).await;
        let page = demo
            .ask(Asked::get("/").header("accept", "text/html"))
            .await;
        let callback = format!("{origin}/wechat/callback").replace(':', "%3A");
        let callback = format!("redirect_uri={}&", callback.replace('/', "%2F"));
        assert!(page.header("location").contains(&callback), "{page:?}");
        let page = origin.replace(':', "%3A").replace('/', "%2F");
        let signed = demo
            .ask(Asked::get(&format!("/api/jssdk?url={page}%2F")))
            .await;
        assert_eq!(signed.status, 200, "{signed:?}");
    }
}

/// A script of a listed origin reads responses of the demo, and its login leads back to that
/// origin. Without a list the demo answers no CORS request.
#[tokio::test]
async fn listed_origins_may_call_the_demo() {
    let list = "HTTPS://例子.example:443, http://localhost:5173";
    let demo = DemoProcess::start(&variables(&[("RETURN_ORIGINS", list)])).await;
    for (origin, allowed) in [
        ("https://xn--fsqu00a.example", true),
        ("http://localhost:5173", true),
        ("http://localhost:5174", false),
    ] {
        let preflight = Asked::options("/logout")
            .header("origin", origin)
            .header("access-control-request-method", "POST");
        let script = Asked::get("/api/me").header("origin", origin);
        let (preflight, reply) = (demo.ask(preflight).await, demo.ask(script).await);
        assert_eq!(preflight.status, 200, "{preflight:?}");
        for reply in [&preflight, &reply] {
            let named = reply.headers.get("access-control-allow-origin");
            assert_eq!(
                named.is_some_and(|named| named == origin),
                allowed,
                "{reply:?}"
            );
        }
        reply.is_rejected(401, "login_required");
        let front = format!("{}/wechat/login?return_to=", demo.url);
        assert_eq!(
            reply.field("login_url").starts_with(&front),
            allowed,
            "{reply:?}"
        );
        let exposed = reply.headers.get("access-control-expose-headers");
        assert_eq!(exposed.unwrap(), "retry-after", "{reply:?}");
        // A front end needs signatures of its own pages.
        let page = url::form_urlencoded::byte_serialize(origin.as_bytes()).collect::<String>();
        let signed = demo.ask(Asked::get(&format!("/api/jssdk?url={page}%2Fcart")));
        let status = if allowed { 200 } else { 400 };
        assert_eq!(signed.await.status, status, "{origin}");
    }
    // Responses that no handler makes have the headers too, and caches tell them apart by origin.
    for asked in [
        Asked::get("/nowhere"),
        Asked::get("/logout"),
        Asked::get("/wechat/callback?code=1&state=2"),
        Asked::get("/wechat/nowhere"),
        Asked::get("/healthz"),
    ] {
        let reply = demo
            .ask(asked.header("origin", "http://localhost:5173"))
            .await;
        let named = reply.headers.get("access-control-allow-origin");
        assert_eq!(named.unwrap(), "http://localhost:5173", "{reply:?}");
        let vary = reply.headers.get_all("vary").iter();
        let vary = vary
            .map(|value| value.to_str().unwrap())
            .collect::<Vec<_>>();
        assert!(vary.join(",").contains("origin"), "{reply:?}");
    }
    let demo = DemoProcess::start(&variables(&[])).await;
    let reply = demo
        .ask(Asked::get("/api/me").header("origin", "http://localhost:5173"))
        .await;
    assert!(
        !reply.headers.contains_key("access-control-allow-origin"),
        "{reply:?}"
    );
    assert!(
        !reply
            .headers
            .contains_key("access-control-allow-credentials"),
        "{reply:?}"
    );
}

/// Without `PUBLIC_URL`, a demo on all addresses of the machine logs a warning, because a browser
/// cannot open such an address.
#[tokio::test]
async fn a_missing_public_url_is_warned_of() {
    let warning = ["WARN", "PUBLIC_URL is not set", "set it to the address"];
    for listen in ["0.0.0.0:0", "[::]:0"] {
        let mut pairs = vec![("LISTEN", listen)];
        let demo = DemoProcess::start(&variables(&pairs)).await;
        demo.says(1, &warning).await;
        pairs.push(("PUBLIC_URL", "https://h5.example.com"));
        let demo = DemoProcess::start(&variables(&pairs)).await;
        demo.says(0, &warning).await;
    }
}

/// A demo with a real account and without Redis logs a warning, because its tokens are lost at its
/// end.
#[tokio::test]
async fn a_store_in_memory_is_logged() {
    let wechat = tower_wechat::simulator::Simulator::start().await.unwrap();
    let demo = DemoProcess::start(&variables(&[
        ("WECHAT_APPID", wechat.app_id()),
        ("WECHAT_SECRET", wechat.app_secret()),
        ("WECHAT_API_URL", wechat.url()),
    ]))
    .await;
    demo.says(1, &["WARN", "REDIS_URL is not set"]).await;
}

#[tokio::test]
async fn an_address_that_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let says = ["LISTEN", &address, "another program has it"];
    gives_up(&[("LISTEN", &address)], &says).await;
}

/// A set-up that works and is not safe, or that WeChat will reject, is logged.
#[tokio::test]
async fn weak_secrets_and_ip_addresses_are_warned_of() {
    let wechat = tower_wechat::simulator::Simulator::start().await.unwrap();
    let demo = DemoProcess::start(&variables(&[
        ("CENTER_TOKEN", "a-long-random-secret,short"),
        ("WECHAT_APPID", wechat.app_id()),
        ("WECHAT_SECRET", wechat.app_secret()),
        ("WECHAT_API_URL", wechat.url()),
        ("PUBLIC_URL", "http://h5.example.com"),
    ]))
    .await;
    demo.says(1, &["WARN", "CENTER_TOKEN", "openssl rand"])
        .await;
    demo.says(1, &["WARN", "PUBLIC_URL", "https"]).await;
    let callback = "http://h5.example.com/wechat/callback";
    demo.says(1, &["INFO", callback, "10003", "网页授权域名"])
        .await;
}

/// Connects as an ACL user whose password has special characters, to a database with a number.
#[tokio::test]
async fn an_acl_user_and_a_database_of_the_url() {
    let options = [
        "--requirepass",
        "another",
        "--user",
        "app",
        "on",
        ">p@ss/w:rd%",
        "~*",
        "&*",
    ];
    let redis = RedisServer::with_options(&[&options[..], &["+@all", "-@admin"]].concat());
    let url = format!(
        "redis://app:p%40ss%2Fw%3Ard%25@127.0.0.1:{}/3",
        redis.port()
    );
    for layout in Layout::BOTH {
        let wechat = tower_wechat::simulator::Simulator::start().await.unwrap();
        let now = crate::support::harness::now_ms();
        let (fresh, expires) = (now + 3_600_000, now + 4_500_000);
        let mut inside = redis::Client::open(url.as_str())
            .unwrap()
            .get_connection()
            .unwrap();
        let () = match layout {
            Layout::Hashes => redis::cmd("HSET")
                .arg("user.wxUserAccessToken")
                .arg(&["oUser", &format!("token-in-3#{fresh}")])
                .query(&mut inside)
                .unwrap(),
            Layout::Keys => redis::cmd("SET")
                .arg(format!("wechat:{}:user:oUser", wechat.app_id()))
                .arg(format!("1#token-in-3#{fresh}#{expires}##"))
                .query(&mut inside)
                .unwrap(),
        };
        let demo = DemoProcess::start(&variables(&[
            ("REDIS_URL", &url),
            ("REDIS_LAYOUT", layout.name()),
            ("WECHAT_APPID", wechat.app_id()),
            ("WECHAT_SECRET", wechat.app_secret()),
            ("WECHAT_API_URL", wechat.url()),
            ("TRUSTED_USER_HEADER", USER_HEADER),
        ]))
        .await;
        demo.me("oUser").await.has_token("token-in-3");
        demo.me("oUnknown").await.is_rejected(401, "login_required");
    }
}

/// A demo without any variables starts, rejects an anonymous request and ends on SIGTERM.
#[tokio::test]
async fn no_variables_at_all() {
    let demo = DemoProcess::start(&[]).await;
    let answer = demo.ask(Asked::get("/api/me")).await;
    answer.is_rejected(401, "login_required");
    demo.signal("TERM");
    let (status, log) = demo.ended(SOON).await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("panicked"), "{log}");
}

/// SIGTERM ends a demo at once if no request is under way.
#[tokio::test]
async fn sigterm_while_idle() {
    let harness = Harness::new(Layout::Keys).await;
    let demo = harness.demo().await;
    let pair = harness.sign_in("oUser", Age::Fresh).await;
    demo.me("oUser").await.has_token(&pair.access_token);
    demo.signal("TERM");
    let (status, _) = demo.ended(SOON).await;
    assert_eq!(status.code(), Some(0));
}
