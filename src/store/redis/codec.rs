//! Conversion between records and the values in Redis.

use std::hash::{BuildHasher, RandomState};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use quick_cache::sync::Cache;
use zeroize::Zeroizing;

use super::locations::{Location, RedisKey, ValueFormat, WriteTarget};
use super::seal::Sealer;
use crate::clock::Timestamp;
use crate::credential::record_lifetime::MAX_KEY_TTL;
use crate::credential::{Record, RecordView};
use crate::error::{Error, ErrorKind};
use crate::store::redis::format::sealed::SealBinding;
use crate::store::redis::format::text::{DecodeError, EncodeError};
use crate::store::redis::format::{hash, record};
use crate::store::{CredentialKind, CredentialSlot, Expected, StoredRecord};

/// The stored value of a key or a field, or `None` if there is no value.
pub(super) type RawValue = Option<Vec<u8>>;

/// A write to one key or field. `None` as the value deletes the key or field.
pub(super) struct Write {
    pub(super) value: Option<Zeroizing<String>>,
    /// The TTL of the key, or zero if the key does not expire.
    pub(super) ttl: Duration,
}

/// Returns the context to which the seal of a value is bound: account, kind, user and key. A sealed
/// value does not open in another context.
pub(super) fn seal_binding<'a>(slot: &'a CredentialSlot, key: &'a RedisKey<'_>) -> SealBinding<'a> {
    SealBinding {
        app: slot.key.app.as_str(),
        kind: slot.key.kind.as_str(),
        user: &slot.key.id,
        key: &key.key,
    }
}

/// Decodes the values of a location and passes the record to `visit`.
///
/// A value that cannot be decoded is missing in the record, and its error is logged. If a value is
/// sealed with a key that this process does not have, the whole record is empty. Otherwise this
/// process could renew or delete one half of a record that other processes can read.
pub(super) fn view_record<T>(
    location: &Location<'_>,
    slot: &CredentialSlot,
    values: &[RawValue],
    seal: &Sealer,
    visit: impl FnOnce(RecordView<'_>) -> T,
) -> T {
    let id = &*slot.key.id;
    let mut has_unknown_key = false;
    let mut on_error = |index: usize, value: &[u8], error: DecodeError| {
        let Some(key) = location.keys.get(index) else {
            return;
        };
        if error == DecodeError::UnknownKey {
            has_unknown_key = true;
        }
        log_unreadable(&seal_binding(slot, key), value, error, seal);
    };
    let mut plaintexts = [None, None];
    for ((index, key), plaintext) in location.keys.iter().enumerate().zip(&mut plaintexts) {
        let Some(value) = values.get(index).and_then(Option::as_deref) else {
            continue;
        };
        match seal.open(value, &seal_binding(slot, key)) {
            Ok(text) => *plaintext = Some((value, text)),
            Err(error) => on_error(index, value, error),
        }
    }
    let [first, second] = &plaintexts;
    let mut record = RecordView::default();
    if let Some((value, text)) = first {
        let result = match location.format {
            ValueFormat::Record => record::read(text, id).map(|read| record = read),
            ValueFormat::UserPair | ValueFormat::Token => {
                hash::read_token(text, slot.margin).map(|token| record.token = Some(token))
            }
        };
        if let Err(error) = result {
            on_error(0, value, error);
        }
    }
    if let Some((value, text)) = second {
        match hash::read_refresh(text, id) {
            Ok((refresh, details)) => (record.refresh, record.details) = (Some(refresh), details),
            Err(error) => on_error(1, value, error),
        }
    }
    if has_unknown_key {
        record = RecordView::default();
    }
    visit(record)
}

/// Decodes the values of a location into a record, and keeps the values as [`Expected`].
pub(super) fn decode(
    location: &Location<'_>,
    slot: &CredentialSlot,
    values: Vec<RawValue>,
    seal: &Sealer,
) -> StoredRecord {
    let record = view_record(location, slot, &values, seal, |view| view.to_record());
    let expected = values.into_iter().map(|value| value.map(Zeroizing::new));
    StoredRecord {
        record,
        expected: Expected(expected.collect()),
    }
}

/// Encodes a record as one write for each key of a location. The write deletes a key or field if
/// the record has no value for the key or field.
pub(super) fn encode(
    location: &Location<'_>,
    slot: &CredentialSlot,
    record: &Record,
    target: WriteTarget,
    now: Timestamp,
    seal: &Sealer,
) -> Result<Vec<Write>, Error> {
    let id = &*slot.key.id;
    let token = || {
        record
            .token
            .as_ref()
            .map(|token| hash::write_token(token, slot.margin))
    };
    let texts: Result<Vec<_>, EncodeError> = match location.format {
        ValueFormat::UserPair => {
            let refresh = record.refresh.as_ref();
            let refresh = refresh.map(|refresh| hash::write_refresh(refresh, &record.details, id));
            [token(), refresh]
                .into_iter()
                .map(Option::transpose)
                .collect()
        }
        ValueFormat::Record => {
            let whole = (!record.is_empty()).then(|| match target {
                WriteTarget::ReadLocation => record::write(record, id),
                WriteTarget::CopyLocation => record::write_copy(record, id),
            });
            [whole].into_iter().map(Option::transpose).collect()
        }
        ValueFormat::Token => [token()].into_iter().map(Option::transpose).collect(),
    };
    let texts = texts.map_err(|error| {
        let message = format!("WeChat returned a credential that cannot be stored: {error}");
        Error::new(ErrorKind::WechatUnavailable, message)
    })?;
    // Locations that the published service shares get no TTL, because that service expects keys
    // that do not expire.
    let ttl = if slot.key.kind == CredentialKind::SnapshotUser {
        token_ttl(record, now)
    } else if location.expires {
        record.key_ttl(now)
    } else {
        Duration::ZERO
    };
    let writes = location.keys.iter().zip(texts).map(|(key, text)| {
        let sealed = text.map(|text| seal.seal(Zeroizing::new(text), &seal_binding(slot, key)));
        let value = sealed.transpose()?;
        Ok(Write { value, ttl })
    });
    writes.collect()
}

/// Returns the TTL of the key of a snapshot user: the remaining lifetime of the access token, at
/// least one second and at most [`MAX_KEY_TTL`].
fn token_ttl(record: &Record, now: Timestamp) -> Duration {
    let token = record.token.as_ref();
    let remaining = token.map(|token| now.duration_until(token.lifetime.expires_at()));
    remaining
        .unwrap_or_default()
        .clamp(Duration::from_secs(1), MAX_KEY_TTL)
}

/// Maximum number of log lines about unreadable values in one [`LOG_WINDOW`]: 100. If the values of
/// all users are unreadable, one line for each of them would fill the disk.
const MAX_LOG_LINES: u32 = 100;

/// Interval in which at most [`MAX_LOG_LINES`] lines about unreadable values are logged: one
/// minute.
const LOG_WINDOW: Duration = Duration::from_secs(60);

/// Counts a log line about an unreadable value. Returns `true` if the line may be logged.
fn may_log() -> bool {
    static LINES: Mutex<Option<(Instant, u32)>> = Mutex::new(None);
    let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    let (began, written) = lines
        .filter(|(began, _)| began.elapsed() < LOG_WINDOW)
        .unwrap_or_else(|| (Instant::now(), 0));
    *lines = Some((began, written.saturating_add(1)));
    written < MAX_LOG_LINES
}

/// Logs that a value cannot be decoded, and what to do.
pub(super) fn log_unreadable(
    at: &SealBinding<'_>,
    value: &[u8],
    error: DecodeError,
    seal: &Sealer,
) {
    if error == DecodeError::UnknownKey {
        seal.log_unknown_key(at.key, value);
    } else if error.is_from_serializer() {
        seal.log_serializer(at, error);
    } else {
        warn_unreadable_once(at, value, error);
    }
}

/// Logs a warning about a value that cannot be decoded. Each request reads the value again, so a
/// cache of the hashes of the last 1,000 such values suppresses repeated warnings.
pub(super) fn warn_unreadable_once(at: &SealBinding<'_>, value: &[u8], error: DecodeError) {
    static WARNED: LazyLock<(Cache<u64, ()>, RandomState)> =
        LazyLock::new(|| (Cache::new(1_000), RandomState::new()));
    let (warned, hasher) = &*WARNED;
    let hash = hasher.hash_one((at.key, at.user, value));
    if warned.get(&hash).is_none() {
        warned.insert(hash, ());
        if !may_log() {
            return;
        }
        tracing::warn!(
            target: "tower_wechat::store",
            app = at.app,
            kind = at.kind,
            user = ?at.user,
            key = at.key,
            "a stored value cannot be read and counts as missing: {error}"
        );
    }
}
