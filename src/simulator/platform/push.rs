//! A push that a test sends to a third-party platform, with its faults.

use std::time::Duration;

/// An encrypted push to a third-party platform: an event of the platform, or a message of a user. A
/// test sends it with [`SimulatedPlatform::push`](super::SimulatedPlatform::push).
///
/// ```
/// use std::time::Duration;
/// use tower_wechat::simulator::SimulatedPush;
///
/// let account = "wx00000000000000aa";
/// let pushes = [
///     SimulatedPush::ticket(),
///     SimulatedPush::authorized(account).repeat(2),
///     // An event that comes late: its CreateTime is an hour ago.
///     SimulatedPush::unauthorized(account).age(Duration::from_secs(3600)),
///     SimulatedPush::event("notify_of_next_year", [("Field", "value")]),
///     SimulatedPush::text(account, "oAlice", "hello"),
///     SimulatedPush::ticket().wrong_signature(),
/// ];
/// ```
#[derive(Debug, Clone)]
#[must_use = "a push does nothing until it is sent"]
pub struct SimulatedPush {
    pub(in crate::simulator) kind: PushKind,
    pub(in crate::simulator) repeat: u32,
    pub(in crate::simulator) delay: Duration,
    pub(in crate::simulator) age: Duration,
    pub(in crate::simulator) wrong_signature: bool,
    pub(in crate::simulator) former_keys: bool,
    pub(in crate::simulator) component: Option<String>,
}

#[derive(Debug, Clone)]
pub(in crate::simulator) enum PushKind {
    Ticket {
        same_value: bool,
    },
    Authorized {
        account: String,
    },
    Unauthorized {
        account: String,
    },
    Event {
        info_type: String,
        fields: Vec<(String, String)>,
    },
    Text {
        account: String,
        openid: String,
        content: String,
    },
    UserEvent {
        account: String,
        openid: String,
        event: String,
    },
    Xml {
        text: String,
    },
}

impl SimulatedPush {
    pub(in crate::simulator) fn new(kind: PushKind) -> Self {
        Self {
            kind,
            repeat: 0,
            delay: Duration::ZERO,
            age: Duration::ZERO,
            wrong_signature: false,
            former_keys: false,
            component: None,
        }
    }

    /// Creates the push of a new verify ticket: `component_verify_ticket`.
    pub fn ticket() -> Self {
        Self::new(PushKind::Ticket { same_value: false })
    }

    /// Creates the push of the latest verify ticket, because WeChat often repeats a value. Without a
    /// ticket so far, pushes a new one.
    pub fn same_ticket() -> Self {
        Self::new(PushKind::Ticket { same_value: true })
    }

    /// Creates the event of the account's latest authorization: `authorized`, or `updateauthorized`
    /// if the account was authorized before. The event contains the code of
    /// [`SimulatedPlatform::authorize`](super::SimulatedPlatform::authorize).
    pub fn authorized(account: impl Into<String>) -> Self {
        let account = account.into();
        Self::new(PushKind::Authorized { account })
    }

    /// Creates the event `unauthorized` of an account. The event alone withdraws nothing:
    /// [`SimulatedPlatform::revoke`](super::SimulatedPlatform::revoke) does.
    pub fn unauthorized(account: impl Into<String>) -> Self {
        let account = account.into();
        Self::new(PushKind::Unauthorized { account })
    }

    /// Creates an event with any InfoType and fields.
    pub fn event<N: Into<String>, V: Into<String>>(
        info_type: impl Into<String>,
        fields: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let fields = fields.into_iter();
        Self::new(PushKind::Event {
            info_type: info_type.into(),
            fields: fields
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        })
    }

    /// Creates a text message of a user to an account. `openid` is the user's openid in the first
    /// account or in this account.
    pub fn text(
        account: impl Into<String>,
        openid: impl Into<String>,
        content: impl Into<String>,
    ) -> Self {
        Self::new(PushKind::Text {
            account: account.into(),
            openid: openid.into(),
            content: content.into(),
        })
    }

    /// Creates an event of a user, such as `subscribe` or `CLICK`. `openid` is the user's openid in
    /// the first account or in this account.
    pub fn user_event(
        account: impl Into<String>,
        openid: impl Into<String>,
        event: impl Into<String>,
    ) -> Self {
        Self::new(PushKind::UserEvent {
            account: account.into(),
            openid: openid.into(),
            event: event.into(),
        })
    }

    /// Creates a push to the URL of events whose decrypted text is `text`, such as XML that no
    /// platform should accept.
    pub fn xml(text: impl Into<String>) -> Self {
        Self::new(PushKind::Xml { text: text.into() })
    }

    /// Sends the same request this many times more, one after the other.
    pub fn repeat(mut self, times: u32) -> Self {
        self.repeat = times;
        self
    }

    /// Sets the time for which the finished push waits before it is sent. Pushes that are made in the
    /// meantime overtake it.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Sets how long ago the push was made. Its CreateTime and its timestamp are in the past by as
    /// much.
    pub fn age(mut self, age: Duration) -> Self {
        self.age = age;
        self
    }

    /// Makes `msg_signature` wrong. The parameter `signature`, which does not cover the body, stays
    /// right.
    pub fn wrong_signature(mut self) -> Self {
        self.wrong_signature = true;
        self
    }

    /// Signs and encrypts with the keys from before the last rotation.
    pub fn former_keys(mut self) -> Self {
        self.former_keys = true;
        self
    }

    /// Encrypts for the third-party platform with this AppID, and writes its AppID into the push, as
    /// if a push of another platform came.
    pub fn component(mut self, app_id: impl Into<String>) -> Self {
        self.component = Some(app_id.into());
        self
    }
}
