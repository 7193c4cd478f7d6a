//! What a [`MemoryStore`] keeps for a third-party platform.

use std::sync::Arc;

use super::MemoryStore;
use super::contents::Contents;
use crate::clock::Timestamp;
use crate::credential::AppId;
use crate::error::Error;
use crate::store::platform::storable_time;
use crate::store::{
    Authorization, AuthorizationList, AuthorizationLookup, AuthorizationStore, BoxFuture,
    DurableSecret, DurableSecretKey, DurableSecretStore, Event, Expected, PlatformChange,
    StoredSecret,
};

impl Contents {
    fn publish_change(&mut self, change: PlatformChange) {
        let event = Event::PlatformChanged(Arc::new(change));
        self.publisher().publish(&event);
    }
}

impl DurableSecretStore for MemoryStore {
    fn load_secret<'a>(
        &'a self,
        key: &'a DurableSecretKey,
    ) -> BoxFuture<'a, Result<StoredSecret, Error>> {
        self.step(|contents, _| contents.platform.stored_secret(key))
    }

    fn replace_secret<'a>(
        &'a self,
        key: &'a DurableSecretKey,
        expected: &'a Expected,
        value: Option<&'a DurableSecret>,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move {
            let value = value.map(|value| value.to_storable(key)).transpose()?;
            self.step(move |contents, _| {
                let platform = &mut contents.platform;
                let is_stored = platform.replace_secret(key, expected, value.as_ref());
                if is_stored {
                    contents.publish_change(PlatformChange::Secret(key.clone()));
                }
                is_stored
            })
            .await
        })
    }

    fn durability_risks(&self) -> BoxFuture<'_, Vec<String>> {
        Box::pin(async {
            vec![
                "the platform's data are in a MemoryStore, so a restart of this process loses the \
                 refresh tokens of all accounts; use a RedisStore"
                    .to_owned(),
            ]
        })
    }
}

impl AuthorizationStore for MemoryStore {
    fn record_authorization<'a>(
        &'a self,
        component: &'a AppId,
        account: &'a AppId,
        entry: Authorization,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        self.step(move |contents, _| {
            let platform = &mut contents.platform;
            let (is_stored, is_changed) = platform.record_authorization(component, account, entry);
            if is_changed {
                contents.publish_change(PlatformChange::Authorization {
                    component: component.clone(),
                    account: account.clone(),
                });
            }
            is_stored
        })
    }

    fn authorization<'a>(
        &'a self,
        component: &'a AppId,
        account: &'a AppId,
    ) -> BoxFuture<'a, Result<AuthorizationLookup, Error>> {
        self.step(move |contents, _| {
            let accounts = contents.platform.accounts.get(component);
            accounts.map_or_else(AuthorizationLookup::default, |accounts| {
                AuthorizationLookup {
                    entry: accounts.entries.get(account).copied(),
                    listed_at: accounts.listed_at,
                }
            })
        })
    }

    fn authorizations<'a>(
        &'a self,
        component: &'a AppId,
    ) -> BoxFuture<'a, Result<AuthorizationList, Error>> {
        self.step(move |contents, _| {
            let accounts = contents.platform.accounts.get(component);
            accounts.map_or_else(AuthorizationList::default, |accounts| {
                let entries = accounts.entries.iter();
                AuthorizationList {
                    entries: entries.map(|(app, entry)| (app.clone(), *entry)).collect(),
                    listed_at: accounts.listed_at,
                }
            })
        })
    }

    fn set_listed<'a>(
        &'a self,
        component: &'a AppId,
        at: Timestamp,
    ) -> BoxFuture<'a, Result<(), Error>> {
        self.step(move |contents, _| {
            let accounts = &mut contents.platform.accounts;
            let accounts = accounts.entry(component.clone()).or_default();
            accounts.listed_at = accounts.listed_at.max(Some(storable_time(at)));
        })
    }
}
