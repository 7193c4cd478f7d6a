//! A platform that another system keeps, and that this process only reads.
//!
//! The other system receives WeChat's pushes, and fetches all tokens of the platform and of its
//! accounts. This process fetches none of them: a second process that fetches component tokens
//! would invalidate those of the other system.

use std::sync::Arc;

use super::authorizations::AccountStatus;
use super::state::PlatformState;
use crate::credential::AppId;
use crate::error::{Error, ErrorKind};
use crate::store::ExternalPlatformReader;

impl PlatformState {
    /// Returns the platform of the other system, if this process only reads one.
    pub(super) fn followed(&self) -> Option<&Arc<dyn ExternalPlatformReader>> {
        self.settings.followed.as_ref()
    }

    /// Fails if another system keeps the platform. `what` names what this process cannot do then.
    pub(super) fn check_kept_here(&self, what: &str) -> Result<(), Error> {
        match self.followed() {
            None => Ok(()),
            Some(_) => Err(Error::new(
                ErrorKind::Configuration,
                format!(
                    "this process only follows the platform {}, which another system keeps, and so \
                     it does not {what}: leave that to the other system",
                    self.component.app_id()
                ),
            )),
        }
    }
}

/// Returns the status of an account of the other system. An account is authorised there while the
/// system has its refresh token.
pub(super) async fn followed_status(
    followed: &Arc<dyn ExternalPlatformReader>,
    account: &AppId,
) -> Result<AccountStatus, Error> {
    Ok(match followed.has_account(account).await? {
        true => AccountStatus::Authorized,
        false => AccountStatus::Unknown,
    })
}
