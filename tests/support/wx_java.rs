//! A service with WxJava that keeps a third-party platform in Redis, at the simulated WeChat.

use redis::Commands;
use serde_json::{Value, json};
use tower_wechat::simulator::{SimulatedPlatform, SimulatedPush, Simulator};

use super::redis_server::RedisServer;

pub const COMPONENT: &str = "wxc0000000000000aa";
pub const SHOP: &str = "wxa000000000000001";

/// A service with WxJava, which keeps the platform, and its Redis.
pub struct Java {
    pub wechat: Simulator,
    pub platform: SimulatedPlatform,
    pub redis: RedisServer,
}

impl Java {
    /// Starts the service, with one authorised account.
    pub async fn start() -> Self {
        let wechat = Simulator::start().await.unwrap();
        let platform = wechat
            .add_platform(COMPONENT, "component-secret")
            .push_url("http://127.0.0.1:1/push");
        platform.push(SimulatedPush::ticket()).await.unwrap();
        let redis = RedisServer::start();
        let java = Self {
            wechat,
            platform,
            redis,
        };
        let ticket = java.platform.ticket().expect("a ticket was pushed");
        let name = format!("wechat_component_verify_ticket:{COMPONENT}");
        java.set(&name, &ticket, 43_200);
        java.fetch_component_token().await;
        java.authorize(SHOP).await;
        java
    }

    async fn call(&self, path: &str, body: Value) -> Value {
        let token = self.platform.component_token().unwrap_or_default();
        let url = self.wechat.url();
        let url = format!("{url}/cgi-bin/component/{path}?component_access_token={token}");
        let request = reqwest::Client::new().post(url).body(body.to_string());
        let reply = request.send().await.unwrap().text().await.unwrap();
        serde_json::from_str(&reply).unwrap()
    }

    pub fn set(&self, name: &str, value: &str, ttl_secs: u64) {
        let mut redis = self.redis.connection();
        let key = format!("wx:open:{name}");
        let () = match ttl_secs {
            0 => redis.set(key, value).unwrap(),
            ttl => redis.set_ex(key, value, ttl).unwrap(),
        };
    }

    pub async fn fetch_component_token(&self) {
        let body = json!({
            "component_appid": COMPONENT,
            "component_appsecret": "component-secret",
            "component_verify_ticket": self.platform.ticket().unwrap(),
        });
        let reply = self.call("api_component_token", body).await;
        let token = reply["component_access_token"].as_str().expect("a token");
        let name = format!("wechat_component_access_token:{COMPONENT}");
        self.set(&name, token, 7_000);
    }

    pub async fn authorize(&self, account: &str) {
        let code = self.platform.authorize(account).unwrap();
        let body = json!({"component_appid": COMPONENT, "authorization_code": code});
        let reply = self.call("api_query_auth", body).await;
        let granted = &reply["authorization_info"];
        let text = |name: &str| {
            granted[name]
                .as_str()
                .unwrap_or_else(|| panic!("{reply}"))
                .to_owned()
        };
        let refresh = format!("wechat_authorizer_refresh_token:{COMPONENT}:{account}");
        self.set(&refresh, &text("authorizer_refresh_token"), 0);
        self.set(
            &token_name(account),
            &text("authorizer_access_token"),
            7_000,
        );
    }

    /// Forgets the numbers of calls, so that a test sees the calls of the follower only.
    pub fn forget_calls(&self) {
        self.wechat.reset_calls();
    }

    pub fn assert_nothing_was_fetched(&self) {
        let calls = self.wechat.calls();
        let fetched = calls
            .iter()
            .filter(|(path, count)| path.contains("/cgi-bin/") && **count > 0);
        assert_eq!(fetched.count(), 0, "{calls:?}");
    }

    pub fn keys(&self) -> Vec<String> {
        let mut keys: Vec<String> = self.redis.connection().keys("*").unwrap();
        keys.sort();
        keys
    }
}

/// Returns the name of the key of an account's access token, without the prefix.
pub fn token_name(account: &str) -> String {
    format!("wechat_authorizer_access_token:{COMPONENT}:{account}")
}
