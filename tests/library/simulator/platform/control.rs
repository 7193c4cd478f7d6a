//! Tests of `/_sim/platform`.

use serde_json::{Value, json};

use super::{
    harness::{COMPONENT, KEY, SHOP},
    receiver::{Receiver, text_of},
};
use crate::simulator::harness::Harness;

const OTHER_KEY: &str = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg";

struct Control {
    harness: Harness,
    receiver: Receiver,
}

impl Control {
    /// Starts a simulator whose platform is added over HTTP.
    async fn start() -> Self {
        let it = Self {
            harness: Harness::start().await,
            receiver: Receiver::start().await,
        };
        it.steer(json!({
            "app_id": COMPONENT, "secret": "a secret", "token": "a token", "aes_key": KEY,
            "push_url": it.receiver.url, "message_url": it.receiver.url,
        }))
        .await;
        it
    }

    async fn steer(&self, body: Value) -> Value {
        let reply = self.harness.post("/_sim/platform", &body.to_string()).await;
        assert_eq!(reply.status, 200, "{}", reply.text);
        reply.json()
    }

    async fn state(&self) -> Value {
        self.harness.get("/_sim/platform").await.json()[0].clone()
    }
}

#[tokio::test]
async fn a_platform_is_added_changed_and_shown() {
    let it = Control::start().await;
    let state = it.state().await;
    assert_eq!(
        (&state["app_id"], &state["secret"]),
        (&json!(COMPONENT), &json!("a secret"))
    );
    assert_eq!(
        (&state["token"], &state["push_tickets"]),
        (&json!("a token"), &json!(true))
    );
    let change = json!({
        "message_url": "", "authorize_hosts": ["a.test"], "redirect_hosts": ["b.test"],
        "next_account": SHOP, "lose_events": true, "delay_events_secs": 2, "separate_codes": true,
        "push_tickets": false, "rotate_token": "another token", "rotate_key": OTHER_KEY,
    });
    // The older spelling of the AppID works too.
    let mut named = change.clone();
    named["appid"] = COMPONENT.into();
    let reply = it.steer(named).await;
    assert_eq!(reply, json!({ "app_id": COMPONENT, "pushes": [] }));
    let state = it.state().await;
    assert_eq!(state["message_url"], Value::Null);
    assert_eq!(
        (&state["token"], &state["aes_key"]),
        (&json!("another token"), &json!(OTHER_KEY))
    );
    for name in [
        "authorize_hosts",
        "redirect_hosts",
        "next_account",
        "lose_events",
    ] {
        assert_eq!(state[name], change[name], "{name}");
    }
    for name in ["delay_events_secs", "separate_codes", "push_tickets"] {
        assert_eq!(state[name], change[name], "{name}");
    }
    let former = it
        .steer(json!({ "push": "ticket", "former_keys": true }))
        .await;
    assert_eq!(former["pushes"][0]["status"], 200);
    assert!(it.receiver.received()[0].is_signed_with("a token"));
}

#[tokio::test]
async fn an_account_is_authorized_and_leaves() {
    let it = Control::start().await;
    let reply = it.steer(json!({ "authorize": SHOP })).await;
    let code = reply["authorization_code"].as_str().unwrap();
    let pushes = &reply["pushes"];
    assert_eq!(
        (&pushes[0]["push"], &pushes[0]["body"]),
        (&json!("authorized"), &json!("success"))
    );
    let event = it.receiver.received()[0].open(KEY).0;
    assert_eq!(text_of(&event, "AuthorizationCode"), code);
    assert_eq!(it.state().await["accounts"][0]["authorized"], true);
    let again = it
        .steer(json!({ "push": "authorized", "account": SHOP, "repeat": 1, "age_secs": 60 }))
        .await;
    assert_eq!(again["pushes"].as_array().unwrap().len(), 2);
    let reply = it
        .steer(json!({ "authorize": SHOP, "lose_events": true }))
        .await;
    assert_eq!(reply["pushes"], json!([]));
    let reply = it
        .steer(json!({ "revoke": SHOP, "lose_events": false }))
        .await;
    assert_eq!(
        (&reply["revoked"], &reply["pushes"][0]["push"]),
        (&json!(true), &json!("unauthorized"))
    );
    let reply = it.steer(json!({ "revoke": SHOP })).await;
    assert_eq!(
        (&reply["revoked"], &reply["pushes"]),
        (&json!(false), &json!([]))
    );
    assert_eq!(it.state().await["accounts"][0]["authorized"], false);
    let reply = it
        .steer(json!({ "authorize": "wx00000000000000ee", "exchanged": true }))
        .await;
    assert_eq!(reply, json!({ "app_id": COMPONENT, "pushes": [] }));
    let account = &it.state().await["accounts"][1];
    assert_eq!(
        (&account["authorized"], &account["exchanged"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(it.state().await["pushes"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn pushes_are_sent_and_their_replies_returned() {
    let it = Control::start().await;
    it.harness.sim.add_account(SHOP, "a secret");
    it.receiver.reply_with(401, "the signature is wrong");
    let reply = it
        .steer(json!({ "push": "ticket", "wrong_signature": true }))
        .await;
    let push = &reply["pushes"][0];
    assert_eq!(
        (&push["status"], &push["body"]),
        (&json!(401), &json!("the signature is wrong"))
    );
    it.receiver.reply_with(200, "success");
    for body in [
        json!({ "push": "ticket", "same_value": true }),
        json!({ "push": "unauthorized", "account": SHOP }),
        json!({ "push": "notify_3rd_wxa_auth", "fields": [["appid", "wx1"], ["msg", "hello"]] }),
        json!({ "push": "text", "account": SHOP, "openid": "oAlice", "content": "hello" }),
        json!({ "push": "event", "account": SHOP }),
        json!({ "push": "release_test_text", "account": SHOP }),
        json!({ "push": "release_test_api", "account": SHOP }),
        json!({ "push": "xml", "content": "<!DOCTYPE x>" }),
        json!({ "push": "ticket", "component": "wx00000000000000dd" }),
    ] {
        let reply = it.steer(body.clone()).await;
        assert_eq!(reply["pushes"][0]["body"], "success", "{body}");
        let message = it.receiver.received().pop().unwrap().open(KEY).0;
        match body["push"].as_str().unwrap() {
            "notify_3rd_wxa_auth" => assert_eq!(text_of(&message, "msg"), "hello"),
            "text" => assert_eq!(text_of(&message, "Content"), "hello"),
            "event" => assert_eq!(text_of(&message, "Event"), "subscribe"),
            "release_test_text" => {
                assert_eq!(text_of(&message, "Content"), "TESTCOMPONENT_MSG_TYPE_TEXT");
            }
            "release_test_api" => {
                let code = reply["authorization_code"].as_str().unwrap();
                assert_eq!(
                    text_of(&message, "Content"),
                    format!("QUERY_AUTH_CODE:{code}")
                );
            }
            "xml" => assert_eq!(message, "<!DOCTYPE x>"),
            _ => {}
        }
    }
}

#[tokio::test]
async fn wrong_requests_get_a_sentence() {
    let it = Control::start().await;
    for wrong in [
        json!({ "app_id": "wx0" }),
        json!({ "app_id": it.harness.sim.app_id() }),
        json!({ "app_id": "", "secret": "a secret" }),
        json!({ "secret": "a secret" }),
        json!({ "aes_key": "short" }),
        json!({ "rotate_key": "short" }),
        json!({ "colour": "red" }),
        json!({ "push": "authorized" }),
        json!({ "push": "authorized", "account": "wx0" }),
        json!({ "push": "text", "account": "wx0" }),
        json!({ "push": "ticket", "repeat": 1001 }),
        json!({ "push": "ticket", "delay_secs": 61 }),
        json!({ "push": "ticket", "former_keys": true }),
        json!({ "push": "ticket", "authorize": SHOP }),
        json!({ "authorize": COMPONENT }),
        json!({ "authorize": "" }),
        json!({ "revoke": "wx0" }),
    ] {
        let reply = it.harness.post("/_sim/platform", &wrong.to_string()).await;
        assert_eq!(reply.status, 400, "{wrong}: {}", reply.text);
        assert!(
            reply.field("error").contains(' '),
            "{wrong}: {}",
            reply.text
        );
    }
    it.receiver.wait_for(0).await;
    // Without a platform, or with two, the request names it.
    let harness = Harness::start().await;
    assert_eq!(
        harness
            .post("/_sim/platform", r#"{"push":"ticket"}"#)
            .await
            .status,
        400
    );
    let app = r#"{"app_id":"wx1","secret":"s","kind":"platform"}"#;
    assert_eq!(harness.post("/_sim/apps", app).await.status, 400);
    it.harness
        .sim
        .add_platform("wx00000000000000dd", "a secret");
    let reply = it
        .harness
        .post("/_sim/platform", r#"{"push":"ticket"}"#)
        .await;
    assert_eq!(reply.status, 400);
    let sign_in = json!({ "openid": "oAlice", "app_id": COMPONENT }).to_string();
    assert_eq!(it.harness.post("/_sim/sign_in", &sign_in).await.status, 400);
}
