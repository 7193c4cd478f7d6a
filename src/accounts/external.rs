//! Source for an account whose token another system keeps in Redis.

use crate::credential::{AccessToken, Record};
use crate::error::{Error, ErrorKind};
use crate::provider::{CredentialSource, RenewalFailure};
use crate::store::BoxFuture;

/// Source that never fetches a token, because another system writes the token into Redis.
pub(super) struct ReadOnlySource;

impl CredentialSource for ReadOnlySource {
    fn can_renew(&self, _record: &Record) -> bool {
        false
    }

    fn renew<'a>(
        &'a self,
        _record: &'a Record,
        invalid: Option<&'a AccessToken>,
    ) -> BoxFuture<'a, Result<Record, RenewalFailure>> {
        Box::pin(async move { Err(RenewalFailure::Transient(self.no_token_error(invalid))) })
    }

    fn no_token_error(&self, invalid: Option<&AccessToken>) -> Error {
        match invalid {
            None => Error::new(
                ErrorKind::WechatUnavailable,
                "Redis holds no usable token: check that the system that keeps the account's token \
                 runs, and that it writes under the configured key",
            ),
            Some(_) => Error::new(
                ErrorKind::TokenRefused,
                "WeChat rejected the account's token, and the system that keeps the token has not \
                 replaced it",
            ),
        }
    }
}
