//! Durable secrets of a third-party platform, for the tasks that reseal and migrate.
//!
//! A task on a platform covers its verify ticket and the refresh tokens of all its accounts. A task
//! on another app covers the refresh token of that account.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::Cmd;
use zeroize::Zeroizing;

use super::super::codec::RawValue;
use super::super::durable_secrets::{parse_secret_value, secret_binding};
use super::super::layout::APPID_PLACEHOLDER;
use super::super::locations::RedisKey;
use super::super::{Layout, RedisStore};
use super::read::WRONG_TYPE_MARKER;
use super::task::{
    ApplyResult, KeyChange, MAX_ATTEMPTS, NewValue, RecordOutcome, ScanOptions, Summary, retry_busy,
};
use crate::credential::AppId;
use crate::error::Error;
use crate::store::redis::format::durable;
use crate::store::redis::format::sealed;
use crate::store::{
    AuthorizationState, AuthorizationStore, DurableSecret, DurableSecretKey, DurableSecretStore,
    LeaseOwner,
};

/// Number of values that a task reads in one round trip: 200.
const BATCH: usize = 200;

/// The durable secrets of one app.
pub(super) struct AppSecrets {
    /// The keys, those of authorized accounts first.
    keys: Vec<DurableSecretKey>,
    /// The accounts of the app, if it is a platform.
    pub(super) accounts: Vec<AppId>,
    pub(super) is_platform: bool,
}

impl AppSecrets {
    /// Reads which durable secrets an app has: those of a platform, or that of an account.
    pub(super) async fn find(store: &RedisStore, app: &AppId) -> Result<Self, Error> {
        let list = store.authorizations(app).await?;
        let ticket = DurableSecretKey::VerifyTicket {
            component: app.clone(),
        };
        let is_platform = list.listed_at.is_some()
            || !list.entries.is_empty()
            || store.load_secret(&ticket).await?.expected.value().is_some();
        if !is_platform {
            let account = app.clone();
            return Ok(Self {
                keys: vec![DurableSecretKey::RefreshToken { account }],
                accounts: Vec::new(),
                is_platform,
            });
        }
        let mut entries = list.entries;
        entries.sort_by_key(|(_, entry)| entry.state != AuthorizationState::Authorized);
        let accounts: Vec<AppId> = entries.into_iter().map(|(account, _)| account).collect();
        let refresh = accounts.iter().cloned();
        let refresh = refresh.map(|account| DurableSecretKey::RefreshToken { account });
        Ok(Self {
            keys: std::iter::once(ticket).chain(refresh).collect(),
            accounts,
            is_platform,
        })
    }

    /// Checks that the names of the store are those of the services. With other names, a task would
    /// miss the records, and still report that everything is done.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) if a name lacks `{appid}`, and
    /// the app is a platform or has a key with its AppID.
    pub(super) async fn check_names(&self, store: &RedisStore, app: &AppId) -> Result<(), Error> {
        let names = &store.0.names;
        if self.is_platform {
            return names.check_several_accounts(Layout::Hashes, None);
        }
        for key in names.added_by_appid(app.as_str()) {
            if store.command(&Cmd::exists(&key)).await? {
                return Err(Error::configuration(format!(
                    "Redis holds {key}, and the names of this run lack {APPID_PLACEHOLDER}: set \
                     PLATFORM_APPID if {app} belongs to a platform, or write {APPID_PLACEHOLDER} \
                     into the names (REDIS_NAMES); if no service uses this key, delete it"
                )));
            }
        }
        Ok(())
    }
}

/// Returns `true` if `options.app` is a third-party platform. The names of its accounts contain
/// `{appid}`.
///
/// # Errors
/// [`ErrorKind::StoreUnavailable`](crate::ErrorKind::StoreUnavailable) if Redis does not reply.
pub async fn is_platform(store: &RedisStore, options: &ScanOptions) -> Result<bool, Error> {
    Ok(AppSecrets::find(store, &options.app).await?.is_platform)
}

/// A Redis key with the secrets that may be stored there. A name without `{appid}` is the same for
/// all accounts.
struct SecretPlace {
    redis_key: String,
    candidates: Vec<DurableSecretKey>,
}

impl SecretPlace {
    /// Returns the places of secrets in one layout.
    fn all(store: &RedisStore, layout: Layout, keys: &[DurableSecretKey]) -> Vec<Self> {
        let mut places: BTreeMap<String, Vec<DurableSecretKey>> = BTreeMap::new();
        for key in keys {
            let redis_key = store.0.names.secret_key(layout, key).into_owned();
            places.entry(redis_key).or_default().push(key.clone());
        }
        let places = places.into_iter();
        places
            .map(|(redis_key, candidates)| Self {
                redis_key,
                candidates,
            })
            .collect()
    }

    fn key(&self) -> RedisKey<'_> {
        string_key(&self.redis_key)
    }

    /// Returns the secret to which a value belongs, and its plain text. A sealed value opens only
    /// for one secret. A plain value belongs to the first account.
    fn open<'a>(
        &'a self,
        store: &RedisStore,
        value: &[u8],
    ) -> Option<(&'a DurableSecretKey, Zeroizing<String>)> {
        self.candidates.iter().find_map(|key| {
            let binding = secret_binding(key, &self.redis_key);
            let opened = store.0.sealer.open_or_plain(value, &binding).ok()?;
            let text = std::str::from_utf8(&opened).ok()?;
            Some((key, Zeroizing::new(text.to_owned())))
        })
    }
}

fn string_key(redis_key: &str) -> RedisKey<'_> {
    RedisKey {
        key: redis_key.into(),
        field: None,
    }
}

/// Reads the values of these places, in batches.
async fn read_places(store: &RedisStore, places: &[SecretPlace]) -> Result<Vec<RawValue>, Error> {
    let mut values = Vec::with_capacity(places.len());
    for batch in places.chunks(BATCH) {
        let keys: Vec<RedisKey<'_>> = batch.iter().map(SecretPlace::key).collect();
        values.extend(store.read_keys(&keys.iter().collect::<Vec<_>>()).await?);
    }
    Ok(values)
}

/// Reads one value, as [`read_places`] does.
async fn read_one(store: &RedisStore, key: &RedisKey<'_>) -> Result<RawValue, Error> {
    Ok(store.read_keys(&[key]).await?.into_iter().next().flatten())
}

/// A task on the durable secrets of one app.
pub(super) struct SecretsTask<'a> {
    pub(super) store: &'a RedisStore,
    pub(super) options: &'a ScanOptions,
    pub(super) owner: &'a LeaseOwner,
    pub(super) secrets: &'a AppSecrets,
}

/// Resealing.
impl SecretsTask<'_> {
    /// Seals or unseals the secrets in both layouts.
    pub(super) async fn reseal(&self, summary: &mut Summary) -> Result<(), Error> {
        let mut places = SecretPlace::all(self.store, Layout::Hashes, &self.secrets.keys);
        for place in SecretPlace::all(self.store, Layout::Keys, &self.secrets.keys) {
            if !places
                .iter()
                .any(|known| known.redis_key == place.redis_key)
            {
                places.push(place);
            }
        }
        let values = read_places(self.store, &places).await?;
        let mut busy = Vec::new();
        for (place, value) in places.into_iter().zip(values) {
            let Some(value) = value else {
                continue;
            };
            summary.scanned += 1;
            if !self.needs_reseal(&value) {
                summary.unchanged += 1;
                continue;
            }
            if summary.count(&self.reseal_place(&place).await?) {
                busy.push(place);
            }
        }
        retry_busy(busy, summary, async |place| self.reseal_place(place).await).await
    }

    /// Returns `true` if a value is not sealed as a new value would be. A plain value that another
    /// program has written stays as it is, unless the account is known to belong to a platform.
    fn needs_reseal(&self, value: &[u8]) -> bool {
        let sealed = sealed::split(value).map(|(id, _)| id);
        let is_own = self.secrets.is_platform || sealed.is_some() || durable::has_since(value);
        is_own && sealed != self.store.0.sealer.active_key_id()
    }

    async fn reseal_place(&self, place: &SecretPlace) -> Result<RecordOutcome, Error> {
        let (store, redis_key) = (self.store, place.key());
        for _ in 0..MAX_ATTEMPTS {
            let stored = read_one(store, &redis_key).await?;
            let Some(value) = stored.as_ref().filter(|value| self.needs_reseal(value)) else {
                return Ok(RecordOutcome::Unchanged);
            };
            let Some((key, text)) = place.open(store, value) else {
                return Ok(RecordOutcome::Unreadable);
            };
            let binding = secret_binding(key, &place.redis_key);
            let text = store.0.sealer.seal(text, &binding)?;
            if self.options.dry_run {
                return Ok(RecordOutcome::Written);
            }
            let change = KeyChange {
                key: &redis_key,
                expected: &stored,
                new: NewValue::Set(Some(&text), Duration::ZERO),
            };
            if let Some(outcome) = self.apply(&[change]).await? {
                return Ok(outcome);
            }
        }
        Ok(RecordOutcome::Busy)
    }

    /// Applies changes. Returns `None` if a value has changed since the read.
    async fn apply(&self, changes: &[KeyChange<'_>]) -> Result<Option<RecordOutcome>, Error> {
        let applied = self.store.apply_changes(&[], self.owner, changes, None);
        Ok(match applied.await? {
            ApplyResult::Applied => Some(RecordOutcome::Written),
            // A durable secret has no lease.
            ApplyResult::Busy => Some(RecordOutcome::Busy),
            ApplyResult::Conflict => None,
        })
    }
}

/// Migration.
impl SecretsTask<'_> {
    /// Copies the refresh tokens from the layout of the store to `target`, unless `target` holds a
    /// newer one. Never removes one.
    pub(super) async fn migrate(&self, target: Layout, summary: &mut Summary) -> Result<(), Error> {
        let store = self.store;
        let places = SecretPlace::all(store, store.0.layout, &self.secrets.keys);
        let values = read_places(store, &places).await?;
        let mut busy = Vec::new();
        for (place, value) in places.into_iter().zip(values) {
            if value.is_none() || self.has_one_place(&place, target) {
                continue;
            }
            summary.scanned += 1;
            if summary.count(&self.copy_place(&place, target).await?) {
                busy.push(place);
            }
        }
        retry_busy(busy, summary, async |place| {
            self.copy_place(place, target).await
        })
        .await
    }

    /// Returns `true` if the secret has the same key in both layouts.
    fn has_one_place(&self, place: &SecretPlace, target: Layout) -> bool {
        let names = &self.store.0.names;
        let mut candidates = place.candidates.iter();
        candidates.any(|key| names.secret_key(target, key) == place.redis_key)
    }

    async fn copy_place(
        &self,
        place: &SecretPlace,
        target: Layout,
    ) -> Result<RecordOutcome, Error> {
        let (store, source_key) = (self.store, place.key());
        for _ in 0..MAX_ATTEMPTS {
            let source = read_one(store, &source_key).await?;
            let Some(value) = &source else {
                return Ok(RecordOutcome::Unchanged);
            };
            let Some((key, text)) = place.open(store, value) else {
                return Ok(RecordOutcome::Unreadable);
            };
            let secret = match durable::read(text.as_bytes()) {
                Ok(Some(secret)) => secret,
                Ok(None) => return Ok(RecordOutcome::Unchanged),
                Err(_) => return Ok(RecordOutcome::Unreadable),
            };
            let name = store.0.names.secret_key(target, key);
            let target_key = string_key(&name);
            let existing = read_one(store, &target_key).await?;
            if let Some(outcome) = self.skip(key, &name, existing.as_deref(), &secret) {
                return Ok(outcome);
            }
            if self.options.dry_run {
                return Ok(RecordOutcome::Written);
            }
            let text = durable::write(&secret, store.0.clock.now());
            let text = store.0.sealer.seal(text, &secret_binding(key, &name))?;
            let changes = [
                KeyChange {
                    key: &source_key,
                    expected: &source,
                    new: NewValue::Keep,
                },
                KeyChange {
                    key: &target_key,
                    expected: &existing,
                    new: NewValue::Set(Some(&text), Duration::ZERO),
                },
            ];
            if let Some(outcome) = self.apply(&changes).await? {
                return Ok(outcome);
            }
        }
        Ok(RecordOutcome::Busy)
    }

    /// Returns the outcome if `existing` stays: it equals the secret, is newer, or belongs to a
    /// program that may be able to read it.
    fn skip(
        &self,
        key: &DurableSecretKey,
        redis_key: &str,
        existing: Option<&[u8]>,
        secret: &DurableSecret,
    ) -> Option<RecordOutcome> {
        let (value, sealer) = (existing?, &self.store.0.sealer);
        if value == WRONG_TYPE_MARKER || sealer.has_unknown_key(value) {
            return Some(RecordOutcome::Unreadable);
        }
        let copied = parse_secret_value(value, &secret_binding(key, redis_key), sealer).ok()??;
        if copied == *secret {
            return Some(RecordOutcome::Unchanged);
        }
        (copied.since > secret.since).then_some(RecordOutcome::Newer)
    }
}
