//! A platform that another system keeps, and that this process only reads.
//!
//! The other system receives WeChat's pushes, and fetches all tokens of the platform and of its
//! accounts. This process fetches none of them: a second process that fetches component tokens
//! would invalidate those of the other system.

use std::sync::Arc;

use super::authorizations::AccountStatus;
use crate::credential::AppId;
use crate::error::Error;
use crate::store::ExternalPlatformReader;

/// Returns the status of an account of the other system. An account is authorized there while the
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
