//! The accounts of a third-party platform in Redis.

use super::store::RedisStore;
use crate::clock::Timestamp;
use crate::credential::AppId;
use crate::error::Error;
use crate::store::{
    Authorization, AuthorizationList, AuthorizationLookup, AuthorizationStore, BoxFuture,
};

impl AuthorizationStore for RedisStore {
    fn record_authorization<'a>(
        &'a self,
        _component: &'a AppId,
        _account: &'a AppId,
        _entry: Authorization,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async { Err(Error::store_unavailable("not yet in Redis")) })
    }

    fn authorization<'a>(
        &'a self,
        _component: &'a AppId,
        _account: &'a AppId,
    ) -> BoxFuture<'a, Result<AuthorizationLookup, Error>> {
        Box::pin(async { Err(Error::store_unavailable("not yet in Redis")) })
    }

    fn authorizations<'a>(
        &'a self,
        _component: &'a AppId,
    ) -> BoxFuture<'a, Result<AuthorizationList, Error>> {
        Box::pin(async { Err(Error::store_unavailable("not yet in Redis")) })
    }

    fn set_listed<'a>(
        &'a self,
        _component: &'a AppId,
        _at: Timestamp,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async { Err(Error::store_unavailable("not yet in Redis")) })
    }
}
