//! WeChat's token responses: for a user, for the account, and for a `jsapi_ticket`.

use super::reply::{self, InvalidReply, ReplyFields};
use crate::credential::{AccessToken, RefreshToken};

/// WeChat's response to the exchange of a login code, or to the refresh of a user's tokens.
///
/// The fields are those of WeChat's documentation of `sns/oauth2/access_token` and
/// `sns/oauth2/refresh_token` (网页授权). Fields that a reply may lack are optional.
///
/// ```
/// use tower_wechat::client::UserTokenResponse;
///
/// // From a login by other means, for `UserTokens::store`:
/// let response = UserTokenResponse::new("83_token")
///     .expires_in(7_200)
///     .refresh_token("83_refresh")
///     .openid("oUser")
///     .unionid("uUser")
///     .scope("snsapi_base")
///     .snapshot(false);
/// assert_eq!(response.openid.as_deref(), Some("oUser"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct UserTokenResponse {
    /// The user's access token. WeChat's tokens expire after two hours.
    pub access_token: AccessToken,
    /// The lifetime of the access token in seconds, as in the reply and unchecked. The number may
    /// be zero, negative or implausible. `None` if the reply has no number.
    pub expires_in: Option<i64>,
    /// The refresh token, which expires after 30 days. `None` if the reply has no refresh token or
    /// an empty one: an earlier refresh token then remains valid.
    pub refresh_token: Option<RefreshToken>,
    /// The openid of the user to whom the tokens belong. The response to a code exchange always has
    /// an openid.
    pub openid: Option<String>,
    /// The granted scopes, `snsapi_base` or `snsapi_userinfo`, separated by commas.
    pub scope: Option<String>,
    /// The user's id across all apps of one Open Platform account, if the reply has such an id.
    pub unionid: Option<String>,
    /// `true` for the virtual user of a snapshot page (快照页, `is_snapshotuser: 1`). The openid of a
    /// virtual user identifies no real user and must not be stored.
    pub snapshot: bool,
}

impl UserTokenResponse {
    /// Creates a response that has an access token and no other field.
    pub fn new(access_token: impl Into<AccessToken>) -> Self {
        Self {
            access_token: access_token.into(),
            expires_in: None,
            refresh_token: None,
            openid: None,
            scope: None,
            unionid: None,
            snapshot: false,
        }
    }

    /// Sets the lifetime of the access token, in seconds.
    #[must_use]
    pub fn expires_in(mut self, seconds: i64) -> Self {
        self.expires_in = Some(seconds);
        self
    }

    /// Sets the refresh token.
    #[must_use]
    pub fn refresh_token(mut self, token: impl Into<RefreshToken>) -> Self {
        self.refresh_token = Some(token.into());
        self
    }

    /// Sets the openid of the user to whom the tokens belong.
    #[must_use]
    pub fn openid(mut self, openid: impl Into<String>) -> Self {
        self.openid = Some(openid.into());
        self
    }

    /// Sets the granted scopes, separated by commas.
    #[must_use]
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = Some(scope.into());
        self
    }

    /// Sets the unionid, the user's id across all apps of one Open Platform account.
    #[must_use]
    pub fn unionid(mut self, unionid: impl Into<String>) -> Self {
        self.unionid = Some(unionid.into());
        self
    }

    /// Sets whether the tokens belong to the virtual user of a snapshot page (快照页).
    #[must_use]
    pub fn snapshot(mut self, snapshot: bool) -> Self {
        self.snapshot = snapshot;
        self
    }

    /// Creates a response from the reply to a refresh, in which only the access token is required.
    pub(super) fn from_refresh(fields: &ReplyFields) -> Result<Self, InvalidReply> {
        let owned = |name| reply::non_empty_text(fields, name).map(str::to_owned);
        Ok(Self {
            access_token: reply::required_token(fields, "access_token")?,
            expires_in: parse_expires_in(fields),
            refresh_token: reply::optional_refresh_token(fields)?,
            openid: reply::valid_openid(fields).map(str::to_owned),
            scope: owned("scope"),
            unionid: owned("unionid"),
            snapshot: is_flag_set(fields, "is_snapshotuser"),
        })
    }

    /// Creates a response from the reply to a code exchange, in which the access token and the
    /// openid are required.
    pub(crate) fn from_code_exchange(fields: &ReplyFields) -> Result<Self, InvalidReply> {
        let response = Self::from_refresh(fields)?;
        match response.openid {
            Some(_) => Ok(response),
            None => Err(InvalidReply::MissingField("openid")),
        }
    }
}

/// The response of `cgi-bin/token` and `cgi-bin/stable_token`: the account's access token.
///
/// ```
/// let response = tower_wechat::client::AccountTokenResponse::new("83_token", Some(7_200));
/// assert_eq!(response.access_token.expose(), "83_token");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AccountTokenResponse {
    /// The account's access token.
    pub access_token: AccessToken,
    /// The remaining lifetime in seconds, as in the reply and unchecked. `stable_token` may return
    /// a token that it issued before: this number is then the time that is left.
    pub expires_in: Option<i64>,
}

impl AccountTokenResponse {
    /// Creates a response from its fields, for a source of account tokens other than WeChat.
    pub fn new(access_token: impl Into<AccessToken>, expires_in: Option<i64>) -> Self {
        Self {
            access_token: access_token.into(),
            expires_in,
        }
    }

    pub(crate) fn from_reply(fields: &ReplyFields) -> Result<Self, InvalidReply> {
        Ok(Self {
            access_token: reply::required_token(fields, "access_token")?,
            expires_in: parse_expires_in(fields),
        })
    }
}

/// The response of `cgi-bin/ticket/getticket`: the `jsapi_ticket` that signs pages for the JS-SDK.
///
/// ```
/// let response = tower_wechat::client::JsapiTicketResponse::new("sM4AOVdWfPE4", Some(7_200));
/// assert_eq!(response.expires_in, Some(7_200));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct JsapiTicketResponse {
    /// The `jsapi_ticket`, which is as secret as an access token and shares its type.
    pub ticket: AccessToken,
    /// The lifetime in seconds, as in the reply and unchecked. WeChat returns 7,200 even for a
    /// ticket that it issued before, so the remaining time may be shorter.
    pub expires_in: Option<i64>,
}

impl JsapiTicketResponse {
    /// Creates a response from its fields, for a source of tickets other than WeChat.
    pub fn new(ticket: impl Into<AccessToken>, expires_in: Option<i64>) -> Self {
        Self {
            ticket: ticket.into(),
            expires_in,
        }
    }

    pub(crate) fn from_reply(fields: &ReplyFields) -> Result<Self, InvalidReply> {
        Ok(Self {
            ticket: reply::required_token(fields, "ticket")?,
            expires_in: parse_expires_in(fields),
        })
    }
}

pub(super) fn parse_expires_in(fields: &ReplyFields) -> Option<i64> {
    fields.get("expires_in").and_then(reply::parse_integer)
}

fn is_flag_set(fields: &ReplyFields, name: &str) -> bool {
    fields.get(name).is_some_and(|value| {
        value.as_bool().unwrap_or(false)
            || reply::parse_integer(value).is_some_and(|flag| flag != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn fields(value: Value) -> ReplyFields {
        match value {
            Value::Object(fields) => fields,
            other => panic!("{other} is no object"),
        }
    }

    #[test]
    fn a_complete_response_is_parsed() {
        let reply = fields(json!({
            "access_token": "a", "expires_in": 7200, "refresh_token": "r", "openid": "o",
            "scope": "snsapi_userinfo", "unionid": "u", "is_snapshotuser": 1, "new_field": {},
        }));
        let expected = UserTokenResponse::new("a")
            .expires_in(7_200)
            .refresh_token("r")
            .openid("o")
            .scope("snsapi_userinfo")
            .unionid("u")
            .snapshot(true);
        assert_eq!(
            UserTokenResponse::from_code_exchange(&reply).unwrap(),
            expected
        );
    }

    #[test]
    fn optional_fields_may_be_missing() {
        let reply = fields(json!({ "access_token": "a", "refresh_token": "", "scope": "" }));
        assert_eq!(
            UserTokenResponse::from_refresh(&reply).unwrap(),
            UserTokenResponse::new("a")
        );
        assert_eq!(
            UserTokenResponse::from_code_exchange(&reply),
            Err(InvalidReply::MissingField("openid"))
        );
    }

    #[test]
    fn an_invalid_openid_is_ignored() {
        for openid in [json!(""), json!("a\nb"), json!(7), json!("o".repeat(257))] {
            let reply = fields(json!({ "access_token": "a", "openid": openid }));
            assert_eq!(
                UserTokenResponse::from_refresh(&reply).unwrap().openid,
                None
            );
        }
    }

    #[test]
    fn expires_in_is_kept_as_sent() {
        for (said, kept) in [
            (json!("7200"), Some(7_200)),
            (json!(0), Some(0)),
            (json!(-1), Some(-1)),
            (json!(600), Some(600)),
            (json!(1e30), Some(i64::MAX)),
            (json!("soon"), None),
        ] {
            let reply = fields(json!({ "access_token": "a", "ticket": "t", "expires_in": said }));
            assert_eq!(
                AccountTokenResponse::from_reply(&reply).unwrap().expires_in,
                kept
            );
            assert_eq!(
                JsapiTicketResponse::from_reply(&reply).unwrap().expires_in,
                kept
            );
            assert_eq!(
                UserTokenResponse::from_refresh(&reply).unwrap().expires_in,
                kept
            );
        }
    }

    fn any_json() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            Just(json!([1, "a"])),
            Just(json!({ "a": 1 })),
        ]
    }

    proptest! {
        #[test]
        fn every_accepted_response_can_be_stored(
            access in any_json(), refresh in any_json(), openid in any_json(), life in any_json(),
        ) {
            let reply = fields(json!({
                "access_token": access, "refresh_token": refresh, "openid": openid,
                "expires_in": life, "scope": life, "is_snapshotuser": life,
            }));
            if let Ok(response) = UserTokenResponse::from_code_exchange(&reply) {
                prop_assert!(!response.access_token.expose().is_empty());
                prop_assert!(!response.access_token.expose().contains('#'));
                prop_assert!(response.refresh_token.is_none_or(|token| !token.expose().is_empty()));
            }
        }
    }
}
