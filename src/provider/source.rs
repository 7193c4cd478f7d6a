//! The source of new credentials, and the classes of its failures.

use crate::credential::{AccessToken, Record};
use crate::error::{Error, ErrorKind};
use crate::store::BoxFuture;

/// Where new credentials come from.
pub(crate) trait CredentialSource: Send + Sync + 'static {
    /// Whether a new credential can be had from what is stored, without the user.
    fn can_renew(&self, record: &Record) -> bool;

    /// Asks for a new credential, once. Called under the lease, with what is stored.
    fn renew<'a>(
        &'a self,
        record: &'a Record,
        invalid_token: Option<&'a AccessToken>,
    ) -> BoxFuture<'a, Result<Record, RenewalFailure>>;

    /// Returns `true` if an error that means a dead refresh token also means that the access token
    /// beside it is void.
    fn invalidates_access_token(&self, _error: &Error) -> bool {
        false
    }

    /// What callers are told where nothing usable is stored, or nothing but what was refused, and
    /// nothing can be renewed.
    fn no_token_error(&self, _invalid_token: Option<&AccessToken>) -> Error {
        Error::new(
            ErrorKind::LoginRequired,
            "there is no usable token, and none can be had without the user: send them to log in",
        )
    }
}

/// R5: why no new credential came, sorted by what is to be done.
#[derive(Debug)]
pub(crate) enum RenewalFailure {
    /// What the renewal started from is dead: delete exactly that, and let the user log in.
    InvalidGrant(Error),
    /// It may work in a moment: try again with back-off, keep what is stored.
    Transient(Error),
    /// It is the operator's: no renewal of this account for a while, and one loud line.
    Operator(Error),
}
