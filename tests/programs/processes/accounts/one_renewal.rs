//! Tests of one renewal: two processes renew the tokens of one user id in two accounts.

use redis::Commands;
use tokio::task::JoinSet;
use tower_wechat::simulator::{SimulatedApp, UserPair};

use super::{CLUB, SHOP, World};
use crate::support::demo_process::USER_HEADER;
use crate::support::harness::{Layout, REFRESH, now_ms};
use crate::support::http_client::Asked;

const REQUESTS_EACH: usize = 50;
const HOUR_MS: i64 = 3_600 * 1_000;

/// The id under which both accounts know the user.
const USER: &str = "42";

/// Writes an expired pair into Redis, as another service would that publishes nothing.
fn store_expired(world: &World, layout: Layout, app_id: &str, pair: &UserPair) {
    let (access, refresh) = (&pair.access_token, &pair.refresh_token);
    let (expired, due) = (now_ms() - HOUR_MS, now_ms() + 29 * 24 * HOUR_MS);
    let mut redis = world.redis.connection();
    match layout {
        Layout::Hashes => {
            for (name, value) in [
                ("user.wxUserAccessToken", format!("{access}#{expired}")),
                ("user.wxUserRefreshToken", format!("{refresh}#{due}")),
            ] {
                () = redis.hset(format!("{name}.{app_id}"), USER, value).unwrap();
            }
        }
        Layout::Keys => {
            let record = format!("1#{access}#{expired}#{expired}#{refresh}#{due}");
            let key = format!("wechat:{app_id}:user:{USER}");
            () = redis.set(key, record).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_account_renews_its_own_token_once() {
    for layout in Layout::BOTH {
        let world = World::start().await;
        let more = [
            ("REDIS_LAYOUT", layout.name()),
            ("TRUSTED_USER_HEADER", USER_HEADER),
        ];
        let demos = world.demos::<2>(&more).await;
        let app = |app_id| world.wechat.app(app_id).unwrap();
        let apps: [SimulatedApp; 2] = [app(SHOP), app(CLUB)];
        let old = apps
            .each_ref()
            .map(|app| app.sign_in(super::USER, "snsapi_userinfo"));
        world.wechat.advance(old[0].expires_in);
        for (app, pair) in apps.iter().zip(&old) {
            store_expired(&world, layout, app.app_id(), pair);
        }
        let mut requests = JoinSet::new();
        for demo in &demos {
            for at in 0..2 * REQUESTS_EACH {
                let (http, account) = (demo.http().clone(), at % 2);
                let path = format!("/{}/api/me", apps[account].app_id());
                requests.spawn(async move {
                    let me = Asked::get(&path).header(USER_HEADER, USER);
                    (account, http.ask(me).await)
                });
            }
        }
        for (account, answer) in requests.join_all().await {
            let current = apps[account].current_pair(super::USER).unwrap();
            assert_ne!(current.access_token, old[account].access_token);
            answer.has_token(&current.access_token);
        }
        let refreshes = apps.each_ref().map(|app| app.calls_to(REFRESH));
        assert_eq!(refreshes, [1, 1], "{}", layout.name());
    }
}
