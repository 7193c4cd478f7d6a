//! Durable secrets of a third-party platform in Redis.

use super::store::RedisStore;
use crate::error::Error;
use crate::store::{
    BoxFuture, DurableSecret, DurableSecretKey, DurableSecretStore, Expected, StoredSecret,
};

impl DurableSecretStore for RedisStore {
    fn load_secret<'a>(
        &'a self,
        _key: &'a DurableSecretKey,
    ) -> BoxFuture<'a, Result<StoredSecret, Error>> {
        Box::pin(async { Err(Error::store_unavailable("not yet in Redis")) })
    }

    fn replace_secret<'a>(
        &'a self,
        _key: &'a DurableSecretKey,
        _expected: &'a Expected,
        _value: Option<&'a DurableSecret>,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async { Err(Error::store_unavailable("not yet in Redis")) })
    }

    fn durability_risks(&self) -> BoxFuture<'_, Vec<String>> {
        Box::pin(async { Vec::new() })
    }
}
