//! What another system keeps of a platform in Redis, as an import reads it.

use std::borrow::Cow;
use std::time::Duration;

use redis::Cmd;

use super::super::super::locations::RedisKey;
use super::super::super::{ExternalPlatform, RedisStore};
use super::super::scan::Scan;
use super::super::task::ScanOptions;
use crate::clock::Timestamp;
use crate::credential::{AccessToken, AppId};
use crate::error::Error;
use crate::store::redis::format::external::read_token;

/// The name of one secret of a platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SecretName {
    VerifyTicket,
    ComponentToken,
    RefreshToken(AppId),
    AccountToken(AppId),
}

/// One secret of the other system.
pub(super) struct SourceSecret {
    pub(super) name: SecretName,
    pub(super) value: SourceValue,
    /// The remaining time to live of the key, if the key expires.
    pub(super) key_ttl: Option<Duration>,
    /// The time at which this process has read the time to live.
    pub(super) read_at: Timestamp,
}

/// The value of a secret of the other system.
pub(super) enum SourceValue {
    Secret(AccessToken),
    /// The value contains no secret, for this reason. The reason does not contain the value.
    Unreadable(String),
}

/// Reads a platform from the keys of another system. Writes nothing.
pub(super) struct PlatformReader<'a> {
    pub(super) redis: &'a RedisStore,
    pub(super) platform: &'a ExternalPlatform,
    pub(super) component: &'a AppId,
}

impl<'a> PlatformReader<'a> {
    /// Reads the secrets of these names. The result lacks the secrets that the other system does
    /// not have.
    pub(super) async fn read(&self, names: Vec<SecretName>) -> Result<Vec<SourceSecret>, Error> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<RedisKey<'_>> = names
            .iter()
            .map(|name| RedisKey {
                key: Cow::Owned(self.key(name)),
                field: None,
            })
            .collect();
        // The time to live is read before the value. If the other system replaces a token between
        // the two reads, the new token gets the short lifetime of the old one, and not vice versa.
        let ttls: Vec<Cmd> = keys.iter().map(|key| Cmd::pttl(&key.key)).collect();
        let ttls: Vec<i64> = self.redis.read_all(&ttls).await?;
        let read_at = self.redis.0.clock.now();
        let values = self
            .redis
            .read_keys(&keys.iter().collect::<Vec<_>>())
            .await?;
        let format = self.platform.format();
        let found = names.into_iter().zip(ttls).zip(values);
        Ok(found
            .filter_map(|((name, ttl), value)| {
                let value = value?;
                let secret = read_token(&value, format);
                Some(SourceSecret {
                    name,
                    value: match secret {
                        Ok(secret) => SourceValue::Secret(secret),
                        Err(_) if is_binary(&value) => SourceValue::Unreadable(BINARY.to_owned()),
                        Err(error) => SourceValue::Unreadable(error.to_string()),
                    },
                    key_ttl: u64::try_from(ttl).ok().map(Duration::from_millis),
                    read_at,
                })
            })
            .collect())
    }

    /// Returns a scan of the AppIDs of all accounts with a refresh token.
    pub(super) fn scan_accounts(&self) -> Scan<'a> {
        let (start, end) = self.platform.refresh_token_affixes(self.component);
        Scan::of_keys(self.redis, start, end)
    }

    /// Returns the error for a Redis without any secret of this platform under the prefix. The
    /// error names another prefix, if the Redis has a verify ticket of the platform there.
    pub(super) async fn nothing_found(&self, options: &ScanOptions) -> Result<Error, Error> {
        let system = self.platform.system_name();
        let component = self.component;
        let used = shown_prefix(self.platform.key_prefix());
        let address = &self.redis.0.address;
        Ok(Error::configuration(
            match self.find_prefix(options).await? {
                Some(prefix) => format!(
                    "Redis at {address} has nothing of {system} for {component} under {used}, but it \
                 has a verify ticket under {}: run it again with --prefix '{}'",
                    shown_prefix(&prefix),
                    prefix.trim_end_matches(':'),
                ),
                None => format!(
                    "Redis at {address} has nothing of {system} for {component} under {used}, nor a \
                 verify ticket under another prefix: check the AppID of the platform \
                 (--component), and the Redis and its database (--source-url)"
                ),
            },
        ))
    }

    /// Returns a prefix under which the Redis has a verify ticket of the platform.
    async fn find_prefix(&self, options: &ScanOptions) -> Result<Option<String>, Error> {
        let bare = self.platform.clone().prefix("");
        let ticket = bare.ticket_key(self.component);
        let mut scan = Scan::of_keys(self.redis, String::new(), &ticket);
        while let Some(prefixes) = scan.next_batch().await? {
            let is_usual = |prefix: &String| prefix.is_empty() || prefix.ends_with(':');
            if let Some(prefix) = prefixes.into_iter().find(is_usual) {
                return Ok(Some(prefix));
            }
            tokio::time::sleep(options.pause).await;
        }
        Ok(None)
    }

    fn key(&self, name: &SecretName) -> String {
        let (platform, component) = (self.platform, self.component);
        match name {
            SecretName::VerifyTicket => platform.ticket_key(component),
            SecretName::ComponentToken => platform.component_token_key(component),
            SecretName::RefreshToken(account) => platform.refresh_token_key(component, account),
            SecretName::AccountToken(account) => platform.account_token_key(component, account),
        }
    }
}

/// The reason for a value that starts with a control character.
const BINARY: &str = "a binary codec has written it, as Redisson does by default: let Redisson use \
                      its StringCodec";

/// Returns `true` if no text starts as this value does.
fn is_binary(value: &[u8]) -> bool {
    value.first().is_some_and(|first| first.is_ascii_control())
}

fn shown_prefix(prefix: &str) -> String {
    match prefix.trim_end_matches(':') {
        "" => "no prefix".to_owned(),
        prefix => format!("the prefix {}", prefix.escape_debug()),
    }
}
