//! The delivery of a push over HTTP, and the reply of the application.

use std::time::Duration;

use super::{
    cipher,
    message::element,
    prepared_push::{PreparedPush, PushReply},
};
use crate::simulator::state::SharedState;
use crate::wechat::{build_http_client, root_cause};

/// Maximum time of a push, after which WeChat gives up: five seconds.
const PUSH_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum number of bytes of a reply that are read: 64 KiB.
const MAX_REPLY_BYTES: usize = 64 * 1024;

/// Sends a push, and keeps its outcome with the platform.
pub(in crate::simulator) async fn deliver(shared: &SharedState, push: &PreparedPush) -> PushReply {
    let outcome = tokio::select! {
        outcome = tokio::time::timeout(PUSH_TIMEOUT, send(push)) => {
            outcome.unwrap_or_else(|_| Err("no reply within five seconds".to_owned()))
        }
        () = shared.force_stop.cancelled() => Err("the simulator stops".to_owned()),
    };
    let mut reply = PushReply {
        push: push.name.clone(),
        url: push.url.clone(),
        status: None,
        body: String::new(),
        message: None,
        error: None,
    };
    match outcome {
        Ok((status, body)) => {
            reply.status = Some(status);
            reply.message = decrypted_message(push, &body);
            reply.body = body;
        }
        Err(reason) => reply.error = Some(reason),
    }
    let mut wechat = shared.lock();
    let now = wechat.now();
    let platform = wechat.platforms.get_or_new(push.component, now);
    platform.log_push(reply.clone());
    reply
}

async fn send(push: &PreparedPush) -> Result<(u16, String), String> {
    let https = push.url.starts_with("https:");
    let client = build_http_client(https, PUSH_TIMEOUT, None).map_err(|error| error.to_string())?;
    let separator = if push.url.contains('?') { '&' } else { '?' };
    let mut response = client
        .post(format!("{}{separator}{}", push.url, push.query))
        .header("content-type", "text/xml")
        .body(push.body.clone())
        .send()
        .await
        .map_err(|error| root_cause(&error))?;
    let status = response.status().as_u16();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| root_cause(&error))? {
        body.extend_from_slice(&chunk);
        if body.len() >= MAX_REPLY_BYTES {
            body.truncate(MAX_REPLY_BYTES);
            break;
        }
    }
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

/// Returns the message of an encrypted reply whose signature is right.
fn decrypted_message(push: &PreparedPush, body: &str) -> Option<String> {
    let encrypted = element(body, "Encrypt")?;
    let (timestamp, nonce) = (element(body, "TimeStamp")?, element(body, "Nonce")?);
    let signature = cipher::signature(&mut [&push.keys.token, timestamp, nonce, encrypted]);
    if element(body, "MsgSignature") != Some(&signature) {
        return None;
    }
    cipher::decrypt(&push.keys.aes_key, encrypted, &push.app_id)
}
