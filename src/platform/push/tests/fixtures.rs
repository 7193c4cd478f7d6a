//! A receiver with a platform that records its events, and pushes as WeChat sends them.

use std::sync::{Arc, Mutex};

use super::super::cipher::PushCipher;
use super::super::keys::PushKeys;
use super::super::receiver::{HandlePlatformEvents, PushReceiver};
use super::super::signature::PushToken;
use super::vectors::{K1, KEY_OF_ZEROS, Vector};
use crate::clock::{Clock, Timestamp};
use crate::credential::AppId;
use crate::error::Error;
use crate::platform::event::PlatformEvent;
use crate::store::BoxFuture;

pub(super) const COMPONENT: &str = "wxd0bfc95064b5bfc1";

pub(super) const TOKEN: &str = "component_token";

/// Ten minutes after the vectors C1 and C2.
pub(super) const NOW: Timestamp = Timestamp::from_millis(1_413_193_205_000);

/// A platform that records its events, and whose store can fail or not answer.
#[derive(Default)]
pub(super) struct RecordedEvents {
    events: Mutex<Vec<String>>,
    behavior: Mutex<Store>,
}

#[derive(Debug, Clone, Copy, Default)]
pub(super) enum Store {
    #[default]
    Works,
    Fails,
    NeverAnswers,
}

impl RecordedEvents {
    /// Returns the events since the last call, with their secrets.
    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.events.lock().unwrap())
    }

    pub(super) fn set_store(&self, store: Store) {
        *self.behavior.lock().unwrap() = store;
    }
}

impl HandlePlatformEvents for RecordedEvents {
    fn handle_event(&self, event: PlatformEvent) -> BoxFuture<'_, Result<(), Error>> {
        let store = *self.behavior.lock().unwrap();
        Box::pin(async move {
            match store {
                Store::Works => self.events.lock().unwrap().push(describe(&event)),
                Store::Fails => return Err(Error::store_unavailable("Redis is down")),
                Store::NeverAnswers => std::future::pending().await,
            }
            Ok(())
        })
    }
}

/// Returns a text with all values of an event.
pub(super) fn describe(event: &PlatformEvent) -> String {
    match event {
        PlatformEvent::VerifyTicket { ticket, created } => {
            format!("ticket {} {created:?}", ticket.expose())
        }
        PlatformEvent::Authorized {
            account,
            code,
            code_expires,
            pre_auth_code,
            created,
        } => {
            let pre_auth_code = pre_auth_code.as_ref().map(|code| code.as_str());
            format!(
                "authorized {account} {} {code_expires:?} {pre_auth_code:?} {created:?}",
                code.as_str()
            )
        }
        PlatformEvent::Unauthorized { account, created } => {
            format!("unauthorized {account} {created:?}")
        }
    }
}

/// Returns a receiver with these rings, and its recorded events.
pub(super) fn receiver_with(
    component: &str,
    tokens: &[&str],
    keys: &[&str],
) -> (Arc<PushReceiver>, Arc<RecordedEvents>) {
    let events = Arc::new(RecordedEvents::default());
    let receiver = PushReceiver::new(
        AppId::new(component).unwrap(),
        Some(PushKeys::new(tokens, keys).unwrap()),
        Clock::manual(NOW),
        events.clone(),
    );
    (Arc::new(receiver), events)
}

/// Returns a receiver whose current token and key are not those of the pushes of these tests.
pub(super) fn receiver() -> (Arc<PushReceiver>, Arc<RecordedEvents>) {
    receiver_with(COMPONENT, &["new_token", TOKEN], &[KEY_OF_ZEROS, K1])
}

/// A push as WeChat sends it: the path with the query, and the body.
#[derive(Debug, Clone)]
pub(super) struct Push {
    pub(super) path: String,
    pub(super) body: String,
}

impl Push {
    /// Encrypts and signs a message for [`COMPONENT`].
    pub(super) fn new(message: &str) -> Self {
        Self::encrypted(message, K1, COMPONENT)
    }

    pub(super) fn encrypted(message: &str, key: &str, app_id: &str) -> Self {
        let cipher = PushCipher::from_encoding_key(key).unwrap();
        let encrypt = cipher.encrypt(*b"0123456789abcdef", message.as_bytes(), app_id);
        Self::signed(&encrypt, "1413192760", "260774613", envelope(&encrypt))
    }

    pub(super) fn signed(encrypt: &str, timestamp: &str, nonce: &str, body: String) -> Self {
        let signature = PushToken::new(TOKEN).sign(timestamp, nonce, encrypt);
        Self {
            path: format!(
                "/push?signature={}&timestamp={timestamp}&nonce={nonce}&encrypt_type=aes\
                 &msg_signature={signature}",
                "0".repeat(40)
            ),
            body,
        }
    }

    /// Returns the push of a vector.
    pub(super) fn of(vector: &Vector) -> Self {
        Self {
            path: format!(
                "/push?signature={}&timestamp={}&nonce={}&encrypt_type=aes&msg_signature={}",
                vector.short_signature, vector.timestamp, vector.nonce, vector.msg_signature
            ),
            body: envelope(vector.encrypt),
        }
    }

    pub(super) fn uri(&self) -> http::Uri {
        self.path.parse().unwrap()
    }
}

/// Returns the envelope of an event.
pub(super) fn envelope(encrypt: &str) -> String {
    format!(
        "<xml>\n    <AppId><![CDATA[{COMPONENT}]]></AppId>\n    \
         <Encrypt><![CDATA[{encrypt}]]></Encrypt>\n</xml>\n"
    )
}

/// Returns the envelope of a user's message.
pub(super) fn message_envelope(encrypt: &str) -> String {
    format!(
        "<xml><ToUserName><![CDATA[gh_3c884a361561]]></ToUserName>\
         <Encrypt><![CDATA[{encrypt}]]></Encrypt></xml>"
    )
}

/// Returns the text message of a user.
pub(super) fn text_message(content: &str) -> String {
    format!(
        "<xml><ToUserName><![CDATA[gh_3c884a361561]]></ToUserName>\n\
         <FromUserName><![CDATA[oUser]]></FromUserName>\n\
         <CreateTime>1413192700</CreateTime>\n<MsgType><![CDATA[text]]></MsgType>\n\
         <Content><![CDATA[{content}]]></Content>\n<MsgId>1</MsgId>\n</xml>"
    )
}
