//! A third-party platform that another system keeps in Redis, and that this process only reads.

use std::collections::BTreeSet;
use std::sync::Arc;

use redis::Cmd;

use super::RedisStore;
use super::external::ExternalToken;
use super::external_platform::ExternalPlatform;
use super::external_store::ExternalTokenStore;
use super::key_scan::KeyScan;
use crate::credential::AppId;
use crate::error::Error;
use crate::store::{BoxFuture, CredentialReader, ExternalPlatformReader};

/// Reads a platform from the keys of another system in Redis.
#[derive(Debug)]
pub(crate) struct FollowedPlatform {
    redis: RedisStore,
    keys: ExternalPlatform,
    component: AppId,
}

impl FollowedPlatform {
    pub(crate) fn new(redis: RedisStore, keys: ExternalPlatform, component: AppId) -> Self {
        Self {
            redis,
            keys,
            component,
        }
    }

    fn reader(&self, token: ExternalToken) -> Arc<dyn CredentialReader> {
        Arc::new(ExternalTokenStore::new(self.redis.clone(), token))
    }

    async fn scan_accounts(&self) -> Result<Vec<AppId>, Error> {
        let (start, end) = self.keys.refresh_token_affixes(&self.component);
        let mut scan = KeyScan::new(start, end);
        // A scan may return a key twice.
        let mut accounts = BTreeSet::new();
        while let Some(keys) = scan.next_batch(&self.redis).await? {
            let names = keys.iter().filter_map(|key| std::str::from_utf8(key).ok());
            let ids = names.filter_map(|name| scan.between(name));
            accounts.extend(ids.filter_map(|id| AppId::new(id).ok()));
        }
        Ok(accounts.into_iter().collect())
    }
}

impl ExternalPlatformReader for FollowedPlatform {
    fn component_token(&self) -> Arc<dyn CredentialReader> {
        self.reader(self.keys.component_token(&self.component))
    }

    fn account_token(&self, account: &AppId) -> Arc<dyn CredentialReader> {
        self.reader(self.keys.account_token(&self.component, account))
    }

    fn has_account<'a>(&'a self, account: &'a AppId) -> BoxFuture<'a, Result<bool, Error>> {
        let key = self.keys.refresh_token_key(&self.component, account);
        Box::pin(async move { self.redis.command(&Cmd::exists(key)).await })
    }

    fn accounts(&self) -> BoxFuture<'_, Result<Vec<AppId>, Error>> {
        Box::pin(self.scan_accounts())
    }
}
