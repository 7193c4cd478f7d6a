//! What a third-party platform (第三方平台) keeps in a store beside its tokens: durable secrets, and
//! the list of its accounts.
//!
//! WeChat pushes a durable secret, or returns it once. A lost secret cannot be fetched again at
//! will. A store therefore never expires or sweeps a durable secret, and replaces it only by
//! compare-and-set.

use super::credential::Expected;
use crate::clock::Timestamp;
use crate::credential::{AppId, RefreshToken, is_valid_token};
use crate::error::{Error, ErrorKind};

/// The kind of a verify ticket in messages, seals and logs.
const VERIFY_TICKET: &str = "verify_ticket";

/// The text of the mark that replaces a refused verify ticket. A store keeps no empty text. WeChat's
/// tickets begin with `ticket@@@`.
const REFUSED_TICKET: &str = "refused";

/// The kind of an account's refresh token in messages, seals and logs.
const REFRESH_TOKEN: &str = "refresh_token";

/// The identity of a durable secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DurableSecretKey {
    /// The verify ticket that WeChat pushes to a platform every ten minutes.
    VerifyTicket {
        /// The AppID of the platform.
        component: AppId,
    },
    /// The refresh token of an account that has authorized a platform.
    RefreshToken {
        /// The AppID of the account.
        account: AppId,
    },
}

impl DurableSecretKey {
    /// Returns the name of the kind of secret in messages, seals and logs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::VerifyTicket { .. } => VERIFY_TICKET,
            Self::RefreshToken { .. } => REFRESH_TOKEN,
        }
    }

    /// Returns the app to which the secret belongs: the platform or the account.
    pub fn app(&self) -> &AppId {
        match self {
            Self::VerifyTicket { component } => component,
            Self::RefreshToken { account } => account,
        }
    }
}

/// A secret that a store keeps until another one replaces it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DurableSecret {
    /// The verify ticket, or the refresh token.
    pub secret: RefreshToken,
    /// The time since which the secret is valid. Of two secrets, the one with the earlier time is
    /// older.
    pub since: Timestamp,
}

impl DurableSecret {
    /// Returns the mark that a store keeps in place of a verify ticket that WeChat has refused. The
    /// mark has the time of the ticket, so that no copy of an older push counts as a new ticket.
    pub fn refused_ticket(since: Timestamp) -> Self {
        Self {
            secret: RefreshToken::from(REFUSED_TICKET),
            since,
        }
    }

    /// Returns `true` if this is the mark of a refused verify ticket.
    pub fn is_refused_ticket(&self) -> bool {
        self.secret.expose() == REFUSED_TICKET
    }

    /// Returns the secret as every store can keep it. Fails if a store could not return the same
    /// text again.
    pub(super) fn to_storable(&self, key: &DurableSecretKey) -> Result<Self, Error> {
        if is_valid_token(self.secret.expose()) {
            return Ok(Self {
                secret: self.secret.clone(),
                since: storable_time(self.since),
            });
        }
        let (kind, app) = (key.kind(), key.app());
        Err(Error::new(
            ErrorKind::WechatUnavailable,
            format!(
                "WeChat returned a {kind} of {app} that cannot be stored: it needs 1 to 2,048 \
                 visible ASCII characters, and no '#'"
            ),
        ))
    }
}

/// Returns the plausible time that is closest to `at`. Stores keep only such times.
pub(super) fn storable_time(at: Timestamp) -> Timestamp {
    const LATEST_MILLIS: i64 = 9_999_999_999_999;
    Timestamp::from_millis(at.as_millis().clamp(0, LATEST_MILLIS))
}

/// A durable secret, together with the raw value from which it was decoded.
#[derive(Debug, Clone, Default)]
pub struct StoredSecret {
    /// The decoded secret. `None` if the store holds no secret, or none that can be read.
    pub value: Option<DurableSecret>,
    /// The raw value, with which a later write compares.
    pub expected: Expected,
}

/// The state of an account at a platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthorizationState {
    /// The account has authorized the platform.
    Authorized,
    /// The account has withdrawn its authorization.
    Unauthorized,
    /// WeChat rejects the platform's calls for the account, and the refresh token could not be
    /// recovered.
    Lost,
}

impl AuthorizationState {
    /// Returns the name of the state in a store.
    #[cfg(feature = "redis")]
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Authorized => "authorized",
            Self::Unauthorized => "unauthorized",
            Self::Lost => "lost",
        }
    }

    /// Returns the state with this name.
    #[cfg(feature = "redis")]
    pub(super) fn from_name(name: &str) -> Option<Self> {
        let states = [Self::Authorized, Self::Unauthorized, Self::Lost];
        states.into_iter().find(|state| state.as_str() == name)
    }
}

/// The state of an account at a platform, with its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authorization {
    /// The state of the account.
    pub state: AuthorizationState,
    /// The time since which the account has this state.
    pub since: Timestamp,
}

/// The stored entry of one account, and the time of the last complete list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AuthorizationLookup {
    /// The entry of the account. `None` if the platform has none.
    pub entry: Option<Authorization>,
    /// The time at which the platform last stored the complete list of its accounts.
    pub listed_at: Option<Timestamp>,
}

/// The stored entries of all accounts of a platform.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuthorizationList {
    /// Each account once, in the order of the AppIDs.
    pub entries: Vec<(AppId, Authorization)>,
    /// The time at which the platform last stored the complete list of its accounts.
    pub listed_at: Option<Timestamp>,
}

/// The message about one write of a durable secret or of an account's entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlatformChange {
    /// A durable secret was replaced or deleted.
    Secret(DurableSecretKey),
    /// The state of an account at a platform has changed.
    Authorization {
        /// The AppID of the platform.
        component: AppId,
        /// The AppID of the account.
        account: AppId,
    },
}

/// The kind of a [`PlatformChange`]. Its name is part of a message that other processes parse, so it
/// must not change.
#[cfg(feature = "redis")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PlatformChangeKind {
    VerifyTicket,
    RefreshToken,
    Authorization,
}

#[cfg(feature = "redis")]
impl PlatformChangeKind {
    pub(super) const ALL: [Self; 3] = [Self::VerifyTicket, Self::RefreshToken, Self::Authorization];

    /// Returns the name of the kind in messages.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::VerifyTicket => VERIFY_TICKET,
            Self::RefreshToken => REFRESH_TOKEN,
            Self::Authorization => "authorization",
        }
    }
}

#[cfg(feature = "redis")]
impl PlatformChange {
    /// Returns the app on whose channel the change is published.
    pub(super) fn app(&self) -> &AppId {
        match self {
            Self::Secret(key) => key.app(),
            Self::Authorization { component, .. } => component,
        }
    }

    /// Returns the kind of the change, and the id in its message.
    pub(super) fn kind_and_id(&self) -> (PlatformChangeKind, &str) {
        match self {
            Self::Secret(DurableSecretKey::VerifyTicket { .. }) => {
                (PlatformChangeKind::VerifyTicket, "")
            }
            Self::Secret(DurableSecretKey::RefreshToken { .. }) => {
                (PlatformChangeKind::RefreshToken, "")
            }
            Self::Authorization { account, .. } => {
                (PlatformChangeKind::Authorization, account.as_str())
            }
        }
    }

    /// Returns the change of a message on the channel of `app`. Returns `None` if the id of an
    /// account is no AppID.
    pub(super) fn from_message(app: &AppId, kind: PlatformChangeKind, id: &str) -> Option<Self> {
        let app = app.clone();
        Some(match kind {
            PlatformChangeKind::VerifyTicket => {
                Self::Secret(DurableSecretKey::VerifyTicket { component: app })
            }
            PlatformChangeKind::RefreshToken => {
                Self::Secret(DurableSecretKey::RefreshToken { account: app })
            }
            PlatformChangeKind::Authorization => Self::Authorization {
                component: app,
                account: AppId::new(id).ok()?,
            },
        })
    }
}
