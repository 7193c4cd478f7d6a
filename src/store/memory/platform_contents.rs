//! The durable secrets and the accounts of third-party platforms in memory.

use std::collections::{BTreeMap, HashMap};

use crate::clock::Timestamp;
use crate::credential::AppId;
use crate::store::platform::storable_time;
use crate::store::{Authorization, DurableSecret, DurableSecretKey, Expected, StoredSecret};

/// The durable secrets and the accounts of all platforms. Nothing here expires.
#[derive(Default)]
pub(super) struct PlatformContents {
    secrets: HashMap<DurableSecretKey, SecretEntry>,
    /// The number of writes of secrets so far, with which [`Expected`] identifies a write.
    write_count: u64,
    pub(super) accounts: HashMap<AppId, PlatformAccounts>,
}

struct SecretEntry {
    secret: DurableSecret,
    write_number: u64,
}

/// The accounts of one platform.
#[derive(Default)]
pub(super) struct PlatformAccounts {
    pub(super) entries: BTreeMap<AppId, Authorization>,
    pub(super) listed_at: Option<Timestamp>,
}

impl PlatformContents {
    fn expected(&self, key: &DurableSecretKey) -> Expected {
        let entry = self.secrets.get(key);
        Expected::of_value(entry.map(|entry| entry.write_number.to_be_bytes().to_vec()))
    }

    pub(super) fn stored_secret(&self, key: &DurableSecretKey) -> StoredSecret {
        StoredSecret {
            value: self.secrets.get(key).map(|entry| entry.secret.clone()),
            expected: self.expected(key),
        }
    }

    /// Replaces the secret if the store still holds `expected`. Returns `true` if the store holds
    /// `value` afterwards.
    pub(super) fn replace_secret(
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
    pub(super) fn record_authorization(
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
