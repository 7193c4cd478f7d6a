//! The servers that are compared.

use std::fmt;
use std::str::FromStr;

/// The way in which the requests to a contender name their user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UserCredential {
    /// `x-user-id: USER`, as a gateway sends it.
    Header,
    /// The session cookie of this crate.
    LayerCookie,
    /// `session=USER.TAG` under an HMAC-SHA256 whose key is prepared once.
    TaggedCookie,
    /// The id of a session of tower-sessions.
    SessionCookie,
    /// The same, in the signed jar of the cookie crate.
    SignedSessionCookie,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Contender {
    Bare,
    OwnCacheHeader,
    OwnCacheCookie,
    CachedHeader,
    CachedCookie,
    UncachedHashes,
    UncachedKeys,
    UncachedKeysCookie,
    Naive,
    Bb8,
    Deadpool,
    Sessions,
    SignedSessions,
}

impl Contender {
    /// All contenders, in the order of the table.
    pub const ALL: [Self; 13] = [
        Self::Bare,
        Self::OwnCacheHeader,
        Self::CachedHeader,
        Self::OwnCacheCookie,
        Self::CachedCookie,
        Self::Naive,
        Self::UncachedKeys,
        Self::UncachedHashes,
        Self::UncachedKeysCookie,
        Self::Sessions,
        Self::SignedSessions,
        Self::Bb8,
        Self::Deadpool,
    ];

    /// Returns the name on the command line and in results.json.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::OwnCacheHeader => "own-cache-header",
            Self::OwnCacheCookie => "own-cache-cookie",
            Self::CachedHeader => "cached-header",
            Self::CachedCookie => "cached-cookie",
            Self::UncachedHashes => "uncached-hashes",
            Self::UncachedKeys => "uncached-keys",
            Self::UncachedKeysCookie => "uncached-keys-cookie",
            Self::Naive => "naive-hget",
            Self::Bb8 => "bb8",
            Self::Deadpool => "deadpool",
            Self::Sessions => "sessions",
            Self::SignedSessions => "sessions-signed",
        }
    }

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
