//! Source of a token that another system keeps in Redis.

use crate::credential::{AccessToken, Record};
use crate::error::{Error, ErrorKind};
use crate::provider::{CredentialSource, RenewalFailure};
use crate::store::BoxFuture;

/// Source that never fetches a token, because another system writes the token into Redis.
pub(crate) struct ReadOnlySource {
    /// The name of the token in errors.
    pub(crate) token: &'static str,
}

impl ReadOnlySource {
    /// The source of an account's token.
    pub(crate) const ACCOUNT: Self = Self {
        token: "the account's token",
    };
}

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
        let token = self.token;
        match invalid {
            None => Error::new(
                ErrorKind::WechatUnavailable,
                format!(
                    "Redis holds no usable token: check that the system that keeps {token} runs, \
                     and that it writes under the configured key"
                ),
            ),
            Some(_) => Error::new(
                ErrorKind::TokenRefused,
                format!(
                    "WeChat rejected {token}, and the system that keeps the token has not replaced \
                     it"
                ),
            ),
        }
    }
}
