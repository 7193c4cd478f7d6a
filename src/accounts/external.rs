//! Source of a token that another system keeps in Redis.

use crate::credential::{AccessToken, AppId, Record};
use crate::error::{Error, ErrorKind};
use crate::provider::{CredentialSource, RenewalFailure};
use crate::store::{BoxFuture, CredentialReader};

/// Source that never fetches a token, because another system writes the token into Redis.
pub(crate) struct ReadOnlySource {
    /// The name of the token in errors.
    token: &'static str,
    /// The key of the token, for errors.
    key: String,
}

impl ReadOnlySource {
    /// Creates the source of an account's token, which `reader` reads.
    pub(crate) fn account(reader: &dyn CredentialReader, app: &AppId) -> Self {
        let (token, key) = ("the account's token", reader.key_for_errors(app));
        Self { token, key }
    }

    /// Creates the source of a component token, which `reader` reads.
    #[cfg(feature = "platform")]
    pub(crate) fn component(reader: &dyn CredentialReader, app: &AppId) -> Self {
        let (token, key) = ("the component token", reader.key_for_errors(app));
        Self { token, key }
    }
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
        let Self { token, key } = self;
        match invalid {
            None => Error::new(
                ErrorKind::WechatUnavailable,
                format!(
                    "Redis holds no usable token under the key {key}: check that the system that \
                     keeps {token} runs, and that it writes under this key"
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
