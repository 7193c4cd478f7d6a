//! R6: a call with a credential, and once more after a refusal.

use super::{Held, Keeper};
use crate::error::{Error, ErrorKind, TokenRefusal};

impl Keeper {
    /// Runs a call. If WeChat refuses the credential, that is reported, and the call runs once
    /// more with the successor; never a third time. Where there is no successor yet, the refusal
    /// stands.
    pub(crate) async fn with_credential<T, E, F, Fut>(&self, id: &str, mut call: F) -> Result<T, E>
    where
        F: FnMut(Held) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: TokenRefusal + From<Error>,
    {
        let held = self.get(id).await?;
        let refused = match call(held.clone()).await {
            Err(error) if error.is_token_refused() => error,
            outcome => return outcome,
        };
        let successor = match self.report_refused(id, held.secret()).await {
            Err(error) if error.kind() == ErrorKind::LoginRequired => return Err(error.into()),
            Err(_) => return Err(refused),
            Ok(successor) => successor,
        };
        if successor.secret() == held.secret() {
            return Err(refused);
        }
        call(successor).await
    }
}
