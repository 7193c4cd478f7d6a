//! A decrypted push, as the application receives it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use zeroize::Zeroizing;

use super::fields::PushFields;
use super::refusal::PushRefusal;
use super::xml::{self, XmlError};
use crate::clock::Timestamp;
use crate::credential::AppId;

/// A genuine, decrypted push of WeChat: an event of the platform that this crate does not handle
/// itself, or a message or an event of a user of an account.
///
/// [`PushLayer`](super::PushLayer) inserts it into the extensions of the request. WeChat repeats a
/// push that was not answered, so that the application should recognize a `MsgId` that it has seen.
/// Cheap to clone.
///
/// ```
/// use tower_wechat::platform::PlatformPush;
///
/// /// Returns a reply to a text message, or an empty text: no reply.
/// fn reply(push: &PlatformPush) -> String {
///     let (Some("text"), Some(user), Some(account)) =
///         (push.msg_type(), push.text("FromUserName"), push.text("ToUserName"))
///     else {
///         return String::new();
///     };
///     let seconds = push.created().map_or(0, |created| created.as_millis() / 1_000);
///     format!(
///         "<xml><ToUserName><![CDATA[{user}]]></ToUserName>\
///          <FromUserName><![CDATA[{account}]]></FromUserName>\
///          <CreateTime>{seconds}</CreateTime><MsgType><![CDATA[text]]></MsgType>\
///          <Content><![CDATA[hello]]></Content></xml>"
///     )
/// }
/// ```
#[derive(Clone)]
pub struct PlatformPush(Arc<Inner>);

struct Inner {
    component: AppId,
    account: Option<AppId>,
    created: Option<Timestamp>,
    fields: PushFields,
    xml: Zeroizing<String>,
}

impl PlatformPush {
    /// Reads a decrypted message.
    ///
    /// # Errors
    /// Returns why the message is not the XML of a push.
    pub(super) fn parse(
        mut message: Zeroizing<Vec<u8>>,
        component: &AppId,
    ) -> Result<Self, PushRefusal> {
        let malformed = PushRefusal::Message(XmlError::Malformed);
        if std::str::from_utf8(&message).is_err() {
            return Err(malformed);
        }
        let xml = String::from_utf8(std::mem::take(&mut *message)).map(Zeroizing::new);
        let xml = xml.map_err(|_| malformed)?;
        let fields = xml::parse(&xml).map_err(PushRefusal::Message)?;
        // A user writes the texts inside a message. If WeChat did not escape them well, they could
        // look like the fields of an event, but they cannot remove the fields of a message.
        let is_event = fields.field("InfoType").is_some();
        let message_fields = ["ToUserName", "FromUserName", "MsgType"];
        let is_message = message_fields
            .into_iter()
            .any(|name| fields.field(name).is_some());
        if is_event && is_message {
            return Err(PushRefusal::Ambiguous);
        }
        let account = match fields.only("AuthorizerAppid")? {
            Some(account) => Some(account),
            None => fields.only("appid")?,
        };
        Ok(Self(Arc::new(Inner {
            component: component.clone(),
            account: account.and_then(|account| AppId::new(account).ok()),
            created: fields.only("CreateTime")?.and_then(parse_seconds),
            xml,
            fields,
        })))
    }

    /// Returns the AppID of the platform (component_appid).
    pub fn component(&self) -> &AppId {
        &self.0.component
    }

    /// Returns the AppID of the account that an event of the platform names. A user's message names
    /// its account by `ToUserName` only. To have its AppID, put `$APPID$` into the URL of messages
    /// at open.weixin.qq.com: WeChat replaces it by the AppID.
    pub fn account(&self) -> Option<&AppId> {
        self.0.account.as_ref()
    }

    /// Returns the `InfoType` of an event of the platform, such as `notify_third_fasteregister`, or
    /// `None` for messages and events of users.
    pub fn info_type(&self) -> Option<&str> {
        self.text("InfoType").map(str::trim)
    }

    /// Returns the `MsgType` of a user's message or event, such as `text` or `event`, or `None` for
    /// events of the platform.
    pub fn msg_type(&self) -> Option<&str> {
        self.text("MsgType").map(str::trim)
    }

    /// Returns the time at which WeChat created the push, if the push has a valid `CreateTime`.
    pub fn created(&self) -> Option<Timestamp> {
        self.0.created
    }

    /// Returns the text of the first field with this name, such as `Content`, or `None`.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.fields.text(name)
    }

    /// Returns the fields of the push.
    pub fn fields(&self) -> &PushFields {
        &self.0.fields
    }

    /// Returns the decrypted XML, as WeChat sent it.
    pub fn xml(&self) -> &str {
        &self.0.xml
    }

    /// Returns the XML as the body of a request, without a copy.
    pub(super) fn body(&self) -> Bytes {
        Bytes::from_owner(XmlBytes(self.clone()))
    }
}

/// Reads a time in seconds since the Unix epoch.
pub(super) fn parse_seconds(text: &str) -> Option<Timestamp> {
    let millis = text.parse::<i64>().ok()?.checked_mul(1_000)?;
    Some(Timestamp::from_millis(millis)).filter(|time| time.is_plausible())
}

/// Prints the kind of the push and its names, and no text of a user.
impl fmt::Debug for PlatformPush {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlatformPush")
            .field("component", self.component())
            .field("account", &self.account())
            .field("info_type", &self.info_type())
            .field("msg_type", &self.msg_type())
            .field("created", &self.created())
            .field("fields", self.fields())
            .finish_non_exhaustive()
    }
}

/// The XML of a push as the memory of a body.
struct XmlBytes(PlatformPush);

impl AsRef<[u8]> for XmlBytes {
    fn as_ref(&self) -> &[u8] {
        self.0.xml().as_bytes()
    }
}
