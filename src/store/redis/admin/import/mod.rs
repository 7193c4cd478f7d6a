//! Import of a third-party platform that another system keeps in Redis.

mod source;

use std::collections::HashSet;
use std::time::Duration;

use self::source::{PlatformReader, SecretName, SourceSecret, SourceValue};
use super::super::{ExternalPlatform, RedisStore};
use super::task::{MAX_ATTEMPTS, ProgressFn, RecordOutcome, ScanOptions, Summary, retry_busy};
use crate::clock::Timestamp;
use crate::credential::{AccessToken, AppId, Lifetime, Record, RefreshToken, Token};
use crate::error::Error;
use crate::store::{
    AccountSeparation, Authorization, AuthorizationState, AuthorizationStore, CommitResult,
    CredentialKey, CredentialKind, CredentialReader, CredentialSlot, CredentialWriter,
    DurableSecret, DurableSecretKey, DurableSecretStore, LeaseOwner,
};

/// The time of a verify ticket whose time is not known. Every ticket with a known time is newer.
const UNKNOWN_TIME: Timestamp = Timestamp::from_millis(0);

/// Time for which WeChat accepts a verify ticket: twelve hours.
const TICKET_LIFETIME: Duration = Duration::from_secs(12 * 3_600);

/// Time by which an imported authorization is older than the import: ten minutes. A push that WeChat
/// has sent shortly before the import is then newer than the authorization.
const PUSH_DELAY: Duration = Duration::from_secs(600);

/// Time before the expiry of a component token at which services renew it: ten minutes.
const COMPONENT_RENEW_MARGIN: Duration = Duration::from_secs(600);

/// The numbers of an import.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ImportReport {
    /// Accounts whose refresh token the other system keeps.
    pub accounts: u64,
    /// The secrets: the verify ticket, and the tokens of the platform and of its accounts.
    pub secrets: Summary,
    /// The reason why a secret is unreadable, if one is. The reason does not contain the value.
    pub unreadable_reason: Option<String>,
}

/// Copies a platform that another system keeps in `source` into `store`: the verify ticket, the
/// refresh tokens of all accounts, and the access tokens that have not expired. `options.app` is the
/// AppID of the platform. Each account with a refresh token becomes an authorized account.
///
/// A newer secret in `store` stays, and so does an account that has left the platform since. Each
/// write compares with the value that was read before. Services receive an invalidation message.
/// Another run writes only what differs. `source` may be `store` itself, and is only read.
///
/// # Errors
/// [`ErrorKind::StoreUnavailable`](crate::ErrorKind::StoreUnavailable) if a Redis does not reply;
/// what was copied until then stays. [`ErrorKind::Configuration`](crate::ErrorKind::Configuration)
/// if `source` has nothing of the platform, or if accounts would share a key in `store`.
pub async fn import(
    store: &RedisStore,
    source: &RedisStore,
    platform: &ExternalPlatform,
    options: &ScanOptions,
    progress: ProgressFn<'_>,
) -> Result<ImportReport, Error> {
    store.check_several_accounts()?;
    let reader = PlatformReader {
        redis: source,
        platform,
        component: &options.app,
    };
    let mut import = Import {
        store,
        platform,
        options,
        owner: LeaseOwner::unique(),
        report: ImportReport::default(),
        busy: Vec::new(),
    };
    let mut known = HashSet::new();
    let mut scan = reader.scan_accounts();
    while let Some(ids) = scan.next_batch().await? {
        import.report.secrets.count_not_utf8(scan.take_not_utf8());
        let accounts = ids.iter().filter_map(|id| AppId::new(id).ok());
        // A scan may return a key twice, if Redis resizes its table meanwhile.
        let accounts = accounts.filter(|account| known.insert(account.clone()));
        let names = accounts.flat_map(|account| {
            [
                SecretName::RefreshToken(account.clone()),
                SecretName::AccountToken(account),
            ]
        });
        let secrets = reader.read(names.collect()).await?;
        import.copy_all(secrets).await?;
        progress(&import.report.secrets);
        tokio::time::sleep(options.pause).await;
    }
    import.retry_busy().await?;
    // A running platform calls WeChat as soon as it has a component token, or a ticket for one. What it
    // lacks then, it fetches from WeChat, and so invalidates the tokens of the other system. Each of the
    // two therefore comes after all that it leads to.
    for last in [SecretName::ComponentToken, SecretName::VerifyTicket] {
        import.copy_all(reader.read(vec![last]).await?).await?;
        import.retry_busy().await?;
    }
    let report = import.report;
    progress(&report.secrets);
    match report.secrets.scanned {
        0 => Err(reader.nothing_found(options).await?),
        _ => Ok(report),
    }
}

/// A run of [`import`].
struct Import<'a> {
    store: &'a RedisStore,
    platform: &'a ExternalPlatform,
    options: &'a ScanOptions,
    owner: LeaseOwner,
    report: ImportReport,
    /// Secrets that services were changing, and that are retried.
    busy: Vec<SourceSecret>,
}

impl Import<'_> {
    /// Copies these secrets, and counts the results.
    async fn copy_all(&mut self, secrets: Vec<SourceSecret>) -> Result<(), Error> {
        for secret in secrets {
            self.report.secrets.scanned += 1;
            if matches!(secret.name, SecretName::RefreshToken(_)) {
                self.report.accounts += 1;
            }
            if let SourceValue::Unreadable(reason) = &secret.value {
                let first = &mut self.report.unreadable_reason;
                first.get_or_insert_with(|| reason.clone());
            }
            let outcome = self.copy(&secret).await?;
            if self.report.secrets.count(&outcome) {
                self.busy.push(secret);
            }
        }
        Ok(())
    }

    /// Retries the secrets that services were changing.
    async fn retry_busy(&mut self) -> Result<(), Error> {
        let busy = std::mem::take(&mut self.busy);
        let mut summary = self.report.secrets;
        retry_busy(busy, &mut summary, async |secret| self.copy(secret).await).await?;
        self.report.secrets = summary;
        Ok(())
    }

    /// Copies one secret, unless the store has a newer one.
    async fn copy(&self, secret: &SourceSecret) -> Result<RecordOutcome, Error> {
        let value = match &secret.value {
            SourceValue::Secret(value) => value,
            SourceValue::Unreadable(_) => return Ok(RecordOutcome::Unreadable),
        };
        match &secret.name {
            SecretName::VerifyTicket => self.copy_ticket(secret, value).await,
            SecretName::ComponentToken => {
                let slot = component_token_slot(&self.options.app);
                self.copy_token(&slot, secret, value).await
            }
            SecretName::RefreshToken(account) => {
                self.copy_refresh_token(account, secret, value).await
            }
            SecretName::AccountToken(account) => {
                if self.has_left(account).await? {
                    return Ok(RecordOutcome::Newer);
                }
                let mut slot = self.options.slot(CredentialKind::AccountToken, "");
                slot.key.app = account.clone();
                self.copy_token(&slot, secret, value).await
            }
        }
    }

    /// Copies the verify ticket, unless the store has a ticket that WeChat has sent later.
    async fn copy_ticket(
        &self,
        source: &SourceSecret,
        value: &AccessToken,
    ) -> Result<RecordOutcome, Error> {
        let key = DurableSecretKey::VerifyTicket {
            component: self.options.app.clone(),
        };
        let sent_at = self
            .platform
            .ticket_stored_at(source.key_ttl, source.read_at);
        if sent_at.is_some_and(|at| at.duration_until(source.read_at) >= TICKET_LIFETIME) {
            return Ok(RecordOutcome::Dead);
        }
        let ticket = DurableSecret {
            secret: RefreshToken::from(value.expose()),
            since: sent_at.unwrap_or(UNKNOWN_TIME),
        };
        for _ in 0..MAX_ATTEMPTS {
            let stored = self.store.load_secret(&key).await?;
            match &stored.value {
                Some(stored) if stored.secret == ticket.secret => {
                    return Ok(RecordOutcome::Unchanged);
                }
                Some(stored) if stored.since > ticket.since => return Ok(RecordOutcome::Newer),
                Some(_) | None if self.options.dry_run => return Ok(RecordOutcome::Written),
                Some(_) | None => {}
            }
            let replaced = self
                .store
                .replace_secret(&key, &stored.expected, Some(&ticket));
            if replaced.await? {
                return Ok(RecordOutcome::Written);
            }
        }
        Ok(RecordOutcome::Busy)
    }

    /// Copies the refresh token of an account, and stores that the account is authorized.
    ///
    /// The other system does not store since when a refresh token is valid. If the store has another
    /// one, nothing shows which of the two is older. The stored one then stays. If WeChat refuses
    /// it, the services read the current one from WeChat's list of accounts.
    async fn copy_refresh_token(
        &self,
        account: &AppId,
        source: &SourceSecret,
        value: &AccessToken,
    ) -> Result<RecordOutcome, Error> {
        let key = DurableSecretKey::RefreshToken {
            account: account.clone(),
        };
        let token = DurableSecret {
            secret: RefreshToken::from(value.expose()),
            since: source.read_at.saturating_sub(PUSH_DELAY),
        };
        for _ in 0..MAX_ATTEMPTS {
            let state = self.authorization_state(account).await?;
            let is_listed = match state {
                Some(AuthorizationState::Authorized) => true,
                Some(AuthorizationState::Unauthorized | AuthorizationState::Lost) => {
                    return Ok(RecordOutcome::Newer);
                }
                None => false,
            };
            let stored = self.store.load_secret(&key).await?;
            let is_stored = match &stored.value {
                Some(stored) if stored.secret == token.secret => true,
                Some(_) => return Ok(RecordOutcome::Newer),
                None => false,
            };
            if is_stored && is_listed {
                return Ok(RecordOutcome::Unchanged);
            }
            if self.options.dry_run {
                return Ok(RecordOutcome::Written);
            }
            let replaced = self
                .store
                .replace_secret(&key, &stored.expected, Some(&token));
            if !is_stored && !replaced.await? {
                continue;
            }
            return self.list_account(account, &key, &token).await;
        }
        Ok(RecordOutcome::Busy)
    }

    /// Stores that an account is authorized, after its refresh token was stored. If the account has
    /// left the platform meanwhile, removes the refresh token again.
    async fn list_account(
        &self,
        account: &AppId,
        key: &DurableSecretKey,
        token: &DurableSecret,
    ) -> Result<RecordOutcome, Error> {
        let (store, component) = (self.store, &self.options.app);
        if self.authorization_state(account).await?.is_none() {
            let entry = Authorization {
                state: AuthorizationState::Authorized,
                since: token.since,
            };
            let recorded = store.record_authorization(component, account, entry);
            if recorded.await? {
                return Ok(RecordOutcome::Written);
            }
        }
        if !self.has_left(account).await? {
            return Ok(RecordOutcome::Written);
        }
        let stored = store.load_secret(key).await?;
        if stored.value.as_ref().map(|stored| &stored.secret) == Some(&token.secret) {
            store.replace_secret(key, &stored.expected, None).await?;
        }
        Ok(RecordOutcome::Newer)
    }

    /// Copies an access token, unless it has expired or the store has one that expires later.
    async fn copy_token(
        &self,
        slot: &CredentialSlot,
        source: &SourceSecret,
        value: &AccessToken,
    ) -> Result<RecordOutcome, Error> {
        let Some(usable) = self.platform.usable_for(source.key_ttl) else {
            return Ok(RecordOutcome::Dead);
        };
        let usable_secs = i64::try_from(usable.as_secs()).ok();
        let lifetime = Lifetime::from_response(source.read_at, usable_secs, slot.margin);
        // The key may expire before the token. Two tokens are compared by their own expiry.
        let expires_at = lifetime
            .expires_at()
            .saturating_add(self.platform.early_expiry());
        for _ in 0..MAX_ATTEMPTS {
            let stored = self.store.load(slot).await?;
            match &stored.record.token {
                Some(stored) if stored.secret == *value => return Ok(RecordOutcome::Unchanged),
                Some(stored) if stored.lifetime.expires_at() >= expires_at => {
                    return Ok(RecordOutcome::Newer);
                }
                Some(_) | None if self.options.dry_run => return Ok(RecordOutcome::Written),
                Some(_) | None => {}
            }
            let record = Record {
                token: Some(Token {
                    secret: value.clone(),
                    lifetime,
                }),
                ..Record::default()
            };
            let commit = self
                .store
                .commit(slot, &stored.expected, &record, &self.owner);
            match commit.await? {
                CommitResult::Committed => return Ok(RecordOutcome::Written),
                CommitResult::LeaseLost => return Ok(RecordOutcome::Busy),
                CommitResult::Conflict(_) => {}
            }
        }
        Ok(RecordOutcome::Busy)
    }

    /// Returns `true` if the account has left the platform.
    async fn has_left(&self, account: &AppId) -> Result<bool, Error> {
        Ok(match self.authorization_state(account).await? {
            Some(AuthorizationState::Unauthorized | AuthorizationState::Lost) => true,
            Some(AuthorizationState::Authorized) | None => false,
        })
    }

    async fn authorization_state(
        &self,
        account: &AppId,
    ) -> Result<Option<AuthorizationState>, Error> {
        let component = &self.options.app;
        let lookup = self.store.authorization(component, account).await?;
        Ok(lookup.entry.map(|entry| entry.state))
    }
}

/// Returns the slot of the component token of a platform.
pub(super) fn component_token_slot(component: &AppId) -> CredentialSlot {
    let key = CredentialKey {
        app: component.clone(),
        kind: CredentialKind::ComponentToken,
        id: "".into(),
    };
    CredentialSlot {
        key,
        margin: COMPONENT_RENEW_MARGIN,
    }
}
