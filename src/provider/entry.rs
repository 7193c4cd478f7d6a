//! The cache entry of a credential: one allocation, packed.
//!
//! # Layout
//!
//! The bytes after the token, in this order:
//!
//! - 20 bytes of times: the start and length of the validity, then the renewal point and the time
//!   from there to the expiry;
//! - 1 byte of flags;
//! - 2 bytes: the epoch of the cache;
//! - openid, scope and unionid, where a flag says so, each after two bytes of its length;
//! - 6 bytes, where a flag says so: the time since which sessions of the user are accepted;
//! - the id, to the end.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::credential::{
    AccessToken, Freshness, Lifetime, RecordView, SCOPE_BASE, SCOPE_USER_INFO,
};
#[cfg(test)]
use crate::credential::{Record, Token, UserDetails};
use crate::store::RecordVersion;

/// Cached credential: its token, its times and the details of its user. Cloning increments a
/// reference count.
///
/// The refresh token is not cached. Only renewals need it, and they read it from the store while
/// they hold the lease.
#[derive(Clone)]
pub(crate) struct CacheEntry(
    /// The token, followed by the bytes that the module documentation describes.
    AccessToken,
);

/// Flags of an entry. Frequent values need only a flag, which saves tens of megabytes at a million
/// users.
mod flag {
    pub(super) const OPENID_IS_ID: u8 = 1;
    pub(super) const SCOPE_BASE: u8 = 1 << 1;
    pub(super) const SCOPE_USERINFO: u8 = 1 << 2;
    /// Texts that are stored, in this order.
    pub(super) const OPENID: u8 = 1 << 3;
    pub(super) const SCOPE: u8 = 1 << 4;
    pub(super) const UNIONID: u8 = 1 << 5;
    /// Set for [`EntryOrigin::Renewed`](super::EntryOrigin::Renewed).
    pub(super) const RENEWED: u8 = 1 << 6;
    /// A timestamp follows the texts.
    pub(super) const SESSIONS_FROM: u8 = 1 << 7;
}

/// Origin of a cached credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryOrigin {
    /// Read from the store, or stored by a login.
    Stored,
    /// Granted by WeChat to this process: the callers waited for WeChat.
    Renewed,
}

/// Lifetime of a credential, and the period in which its entry is valid. The start of the period
/// handles wall clocks that were set back.
struct Times {
    lifetime: Lifetime,
    valid_from: Timestamp,
    valid_until: Timestamp,
}

/// Stored texts of an entry, and its id.
struct Texts<'a> {
    openid: Option<&'a [u8]>,
    scope: Option<&'a [u8]>,
    unionid: Option<&'a [u8]>,
    sessions_from: &'a [u8],
    id: &'a [u8],
}

/// Sizes of a timestamp (until the year 10889) and of a duration (seven weeks at most).
const TIMESTAMP_BYTES: usize = 6;
const DURATION_BYTES: usize = 4;
const TIMES_BYTES: usize = 2 * (TIMESTAMP_BYTES + DURATION_BYTES);

/// Size of an epoch. Its number repeats after 65,536 epochs. Epochs begin after missed messages,
/// once a second at most, and at reconnects, which back off; an entry exists for a few hours.
const EPOCH_BYTES: usize = 2;

impl CacheEntry {
    /// Creates an entry from a record. `None` if the record has no token.
    pub(super) fn from_record(
        id: &str,
        record: &RecordView<'_>,
        validity: Range<Timestamp>,
        origin: EntryOrigin,
        epoch: u16,
    ) -> Option<Self> {
        let (token, details) = (record.token.as_ref()?, &record.details);
        let times = Times {
            lifetime: token.lifetime,
            valid_from: validity.start,
            valid_until: validity.end,
        };
        let (openid, scope) = (details.openid.as_deref(), details.scope.as_deref());
        let (mut flags, mut openid_text, mut scope_text) = (0, None, None);
        match openid {
            Some(openid) if openid == id => flags |= flag::OPENID_IS_ID,
            other => openid_text = other,
        }
        if origin == EntryOrigin::Renewed {
            flags |= flag::RENEWED;
        }
        match scope {
            Some(SCOPE_BASE) => flags |= flag::SCOPE_BASE,
            Some(SCOPE_USER_INFO) => flags |= flag::SCOPE_USERINFO,
            other => scope_text = other,
        }
        let mut lengths = [[0; 2]; 3];
        let mut texts: [&[u8]; 3] = [b""; 3];
        let written = [
            (flag::OPENID, openid_text),
            (flag::SCOPE, scope_text),
            (flag::UNIONID, details.unionid.as_deref()),
        ];
        for (at, (bit, text)) in written.into_iter().enumerate() {
            // Longer texts do not come from WeChat and are omitted.
            if let Some(text) = text
                && let Ok(length) = u16::try_from(text.len())
            {
                flags |= bit;
                lengths[at] = length.to_le_bytes();
                texts[at] = text.as_bytes();
            }
        }
        let from = details.sessions_valid_from.map(|from| {
            flags |= flag::SESSIONS_FROM;
            timestamp_bytes(from)
        });
        let length = |at: usize| {
            let marked = flags & written[at].0 != 0;
            if marked { lengths[at].as_slice() } else { b"" }
        };
        let mut start = [0; TIMES_BYTES + 1 + EPOCH_BYTES];
        start[..TIMES_BYTES].copy_from_slice(&times.to_bytes());
        start[TIMES_BYTES] = flags;
        start[TIMES_BYTES + 1..].copy_from_slice(&epoch.to_le_bytes());
        let parts: [&[u8]; 9] = [
            &start,
            length(0),
            texts[0],
            length(1),
            texts[1],
            length(2),
            texts[2],
            from.as_ref().map_or(b"", <[u8; TIMESTAMP_BYTES]>::as_slice),
            id.as_bytes(),
        ];
        Some(Self(AccessToken::beside(token.secret, &parts)))
    }

    #[cfg(test)]
    pub(super) fn new(
        id: &str,
        secret: &AccessToken,
        lifetime: Lifetime,
        details: &UserDetails,
        validity: Range<Timestamp>,
        origin: EntryOrigin,
        epoch: u16,
    ) -> Self {
        let record = Record {
            token: Some(Token {
                secret: secret.clone(),
                lifetime,
            }),
            refresh: None,
            details: details.clone(),
        };
        Self::from_record(id, &record.view(), validity, origin, epoch).unwrap()
    }

    pub(crate) fn id(&self) -> &str {
        as_text(self.texts().id)
    }

    /// Returns `true` if the entry belongs to this id.
    #[inline]
    pub(super) fn has_id(&self, id: &str) -> bool {
        self.texts().id == id.as_bytes()
    }

    pub(crate) fn secret(&self) -> &AccessToken {
        &self.0
    }

    pub(crate) fn lifetime(&self) -> Lifetime {
        self.times().lifetime
    }

    /// Returns `true` if the callers that received the entry waited for WeChat.
    pub(crate) fn was_renewed(&self) -> bool {
        self.flags() & flag::RENEWED != 0
    }

    pub(crate) fn openid(&self) -> Option<&str> {
        if self.flags() & flag::OPENID_IS_ID != 0 {
            return Some(self.id());
        }
        self.texts().openid.map(as_text)
    }

    pub(crate) fn scope(&self) -> Option<&str> {
        match self.flags() {
            flags if flags & flag::SCOPE_BASE != 0 => Some(SCOPE_BASE),
            flags if flags & flag::SCOPE_USERINFO != 0 => Some(SCOPE_USER_INFO),
            _ => self.texts().scope.map(as_text),
        }
    }

    pub(crate) fn unionid(&self) -> Option<&str> {
        self.texts().unionid.map(as_text)
    }

    pub(crate) fn is_unexpired(&self, now: Timestamp) -> bool {
        self.lifetime().freshness(now) != Freshness::Expired
    }

    /// Returns the time of the read.
    #[inline]
    pub(super) fn valid_from(&self) -> Timestamp {
        self.times().valid_from
    }

    /// Returns the end of the period in which the entry is valid.
    pub(super) fn valid_until(&self) -> Timestamp {
        self.times().valid_until
    }

    /// Returns the epoch of the cache in which the entry was read.
    #[inline]
    pub(super) fn epoch(&self) -> u16 {
        let epoch = self
            .0
            .companion()
            .get(TIMES_BYTES + 1..)
            .unwrap_or_default();
        epoch
            .first_chunk()
            .map_or(0, |epoch| u16::from_le_bytes(*epoch))
    }

    /// Returns a copy of the entry that is no longer valid.
    pub(super) fn to_invalidated(&self) -> Self {
        let mut companion = self.0.companion().to_vec();
        if let Some(span) = companion.get_mut(TIMESTAMP_BYTES..TIMESTAMP_BYTES + DURATION_BYTES) {
            span.fill(0);
        }
        Self(AccessToken::beside(self.0.expose(), &[&companion]))
    }

    /// Returns the version that an invalidation of exactly this credential carries.
    pub(super) fn version(&self) -> RecordVersion {
        RecordVersion::of_token(&self.0, self.lifetime(), self.sessions_from())
    }

    #[inline]
    pub(super) fn is_valid(&self, now: Timestamp) -> bool {
        let times = self.times();
        times.valid_from <= now && now < times.valid_until
    }

    #[inline]
    fn times(&self) -> Times {
        match self.0.companion().first_chunk() {
            Some(written) => Times::from_bytes(written),
            None => Times::from_bytes(&[0; TIMES_BYTES]),
        }
    }

    #[inline]
    fn flags(&self) -> u8 {
        self.0
            .companion()
            .get(TIMES_BYTES)
            .copied()
            .unwrap_or_default()
    }

    /// Returns the time since which sessions of the user are accepted: their last logout
    /// everywhere.
    #[inline]
    pub(crate) fn sessions_from(&self) -> Option<Timestamp> {
        if self.flags() & flag::SESSIONS_FROM == 0 {
            return None;
        }
        let [a, b, c, d, e, f] = *self.texts().sessions_from.first_chunk()?;
        let millis = i64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
        Some(Timestamp::from_millis(millis))
    }

    /// Returns the stored texts and the id.
    #[inline]
    fn texts(&self) -> Texts<'_> {
        let flags = self.flags();
        let mut rest = self
            .0
            .companion()
            .get(TIMES_BYTES + 1 + EPOCH_BYTES..)
            .unwrap_or_default();
        let mut written = |bit| {
            if flags & bit == 0 {
                return None;
            }
            let (length, behind) = rest.split_first_chunk()?;
            let length = usize::from(u16::from_le_bytes(*length));
            let (text, behind) = behind.split_at_checked(length)?;
            rest = behind;
            Some(text)
        };
        let openid = written(flag::OPENID);
        let scope = written(flag::SCOPE);
        let unionid = written(flag::UNIONID);
        let from = if flags & flag::SESSIONS_FROM == 0 {
            0
        } else {
            TIMESTAMP_BYTES
        };
        let (sessions_from, id) = rest.split_at_checked(from).unwrap_or((b"", rest));
        Texts {
            openid,
            scope,
            unionid,
            sessions_from,
            id,
        }
    }
}

impl Times {
    fn to_bytes(&self) -> [u8; TIMES_BYTES] {
        let mut written = [0; TIMES_BYTES];
        let pairs = [
            (self.valid_from, self.valid_until),
            (self.lifetime.renew_at(), self.lifetime.expires_at()),
        ];
        for (to, (from, until)) in written
            .chunks_exact_mut(TIMESTAMP_BYTES + DURATION_BYTES)
            .zip(pairs)
        {
            to[..TIMESTAMP_BYTES].copy_from_slice(&timestamp_bytes(from));
            let from = Timestamp::from_millis(from.as_millis().clamp(0, MAX_TIMESTAMP_MILLIS));
            let span = from.duration_until(until).as_millis();
            let span = u32::try_from(span).unwrap_or(u32::MAX);
            to[TIMESTAMP_BYTES..].copy_from_slice(&span.to_le_bytes());
        }
        written
    }

    #[inline]
    fn from_bytes(bytes: &[u8; TIMES_BYTES]) -> Self {
        let [a, b, c, d, e, f, s, t, u, v, g, h, i, j, k, l, w, x, y, z] = *bytes;
        let since = Timestamp::from_millis(i64::from_le_bytes([a, b, c, d, e, f, 0, 0]));
        let renew_at = Timestamp::from_millis(i64::from_le_bytes([g, h, i, j, k, l, 0, 0]));
        let span = |bytes| Duration::from_millis(u32::from_le_bytes(bytes).into());
        let expires_at = renew_at.saturating_add(span([w, x, y, z]));
        Self {
            lifetime: Lifetime::from_stored(renew_at, Some(expires_at), Duration::ZERO),
            valid_from: since,
            valid_until: since.saturating_add(span([s, t, u, v])),
        }
    }
}

/// Largest timestamp of six bytes.
const MAX_TIMESTAMP_MILLIS: i64 = (1 << (8 * TIMESTAMP_BYTES)) - 1;

fn timestamp_bytes(at: Timestamp) -> [u8; TIMESTAMP_BYTES] {
    let [a, b, c, d, e, f, ..] = at.as_millis().clamp(0, MAX_TIMESTAMP_MILLIS).to_le_bytes();
    [a, b, c, d, e, f]
}

/// Returns the bytes as text. They were copied from a `str`.
fn as_text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

impl fmt::Debug for CacheEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheEntry")
            .field("id", &self.id())
            .field("lifetime", &self.lifetime())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn detail() -> impl Strategy<Value = Option<String>> {
        let known = prop_oneof![
            Just("snsapi_base".to_owned()),
            Just("snsapi_userinfo".to_owned()),
            Just("snsapi_base,snsapi_userinfo".to_owned()),
            ".{0,40}",
        ];
        proptest::option::of(known)
    }

    proptest! {
        #[test]
        fn every_entry_reads_back_as_it_was_written(
            id in ".{1,60}", token in ".{1,200}", openid in detail(), scope in detail(),
            unionid in detail(), same: bool, from in proptest::option::of(0i64..4_000_000_000_000),
            epoch: u16,
            renew_at in 0i64..4_000_000_000_000, life in 0i64..4_000_000_000,
            since in 0i64..4_000_000_000_000, span in 0i64..4_000_000_000,
        ) {
            let openid = if same { Some(id.clone()) } else { openid };
            let [openid, scope, unionid] = [openid, scope, unionid].map(|d| d.map(Box::<str>::from));
            let sessions_valid_from = from.map(at);
            let details = UserDetails { openid, scope, unionid, sessions_valid_from };
            let lifetime = Lifetime::from_stored(at(renew_at), Some(at(renew_at + life)), Duration::ZERO);
            let secret = AccessToken::new(token);
            let believed = at(since)..at(since + span);
            let entry = CacheEntry::new(&id, &secret, lifetime, &details, believed, EntryOrigin::Stored, epoch);
            prop_assert!(!entry.was_renewed());
            prop_assert_eq!(entry.epoch(), epoch);
            let outdated = entry.to_invalidated();
            prop_assert!(!outdated.is_valid(at(since)));
            prop_assert_eq!(outdated.version(), entry.version());
            prop_assert_eq!((outdated.id(), outdated.lifetime()), (entry.id(), entry.lifetime()));
            prop_assert_eq!(outdated.unionid(), entry.unionid());
            prop_assert_eq!(entry.id(), id.as_str());
            let longer = format!("{id}x");
            prop_assert!(entry.has_id(&id) && !entry.has_id(&longer) && !entry.has_id(""));
            prop_assert_eq!(entry.secret(), &secret);
            prop_assert_eq!(entry.lifetime(), lifetime);
            prop_assert_eq!(entry.openid(), details.openid.as_deref());
            prop_assert_eq!(entry.scope(), details.scope.as_deref());
            prop_assert_eq!(entry.unionid(), details.unionid.as_deref());
            prop_assert_eq!(entry.sessions_from(), sessions_valid_from);
            prop_assert_eq!(entry.valid_until(), at(since + span));
            prop_assert_eq!(entry.is_valid(at(since)), span > 0);
            prop_assert!(!entry.is_valid(at(since - 1)) && !entry.is_valid(at(since + span)));
        }
    }

    #[test]
    fn times_out_of_range_are_clamped() {
        let details = UserDetails::default();
        for (from, until) in [(i64::MIN, i64::MAX), (-5, 5), (i64::MAX, i64::MAX)] {
            let lifetime = Lifetime::from_stored(at(from), Some(at(until)), Duration::ZERO);
            let believed = at(from)..at(until);
            let entry = CacheEntry::new(
                "u",
                &"t".into(),
                lifetime,
                &details,
                believed,
                EntryOrigin::Renewed,
                0,
            );
            assert!(entry.was_renewed());
            assert!(entry.lifetime().renew_at() >= at(0));
            assert!(entry.lifetime().renew_at() <= entry.lifetime().expires_at());
        }
    }
}
