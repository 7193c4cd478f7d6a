//! Fuzzing of WeChat's pushes to a platform, which any client on the internet can imitate.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Uri;

use super::fixtures::{NOW, fixed_keys};
use crate::clock::Clock;
use crate::credential::is_valid_token;
use crate::error::Error;
use crate::platform::PlatformEvent;
use crate::platform::push::cipher::PushCipher;
use crate::platform::push::signature::PushToken;
use crate::platform::push::{HandlePlatformEvents, PushContent, PushKeys, PushReceiver};
use crate::store::BoxFuture;

/// The key of the platform. The two surplus bits of its last character are not zero.
const KEY: &str = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG";

/// The token with which this entry point signs.
const TOKEN: &str = "fuzzed-token";

/// A receiver for whose token this entry point never signs anything. A fuzzer that traces comparisons
/// learns every value that its own entry point signs, and would submit it as a forgery.
static UNSIGNED: LazyLock<PushReceiver> = LazyLock::new(|| receiver("0f-an0ther-platf0rm"));

static SIGNED: LazyLock<PushReceiver> = LazyLock::new(|| receiver(TOKEN));

#[allow(clippy::expect_used)]
static SENDER: LazyLock<(PushToken, PushCipher)> = LazyLock::new(|| {
    let cipher = PushCipher::from_encoding_key(KEY).expect("43 characters");
    (PushToken::new(TOKEN), cipher)
});

#[allow(clippy::expect_used)]
fn receiver(token: &str) -> PushReceiver {
    let keys = PushKeys::new([token], [KEY]).expect("a token and a key");
    let clock = Clock::manual(NOW);
    PushReceiver::new(
        fixed_keys().0.clone(),
        Some(keys),
        clock,
        Arc::new(NoEvents),
    )
}

/// A platform to which no event is handed.
struct NoEvents;

impl HandlePlatformEvents for NoEvents {
    fn handle_event(&self, _: PlatformEvent) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Reads the bytes as a request: the query in the first line, the body in the others. Checks that it
/// is refused. Then sends the body as WeChat would send a message, and as a ciphertext. Checks that
/// the message arrives unchanged, and that events have usable values only.
pub fn push(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n');
    let (query, body) = data.split_at(end.map_or(0, |end| end + 1));
    let query = String::from_utf8_lossy(query.trim_ascii());
    if let Ok(uri) = format!("/push?{query}").parse() {
        assert!(UNSIGNED.open(&uri, body).is_err(), "{query}");
    }
    let (_, cipher) = &*SENDER;
    let _ = open_signed(&STANDARD.encode(body));
    let encrypt = cipher.encrypt([7; 16], body, fixed_keys().0.as_str());
    match open_signed(&encrypt) {
        Some(PushContent::Event(event)) => check_event(&event),
        Some(PushContent::Application(push)) => {
            assert_eq!(push.xml().as_bytes(), body);
            let is_message = push.msg_type().is_some();
            assert!(!(is_message && push.info_type().is_some()), "{push:?}");
        }
        None => {}
    }
}

/// Signs an encrypted message, and has it received.
#[allow(clippy::expect_used)]
fn open_signed(encrypt: &str) -> Option<PushContent> {
    let signature = SENDER.0.sign("1700000000", "n", encrypt);
    let path = format!("/push?timestamp=1700000000&nonce=n&msg_signature={signature}");
    let uri: Uri = path.parse().expect("a path");
    let body = format!("<xml><Encrypt><![CDATA[{encrypt}]]></Encrypt></xml>");
    let opened = SIGNED.open(&uri, body.as_bytes()).ok()?;
    Some(opened.content)
}

fn check_event(event: &PlatformEvent) {
    let created = match event {
        PlatformEvent::VerifyTicket { ticket, created } => {
            assert!(is_valid_token(ticket.expose()));
            created
        }
        PlatformEvent::Authorized { code, created, .. } => {
            assert!(is_valid_token(code));
            created
        }
        PlatformEvent::Unauthorized { created, .. } => created,
    };
    assert!(*created <= NOW.saturating_add(Duration::from_secs(600)));
}
