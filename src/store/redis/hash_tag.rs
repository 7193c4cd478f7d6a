//! Hash tags: the part of a key that selects the slot in a Redis Cluster.

use std::ops::Range;

/// Returns the hash tag of a key: the text between the first `{` and the next `}`. A Redis Cluster
/// hashes only this text. Returns `None` if the key has no tag or an empty tag, because the Cluster
/// then hashes the whole key.
pub(super) fn hash_tag(key: &str) -> Option<&str> {
    key.get(hash_tag_range(key.as_bytes())?)
}

/// Returns the range of bytes of the hash tag in a key, without the braces.
pub(super) fn hash_tag_range(key: &[u8]) -> Option<Range<usize>> {
    let start = key.iter().position(|byte| *byte == b'{')? + 1;
    let length = key.get(start..)?.iter().position(|byte| *byte == b'}')?;
    (length > 0).then_some(start..start + length)
}
