//! Durable secrets of a third-party platform in Redis: string keys without a TTL, which a script
//! replaces by compare-and-set.

use std::borrow::Cow;

use redis::Cmd;

use super::codec::{RawValue, log_unreadable};
use super::invalidation::platform_change_message;
use super::layout::{Layout, RedisNames};
use super::publish::OutgoingInvalidation;
use super::scripts::{ScriptCall, ScriptReply, Step};
use super::seal::Sealer;
use super::store::RedisStore;
use super::write::{MAX_RESEAL_RETRIES, encode_any, encode_expected};
use crate::error::Error;
use crate::store::redis::format::durable;
use crate::store::redis::format::sealed::SealBinding;
use crate::store::redis::format::text::DecodeError;
use crate::store::{
    BoxFuture, DurableSecret, DurableSecretKey, DurableSecretStore, Expected, PlatformChange,
    StoredSecret,
};

/// The Redis keys of a durable secret.
pub(super) struct SecretKeys<'a> {
    /// The key that this process reads.
    read: Cow<'a, str>,
    /// The key in the other layout, during a dual write.
    copy: Option<Cow<'a, str>>,
}

impl RedisNames {
    /// Returns the key of a durable secret in one layout. The published layout has no key for a
    /// platform, so a verify ticket has the same key in both layouts.
    pub(super) fn secret_key(&self, layout: Layout, key: &DurableSecretKey) -> Cow<'_, str> {
        let app = key.app().as_str();
        match (key, layout) {
            (DurableSecretKey::VerifyTicket { .. }, Layout::Hashes | Layout::Keys) => {
                self.platform_key(app, "ticket").into()
            }
            (DurableSecretKey::RefreshToken { .. }, Layout::Hashes) => {
                Self::expand_appid(&self.account_refresh_token, app)
            }
            (DurableSecretKey::RefreshToken { .. }, Layout::Keys) => {
                self.account_key(app, key.kind()).into()
            }
        }
    }
}

/// Returns the context to which the seal of a durable secret is bound.
pub(super) fn secret_binding<'a>(key: &'a DurableSecretKey, redis_key: &'a str) -> SealBinding<'a> {
    SealBinding {
        app: key.app().as_str(),
        kind: key.kind(),
        user: "",
        key: redis_key,
    }
}

/// Opens and parses the value of a durable secret. Returns `None` for an empty value.
pub(super) fn parse_secret_value(
    value: &[u8],
    at: &SealBinding<'_>,
    sealer: &Sealer,
) -> Result<Option<DurableSecret>, DecodeError> {
    durable::read(&sealer.open(value, at)?)
}

impl RedisStore {
    fn secret_keys(&self, key: &DurableSecretKey) -> SecretKeys<'_> {
        let inner = &*self.0;
        let read = inner.names.secret_key(inner.layout, key);
        let copy = inner.dual_write;
        let copy = copy.map(|layout| inner.names.secret_key(layout, key));
        SecretKeys {
            copy: copy.filter(|copy| *copy != read),
            read,
        }
    }

    /// Decodes a value, and logs why if that fails.
    fn decode_secret(
        &self,
        key: &DurableSecretKey,
        redis_key: &str,
        value: RawValue,
    ) -> StoredSecret {
        let at = secret_binding(key, redis_key);
        let decoded = value.as_ref().and_then(|value| {
            let parsed = parse_secret_value(value, &at, &self.0.sealer);
            parsed.unwrap_or_else(|error| {
                log_unreadable(&at, value, error, &self.0.sealer);
                None
            })
        });
        StoredSecret {
            value: decoded,
            expected: Expected::of_value(value),
        }
    }

    async fn read_secret(&self, key: &DurableSecretKey) -> Result<StoredSecret, Error> {
        let keys = self.secret_keys(key);
        let get = Cmd::get(&*keys.read);
        let reading = self.0.connection.read_value(&get);
        let value = self.run_command(keys.read.as_bytes(), reading).await?;
        // A value of this crate has no TTL.
        if value
            .as_ref()
            .is_some_and(|value| !durable::has_since(value))
        {
            self.remove_ttls(&keys).await;
        }
        Ok(self.decode_secret(key, &keys.read, value))
    }

    /// Removes the TTL that another program has set on the keys of a durable secret. A failure
    /// changes nothing for the caller, because the TTL of WxJava is 68 years.
    async fn remove_ttls(&self, keys: &SecretKeys<'_>) {
        for key in std::iter::once(&keys.read).chain(&keys.copy) {
            if let Ok(true) = self.command::<bool>(&Cmd::persist(&**key)).await {
                tracing::info!(
                    target: "tower_wechat::store",
                    key = %key,
                    "removed the TTL that another program had set on a durable secret"
                );
            }
        }
    }

    /// Replaces a secret, and repeats the attempt if `reseal` has sealed the stored value again.
    async fn replace_stored_secret(
        &self,
        key: &DurableSecretKey,
        expected: &Expected,
        value: Option<&DurableSecret>,
    ) -> Result<bool, Error> {
        let value = value.map(|value| value.to_storable(key)).transpose()?;
        let keys = self.secret_keys(key);
        let before = expected.value().map(<[u8]>::to_vec);
        let before = self.decode_secret(key, &keys.read, before);
        let mut expected = before.expected.clone();
        for _ in 0..=MAX_RESEAL_RETRIES {
            let written = self.write_secret_if(key, &keys, &expected, value.as_ref());
            let Some(stored) = written.await? else {
                if before.value.is_none() && before.expected.value().is_some_and(is_text) {
                    log_replaced_unreadable(key, &keys.read);
                }
                return Ok(true);
            };
            let is_stored = match &value {
                Some(value) => stored.value.as_ref() == Some(value),
                None => stored.expected.value().is_none(),
            };
            if is_stored {
                // An earlier call has written the value and lost the reply, perhaps before the
                // separate command that publishes the change.
                self.publish(&self.outgoing_change(key)).await;
                return Ok(true);
            }
            let is_sealed = [&expected, &stored.expected]
                .into_iter()
                .any(|expected| expected.value().is_some_and(Sealer::is_sealed));
            if !is_sealed || stored.value.is_none() || stored.value != before.value {
                return Ok(false);
            }
            expected = stored.expected;
        }
        Ok(false)
    }

    /// Runs the script that replaces a secret. Returns `None` if the script has written, and
    /// otherwise what the store holds instead of `expected`.
    async fn write_secret_if(
        &self,
        key: &DurableSecretKey,
        keys: &SecretKeys<'_>,
        expected: &Expected,
        value: Option<&DurableSecret>,
    ) -> Result<Option<StoredSecret>, Error> {
        let sealer = &self.0.sealer;
        sealer.check_replaceable(key.kind(), expected)?;
        let now = self.0.clock.now();
        // A durable secret has no lease and no tombstone.
        let mut call = ScriptCall::for_step(Step::Commit);
        call.arg("").arg("").arg("").arg(0);
        let compared = [encode_expected(&expected.value()), encode_any()];
        let redis_keys = std::iter::once(&keys.read).chain(&keys.copy);
        for (redis_key, compared) in redis_keys.zip(compared) {
            let text = value.map(|value| durable::write(value, now));
            let sealed = text.map(|text| sealer.seal(text, &secret_binding(key, redis_key)));
            let new = sealed.transpose()?;
            let new = new.as_ref().map(|text| text.as_bytes());
            // A write without a TTL also removes the TTL of the key.
            call.value_key(&**redis_key)
                .arg("")
                .arg(compared.as_slice())
                .arg(encode_expected(&new).as_slice())
                .arg(0);
        }
        let reply = self
            .run_write(call, Some(self.outgoing_change(key)))
            .await?;
        Ok(match reply {
            ScriptReply::Applied | ScriptReply::AppliedUnpublished => None,
            // The call names no lease, so the script never replies that one is held.
            ScriptReply::Busy => Some(StoredSecret {
                value: None,
                expected: expected.clone(),
            }),
            ScriptReply::Conflict(values) => {
                let value = values.into_iter().next().flatten();
                Some(self.decode_secret(key, &keys.read, value))
            }
        })
    }

    /// Returns the message about a write of a secret for other processes.
    fn outgoing_change(&self, key: &DurableSecretKey) -> OutgoingInvalidation {
        let change = PlatformChange::Secret(key.clone());
        OutgoingInvalidation {
            channel: self.0.names.invalidation_channel(change.app()),
            message: platform_change_message(&change),
        }
    }
}

/// Returns `true` if a value contains more than white space.
fn is_text(value: &[u8]) -> bool {
    !value.trim_ascii().is_empty()
}

fn log_replaced_unreadable(key: &DurableSecretKey, redis_key: &str) {
    tracing::warn!(
        target: "tower_wechat::store",
        app = %key.app(),
        kind = key.kind(),
        key = redis_key,
        "replaced a value that could not be read; if another program needs it, give that program \
         another key"
    );
}

impl DurableSecretStore for RedisStore {
    fn load_secret<'a>(
        &'a self,
        key: &'a DurableSecretKey,
    ) -> BoxFuture<'a, Result<StoredSecret, Error>> {
        Box::pin(self.read_secret(key))
    }

    fn replace_secret<'a>(
        &'a self,
        key: &'a DurableSecretKey,
        expected: &'a Expected,
        value: Option<&'a DurableSecret>,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(self.replace_stored_secret(key, expected, value))
    }

    fn durability_risks(&self) -> BoxFuture<'_, Vec<String>> {
        Box::pin(self.find_durability_risks())
    }
}
