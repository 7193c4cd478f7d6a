//! A Spring service whose `RedisTemplate` has no string serializers writes names that nobody here
//! asks for: every user looks like a stranger, and no value is ever unreadable. This looks for such
//! names where a user was not found, once in a while.

use std::time::Duration;

use zeroize::Zeroize;

use super::locations::{Location, ValueFormat};
use super::store::RedisStore;
use crate::store::CredentialSlot;

/// What Java's own serialization begins with (Java Object Serialization Specification, section 6.4:
/// `STREAM_MAGIC` and `STREAM_VERSION`).
pub(super) const SERIALIZATION_MAGIC: &[u8] = &[0xac, 0xed, 0x00, 0x05];

/// What stands between that and a text of less than 64 KiB, with the text's length behind it.
const STRING_TAG: u8 = 0x74;

/// The least time between two searches of one store.
const SEARCH_INTERVAL: Duration = Duration::from_secs(10);

/// How many fields of a hash are looked at.
const SAMPLE_FIELDS: usize = 20;

/// What to do about it, for log lines and the operators' program.
pub(crate) const SERIALIZER_REMEDY: &str = "let the Java service use StringRedisTemplate, or set \
     RedisSerializer.string() for keys, hash keys and hash values";

/// A field of a hash and its value.
type HashField = (Vec<u8>, Vec<u8>);

impl RedisStore {
    /// Searches after a user was not found, and tells the operator what it finds.
    pub(super) async fn search_java_names(&self, location: &Location<'_>, slot: &CredentialSlot) {
        if location.format != ValueFormat::UserPair
            || !self.0.sealer.may_search_java_names(SEARCH_INTERVAL)
        {
            return;
        }
        for cell in location.keys.iter() {
            let key = cell.key.as_ref();
            let found = if self
                .has_field_like(key.as_bytes(), |name| name.starts_with(SERIALIZATION_MAGIC))
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

    /// Whether one of some fields of a hash has such a name. A Redis that does not say has none.
    async fn has_field_like(&self, hash: &[u8], matches: impl Fn(&[u8]) -> bool) -> bool {
        let mut scan = redis::cmd("HSCAN");
        scan.arg(hash).arg(0).arg("COUNT").arg(SAMPLE_FIELDS);
        let scanned = self.command::<(u64, Vec<HashField>)>(&scan).await;
        let (_, mut fields) = scanned.unwrap_or_default();
        let found = fields.iter().any(|(name, _)| matches(name));
        // The values hold tokens.
        for (_, value) in &mut fields {
            value.zeroize();
        }
        found
    }
}

/// What Java's own serialization makes of a text.
fn serialize_java_string(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes();
    [SERIALIZATION_MAGIC, &[STRING_TAG], &length, text.as_bytes()].concat()
}
