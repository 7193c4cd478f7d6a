//! The read-only store of an account token that another system keeps in Redis.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::{Cmd, RedisResult};

use super::codec::{RawValue, warn_unreadable_once};
use super::external::ExternalToken;
use super::layout::RedisNames;
use super::store::RedisStore;
use crate::clock::Timestamp;
use crate::credential::{AppId, Record, Token};
use crate::error::Error;
use crate::store::redis::connection::errors::{ErrorClass, describe_error};
use crate::store::redis::format::external::{read_seconds, read_token};
use crate::store::redis::format::sealed::SealBinding;
use crate::store::{
    BoxFuture, CredentialKind, CredentialReader, CredentialSlot, Expected, StoredRecord,
};

/// Tolerated difference between a key's expiry in Redis and the expiry that this process computes
/// from the TTL: one second. The clocks of Redis and of this process may run at different speeds,
/// and the reply with the TTL takes time.
const KEY_END_TOLERANCE: Duration = Duration::from_secs(1);

/// A read-only store of one account token, which another system writes to Redis.
#[derive(Debug)]
pub(crate) struct ExternalTokenStore {
    redis: RedisStore,
    token: ExternalToken,
    last_read: Mutex<Option<LastRead>>,
    /// `true` after a log line has reported a key of another type.
    wrong_type_logged: AtomicBool,
}

/// The last token that was read from a key with a TTL.
#[derive(Debug)]
struct LastRead {
    token: Token,
    key_expires_at: Timestamp,
}

impl ExternalTokenStore {
    pub(crate) fn new(redis: RedisStore, token: ExternalToken) -> Self {
        Self {
            redis,
            token,
            last_read: Mutex::default(),
            wrong_type_logged: AtomicBool::new(false),
        }
    }

    fn lock_last_read(&self) -> MutexGuard<'_, Option<LastRead>> {
        self.last_read
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the last token that was read, if its key has expired and the token has not. A key
    /// that has disappeared before its expiry was deleted. This function then discards the token,
    /// so that no later call returns it.
    fn token_outliving_key(&self, now: Timestamp) -> Option<Token> {
        let mut last = self.lock_last_read();
        *last = last.take().filter(|last| {
            last.key_expires_at.saturating_sub(KEY_END_TOLERANCE) <= now
                && now < last.token.lifetime.expires_at()
        });
        last.as_ref().map(|last| last.token.clone())
    }

    /// Runs `reads` in one round trip. `name` is the key, and `key` is the key without secrets, for
    /// errors.
    async fn read_values(
        &self,
        name: &str,
        key: &str,
        reads: &[Cmd],
    ) -> Result<Vec<redis::Value>, Error> {
        let store = &*self.redis.0;
        let reading = async {
            match store.connection.read_all(reads).await {
                // The usual error for this reply describes keys of this crate. The key here belongs
                // to another system, so the error below describes that.
                Err(error) if ErrorClass::classify(&error) == Some(ErrorClass::WrongType) => {
                    Ok(None)
                }
                reply => reply.map(Some),
            }
        };
        let values = self.redis.run_command(name.as_bytes(), reading).await?;
        values.ok_or_else(|| {
            let message = format!(
                "the key {key} in Redis at {}, where another system keeps its token, holds a value \
                 of another type; the key belongs to that system, so check the key and the format \
                 of the ExternalToken",
                store.address
            );
            if !self.wrong_type_logged.swap(true, Ordering::Relaxed) {
                tracing::error!(target: "tower_wechat::store", "{message}");
            }
            Error::store_unavailable(message)
        })
    }

    /// Returns the key for logs and errors, without secrets.
    fn shown_key(&self, app: &str) -> String {
        let token = &self.token;
        token.redact(&RedisNames::expand_appid(&token.key, app))
    }

    async fn load_token(&self, slot: &CredentialSlot) -> Result<StoredRecord, Error> {
        let app = slot.key.app.as_str();
        let key = self.token.resolve_key(&self.token.key, app);
        let mut reads = vec![Cmd::get(key.as_str()), Cmd::pttl(key.as_str())];
        if let Some(expiry) = &self.token.expires_at_key {
            reads.push(Cmd::get(self.token.resolve_key(expiry, app).as_str()));
        }
        let shown = self.shown_key(app);
        let mut read = self.read_values(&key, &shown, &reads).await?.into_iter();
        let mut value = || read.next().unwrap_or(redis::Value::Nil);
        let (value, ttl, expiry) = (value(), value(), value());
        let (value, ttl, expiry): (RawValue, i64, RawValue) = decode_replies(value, ttl, expiry)
            .map_err(|error| Error::store_unavailable(describe_error(&error)))?;
        let now = self.redis.0.clock.now();
        let Some(value) = value else {
            return Ok(stored_token(self.token_outliving_key(now)));
        };
        let secret = match read_token(&value, self.token.format) {
            Ok(secret) => secret,
            Err(error) => {
                let at = SealBinding {
                    app,
                    kind: slot.key.kind.as_str(),
                    user: &slot.key.id,
                    key: &shown,
                };
                warn_unreadable_once(&at, &value, error);
                *self.lock_last_read() = None;
                return Ok(StoredRecord::default());
            }
        };
        let expires_at = expiry.and_then(|seconds| read_seconds(&seconds).ok());
        let expires_at =
            expires_at.map(|seconds| Timestamp::from_millis(seconds.saturating_mul(1_000)));
        let ttl = u64::try_from(ttl).ok().map(Duration::from_millis);
        let ttl = match self.token.min_key_ttl {
            None => ttl,
            Some(min) => {
                let usable = ttl.and_then(|ttl| ttl.checked_sub(min));
                if usable.is_none_or(|usable| usable.is_zero()) {
                    *self.lock_last_read() = None;
                    return Ok(StoredRecord::default());
                }
                usable
            }
        };
        let lifetime = self.token.lifetime(now, ttl, expires_at);
        let token = Token { secret, lifetime };
        *self.lock_last_read() = ttl.map(|ttl| LastRead {
            token: token.clone(),
            key_expires_at: now.saturating_add(ttl),
        });
        Ok(stored_token(Some(token)))
    }
}

fn decode_replies(
    value: redis::Value,
    ttl: redis::Value,
    expiry: redis::Value,
) -> RedisResult<(RawValue, i64, RawValue)> {
    Ok((
        redis::from_redis_value(value)?,
        redis::from_redis_value(ttl)?,
        redis::from_redis_value(expiry)?,
    ))
}

fn stored_token(token: Option<Token>) -> StoredRecord {
    StoredRecord {
        record: Record {
            token,
            ..Record::default()
        },
        expected: Expected::default(),
    }
}

impl CredentialReader for ExternalTokenStore {
    fn key_for_errors(&self, app: &AppId) -> String {
        self.shown_key(app.as_str())
    }

    fn load<'a>(&'a self, slot: &'a CredentialSlot) -> BoxFuture<'a, Result<StoredRecord, Error>> {
        Box::pin(self.load_token(slot))
    }

    fn check_health<'a>(
        &'a self,
        _app: &'a AppId,
        _kind: CredentialKind,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.redis.check_reading())
    }
}
