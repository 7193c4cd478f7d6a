//! A finished push, and the reply to it.

use std::fmt;

use serde::Serialize;

use crate::simulator::app_index::AppIndex;

/// The two secrets of pushes: 消息校验Token and 消息加解密Key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::simulator) struct PushKeys {
    pub(in crate::simulator) token: String,
    pub(in crate::simulator) aes_key: String,
}

/// The reply of an application to a [`SimulatedPush`](super::SimulatedPush).
#[derive(Clone, Serialize)]
#[non_exhaustive]
pub struct PushReply {
    /// The InfoType of an event, or the MsgType of a message.
    pub push: String,
    /// The URL without the parameters of the push.
    pub url: String,
    /// The HTTP status. `None`: the application did not reply within five seconds.
    pub status: Option<u16>,
    /// The body, or its first 64 KiB.
    pub body: String,
    /// The decrypted message of the body, if the body is an encrypted and correctly signed reply to
    /// a user's message.
    pub message: Option<String>,
    /// The reason why no reply came.
    pub error: Option<String>,
}

impl PushReply {
    /// Returns `true` if WeChat takes the push as delivered: status 200 and the body `success`.
    pub fn is_success(&self) -> bool {
        self.status == Some(200) && self.body == "success"
    }
}

impl fmt::Debug for PushReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushReply")
            .field("push", &self.push)
            .field("url", &self.url)
            .field("status", &self.status)
            .field("body", &self.body)
            .field("message", &self.message)
            .field("error", &self.error)
            .finish()
    }
}

/// A signed and encrypted push, with everything that its delivery and the check of its reply need.
#[derive(Debug, Clone)]
pub(in crate::simulator) struct PreparedPush {
    pub(super) component: AppIndex,
    /// The AppID for which replies are encrypted.
    pub(super) app_id: String,
    pub(super) keys: PushKeys,
    pub(super) name: String,
    pub(super) url: String,
    pub(super) query: String,
    pub(super) body: String,
}
