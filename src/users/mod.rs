//! Access tokens of users: [`UserTokens`] and its builder.

mod builder;
mod logins;
#[cfg(all(feature = "testing", debug_assertions))]
mod preset;
mod profile;
pub(crate) mod sessions;
mod source;
mod token;
mod user_tokens;

pub use self::builder::UserTokensBuilder;
pub(crate) use self::logins::LoginWrite;
pub(crate) use self::token::GrantedScope;
pub use self::token::UserToken;
pub use self::user_tokens::UserTokens;
