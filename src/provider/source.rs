//! The source of new credentials, such as WeChat, and the classes of failed renewals.

use crate::credential::{AccessToken, Record};
use crate::error::{Error, ErrorKind};
use crate::store::BoxFuture;

/// Source of new credentials for one kind of credential. A renewal calls [`renew`](Self::renew)
/// once for each try.
pub(crate) trait CredentialSource: Send + Sync + 'static {
    /// Returns `true` if the source can create a new credential from the stored record without a
    /// login of the user.
    fn can_renew(&self, record: &Record) -> bool;

    /// Requests a new credential, without retries. The caller holds the lease. The store held
    /// `record` when it granted the lease. `invalid_token` is the token that a caller reported, if
    /// the renewal follows a report.
    fn renew<'a>(
        &'a self,
        record: &'a Record,
        invalid_token: Option<&'a AccessToken>,
    ) -> BoxFuture<'a, Result<Record, RenewalFailure>>;

    /// Returns `true` if this error of a renewal means that WeChat has also revoked the access
    /// token.
    fn invalidates_access_token(&self, _error: &Error) -> bool {
        false
    }

    /// Returns the error for callers when no usable credential is stored and the stored record
    /// cannot be renewed. `invalid_token` is the stored token if the caller reported it.
    fn no_token_error(&self, _invalid_token: Option<&AccessToken>) -> Error {
        Error::new(
            ErrorKind::LoginRequired,
            "there is no usable token, and none can be had without the user: send them to log in",
        )
    }
}

/// Failed renewal, classified by what has to be done (failures sorted).
#[derive(Debug)]
pub(crate) enum RenewalFailure {
    /// The refresh token is revoked or expired. The engine deletes exactly the stored pair, and the
    /// user has to log in.
    InvalidGrant(Error),
    /// A retry may succeed. The engine backs off and keeps the stored record.
    Transient(Error),
    /// The renewal needs another credential, which is not available. The source has not called WeChat
    /// for this credential. The engine records no failure, because the engine of the other credential
    /// backs off itself. The next request tries again.
    Dependency(Error),
    /// Only the operator can fix the cause. The engine opens the circuit of the account for 30
    /// seconds or longer, and logs the error once.
    Operator(Error),
}
