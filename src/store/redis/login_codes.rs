//! Login codes in Redis: their bindings to logins, their leases, the outcomes of their exchanges,
//! and WeChat's responses to suspended exchanges.

use std::time::Duration;

use zeroize::Zeroizing;

use super::scripts;
use super::store::RedisStore;
use crate::clock::duration_millis;
use crate::error::Error;
use crate::store::redis::format::sealed::SealBinding;
use crate::store::redis::format::text::DecodeError;
use crate::store::{
    BoxFuture, CodeBindResult, CodeLeaseResult, LeaseOwner, LoginCodeKey, LoginCodeStore,
    PendingResponse, Suspension,
};

impl RedisStore {
    /// Decrypts the response of a suspended exchange. An unreadable response counts as missing: the
    /// caller then exchanges the code, WeChat rejects it as spent, and the user logs in again.
    fn open_pending(&self, code: &LoginCodeKey, value: &[u8]) -> Option<PendingResponse> {
        let key = self.0.names.pending_response_key(code);
        match self.0.sealer.open(value, &pending_binding(code, &key)) {
            Ok(text) => {
                let text = std::str::from_utf8(&text).ok()?;
                Some(PendingResponse::new(Zeroizing::new(text.to_owned())))
            }
            Err(error) => {
                if error == DecodeError::UnknownKey {
                    self.0.sealer.log_unknown_key(&key, value);
                }
                None
            }
        }
    }
}

/// Returns the context to which the seal of a pending response is bound.
fn pending_binding<'a>(code: &'a LoginCodeKey, key: &'a str) -> SealBinding<'a> {
    SealBinding {
        app: code.app.as_str(),
        kind: "login_response",
        user: &code.hash,
        key,
    }
}

impl LoginCodeStore for RedisStore {
    fn bind_code<'a>(
        &'a self,
        code: &'a LoginCodeKey,
        login: u64,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<CodeBindResult, Error>> {
        Box::pin(async move {
            let mut call = scripts::BIND_CODE.key(self.0.names.code_binding_key(code));
            call.arg(format!("{login:016x}")).arg(duration_millis(ttl));
            Ok(match self.run_script::<i64>(&call).await? {
                0 => CodeBindResult::BoundElsewhere,
                1 => CodeBindResult::Bound,
                _ => CodeBindResult::AlreadyBound,
            })
        })
    }

    fn acquire_code<'a>(
        &'a self,
        code: &'a LoginCodeKey,
        owner: &'a LeaseOwner,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<CodeLeaseResult, Error>> {
        Box::pin(async move {
            let names = &self.0.names;
            let mut call =
                scripts::ACQUIRE_CODE.keys(names.code_key(code), names.pending_response_key(code));
            call.arg(owner.as_str()).arg(duration_millis(ttl));
            let held: Option<Vec<u8>> = self.run_script(&call).await?;
            Ok(match held {
                None => CodeLeaseResult::Acquired,
                Some(value) => match value.split_first() {
                    Some((b'=', outcome)) => {
                        CodeLeaseResult::Finished(String::from_utf8_lossy(outcome).into_owned())
                    }
                    Some((b'!', response)) => match self.open_pending(code, response) {
                        Some(response) => CodeLeaseResult::Resumed(response),
                        None => CodeLeaseResult::Acquired,
                    },
                    _ => CodeLeaseResult::Busy,
                },
            })
        })
    }

    fn release_code<'a>(
        &'a self,
        code: &'a LoginCodeKey,
        owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move {
            let mut call = scripts::RELEASE_CODE.key(self.0.names.code_key(code));
            call.arg(owner.as_str());
            self.run_script::<i64>(&call).await.map(|count| count > 0)
        })
    }

    fn finish_code<'a>(
        &'a self,
        code: &'a LoginCodeKey,
        owner: Option<&'a LeaseOwner>,
        outcome: &'a str,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let names = &self.0.names;
            let mut call =
                scripts::FINISH_CODE.keys(names.code_key(code), names.pending_response_key(code));
            call.arg(owner.map_or("", LeaseOwner::as_str))
                .arg(outcome)
                .arg(duration_millis(ttl));
            self.run_script(&call).await
        })
    }

    fn suspend_code<'a>(
        &'a self,
        code: &'a LoginCodeKey,
        owner: &'a LeaseOwner,
        suspension: &'a Suspension<'a>,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move {
            let names = &self.0.names;
            let key = names.pending_response_key(code);
            let text = Zeroizing::new(suspension.response.expose().to_owned());
            let sealed = self.0.sealer.seal(text, &pending_binding(code, &key))?;
            let mut call = scripts::SUSPEND_CODE.keys(names.code_key(code), key);
            call.arg(owner.as_str())
                .arg(suspension.outcome)
                .arg(duration_millis(suspension.outcome_ttl))
                .arg(&**sealed)
                .arg(duration_millis(suspension.response_ttl));
            self.run_script::<i64>(&call).await.map(|wrote| wrote == 1)
        })
    }
}
