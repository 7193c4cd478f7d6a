//! What the platform keeps for each account: its authorization, its refresh token and its access token.

use std::sync::Arc;
use std::time::Duration;

use super::refresh_tokens::{MAX_WRITE_TRIES, RefreshTokens, Replaced, contended};
use crate::accounts::{AUTHORIZER_RENEW_MARGIN, account_record, account_slot};
use crate::clock::Timestamp;
use crate::credential::{AccessToken, AppId, Lifetime, Record, RefreshToken, Token};
use crate::error::Error;
use crate::store::{
    Authorization, AuthorizationList, AuthorizationState, CredentialKind, DurableSecret, Store,
    StoredSecret,
};

/// The status of an account, from its authorization and its refresh token together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AccountStatus {
    Authorized,
    /// The owner has ended the authorization, or has never given one.
    Unknown,
    /// The platform cannot act for the account until its owner authorizes it again.
    Lost,
    /// Nothing is stored about the account, and the list of all accounts was never read.
    NotListedYet,
}

/// What WeChat grants for an account.
pub(super) struct Grant {
    pub(super) account: AppId,
    /// `None` if the account has granted no API to the platform.
    pub(super) refresh_token: Option<RefreshToken>,
    pub(super) access_token: Option<(AccessToken, Option<i64>)>,
    /// The time of the authorization, by WeChat's clock if it is known.
    pub(super) since: Timestamp,
}

/// What the store had of an account.
pub(super) struct Snapshot {
    pub(super) secret: StoredSecret,
    pub(super) entry: Option<Authorization>,
}

impl Snapshot {
    /// Returns the time of the last change. `None` if the store has nothing.
    fn since(&self) -> Option<Timestamp> {
        let secret = self.secret.value.as_ref().map(|secret| secret.since);
        secret.max(self.entry.map(|entry| entry.since))
    }
}

/// The authorizations of all accounts, in the store.
pub(super) struct Authorizations {
    component: AppId,
    store: Arc<dyn Store>,
    pub(super) refresh_tokens: RefreshTokens,
}

impl Authorizations {
    pub(super) fn new(component: AppId, store: Arc<dyn Store>) -> Self {
        let refresh_tokens = RefreshTokens::new(Arc::clone(&store));
        Self {
            component,
            store,
            refresh_tokens,
        }
    }

    /// Returns the status of an account.
    pub(super) async fn status(&self, account: &AppId) -> Result<AccountStatus, Error> {
        let (secret, lookup) = tokio::join!(
            self.refresh_tokens.load(account),
            self.store.authorization(&self.component, account)
        );
        let (secret, lookup) = (secret?, lookup?);
        // A refresh token may come from another service, which writes no authorization.
        if secret.value.is_some() {
            return Ok(AccountStatus::Authorized);
        }
        Ok(match lookup.entry.map(|entry| entry.state) {
            Some(AuthorizationState::Authorized) => AccountStatus::Authorized,
            Some(AuthorizationState::Unauthorized) => AccountStatus::Unknown,
            Some(AuthorizationState::Lost) => AccountStatus::Lost,
            None if lookup.listed_at.is_some() => AccountStatus::Unknown,
            None => AccountStatus::NotListedYet,
        })
    }

    /// Returns the stored entry of an account.
    pub(super) async fn entry(&self, account: &AppId) -> Result<Option<Authorization>, Error> {
        let lookup = self.store.authorization(&self.component, account);
        Ok(lookup.await?.entry)
    }

    /// Returns `true` if the authorization of an account has ended, so that no list is read for it.
    pub(super) async fn has_ended(&self, account: &AppId) -> Result<bool, Error> {
        let state = self.entry(account).await?.map(|entry| entry.state);
        Ok(matches!(
            state,
            Some(AuthorizationState::Lost | AuthorizationState::Unauthorized)
        ))
    }

    /// Returns all authorizations, with the time of the last complete list.
    pub(super) async fn all(&self) -> Result<AuthorizationList, Error> {
        self.store.authorizations(&self.component).await
    }

    /// Returns the time of the last complete list of accounts.
    pub(super) async fn listed_at(&self) -> Result<Option<Timestamp>, Error> {
        let lookup = self.store.authorization(&self.component, &self.component);
        Ok(lookup.await?.listed_at)
    }

    pub(super) async fn set_listed(&self, at: Timestamp) -> Result<(), Error> {
        self.store.set_listed(&self.component, at).await
    }

    /// Stores what WeChat has granted, unless the store has something newer. Returns `true` if the
    /// grant is stored.
    ///
    /// The access token is written first. Otherwise a request between the two writes would renew the token
    /// of the earlier authorization with the new refresh token, and WeChat would replace the granted one.
    pub(super) async fn store_grant(&self, grant: &Grant, now: Timestamp) -> Result<bool, Error> {
        let account = &grant.account;
        let since = grant.since;
        let stored = self.refresh_tokens.load(account).await?.value;
        let is_same = match (&stored, &grant.refresh_token) {
            (Some(stored), Some(refresh)) => stored.secret == *refresh,
            _ => false,
        };
        if stored.is_some_and(|stored| stored.since > since) && !is_same {
            return Ok(false);
        }
        // If a list has brought the refresh token before, a renewal may have received a newer access token
        // than that of the grant, or may be about to store it.
        let access_token = grant.access_token.as_ref().filter(|_| !is_same);
        if let Some((token, expires_in)) = access_token {
            let lifetime = Lifetime::from_response(now, *expires_in, AUTHORIZER_RENEW_MARGIN);
            let record = account_record(token.clone(), lifetime);
            self.overwrite(account, CredentialKind::AccountToken, &record)
                .await?;
        }
        let mut replaced = Replaced::None;
        if let Some(refresh) = &grant.refresh_token {
            let granted = DurableSecret {
                secret: refresh.clone(),
                since,
            };
            replaced = self.refresh_tokens.replace_older(account, &granted).await?;
            let is_overtaken = match replaced {
                // Another grant was stored meanwhile, or a list has brought this one.
                Replaced::Newer | Replaced::Same => true,
                Replaced::Other | Replaced::None => false,
            };
            if is_overtaken && access_token.is_some() {
                // The written access token may have replaced a newer one. The next request renews it.
                self.drop_access_token(account).await?;
            }
            if replaced == Replaced::Newer {
                return Ok(false);
            }
        }
        if !self.note_authorized(account, since).await? {
            if let Some(refresh) = &grant.refresh_token {
                self.refresh_tokens
                    .remove_if(account, |stored| stored.secret == *refresh)
                    .await?;
            }
            self.drop_access_token(account).await?;
            return Ok(false);
        }
        if grant.access_token.is_none() {
            // A list grants no access token. It only ends the token of an earlier authorization, so that the
            // event of this one, which may be stored at the same time, keeps its token.
            if replaced == Replaced::Other {
                self.drop_access_token(account).await?;
            }
            return Ok(true);
        }
        // Another grant may have been stored since. Its access token may be lost then.
        let stored = self.refresh_tokens.load(account).await?.value;
        if stored.map(|it| it.secret) != grant.refresh_token {
            self.drop_access_token(account).await?;
        }
        Ok(true)
    }

    /// Ends the authorization of an account at `since`, unless it was authorized later. Removes its
    /// refresh token, its token and its ticket. Returns `true` if the authorization has ended.
    pub(super) async fn end(
        &self,
        account: &AppId,
        state: AuthorizationState,
        since: Timestamp,
    ) -> Result<bool, Error> {
        let stored = self.refresh_tokens.load(account).await?.value;
        if stored.is_some_and(|stored| stored.since > since) {
            return Ok(false);
        }
        let entry = self.entry(account).await?;
        if entry.is_some_and(|entry| entry.since > since) {
            return Ok(false);
        }
        // The refresh token goes first. A process that receives the news of the state would otherwise
        // find it, and take the account for authorized.
        self.refresh_tokens
            .remove_if(account, |stored| stored.since <= since)
            .await?;
        if !self.note(account, state, since).await? {
            return Ok(false);
        }
        // An earlier authorization may have stored its refresh token between the two writes.
        self.refresh_tokens
            .remove_if(account, |stored| stored.since <= since)
            .await?;
        self.drop_tokens(account).await?;
        Ok(true)
    }

    /// Notes that an account is authorized since `since`. Returns `false` if the authorization has ended
    /// later.
    ///
    /// A list that was read before the exchange of the code names the account without a refresh token. Its
    /// time is that of WeChat's clock, which may be ahead of ours. It tells no end, and neither does a
    /// list with the same authorization.
    async fn note_authorized(&self, account: &AppId, since: Timestamp) -> Result<bool, Error> {
        let mut since = since;
        for _ in 0..MAX_WRITE_TRIES {
            if self
                .note(account, AuthorizationState::Authorized, since)
                .await?
            {
                return Ok(true);
            }
            let Some(newer) = self.entry(account).await? else {
                continue;
            };
            match newer.state {
                AuthorizationState::Authorized => return Ok(true),
                AuthorizationState::Unauthorized => return Ok(false),
                AuthorizationState::Lost => since = newer.since,
            }
        }
        Err(contended(account))
    }

    /// Notes that WeChat's list has no refresh token of an account, because nobody has exchanged its code.
    pub(super) async fn note_not_exchanged(
        &self,
        account: &AppId,
        since: Timestamp,
    ) -> Result<(), Error> {
        self.note(account, AuthorizationState::Lost, since).await?;
        // Its code may have been exchanged since the list was read.
        if let Some(stored) = self.refresh_tokens.load(account).await?.value {
            let since = since.max(stored.since);
            self.note_authorized(account, since).await?;
        }
        Ok(())
    }

    /// Notes the state of an account at `since`, unless a newer one is stored.
    pub(super) async fn note(
        &self,
        account: &AppId,
        state: AuthorizationState,
        since: Timestamp,
    ) -> Result<bool, Error> {
        let entry = Authorization { state, since };
        self.store
            .record_authorization(&self.component, account, entry)
            .await
    }

    /// Returns what the store has of an account now, for [`end_if_unchanged`](Self::end_if_unchanged).
    pub(super) async fn snapshot(&self, account: &AppId) -> Result<Snapshot, Error> {
        let (secret, entry) = tokio::join!(self.refresh_tokens.load(account), self.entry(account));
        Ok(Snapshot {
            secret: secret?,
            entry: entry?,
        })
    }

    /// Ends the authorization of an account, if nothing has changed since the snapshot. Returns `true` if
    /// it has ended. An account of which the store has nothing stays unknown.
    pub(super) async fn end_if_unchanged(
        &self,
        account: &AppId,
        state: AuthorizationState,
        seen: &Snapshot,
    ) -> Result<bool, Error> {
        // The time of the last change, not ours: an event of a later authorization must win.
        let Some(since) = seen.since() else {
            return Ok(false);
        };
        // Compared with the snapshot in one step, so that a new authorization keeps its refresh token.
        if !self
            .refresh_tokens
            .replace(account, &seen.secret, None)
            .await?
            || !self.note(account, state, since).await?
        {
            return Ok(false);
        }
        if self.refresh_tokens.load(account).await?.value.is_some() {
            return Ok(false);
        }
        self.drop_tokens(account).await?;
        Ok(true)
    }

    /// Returns the time of the last change of an account that the store knows.
    pub(super) async fn last_change(&self, account: &AppId) -> Result<Timestamp, Error> {
        let last = self.snapshot(account).await?.since();
        Ok(last.unwrap_or_else(|| Timestamp::from_millis(0)))
    }

    /// Returns the access token of an account.
    pub(super) async fn access_token(&self, account: &AppId) -> Result<Option<Token>, Error> {
        let kind = CredentialKind::AccountToken;
        let slot = account_slot(account, kind, AUTHORIZER_RENEW_MARGIN);
        Ok(self.store.load(&slot).await?.record.token)
    }

    /// Removes the access token of an account. The next request renews it.
    pub(super) async fn drop_access_token(&self, account: &AppId) -> Result<(), Error> {
        self.overwrite(account, CredentialKind::AccountToken, &Record::default())
            .await
    }

    /// Removes the access token of an account and its ticket.
    async fn drop_tokens(&self, account: &AppId) -> Result<(), Error> {
        self.drop_access_token(account).await?;
        self.overwrite(account, CredentialKind::JsapiTicket, &Record::default())
            .await
    }

    async fn overwrite(
        &self,
        account: &AppId,
        kind: CredentialKind,
        record: &Record,
    ) -> Result<(), Error> {
        let margin = match kind {
            CredentialKind::AccountToken => AUTHORIZER_RENEW_MARGIN,
            CredentialKind::User
            | CredentialKind::SnapshotUser
            | CredentialKind::JsapiTicket
            | CredentialKind::ComponentToken => Duration::ZERO,
        };
        let slot = account_slot(account, kind, margin);
        self.store.overwrite(&slot, record).await
    }
}
