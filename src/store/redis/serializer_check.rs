//! Detection of keys and fields that Java's own serialization has written.
//!
//! A Spring service whose `RedisTemplate` has no string serializers writes serialized names. This
//! crate does not find the users of that service, and reads no value that it could report. When a
//! user is not found, the store therefore searches for such names, with a minimum interval.

use std::time::Duration;

use zeroize::Zeroize;

use super::locations::{Location, ValueFormat};
use super::store::RedisStore;
use crate::store::CredentialSlot;
use crate::store::redis::format::text::{SERIALIZATION_MAGIC, SERIALIZER_REMEDY};

/// The tag of a string of less than 64 KiB in Java's serialization (`TC_STRING`). The length of the
/// string follows the tag.
const STRING_TAG: u8 = 0x74;

/// Minimum interval between two searches of one store: ten seconds. Without it, each request of an
/// unknown user would run up to four `HSCAN` commands.
const SEARCH_INTERVAL: Duration = Duration::from_secs(10);

/// Approximate number of fields that a search reads from a hash: 20. A service with such a
/// serializer writes all names in the same form, so a few fields are enough.
const SAMPLE_FIELDS: usize = 20;

impl RedisStore {
    /// Searches for serialized names after a user was not found, and logs an error for the first
    /// such name. Does nothing if the location is no pair of hash fields, or if the last search
    /// began within [`SEARCH_INTERVAL`].
    pub(super) async fn search_java_names(&self, location: &Location<'_>, slot: &CredentialSlot) {
        if location.format != ValueFormat::UserPair
            || !self.0.sealer.may_search_java_names(SEARCH_INTERVAL)
        {
            return;
        }
        for key in location.keys.iter() {
            let key = key.key.as_ref();
            let found = if self
                .has_field_like(key.as_bytes(), |name| {
                    name.starts_with(&SERIALIZATION_MAGIC)
                })
                .await
            {
                "has fields whose names"
            } else if self
                .has_field_like(&serialize_java_string(key), |_| true)
                .await
            {
                "lies in Redis under a name that"
            } else {
                continue;
            };
            tracing::error!(
                target: "tower_wechat::store",
                app = %slot.key.app,
                key,
                "the hash {key} {found} Java's own serialization has written (they begin with \
                 AC ED 00 05), so its users are not found: {SERIALIZER_REMEDY}"
            );
            return;
        }
    }

    /// Returns `true` if one of the first fields of a hash matches. Returns `false` if the command
    /// fails.
    async fn has_field_like(&self, hash: &[u8], matches: impl Fn(&[u8]) -> bool) -> bool {
        let scanned = self.scan_hash(hash, 0, SAMPLE_FIELDS).await;
        let (_, mut fields) = scanned.unwrap_or_default();
        let found = fields.iter().any(|(name, _)| matches(name));
        // The values contain tokens, so they are overwritten with zeros.
        for (_, value) in &mut fields {
            value.zeroize();
        }
        found
    }
}

/// Encodes a string as Java's own serialization does.
fn serialize_java_string(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes();
    [
        &SERIALIZATION_MAGIC[..],
        &[STRING_TAG],
        &length,
        text.as_bytes(),
    ]
    .concat()
}
