//! A record where it lies: what was read of a stored text, before anything of it is copied.
//!
//! Most looks into the store find a fresh token, and need of the record what requests are served
//! with. Whoever renews or compares makes a [`Record`] of the view.

use std::borrow::Cow;
use std::fmt;

use super::{AccessToken, Lifetime, Record, Refresh, RefreshToken, Token, UserDetails};
use crate::clock::Timestamp;

/// All that a stored text says.
#[derive(Debug, Default, Clone)]
pub struct RecordView<'a> {
    /// The token that is handed out.
    pub token: Option<TokenView<'a>>,
    /// What the next one is made from.
    pub refresh: Option<RefreshView<'a>>,
    /// What else is known.
    pub details: UserDetailsView<'a>,
}

/// A token and its life.
#[derive(Clone, Copy)]
pub struct TokenView<'a> {
    /// The secret itself.
    pub secret: &'a str,
    /// When it is due for renewal and when it dies.
    pub lifetime: Lifetime,
}

/// A refresh token and the point at which it should be dead.
#[derive(Clone, Copy)]
pub struct RefreshView<'a> {
    /// The secret itself.
    pub secret: &'a str,
    /// See [`Refresh::due`].
    pub expected_expiry: Timestamp,
}

/// What WeChat told about the user; see [`Details`].
#[derive(Debug, Default, Clone)]
pub struct UserDetailsView<'a> {
    /// The user's openid.
    pub openid: Option<Cow<'a, str>>,
    /// The granted scope.
    pub scope: Option<Cow<'a, str>>,
    /// The unionid.
    pub unionid: Option<Cow<'a, str>>,
    /// See [`Details::sessions_from`].
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
            .field("due", &self.expected_expiry)
            .finish_non_exhaustive()
    }
}

impl RecordView<'_> {
    /// A copy that outlives the text.
    pub fn to_record(&self) -> Record {
        Record {
            token: self.token.map(TokenView::to_token),
            refresh: self.refresh.map(RefreshView::to_refresh),
            details: self.details.to_details(),
        }
    }
}

impl TokenView<'_> {
    /// A copy that outlives the text.
    pub fn to_token(self) -> Token {
        Token {
            secret: AccessToken::from(self.secret),
            lifetime: self.lifetime,
        }
    }
}

impl RefreshView<'_> {
    /// A copy that outlives the text.
    pub fn to_refresh(self) -> Refresh {
        Refresh {
            secret: RefreshToken::from(self.secret),
            expected_expiry: self.expected_expiry,
        }
    }
}

impl UserDetailsView<'_> {
    /// A copy that outlives the text.
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
    /// A view of the record itself.
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
    /// A view of the details themselves.
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
