//! What a [`MemoryStore`] keeps for a third-party platform.

use std::collections::{BTreeMap, HashMap};
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

/// The durable secrets and the accounts of all platforms. Nothing here expires.
#[derive(Default)]
pub(super) struct PlatformContents {
    secrets: HashMap<DurableSecretKey, SecretEntry>,
    /// The number of writes of secrets so far, with which [`Expected`] identifies a write.
    write_count: u64,
    accounts: HashMap<AppId, PlatformAccounts>,
}

struct SecretEntry {
    secret: DurableSecret,
    write_number: u64,
}

/// The accounts of one platform.
#[derive(Default)]
struct PlatformAccounts {
    entries: BTreeMap<AppId, Authorization>,
    listed_at: Option<Timestamp>,
}

impl PlatformContents {
    fn expected(&self, key: &DurableSecretKey) -> Expected {
        let entry = self.secrets.get(key);
        Expected::of_value(entry.map(|entry| entry.write_number.to_be_bytes().to_vec()))
    }

    fn stored_secret(&self, key: &DurableSecretKey) -> StoredSecret {
        StoredSecret {
            value: self.secrets.get(key).map(|entry| entry.secret.clone()),
            expected: self.expected(key),
        }
    }

    /// Replaces the secret if the store still holds `expected`. Returns `true` if the store holds
    /// `value` afterwards.
    fn replace_secret(
        &mut self,
        key: &DurableSecretKey,
        expected: &Expected,
        value: Option<&DurableSecret>,
    ) -> bool {
        if self.expected(key).value() != expected.value() {
            return self.secrets.get(key).map(|entry| &entry.secret) == value;
        }
        self.write_count += 1;
        let write_number = self.write_count;
        match value.cloned() {
            Some(secret) => {
                let entry = SecretEntry {
                    secret,
                    write_number,
                };
                self.secrets.insert(key.clone(), entry);
            }
            None => drop(self.secrets.remove(key)),
        }
        true
    }

    /// Stores an entry unless a newer one is stored. The first flag of the result is `true` if the
    /// entry was stored, and the second one if the state has changed.
    fn record_authorization(
        &mut self,
        component: &AppId,
        account: &AppId,
        entry: Authorization,
    ) -> (bool, bool) {
        let entry = Authorization {
            since: storable_time(entry.since),
            ..entry
        };
        let accounts = self.accounts.entry(component.clone()).or_default();
        let before = accounts.entries.get(account);
        if before.is_some_and(|before| before.since > entry.since) {
            return (false, false);
        }
        let is_changed = before.is_none_or(|before| before.state != entry.state);
        accounts.entries.insert(account.clone(), entry);
        (true, is_changed)
    }
}

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
