//! The stored form of a credential: [`Record`], which owns its texts, and [`RecordView`], which
//! borrows them from a stored text.
//!
//! Most reads of the store find a fresh token. They copy the token and the user's details from the
//! view into a cache entry, but not the refresh token. A renewal copies the whole view into a
//! [`Record`].

use std::borrow::Cow;
use std::fmt;

use super::access_token::AccessToken;
use super::lifetime::Lifetime;
use super::secret::RefreshToken;
use crate::clock::Timestamp;

/// An access token or a `jsapi_ticket`, with its lifetime.
#[derive(Debug, Clone, PartialEq, Eq)]
#[doc(hidden)]
pub struct Token {
    /// The text of the token, which is secret.
    pub secret: AccessToken,
    /// The points at which the token is due for renewal and at which it expires.
    pub lifetime: Lifetime,
}

/// A refresh token with the point at which it is expected to expire.
#[derive(Debug, Clone, PartialEq, Eq)]
#[doc(hidden)]
pub struct Refresh {
    /// The text of the refresh token, which is secret.
    pub secret: RefreshToken,
    /// The expected expiry. This crate writes 30 days after the refresh token was issued, less the
    /// renewal margin of the access token.
    ///
    /// The point is a hint: only WeChat decides whether a refresh token is valid, and this crate
    /// also sends a refresh token past the point. Some services store the renewal point of the
    /// access token in this place. `record_lifetime` distinguishes the two meanings.
    pub expected_expiry: Timestamp,
}

/// WeChat's name of the scope that covers the openid alone.
pub(crate) const SCOPE_BASE: &str = "snsapi_base";

/// WeChat's name of the scope that also covers the nickname and the avatar.
pub(crate) const SCOPE_USER_INFO: &str = "snsapi_userinfo";

/// WeChat's name of the scope of a website app (网站应用), which covers the user's profile.
pub(crate) const SCOPE_LOGIN: &str = "snsapi_login";

/// The facts about a user that WeChat returned together with the tokens, and the time of the user's
/// last logout everywhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[doc(hidden)]
pub struct UserDetails {
    /// The user's openid, if known. A pair that another service wrote may lack the openid.
    pub openid: Option<Box<str>>,
    /// The scopes that the user granted, separated by commas, if known.
    pub scope: Option<Box<str>>,
    /// The unionid, for accounts bound to an Open Platform account.
    pub unionid: Option<Box<str>>,
    /// The time of the user's last logout everywhere, if there was one. Sessions of earlier logins
    /// are revoked, and stay revoked after the next login.
    pub sessions_valid_from: Option<Timestamp>,
}

/// All that the store keeps of one credential. The token, the refresh token or both may be missing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[doc(hidden)]
pub struct Record {
    /// The access token or `jsapi_ticket` that handlers receive.
    pub token: Option<Token>,
    /// The refresh token of a user. Credentials of the account have no refresh token.
    pub refresh: Option<Refresh>,
    /// The facts about the user; empty for credentials of the account.
    pub details: UserDetails,
}

/// A [`Record`] whose texts are borrowed from the stored text.
#[derive(Debug, Default, Clone)]
pub struct RecordView<'a> {
    /// The access token or `jsapi_ticket` that handlers receive.
    pub token: Option<TokenView<'a>>,
    /// The refresh token of a user. Credentials of the account have no refresh token.
    pub refresh: Option<RefreshView<'a>>,
    /// The facts about the user; empty for credentials of the account.
    pub details: UserDetailsView<'a>,
}

/// A [`Token`] whose text is borrowed from the stored text.
#[derive(Clone, Copy)]
pub struct TokenView<'a> {
    /// The text of the token, which is secret.
    pub secret: &'a str,
    /// The points at which the token is due for renewal and at which it expires.
    pub lifetime: Lifetime,
}

/// A [`Refresh`] whose text is borrowed from the stored text.
#[derive(Clone, Copy)]
pub struct RefreshView<'a> {
    /// The text of the refresh token, which is secret.
    pub secret: &'a str,
    /// The expected expiry of the refresh token; see [`Refresh::expected_expiry`].
    pub expected_expiry: Timestamp,
}

/// [`UserDetails`] whose texts are borrowed from the stored text.
#[derive(Debug, Default, Clone)]
pub struct UserDetailsView<'a> {
    /// The user's openid, if known.
    pub openid: Option<Cow<'a, str>>,
    /// The scopes that the user granted, separated by commas, if known.
    pub scope: Option<Cow<'a, str>>,
    /// The unionid, for accounts bound to an Open Platform account.
    pub unionid: Option<Cow<'a, str>>,
    /// The time of the user's last logout everywhere; see [`UserDetails::sessions_valid_from`].
    pub sessions_valid_from: Option<Timestamp>,
}

impl fmt::Debug for TokenView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenView")
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for RefreshView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RefreshView")
            .field("expected_expiry", &self.expected_expiry)
            .finish_non_exhaustive()
    }
}

impl RecordView<'_> {
    /// Copies the texts of the view into a [`Record`], which outlives the stored text.
    pub fn to_record(&self) -> Record {
        Record {
            token: self.token.map(TokenView::to_token),
            refresh: self.refresh.map(RefreshView::to_refresh),
            details: self.details.to_details(),
        }
    }
}

impl TokenView<'_> {
    /// Copies the text of the view into a [`Token`], which outlives the stored text.
    pub fn to_token(self) -> Token {
        Token {
            secret: AccessToken::from(self.secret),
            lifetime: self.lifetime,
        }
    }
}

impl RefreshView<'_> {
    /// Copies the text of the view into a [`Refresh`], which outlives the stored text.
    pub fn to_refresh(self) -> Refresh {
        Refresh {
            secret: RefreshToken::from(self.secret),
            expected_expiry: self.expected_expiry,
        }
    }
}

impl UserDetailsView<'_> {
    /// Copies the texts of the view into [`UserDetails`], which outlive the stored text.
    pub fn to_details(&self) -> UserDetails {
        let owned = |text: &Option<Cow<'_, str>>| text.as_deref().map(Box::from);
        UserDetails {
            openid: owned(&self.openid),
            scope: owned(&self.scope),
            unionid: owned(&self.unionid),
            sessions_valid_from: self.sessions_valid_from,
        }
    }
}

impl Record {
    /// Returns `true` if there is neither a token nor a refresh token.
    pub fn is_empty(&self) -> bool {
        self.token.is_none() && self.refresh.is_none()
    }

    /// Returns a view that borrows the texts of this record.
    pub fn view(&self) -> RecordView<'_> {
        RecordView {
            token: self.token.as_ref().map(|token| TokenView {
                secret: token.secret.expose(),
                lifetime: token.lifetime,
            }),
            refresh: self.refresh.as_ref().map(|refresh| RefreshView {
                secret: refresh.secret.expose(),
                expected_expiry: refresh.expected_expiry,
            }),
            details: self.details.view(),
        }
    }
}

impl UserDetails {
    /// Returns a view that borrows the texts of these details.
    pub fn view(&self) -> UserDetailsView<'_> {
        fn lent(text: &Option<Box<str>>) -> Option<Cow<'_, str>> {
            text.as_deref().map(Cow::Borrowed)
        }
        UserDetailsView {
            openid: lent(&self.openid),
            scope: lent(&self.scope),
            unionid: lent(&self.unionid),
            sessions_valid_from: self.sessions_valid_from,
        }
    }
}
