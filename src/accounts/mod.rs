//! The access token of the account itself: [`AccountTokens`], its builder and its sources.

mod account_source;
mod account_tokens;
mod builder;
mod center_client;
#[cfg(any(feature = "redis", feature = "platform"))]
mod external;
mod mode;
#[cfg(feature = "platform")]
mod on_behalf;
mod own_credential;
mod quota;
mod rate_limiter;
mod source;
mod token;

pub use self::account_source::AccountSource;
pub(crate) use self::account_source::AccountSourceKind;
pub use self::account_tokens::AccountTokens;
pub use self::builder::AccountTokensBuilder;
pub use self::center_client::TokenCenterClient;
#[cfg(feature = "platform")]
pub(crate) use self::external::ReadOnlySource;
pub use self::mode::TokenMode;
#[cfg(feature = "platform")]
pub(crate) use self::own_credential::{AUTHORIZER_RENEW_MARGIN, account_slot};
pub(crate) use self::own_credential::{OwnCredential, account_record, is_due};
pub(crate) use self::rate_limiter::RateLimiter;
pub(crate) use self::token::AccountCredential;
pub use self::token::AccountToken;
