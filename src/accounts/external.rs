//! A token that another system keeps: nothing is ever fetched.

use crate::credential::{AccessToken, Record};
use crate::error::{Error, ErrorKind};
use crate::provider::{CredentialSource, RenewalFailure};
use crate::store::BoxFuture;

/// Nowhere to get a token from.
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
                "the system that keeps the account's token has no usable one in Redis: see that \
                 it runs, and that it writes under the configured key",
            ),
            Some(_) => Error::new(
                ErrorKind::TokenRefused,
                "WeChat refuses the account's token, and the system that keeps it has not \
                 replaced it",
            ),
        }
    }
}
