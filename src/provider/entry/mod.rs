//! The cache entry of a credential, as the engine sees it. `packed` defines the bytes of an entry.

mod packed;

use std::fmt;
use std::ops::Range;

pub(super) use self::packed::EntryOrigin;
use self::packed::PackedEntry;
use crate::clock::Timestamp;
use crate::credential::{AccessToken, Freshness, Lifetime, RecordView};
#[cfg(test)]
use crate::credential::{Record, Token, UserDetails};
use crate::store::RecordVersion;

/// Cached credential: the token, its lifetime, the period in which the entry is valid, and the
/// details of the user. Cloning increments a reference count.
///
/// The refresh token is not cached. Only renewals need the refresh token, and renewals use a record
/// that the store compares when it grants the lease.
#[derive(Clone)]
pub(crate) struct CacheEntry(PackedEntry);

impl CacheEntry {
    /// Creates an entry from a record. Returns `None` if the record has no token.
    pub(super) fn from_record(
        id: &str,
        record: &RecordView<'_>,
        validity: Range<Timestamp>,
        origin: EntryOrigin,
        epoch: u16,
    ) -> Option<Self> {
        PackedEntry::from_record(id, record, validity, origin, epoch).map(Self)
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
        self.0.id()
    }

    /// Returns `true` if the entry is the entry of `id`, and not of another id with the same key.
    #[inline]
    pub(super) fn has_id(&self, id: &str) -> bool {
        self.0.has_id(id)
    }

    pub(crate) fn secret(&self) -> &AccessToken {
        self.0.token()
    }

    pub(crate) fn lifetime(&self) -> Lifetime {
        self.0.times().lifetime
    }

    /// Returns `true` if WeChat granted the token to this process in a renewal. Returns `false` if
    /// the token came from the store or from a login.
    pub(crate) fn was_renewed(&self) -> bool {
        self.0.was_renewed()
    }

    pub(crate) fn openid(&self) -> Option<&str> {
        self.0.openid()
    }

    pub(crate) fn scope(&self) -> Option<&str> {
        self.0.scope()
    }

    pub(crate) fn unionid(&self) -> Option<&str> {
        self.0.unionid()
    }

    /// Returns the time of the user's last logout everywhere, if there was one. Sessions of earlier
    /// logins are revoked.
    #[inline]
    pub(crate) fn sessions_from(&self) -> Option<Timestamp> {
        self.0.sessions_from()
    }

    pub(crate) fn is_unexpired(&self, now: Timestamp) -> bool {
        self.lifetime().freshness(now) != Freshness::Expired
    }

    /// Returns the start of the period in which the entry is valid: the time at which this process
    /// created the entry.
    #[inline]
    pub(super) fn valid_from(&self) -> Timestamp {
        self.0.times().valid_from
    }

    /// Returns the end of the period in which the entry is valid without another read of the store.
    pub(super) fn valid_until(&self) -> Timestamp {
        self.0.times().valid_until
    }

    #[inline]
    pub(super) fn is_valid(&self, now: Timestamp) -> bool {
        let times = self.0.times();
        times.valid_from <= now && now < times.valid_until
    }

    /// Returns the number of the cache's epoch in which the entry was created.
    #[inline]
    pub(super) fn epoch(&self) -> u16 {
        self.0.epoch()
    }

    /// Returns a copy of the entry that is not valid at any time. Its token stays usable until the
    /// token expires.
    pub(super) fn to_invalidated(&self) -> Self {
        Self(self.0.with_empty_validity())
    }

    /// Returns the version of the cached credential. The invalidation of a write carries the same
    /// version if the write stored exactly this credential.
    pub(super) fn version(&self) -> RecordVersion {
        RecordVersion::of_token(self.secret(), self.lifetime(), self.sessions_from())
    }
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
    use std::time::Duration;

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
            let validity = at(since)..at(since + span);
            let entry = CacheEntry::new(&id, &secret, lifetime, &details, validity, EntryOrigin::Stored, epoch);
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
            let validity = at(from)..at(until);
            let entry = CacheEntry::new(
                "u",
                &"t".into(),
                lifetime,
                &details,
                validity,
                EntryOrigin::Renewed,
                0,
            );
            assert!(entry.was_renewed());
            assert!(entry.lifetime().renew_at() >= at(0));
            assert!(entry.lifetime().renew_at() <= entry.lifetime().expires_at());
        }
    }
}
