//! Tests of pushes: their form on the wire, and their faults.

use std::time::Duration;

use tower_wechat::simulator::SimulatedPush;

use super::{
    harness::{COMPONENT, Harnessed, KEY, SHOP, TOKEN},
    receiver::{Receiver, sha1_of, text_of},
};

const OTHER_KEY: &str = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefg";

#[tokio::test]
async fn a_ticket_comes_encrypted_and_signed() {
    let it = Harnessed::start().await;
    let ticket = it.ticket().await;
    let [push] = &it.receiver.received()[..] else {
        panic!()
    };
    assert_eq!(push.path, "/events");
    let mut names: Vec<_> = push.params.keys().map(String::as_str).collect();
    names.sort_unstable();
    let expected = [
        "encrypt_type",
        "msg_signature",
        "nonce",
        "signature",
        "timestamp",
    ];
    assert_eq!(names, expected);
    assert_eq!(push.params["encrypt_type"], "aes");
    assert!(push.is_signed_with(TOKEN) && !push.is_signed_with("another token"));
    let [timestamp, nonce] = ["timestamp", "nonce"].map(|name| push.params[name].as_str());
    assert_eq!(
        push.params["signature"],
        sha1_of(&mut [TOKEN, timestamp, nonce])
    );
    let encrypted = text_of(&push.body, "Encrypt");
    assert_eq!(
        push.body,
        format!(
            "<xml><AppId><![CDATA[{COMPONENT}]]></AppId>\n<Encrypt><![CDATA[{encrypted}]]></Encrypt>\n</xml>"
        )
    );
    let (event, tail) = push.open(KEY);
    assert_eq!(tail, COMPONENT);
    assert_eq!(
        event,
        format!(
            "<xml><AppId><![CDATA[{COMPONENT}]]></AppId>\n<CreateTime>{timestamp}</CreateTime>\n\
             <InfoType><![CDATA[component_verify_ticket]]></InfoType>\n\
             <ComponentVerifyTicket><![CDATA[{ticket}]]></ComponentVerifyTicket>\n</xml>"
        )
    );
}

#[tokio::test]
async fn a_ticket_is_repeated_and_replaced() {
    let it = Harnessed::start().await;
    let first = it.ticket().await;
    it.platform
        .push(SimulatedPush::same_ticket())
        .await
        .unwrap();
    assert_eq!(it.platform.ticket().as_ref(), Some(&first));
    assert_ne!(it.ticket().await, first);
    let tickets: Vec<_> = it
        .receiver
        .received()
        .iter()
        .map(|push| text_of(&push.open(KEY).0, "ComponentVerifyTicket"))
        .collect();
    assert_eq!(tickets[..2], [first.clone(), first]);
}

#[tokio::test]
async fn events_of_authorizations_come_with_their_fields() {
    let it = Harnessed::start().await;
    let code = it.platform.authorize(SHOP).unwrap();
    for push in [
        SimulatedPush::authorized(SHOP),
        SimulatedPush::unauthorized(SHOP),
        SimulatedPush::event("notify_of_next_year", [("Field", "a ]]> b")]),
        SimulatedPush::xml("<xml>&xxe;</xml>"),
    ] {
        it.platform.push(push).await.unwrap();
    }
    let events: Vec<_> = it
        .receiver
        .received()
        .iter()
        .map(|push| push.open(KEY).0)
        .collect();
    assert_eq!(text_of(&events[0], "InfoType"), "authorized");
    assert_eq!(text_of(&events[0], "AuthorizationCode"), code);
    let expires_at: u64 = text_of(&events[0], "AuthorizationCodeExpiredTime")
        .parse()
        .unwrap();
    let now = it
        .harness
        .sim
        .now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    assert!((3590..=3600).contains(&(expires_at - now.as_secs())));
    assert!(text_of(&events[0], "PreAuthCode").starts_with("preauthcode@@@"));
    assert_eq!(text_of(&events[1], "InfoType"), "unauthorized");
    assert_eq!(text_of(&events[1], "AuthorizerAppid"), SHOP);
    // The event alone withdraws nothing.
    assert!(it.platform.is_authorized(SHOP));
    let field = "<Field><![CDATA[a ]]]]><![CDATA[> b]]></Field>";
    assert!(events[2].contains(field), "{}", events[2]);
    assert_eq!(events[3], "<xml>&xxe;</xml>");
}

#[tokio::test]
async fn a_message_of_a_user_goes_to_its_own_url() {
    let it = Harnessed::start().await;
    let openid = it.harness.sim.app(SHOP).unwrap().openid_of("oAlice");
    it.receiver.reply_with(200, "");
    let text = SimulatedPush::text(SHOP, "oAlice", "TESTCOMPONENT_MSG_TYPE_TEXT");
    let replies = it.platform.push(text).await.unwrap();
    assert_eq!((replies[0].status, &*replies[0].body), (Some(200), ""));
    assert!(!replies[0].is_success());
    let event = SimulatedPush::user_event(SHOP, "oAlice", "CLICK");
    it.platform.push(event).await.unwrap();
    let pushes = it.receiver.received();
    for push in &pushes {
        assert_eq!(push.path, format!("/messages/{SHOP}"));
        assert_eq!((&*push.params["a"], &push.params["openid"]), ("b", &openid));
        assert!(push.is_signed_with(TOKEN));
        assert!(text_of(&push.body, "ToUserName").starts_with("gh_"));
        assert_eq!(push.open(KEY).1, COMPONENT);
    }
    let messages: Vec<_> = pushes.iter().map(|push| push.open(KEY).0).collect();
    assert_eq!(
        text_of(&messages[0], "Content"),
        "TESTCOMPONENT_MSG_TYPE_TEXT"
    );
    assert!(messages[0].contains("<MsgId>"));
    assert_eq!(text_of(&messages[1], "Event"), "CLICK");
    for message in &messages {
        assert_eq!(text_of(message, "FromUserName"), openid);
    }
}

/// An encrypted reply is a sample of WeChat's own page.
#[tokio::test]
async fn an_encrypted_reply_is_opened() {
    let it = Harnessed::start().await;
    let key = "A".repeat(43);
    it.harness
        .sim
        .add_platform("wx134c8103faa5a59e", "a secret")
        .token("AAAAA")
        .aes_key(&key)
        .message_url(&it.receiver.url);
    let reply = |signature: &str| {
        format!(
            "<xml><Encrypt><![CDATA[hE8R6mGXHkJJjU72KxzKUd1GEkKJaEZq7vRL8XgK3o+00k8JGq6+pZJUIlTSyhsX+bxIBQ72g3GyvDdIZcr6+3HAZbSvPT9t/o11MI7d6WELwqrGd7jMnV0zv3Zc9Nq7]]></Encrypt>\
             <MsgSignature><![CDATA[{signature}]]></MsgSignature>\
             <TimeStamp>1713424427</TimeStamp><Nonce><![CDATA[415670741]]></Nonce></xml>"
        )
    };
    let platform = it.harness.sim.platform("wx134c8103faa5a59e").unwrap();
    let push = async || {
        let replies = platform
            .push(SimulatedPush::text(SHOP, "oAlice", "hello"))
            .await;
        replies.unwrap().remove(0).message
    };
    it.receiver
        .reply_with(200, &reply("03e0812039325c2712ef5f0f980fd14c70d6e307"));
    let message = "<xml><demo_resp>[CDATA[good luck]]</demo_resp></xml>";
    assert_eq!(push().await.as_deref(), Some(message));
    it.receiver
        .reply_with(200, &reply("13e0812039325c2712ef5f0f980fd14c70d6e307"));
    assert_eq!(push().await, None);
}

#[tokio::test]
async fn a_push_has_faults() {
    let it = Harnessed::start().await;
    let replies = it
        .platform
        .push(SimulatedPush::ticket().repeat(2))
        .await
        .unwrap();
    assert_eq!(replies.len(), 3);
    let pushes = it.receiver.received();
    for push in &pushes {
        assert_eq!(
            (&push.body, &push.params),
            (&pushes[0].body, &pushes[0].params)
        );
    }
    let send = async |push: SimulatedPush| {
        it.platform.push(push).await.unwrap();
        it.receiver.received().pop().unwrap()
    };
    let wrong = send(SimulatedPush::ticket().wrong_signature()).await;
    assert!(!wrong.is_signed_with(TOKEN));
    let [timestamp, nonce] = ["timestamp", "nonce"].map(|name| wrong.params[name].as_str());
    assert_eq!(
        wrong.params["signature"],
        sha1_of(&mut [TOKEN, timestamp, nonce])
    );
    // A push that comes late has an old CreateTime.
    let late = send(SimulatedPush::ticket().age(Duration::from_secs(3600))).await;
    let now: u64 = timestamp.parse().unwrap();
    let then: u64 = late.params["timestamp"].parse().unwrap();
    assert!(
        (3595..=3605).contains(&(now.abs_diff(then))),
        "{now} {then}"
    );
    assert!(
        late.open(KEY)
            .0
            .contains(&format!("<CreateTime>{then}</CreateTime>"))
    );
    let foreign = send(SimulatedPush::ticket().component("wx00000000000000dd")).await;
    assert_eq!(text_of(&foreign.body, "AppId"), "wx00000000000000dd");
    assert_eq!(foreign.open(KEY).1, "wx00000000000000dd");
    // A later push overtakes a delayed one.
    let delayed = SimulatedPush::ticket().delay(Duration::from_millis(300));
    let (delayed, sooner) = tokio::join!(it.platform.push(delayed), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        it.platform.push(SimulatedPush::same_ticket()).await
    });
    assert!(delayed.unwrap()[0].is_success() && sooner.unwrap()[0].is_success());
}

#[tokio::test]
async fn keys_are_rotated() {
    let it = Harnessed::start().await;
    let former = SimulatedPush::ticket().former_keys();
    assert!(it.platform.push(former.clone()).await.is_err());
    it.platform.rotate_keys("a new token", OTHER_KEY);
    assert_eq!(
        it.platform.push_keys(),
        ("a new token".to_owned(), OTHER_KEY.to_owned())
    );
    it.ticket().await;
    it.platform.push(former).await.unwrap();
    let [new, old] = &it.receiver.received()[..] else {
        panic!()
    };
    assert!(new.is_signed_with("a new token") && old.is_signed_with(TOKEN));
    assert_eq!(
        (new.open(OTHER_KEY).1, old.open(KEY).1),
        (COMPONENT.to_owned(), COMPONENT.to_owned())
    );
}

#[tokio::test]
async fn a_push_that_cannot_be_sent_says_why() {
    let it = Harnessed::start().await;
    let other = it
        .harness
        .sim
        .add_platform("wx00000000000000dd", "a secret");
    for push in [
        SimulatedPush::ticket(),
        SimulatedPush::text(SHOP, "oAlice", "hello"),
    ] {
        assert!(
            other
                .push(push)
                .await
                .unwrap_err()
                .to_string()
                .contains("_url")
        );
    }
    assert_eq!(other.ticket(), None);
    let error = it
        .platform
        .push(SimulatedPush::authorized(SHOP))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("never authorized"), "{error}");
    let error = it
        .platform
        .push(SimulatedPush::text("wx0", "oAlice", "hello"))
        .await;
    assert!(error.unwrap_err().to_string().contains("no account wx0"));
    let other = other.push_url("http://127.0.0.1:9/").aes_key("short");
    let error = other.push(SimulatedPush::ticket()).await.unwrap_err();
    assert!(error.to_string().contains("43 letters"), "{error}");
    let other = other.aes_key(KEY);
    let replies = other.push(SimulatedPush::ticket()).await.unwrap();
    assert!(replies[0].status.is_none() && replies[0].error.is_some());
    assert!(it.platform.authorize(COMPONENT).is_err());
}

#[tokio::test]
async fn other_replies_are_not_taken_as_success() {
    let it = Harnessed::start().await;
    for (status, body) in [(200, "ok"), (503, "success"), (200, "")] {
        it.receiver.reply_with(status, body);
        let replies = it.platform.push(SimulatedPush::ticket()).await.unwrap();
        assert_eq!((replies[0].status, &*replies[0].body), (Some(status), body));
        assert!(!replies[0].is_success());
    }
    assert_eq!(it.platform.pushes().len(), 3);
    // Another application on the same machine gets none of these.
    assert!(Receiver::start().await.received().is_empty());
}
