//! The bytes of a cache entry: one allocation for the token and all other facts about the
//! credential.
//!
//! A process may cache a million users. One allocation for a whole entry takes half the memory of
//! one allocation for each fact. A request then waits for one processor cache miss instead of four.
//!
//! # Layout
//!
//! The memory starts with the token, so that an [`AccessToken`] is a handle to the same memory.
//! These bytes follow the token, in this order:
//!
//! - 20 bytes of times: the start and length of the validity, then the renewal point and the time
//!   from there to the expiry;
//! - 1 byte of flags, which say which of the following parts exist;
//! - 2 bytes: the epoch of the cache;
//! - openid, scope and unionid, each only if its flag is set, and each after two bytes with its
//!   length;
//! - 6 bytes, only if their flag is set: the time of the user's last logout everywhere;
//! - the id of the credential, up to the end of the memory.

use std::ops::Range;
use std::time::Duration;

use crate::clock::Timestamp;
use crate::credential::{
    AccessToken, Lifetime, RecordView, SCOPE_BASE, SCOPE_USER_INFO, SecretBytes,
};

/// Origin of a cached credential: the store or a renewal of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::provider) enum EntryOrigin {
    /// The credential was read from the store, or a login stored it.
    Stored,
    /// WeChat granted the credential to this process in a renewal.
    Renewed,
}

/// Memory of a cache entry, as a handle to the token at its start. Cloning increments a reference
/// count.
#[derive(Clone)]
pub(super) struct PackedEntry(AccessToken);

/// Flags of an entry, one bit each. Frequent values of the openid and the scope take only a flag
/// and no text, which saves tens of megabytes at a million users.
mod flag {
    pub(super) const OPENID_IS_ID: u8 = 1;
    pub(super) const SCOPE_BASE: u8 = 1 << 1;
    pub(super) const SCOPE_USERINFO: u8 = 1 << 2;
    /// Set if the entry stores the openid as a text. The texts of the entry have the order of this
    /// flag and the next two flags.
    pub(super) const OPENID: u8 = 1 << 3;
    pub(super) const SCOPE: u8 = 1 << 4;
    pub(super) const UNIONID: u8 = 1 << 5;
    /// Set if the origin of the entry is [`EntryOrigin::Renewed`](super::EntryOrigin::Renewed).
    pub(super) const RENEWED: u8 = 1 << 6;
    /// Set if the time of the user's last logout everywhere follows the texts.
    pub(super) const SESSIONS_FROM: u8 = 1 << 7;
}

/// Lifetime of a credential, and the period in which its cache entry is valid. The period has a
/// start, so that an entry is not valid for longer if the wall clock is set back.
pub(super) struct Times {
    pub(super) lifetime: Lifetime,
    pub(super) valid_from: Timestamp,
    pub(super) valid_until: Timestamp,
}

/// The parts of an entry after its times, flags and epoch, borrowed from its memory.
struct Texts<'a> {
    openid: Option<&'a [u8]>,
    scope: Option<&'a [u8]>,
    unionid: Option<&'a [u8]>,
    sessions_from: &'a [u8],
    id: &'a [u8],
}

/// Number of bytes of a timestamp (six, enough until the year 10889) and of a duration (four,
/// enough for seven weeks). The unit is the millisecond.
const TIMESTAMP_BYTES: usize = 6;
const DURATION_BYTES: usize = 4;
const TIMES_BYTES: usize = 2 * (TIMESTAMP_BYTES + DURATION_BYTES);

/// Number of bytes of an epoch's number: two, so the numbers repeat after 65,536 epochs. No entry
/// exists for that long: epochs begin once a second at most after missed messages, and at
/// reconnects, which back off. An entry exists for a few hours.
const EPOCH_BYTES: usize = 2;

impl PackedEntry {
    /// Packs a record into one allocation. Returns `None` if the record has no token.
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
            // A text that is longer than a `u16` can count does not come from WeChat and is
            // omitted.
            if let Some(text) = text
                && let Ok(length) = u16::try_from(text.len())
            {
                flags |= bit;
                lengths[at] = length.to_le_bytes();
                texts[at] = text.as_bytes();
            }
        }
        let sessions_from = details.sessions_valid_from.map(|from| {
            flags |= flag::SESSIONS_FROM;
            timestamp_bytes(from)
        });
        let length = |at: usize| {
            let is_written = flags & written[at].0 != 0;
            if is_written {
                lengths[at].as_slice()
            } else {
                b""
            }
        };
        let mut start = [0; TIMES_BYTES + 1 + EPOCH_BYTES];
        start[..TIMES_BYTES].copy_from_slice(&times.to_bytes());
        start[TIMES_BYTES] = flags;
        start[TIMES_BYTES + 1..].copy_from_slice(&epoch.to_le_bytes());
        let prefix = AccessToken::length_prefix(token.secret);
        let parts: [&[u8]; 11] = [
            &prefix,
            token.secret.as_bytes(),
            &start,
            length(0),
            texts[0],
            length(1),
            texts[1],
            length(2),
            texts[2],
            sessions_from
                .as_ref()
                .map_or(b"", <[u8; TIMESTAMP_BYTES]>::as_slice),
            id.as_bytes(),
        ];
        Some(Self::from_parts(&parts))
    }

    fn from_parts(parts: &[&[u8]]) -> Self {
        Self(AccessToken::at_start_of(SecretBytes::concat(parts)))
    }

    #[inline]
    pub(super) fn token(&self) -> &AccessToken {
        &self.0
    }

    pub(super) fn id(&self) -> &str {
        as_text(self.texts().id)
    }

    /// Returns `true` if the entry is the entry of `id`, and not of another id with the same key.
    #[inline]
    pub(super) fn has_id(&self, id: &str) -> bool {
        self.texts().id == id.as_bytes()
    }

    pub(super) fn openid(&self) -> Option<&str> {
        if self.flags() & flag::OPENID_IS_ID != 0 {
            return Some(self.id());
        }
        self.texts().openid.map(as_text)
    }

    pub(super) fn scope(&self) -> Option<&str> {
        match self.flags() {
            flags if flags & flag::SCOPE_BASE != 0 => Some(SCOPE_BASE),
            flags if flags & flag::SCOPE_USERINFO != 0 => Some(SCOPE_USER_INFO),
            _ => self.texts().scope.map(as_text),
        }
    }

    pub(super) fn unionid(&self) -> Option<&str> {
        self.texts().unionid.map(as_text)
    }

    /// Returns `true` if the origin of the entry is [`EntryOrigin::Renewed`].
    pub(super) fn was_renewed(&self) -> bool {
        self.flags() & flag::RENEWED != 0
    }

    /// Returns the time of the user's last logout everywhere, if there was one. Sessions of earlier
    /// logins are revoked.
    #[inline]
    pub(super) fn sessions_from(&self) -> Option<Timestamp> {
        if self.flags() & flag::SESSIONS_FROM == 0 {
            return None;
        }
        let [a, b, c, d, e, f] = *self.texts().sessions_from.first_chunk()?;
        let millis = i64::from_le_bytes([a, b, c, d, e, f, 0, 0]);
        Some(Timestamp::from_millis(millis))
    }

    /// Returns the number of the cache's epoch in which the entry was created.
    #[inline]
    pub(super) fn epoch(&self) -> u16 {
        let epoch = self.facts().get(TIMES_BYTES + 1..).unwrap_or_default();
        epoch
            .first_chunk()
            .map_or(0, |epoch| u16::from_le_bytes(*epoch))
    }

    #[inline]
    pub(super) fn times(&self) -> Times {
        match self.facts().first_chunk() {
            Some(written) => Times::from_bytes(written),
            None => Times::from_bytes(&[0; TIMES_BYTES]),
        }
    }

    /// Returns a copy of the entry whose period of validity has no length, so that the copy is not
    /// valid at any time.
    pub(super) fn with_empty_validity(&self) -> Self {
        let mut facts = self.facts().to_vec();
        if let Some(length) = facts.get_mut(TIMESTAMP_BYTES..TIMESTAMP_BYTES + DURATION_BYTES) {
            length.fill(0);
        }
        let token = self.0.expose();
        Self::from_parts(&[&AccessToken::length_prefix(token), token.as_bytes(), &facts])
    }

    /// Returns the bytes after the token, which hold all other facts about the credential.
    #[inline]
    fn facts(&self) -> &[u8] {
        self.0.split_memory().1
    }

    #[inline]
    fn flags(&self) -> u8 {
        self.facts().get(TIMES_BYTES).copied().unwrap_or_default()
    }

    /// Splits the end of the memory into the stored texts, the time of the last logout and the id.
    #[inline]
    fn texts(&self) -> Texts<'_> {
        let flags = self.flags();
        let mut rest = self
            .facts()
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

/// Largest number of milliseconds that a timestamp of six bytes can hold.
const MAX_TIMESTAMP_MILLIS: i64 = (1 << (8 * TIMESTAMP_BYTES)) - 1;

fn timestamp_bytes(at: Timestamp) -> [u8; TIMESTAMP_BYTES] {
    let [a, b, c, d, e, f, ..] = at.as_millis().clamp(0, MAX_TIMESTAMP_MILLIS).to_le_bytes();
    [a, b, c, d, e, f]
}

/// Returns the bytes as text. The bytes are always valid UTF-8, because each text of an entry was
/// copied from a `str`.
fn as_text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}
