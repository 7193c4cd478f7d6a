//! The pushes of WeChat that change what the platform keeps.

use std::fmt;

use zeroize::Zeroizing;

use crate::clock::Timestamp;
use crate::credential::{AppId, RefreshToken};

/// A push of WeChat that changes what the platform keeps. The push service has verified and decrypted
/// it.
pub(crate) enum PlatformEvent {
    /// WeChat sends a verify ticket (`component_verify_ticket`).
    VerifyTicket {
        ticket: RefreshToken,
        /// The `CreateTime` of the event.
        created: Timestamp,
    },
    /// The owner of an account has authorized the platform, or has changed the authorization
    /// (`authorized`, `updateauthorized`).
    Authorized {
        account: AppId,
        /// The code that the platform exchanges for the account's tokens. WeChat accepts it once.
        code: Zeroizing<String>,
        code_expires: Option<Timestamp>,
        /// The code of the page on which the owner has authorized the platform.
        pre_auth_code: Option<Zeroizing<String>>,
        created: Timestamp,
    },
    /// The owner of an account has ended the authorization (`unauthorized`).
    Unauthorized { account: AppId, created: Timestamp },
}

impl PlatformEvent {
    /// Returns WeChat's name of the event, for logs.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::VerifyTicket { .. } => "component_verify_ticket",
            Self::Authorized { .. } => "authorized",
            Self::Unauthorized { .. } => "unauthorized",
        }
    }
}

impl fmt::Debug for PlatformEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (account, created) = match self {
            Self::VerifyTicket { created, .. } => (None, created),
            Self::Authorized {
                account, created, ..
            }
            | Self::Unauthorized { account, created } => (Some(account), created),
        };
        f.debug_struct(self.name())
            .field("account", &account)
            .field("created", created)
            .finish_non_exhaustive()
    }
}
