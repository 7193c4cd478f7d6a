//! Quotas that all processes of an account share, counted in Redis.

use super::scripts;
use super::store::RedisStore;
use crate::clock::duration_millis;
use crate::error::Error;
use crate::store::{BoxFuture, Quota, QuotaStore};

impl QuotaStore for RedisStore {
    fn try_consume<'a>(&'a self, quota: &'a Quota) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move {
            let mut call = scripts::TRY_CONSUME.key(self.0.names.quota_key(quota));
            call.arg(quota.limit).arg(duration_millis(quota.window));
            Ok(self.run_script::<i64>(&call).await? == 1)
        })
    }
}
