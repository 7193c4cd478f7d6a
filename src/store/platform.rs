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

/// The identity of a durable secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DurableSecretKey {
    /// The verify ticket that WeChat pushes to a platform every ten minutes.
    VerifyTicket {
        /// The AppID of the platform.
        component: AppId,
    },
    /// The refresh token of an account that has authorised a platform.
    RefreshToken {
        /// The AppID of the account.
        account: AppId,
    },
}

impl DurableSecretKey {
    /// Returns the name of the kind of secret in messages and logs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::VerifyTicket { .. } => "verify_ticket",
            Self::RefreshToken { .. } => "refresh_token",
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
    /// The time since which the secret is valid. It tells the older of two secrets.
    pub since: Timestamp,
}

impl DurableSecret {
    /// Checks that every store can keep the secret and return the same text again.
    pub(super) fn check_storable(&self, key: &DurableSecretKey) -> Result<(), Error> {
        if is_valid_token(self.secret.expose()) {
            return Ok(());
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
    /// The account has authorised the platform.
    Authorized,
    /// The account has withdrawn its authorisation.
    Unauthorized,
    /// WeChat rejects the platform's calls for the account, and the refresh token could not be
    /// recovered.
    Lost,
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
