//! The accounts of a third-party platform in Redis: a hash with a field for each account, whose
//! value is `STATE#MS`. The field `*` is the time of the last complete list.

use std::collections::BTreeMap;

use super::codec::warn_unreadable_once;
use super::invalidation::platform_change_message;
use super::locations::RedisKey;
use super::publish::OutgoingInvalidation;
use super::read::read_command;
use super::scripts::{self, ScriptCall, ScriptReply, Step};
use super::store::RedisStore;
use crate::clock::Timestamp;
use crate::credential::AppId;
use crate::error::Error;
use crate::store::platform::storable_time;
use crate::store::redis::format::sealed::SealBinding;
use crate::store::redis::format::text::{DecodeError, parse_plausible_time, parse_utf8};
use crate::store::{
    Authorization, AuthorizationList, AuthorizationLookup, AuthorizationState, AuthorizationStore,
    BoxFuture, PlatformChange,
};

/// Approximate number of accounts that one command reads: 500. A step of this size takes a few
/// hundred microseconds of Redis's time.
const SCAN_COUNT: usize = 500;

/// The field of the time of the last complete list. No AppID contains an asterisk.
const LISTED_AT: &str = "*";

/// Parses `STATE#MS`.
fn parse_entry(value: &[u8]) -> Result<Authorization, DecodeError> {
    let (state, since) = parse_utf8(value)?
        .split_once('#')
        .ok_or(DecodeError::MissingTime)?;
    Ok(Authorization {
        state: AuthorizationState::from_name(state).ok_or(DecodeError::UnknownFormat)?,
        since: parse_entry_time(since)?,
    })
}

/// Parses the digits of a plausible time, as the scripts do.
fn parse_entry_time(text: &str) -> Result<Timestamp, DecodeError> {
    match text.bytes().all(|byte| byte.is_ascii_digit()) && text.len() <= 13 {
        true => parse_plausible_time(text),
        false => Err(DecodeError::InvalidTime),
    }
}

impl RedisStore {
    fn accounts_key(&self, component: &AppId) -> String {
        self.0.names.platform_key(component.as_str(), "accounts")
    }

    /// Decodes the field of an account. An entry that cannot be read is missing, and is logged.
    fn decode_entry(
        component: &AppId,
        hash: &str,
        field: &str,
        value: &[u8],
    ) -> Option<Authorization> {
        let decoded = parse_entry(value);
        Self::or_warn(component, hash, field, value, decoded)
    }

    fn decode_listed_at(component: &AppId, hash: &str, value: &[u8]) -> Option<Timestamp> {
        let decoded = parse_utf8(value).and_then(parse_entry_time);
        Self::or_warn(component, hash, LISTED_AT, value, decoded)
    }

    fn or_warn<T>(
        component: &AppId,
        hash: &str,
        field: &str,
        value: &[u8],
        decoded: Result<T, DecodeError>,
    ) -> Option<T> {
        let at = SealBinding {
            app: component.as_str(),
            kind: "authorization",
            user: field,
            key: hash,
        };
        let logged = decoded.inspect_err(|error| warn_unreadable_once(&at, value, *error));
        logged.ok()
    }

    async fn write_entry(
        &self,
        component: &AppId,
        account: &AppId,
        entry: Authorization,
    ) -> Result<bool, Error> {
        let change = PlatformChange::Authorization {
            component: component.clone(),
            account: account.clone(),
        };
        let outgoing = OutgoingInvalidation {
            channel: self.0.names.invalidation_channel(change.app()),
            message: platform_change_message(&change),
        };
        let mut call = ScriptCall::for_step(Step::RecordAuthorization);
        call.value_key(self.accounts_key(component))
            .arg(account.as_str())
            .arg(entry.state.as_str())
            .arg(storable_time(entry.since).as_millis());
        Ok(match self.run_write(call, Some(outgoing)).await? {
            ScriptReply::Applied | ScriptReply::AppliedUnpublished => true,
            ScriptReply::Conflict(_) | ScriptReply::Busy => false,
        })
    }

    async fn read_entry(
        &self,
        component: &AppId,
        account: &AppId,
    ) -> Result<AuthorizationLookup, Error> {
        let hash = self.accounts_key(component);
        let field = |field| RedisKey {
            key: (&*hash).into(),
            field: Some(field),
        };
        let reads = [account.as_str(), LISTED_AT].map(|name| read_command(&field(name)));
        let reading = self.0.connection.read_two_values(reads);
        let [entry, listed_at] = self.run_command(hash.as_bytes(), reading).await?;
        let account = account.as_str();
        Ok(AuthorizationLookup {
            entry: entry.and_then(|value| Self::decode_entry(component, &hash, account, &value)),
            listed_at: listed_at.and_then(|value| Self::decode_listed_at(component, &hash, &value)),
        })
    }

    /// Reads the whole hash in steps. Redis may return a field twice while it resizes the hash.
    async fn read_entries(&self, component: &AppId) -> Result<AuthorizationList, Error> {
        let hash = self.accounts_key(component);
        let (mut entries, mut listed_at, mut cursor) = (BTreeMap::new(), None, 0);
        loop {
            let (next, fields) = self.scan_hash(hash.as_bytes(), cursor, SCAN_COUNT).await?;
            for (field, value) in fields {
                if field == LISTED_AT.as_bytes() {
                    listed_at = Self::decode_listed_at(component, &hash, &value);
                    continue;
                }
                let name = String::from_utf8_lossy(&field);
                let entry = Self::decode_entry(component, &hash, &name, &value);
                if let (Ok(account), Some(entry)) = (AppId::new(&*name), entry) {
                    entries.insert(account, entry);
                }
            }
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        Ok(AuthorizationList {
            entries: entries.into_iter().collect(),
            listed_at,
        })
    }
}

impl AuthorizationStore for RedisStore {
    fn record_authorization<'a>(
        &'a self,
        component: &'a AppId,
        account: &'a AppId,
        entry: Authorization,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(self.write_entry(component, account, entry))
    }

    fn authorization<'a>(
        &'a self,
        component: &'a AppId,
        account: &'a AppId,
    ) -> BoxFuture<'a, Result<AuthorizationLookup, Error>> {
        Box::pin(self.read_entry(component, account))
    }

    fn authorizations<'a>(
        &'a self,
        component: &'a AppId,
    ) -> BoxFuture<'a, Result<AuthorizationList, Error>> {
        Box::pin(self.read_entries(component))
    }

    fn set_listed<'a>(
        &'a self,
        component: &'a AppId,
        at: Timestamp,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let mut call = scripts::SET_LISTED_AT.key(self.accounts_key(component));
            call.arg(LISTED_AT).arg(storable_time(at).as_millis());
            self.run_script(&call).await
        })
    }
}
