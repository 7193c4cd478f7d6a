//! Credentials as values: their secrets, their lives and the forms in which they are stored.
//!
//! Nothing here does I/O. A user's pair, the account's token and the `jsapi_ticket` are all a
//! [`Record`]: a token with a lifetime, and what is needed to get the next one.

mod access_token;
mod identifier;
mod lifetime;
mod record;
pub(crate) mod record_lifetime;
mod secret;
mod token_text;

pub use access_token::AccessToken;
pub use identifier::{AppId, InvalidIdentifier, UserId};
#[cfg(feature = "cli")]
pub(crate) use lifetime::STANDARD_LIFETIME;
pub use lifetime::{Freshness, Lifetime};
pub(crate) use record::RecordView;
#[cfg(any(feature = "redis", test))]
pub(crate) use record::{RefreshView, TokenView, UserDetailsView};
pub(crate) use secret::decode_base64_key;
pub use secret::{AppSecret, BearerSecret, RefreshToken};
pub(crate) use token_text::is_valid_token;

use crate::clock::Timestamp;

/// A token and its life.
#[derive(Debug, Clone, PartialEq, Eq)]
#[doc(hidden)]
pub struct Token {
    /// The secret itself.
    pub secret: AccessToken,
    /// When it is due for renewal and when it dies.
    pub lifetime: Lifetime,
}

/// A refresh token and the point at which it should be dead.
#[derive(Debug, Clone, PartialEq, Eq)]
#[doc(hidden)]
pub struct Refresh {
    /// The secret itself.
    pub secret: RefreshToken,
    /// 30 days after the login less the margin, as this crate writes it. A hint: WeChat decides, and
    /// a refresh token past this point is still tried. Other services may store the access token's
    /// time here; `refresh_life` tells the two apart.
    pub expected_expiry: Timestamp,
}

/// What WeChat told about the user of a pair, besides the tokens.
#[derive(Clone, Default, PartialEq, Eq)]
#[doc(hidden)]
pub struct UserDetails {
    /// The user's openid, where it is known: a pair that another service wrote may lack it.
    pub openid: Option<Box<str>>,
    /// The granted scope, comma-separated, where it is known.
    pub scope: Option<Box<str>>,
    /// The unionid, for accounts bound to an Open Platform account.
    pub unionid: Option<Box<str>>,
    /// Where the user has logged out everywhere: when that was last. Sessions of logins that did not
    /// know of it are void, also after the next login.
    pub sessions_valid_from: Option<Timestamp>,
}

impl std::fmt::Debug for UserDetails {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Details")
            .field("openid", &self.openid)
            .field("scope", &self.scope)
            .field("unionid", &self.unionid)
            .field("sessions_from", &self.sessions_valid_from)
            .finish()
    }
}

/// All that the store keeps of one credential. Either half may be missing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[doc(hidden)]
pub struct Record {
    /// The token that is handed out.
    pub token: Option<Token>,
    /// What the next token is made from. The account's own credentials have none.
    pub refresh: Option<Refresh>,
    /// What else is known.
    pub details: UserDetails,
}

impl Record {
    /// Whether nothing is stored at all.
    pub fn is_empty(&self) -> bool {
        self.token.is_none() && self.refresh.is_none()
    }
}
