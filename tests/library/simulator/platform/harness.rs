//! A simulator with a third-party platform, and an application that receives its pushes.

// A failed `unwrap` in these helpers fails the test that calls them.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use serde_json::{Value, json};
use tower_wechat::simulator::{SimulatedPlatform, SimulatedPush};

use super::receiver::Receiver;
use crate::simulator::harness::{Harness, Reply};

pub(super) const COMPONENT: &str = "wx00000000000000cc";
pub(super) const SECRET: &str = "secret-of-the-platform";
pub(super) const TOKEN: &str = "token of pushes";
/// The surplus bits of the last character are not zero.
pub(super) const KEY: &str = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG";
pub(super) const SHOP: &str = "wx00000000000000aa";

pub(super) struct Harnessed {
    pub(super) harness: Harness,
    pub(super) platform: SimulatedPlatform,
    pub(super) receiver: Receiver,
}

impl Harnessed {
    pub(super) async fn start() -> Self {
        let harness = Harness::start().await;
        let receiver = Receiver::start().await;
        harness.sim.add_account(SHOP, "secret-of-the-shop");
        let platform = harness
            .sim
            .add_platform(COMPONENT, SECRET)
            .token(TOKEN)
            .aes_key(KEY)
            .push_url(format!("{}/events", receiver.url))
            .message_url(format!("{}/messages/$APPID$?a=b", receiver.url));
        Self {
            harness,
            platform,
            receiver,
        }
    }

    pub(super) fn advance(&self, secs: u64) {
        self.harness.sim.advance(Duration::from_secs(secs));
    }

    /// Pushes a ticket, and returns it.
    pub(super) async fn ticket(&self) -> String {
        let replies = self.platform.push(SimulatedPush::ticket()).await.unwrap();
        assert!(replies[0].is_success(), "{replies:?}");
        self.platform.ticket().unwrap()
    }

    /// Makes a call of a third-party platform, with these parameters of the query.
    pub(super) async fn component_call(&self, call: &str, query: &str, body: &Value) -> Reply {
        let path = format!("/cgi-bin/component/{call}{query}");
        self.harness.post(&path, &body.to_string()).await
    }

    pub(super) async fn token_for(&self, ticket: Value) -> Reply {
        let body = json!({
            "component_appid": COMPONENT,
            "component_appsecret": SECRET,
            "component_verify_ticket": ticket,
        });
        self.component_call("api_component_token", "", &body).await
    }

    /// Pushes a ticket and fetches a component token for it.
    pub(super) async fn component_token(&self) -> String {
        let ticket = self.ticket().await;
        let reply = self.token_for(ticket.into()).await;
        reply.field("component_access_token")
    }

    /// Makes a call with a component token.
    pub(super) async fn call(&self, call: &str, token: &str, mut body: Value) -> Reply {
        body["component_appid"] = COMPONENT.into();
        let query = format!("?component_access_token={token}");
        self.component_call(call, &query, &body).await
    }

    pub(super) async fn query_auth(&self, token: &str, code: &str) -> Reply {
        let body = json!({ "authorization_code": code });
        self.call("api_query_auth", token, body).await
    }

    pub(super) async fn renew(&self, token: &str, account: &str, refresh_token: &str) -> Reply {
        let body = json!({
            "authorizer_appid": account, "authorizer_refresh_token": refresh_token,
        });
        self.call("api_authorizer_token", token, body).await
    }

    pub(super) async fn pre_auth_code(&self, token: &str) -> String {
        let reply = self.call("api_create_preauthcode", token, json!({})).await;
        assert_eq!(reply.json()["expires_in"], 1800);
        reply.field("pre_auth_code")
    }

    pub(super) async fn jsapi_ticket(&self, access_token: &str) -> Reply {
        let path = format!("/cgi-bin/ticket/getticket?access_token={access_token}&type=jsapi");
        self.harness.get(&path).await
    }
}
