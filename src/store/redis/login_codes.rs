//! Login codes in Redis: their bindings to logins, their leases, and the outcomes of their
//! exchanges.

use std::time::Duration;

use super::scripts;
use super::store::RedisStore;
use crate::clock::duration_millis;
use crate::error::Error;
use crate::store::{
    BoxFuture, CodeBindResult, CodeLeaseResult, LeaseOwner, LoginCodeKey, LoginCodeStore,
};

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
            let mut call = scripts::ACQUIRE_CODE.key(self.0.names.code_key(code));
            call.arg(owner.as_str()).arg(duration_millis(ttl));
            let held: Option<Vec<u8>> = self.run_script(&call).await?;
            Ok(match held {
                None => CodeLeaseResult::Acquired,
                Some(value) => match value.strip_prefix(b"=") {
                    Some(outcome) => {
                        CodeLeaseResult::Finished(String::from_utf8_lossy(outcome).into_owned())
                    }
                    None => CodeLeaseResult::Busy,
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
            let mut call = scripts::FINISH_CODE.key(self.0.names.code_key(code));
            call.arg(owner.map_or("", LeaseOwner::as_str))
                .arg(outcome)
                .arg(duration_millis(ttl));
            self.run_script(&call).await
        })
    }
}
