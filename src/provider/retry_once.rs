//! One retry of a call whose credential WeChat rejected (reports compared).

use super::entry::CacheEntry;
use super::state::CredentialProvider;
use crate::error::{Error, ErrorKind, InvalidToken};

impl CredentialProvider {
    /// Runs a call. If WeChat rejects the credential, reports it and runs the call once more with
    /// the credential that the report returned. Never runs a third call. If the report returns
    /// none, the caller gets the rejection.
    ///
    /// The second credential may be the same token: before its expiry, WeChat's refresh of a user's
    /// token returns it again. WeChat has then confirmed the token, and the rejection was
    /// temporary.
    pub(crate) async fn with_credential<T, E, F, Fut>(&self, id: &str, mut call: F) -> Result<T, E>
    where
        F: FnMut(CacheEntry) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: InvalidToken + From<Error>,
    {
        let entry = self.get(id).await?;
        let refused = match call(entry.clone()).await {
            Err(error) if error.is_token_invalid() => error,
            outcome => return outcome,
        };
        match self.report_invalid(id, entry.secret()).await {
            Ok(granted) => call(granted).await,
            // The user or the store prevents the renewal, so this error is more useful than the
            // rejection.
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
