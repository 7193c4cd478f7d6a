//! Credentials as a store keeps them: their keys, stored records, leases and commits.

use std::fmt;
use std::time::Duration;

use zeroize::Zeroizing;

use super::kind::CredentialKind;
use crate::credential::{AppId, Record, RecordView};

/// The identity of a credential. Two requests for the same key share one renewal.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CredentialKey {
    /// The account to which the credential belongs.
    pub app: AppId,
    /// The kind of the credential, such as a user's tokens or a ticket.
    pub kind: CredentialKind,
    /// The user id, or an empty text for a credential of the account itself.
    pub id: Box<str>,
}

/// The place of one credential in a store, and the margin with which the store converts its times.
#[derive(Debug, Clone)]
pub struct CredentialSlot {
    /// The credential that the slot holds.
    pub key: CredentialKey,
    /// Time from the renewal point of the token to its expiry. The store adds this margin to a
    /// stored renewal point if the stored value contains no expiry.
    pub margin: Duration,
}

/// The raw values that a slot held when a caller read the slot. A commit writes only if the slot
/// still holds these values (newest wins).
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Expected(pub(super) Vec<Option<Zeroizing<Vec<u8>>>>);

#[cfg(feature = "platform")]
impl Expected {
    /// Creates the expectation of one value, or of none.
    pub(super) fn of_value(value: Option<Vec<u8>>) -> Self {
        Self(vec![value.map(Zeroizing::new)])
    }

    /// Returns the expected value of a slot with one value. `None` expects that there is none.
    pub(super) fn value(&self) -> Option<&[u8]> {
        let value = self.0.first()?.as_ref()?;
        Some(value)
    }
}

impl fmt::Debug for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Expected(***)")
    }
}

/// A record, together with the raw values from which it was decoded.
#[derive(Debug, Clone, Default)]
pub struct StoredRecord {
    /// The decoded record. A token that cannot be decoded is missing in the record.
    pub record: Record,
    /// The raw values of the slot, with which a later commit compares.
    pub expected: Expected,
}

/// A function that inspects a record without copying it. Returns `true` if the caller has taken
/// what it needs.
pub(crate) type Visitor<'a> = dyn FnMut(&RecordView<'_>) -> bool + Send + 'a;

/// The outcome of a read with a [`Visitor`].
#[derive(Debug)]
pub enum ReadOutcome {
    /// The visitor returned `true`: it has taken what it needs from the record.
    Accepted,
    /// The visitor returned `false` for this record.
    Rejected(StoredRecord),
    /// The store did not reply within the timeout of the caller.
    TimedOut,
}

/// The unique name of the holder of a lease.
///
/// A holder may acquire a lease that it already has. A retry is therefore safe if the store granted
/// the lease but the reply was lost.
#[derive(Clone, PartialEq, Eq)]
pub struct LeaseOwner(Box<str>);

impl LeaseOwner {
    /// Creates a random name of 128 bits.
    pub fn unique() -> Self {
        let mut bytes = [0; 16];
        if getrandom::fill(&mut bytes).is_err() {
            // The system returned no random bytes. `fastrand` still yields different names within
            // this process.
            bytes = fastrand::u128(..).to_be_bytes();
        }
        Self(format!("{:032x}", u128::from_be_bytes(bytes)).into())
    }

    /// Returns this name with a number appended. An engine uses the result as the lease owner of
    /// the call with this number.
    pub fn with_number(&self, number: u64) -> Self {
        Self(format!("{}-{number}", self.0).into())
    }

    #[cfg(feature = "redis")]
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for LeaseOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LeaseOwner({})", self.0)
    }
}

/// The outcome of an attempt to acquire a lease.
#[derive(Debug)]
pub enum LeaseResult {
    /// The caller holds the lease, and the slot still holds the expected values.
    Acquired,
    /// Another owner holds the lease. The slot still holds the expected values.
    Busy,
    /// The slot holds this record instead of the expected values. The attempt has not acquired or
    /// extended the lease.
    Conflict(StoredRecord),
}

/// The outcome of a commit.
#[derive(Debug)]
pub enum CommitResult {
    /// The store wrote the record and released the lease.
    Committed,
    /// The slot holds this record instead of the expected values. The store wrote nothing and
    /// released the lease.
    Conflict(StoredRecord),
    /// The lease expired and another owner holds it. The store wrote nothing.
    LeaseLost,
}

/// The outcome of a write that expects what the slot holds.
#[derive(Debug)]
pub enum ReplaceResult {
    /// The store wrote the record.
    Replaced,
    /// The slot holds this record instead of the expected values. The store wrote nothing.
    Conflict(StoredRecord),
}

/// Minimum time for which a tombstone names the refresh token of a deleted pair: two minutes. A
/// process retries the commit of a new pair for one minute and must find the tombstone until then.
pub(crate) const MIN_TOMBSTONE_TTL: Duration = Duration::from_secs(120);

/// Returns `previous`, if `record` contains a different refresh token and so replaces `previous`.
pub(super) fn replaced_refresh_token<'a>(
    previous: Option<&'a [u8]>,
    record: &Record,
) -> Option<&'a [u8]> {
    let refresh = record.refresh.as_ref()?;
    previous.filter(|before| *before != refresh.secret.expose().as_bytes())
}
