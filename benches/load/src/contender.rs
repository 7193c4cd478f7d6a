//! The servers that the benchmark compares.

use std::fmt;
use std::str::FromStr;

/// The way in which the requests to a contender name their user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UserCredential {
    /// The header `x-user-id: USER`, as a gateway sends it.
    Header,
    /// The session cookie of this crate.
    LayerCookie,
    /// A cookie `session=USER.TAG`, whose tag is an HMAC-SHA256 of the user's id.
    TaggedCookie,
    /// A cookie with the id of a session of tower-sessions.
    SessionCookie,
    /// A signed cookie with the id of a session of tower-sessions.
    SignedSessionCookie,
}

/// Defines the contenders from one list, in the order of the report's table. Each contender has a
/// name for the command line and results.json.
macro_rules! contenders {
    ($($(#[$meta:meta])* $variant:ident = $name:literal,)*) => {
        /// A server that takes part in the comparison.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Contender {
            $($(#[$meta])* $variant,)*
        }

        impl Contender {
            /// All contenders, in the order of the report's table.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            /// Returns the contender's name on the command line and in results.json.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

contenders! {
    /// axum alone, with a handler that reads the user's id from the header.
    Bare = "bare",
    /// A server with a hand-written cache of tokens, which reads the user's id from a header.
    OwnCacheHeader = "own-cache-header",
    /// A server with this crate's layer and cache, which reads the user's id from a header.
    CachedHeader = "cached-header",
    /// A server with a hand-written cache of tokens, which reads the user's id from a signed
    /// cookie.
    OwnCacheCookie = "own-cache-cookie",
    /// A server with this crate's layer and cache, which reads the user's id from the session
    /// cookie.
    CachedCookie = "cached-cookie",
    /// A server without a cache, which sends one `HGET` for each request over one shared
    /// connection with `TCP_NODELAY`.
    Naive = "naive-hget",
    /// A server with this crate's layer without the cache, which reads Redis in the layout keys.
    UncachedKeys = "uncached-keys",
    /// A server with this crate's layer without the cache, which reads Redis in the layout hashes.
    UncachedHashes = "uncached-hashes",
    /// A server with this crate's layer without the cache, with the layout keys and the user's id
    /// in the session cookie.
    UncachedKeysCookie = "uncached-keys-cookie",
    /// A server that reads the user's id from a session of tower-sessions in Redis.
    Sessions = "sessions",
    /// A server that reads the user's id from a session of tower-sessions in Redis, with a signed
    /// cookie.
    SignedSessions = "sessions-signed",
    /// A server without a cache, which sends one `HGET` for each request over a pool of bb8.
    Bb8 = "bb8",
    /// A server without a cache, which sends one `HGET` for each request over a pool of deadpool.
    Deadpool = "deadpool",
}

impl Contender {
    /// Returns the way in which requests to this contender name their user.
    pub fn user_credential(self) -> UserCredential {
        match self {
            Self::CachedCookie | Self::UncachedKeysCookie => UserCredential::LayerCookie,
            Self::OwnCacheCookie => UserCredential::TaggedCookie,
            Self::Sessions => UserCredential::SessionCookie,
            Self::SignedSessions => UserCredential::SignedSessionCookie,
            Self::Bare
            | Self::OwnCacheHeader
            | Self::CachedHeader
            | Self::UncachedHashes
            | Self::UncachedKeys
            | Self::Naive
            | Self::Bb8
            | Self::Deadpool => UserCredential::Header,
        }
    }

    /// Returns `true` if the server uses this crate.
    pub fn is_this_crate(self) -> bool {
        matches!(
            self,
            Self::CachedHeader
                | Self::CachedCookie
                | Self::UncachedHashes
                | Self::UncachedKeys
                | Self::UncachedKeysCookie
        )
    }
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Contender {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|contender| contender.name() == name)
            .ok_or_else(|| format!("there is no contender {name:?}"))
    }
}
