//! R6: a call with a credential, and once more after a refusal.

use super::entry::CacheEntry;
use super::state::CredentialProvider;
use crate::error::{Error, ErrorKind, InvalidToken};

impl CredentialProvider {
    /// Runs a call. If WeChat refuses the credential, that is reported, and the call runs once
    /// more with what WeChat grants then; never a third time. Where it grants nothing, the refusal
    /// stands.
    ///
    /// That may be the same token: before its expiry WeChat's refresh of a user's token hands it
    /// out again, so the refusal was a moment's, and WeChat has just confirmed what it refused.
    pub(crate) async fn with_credential<T, E, F, Fut>(&self, id: &str, mut call: F) -> Result<T, E>
    where
        F: FnMut(CacheEntry) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: InvalidToken + From<Error>,
    {
        let held = self.get(id).await?;
        let refused = match call(held.clone()).await {
            Err(error) if error.is_token_invalid() => error,
            outcome => return outcome,
        };
        match self.report_invalid(id, held.secret()).await {
            Ok(granted) => call(granted).await,
            // It is the user, or the store, that keeps it from being healed, and not WeChat.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::LoginRequired | ErrorKind::StoreUnavailable
                ) =>
            {
                Err(error.into())
            }
            Err(_) => Err(refused),
        }
    }
}
