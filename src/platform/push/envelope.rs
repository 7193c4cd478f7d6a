//! The envelope around an encrypted push, and the envelope of an encrypted reply.

use std::fmt::Write as _;

use super::cipher::{PushCipher, RANDOM_BYTES};
use super::refusal::PushRefusal;
use super::signature::PushToken;
use super::xml::{self, XmlError};
use crate::clock::Timestamp;
use crate::credential::AppId;

/// Reads the encrypted message of an envelope.
///
/// The envelope of an event names the platform, and that of a user's message names the account. The
/// signature covers neither name.
///
/// # Errors
/// Returns why the body is not the envelope of a push for this platform.
pub(super) fn read_envelope(body: &[u8], component: &AppId) -> Result<String, PushRefusal> {
    let malformed = PushRefusal::Envelope(XmlError::Malformed);
    let text = std::str::from_utf8(body).map_err(|_| malformed)?;
    let fields = xml::parse(text).map_err(PushRefusal::Envelope)?;
    let receiver = fields.only("AppId").map_err(|_| malformed)?;
    let encrypt = fields.only("Encrypt").map_err(|_| malformed)?;
    if receiver.is_some_and(|receiver| receiver != component.as_str()) {
        return Err(PushRefusal::ForeignEnvelope);
    }
    encrypt.map(str::to_owned).ok_or(malformed)
}

/// Returns the envelope of a reply to a user's message. Returns `None` if the system returns no
/// random bytes.
pub(super) fn write_reply(
    message: &str,
    component: &AppId,
    token: &PushToken,
    cipher: &PushCipher,
    now: Timestamp,
) -> Option<String> {
    let mut random = [0; RANDOM_BYTES];
    getrandom::fill(&mut random).ok()?;
    let nonce = getrandom::u32().ok()?.to_string();
    let encrypt = cipher.encrypt(random, message.as_bytes(), component.as_str());
    Some(sign_envelope(
        token,
        &encrypt,
        now.as_millis() / 1_000,
        &nonce,
    ))
}

/// Returns the envelope of an encrypted reply with its signature.
fn sign_envelope(token: &PushToken, encrypt: &str, seconds: i64, nonce: &str) -> String {
    let timestamp = seconds.to_string();
    let signature = token.sign(&timestamp, nonce, encrypt);
    let mut xml = String::with_capacity(encrypt.len() + 256);
    // Writing to a `String` never fails.
    let _ = write!(
        xml,
        "<xml><Encrypt><![CDATA[{encrypt}]]></Encrypt>\
         <MsgSignature><![CDATA[{signature}]]></MsgSignature>\
         <TimeStamp>{timestamp}</TimeStamp>\
         <Nonce><![CDATA[{nonce}]]></Nonce></xml>"
    );
    xml
}
