//! Credentials as values: secrets, identifiers, lifetimes and records. Nothing here does I/O.
//!
//! A user's pair, the account's token and the `jsapi_ticket` are all stored as a `Record`: a token
//! with its lifetime. The record of a user also holds the refresh token, for which WeChat issues
//! the next pair.
//!
//! ```
//! use tower_wechat::credential::{AccessToken, AppId, UserId};
//!
//! let app = AppId::new("wx0123456789abcdef")?;
//! let user = UserId::new("oUser")?;
//!
//! // A secret is shown only where the code asks for it.
//! let token = AccessToken::new("83_token");
//! assert_eq!(token.expose(), "83_token");
//! assert!(!format!("{app} {user} {token:?}").contains("83_token"));
//! # Ok::<(), tower_wechat::credential::InvalidIdentifier>(())
//! ```

mod access_token;
mod identifier;
mod lifetime;
mod record;
pub(crate) mod record_lifetime;
mod secret;
mod secret_bytes;

pub use access_token::AccessToken;
pub(crate) use access_token::is_valid_token;
pub use identifier::{AppId, InvalidIdentifier, UserId};
#[cfg(feature = "cli")]
pub(crate) use lifetime::STANDARD_LIFETIME;
pub(crate) use lifetime::jitter_seed;
pub use lifetime::{Freshness, Lifetime};
pub(crate) use record::RecordView;
pub(crate) use record::{
    Record, Refresh, SCOPE_BASE, SCOPE_LOGIN, SCOPE_USER_INFO, Token, UserDetails,
};
#[cfg(any(feature = "redis", test))]
pub(crate) use record::{RefreshView, TokenView, UserDetailsView};
pub(crate) use secret::KeyList;
pub use secret::{AppSecret, BearerSecret, RefreshToken};
pub(crate) use secret_bytes::SecretBytes;
