//! Between the cells of a slot and a record.

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

/// What a cell holds.
pub(super) type RawValue = Option<Vec<u8>>;

/// What is to be written into a cell.
pub(super) struct Write {
    pub(super) value: Option<Zeroizing<String>>,
    /// Zero for a cell that does not expire.
    pub(super) ttl: Duration,
}

/// What a sealed value of a cell is bound to.
pub(super) fn seal_binding<'a>(
    slot: &'a CredentialSlot,
    cell: &'a RedisKey<'_>,
) -> SealBinding<'a> {
    SealBinding {
        app: slot.key.app.as_str(),
        kind: slot.key.kind.as_str(),
        user: &slot.key.id,
        key: &cell.key,
    }
}

/// What lies in the cells, as far as it can be read. One that cannot be read is a miss and a
/// warning. Where one is sealed with a key that this process lacks, all of the record is a miss:
/// what others can read is neither renewed from nor deleted by halves.
pub(super) fn view_record<T>(
    location: &Location<'_>,
    slot: &CredentialSlot,
    values: &[RawValue],
    seal: &Sealer,
    visit: impl FnOnce(RecordView<'_>) -> T,
) -> T {
    let id = &*slot.key.id;
    let mut has_unknown_key = false;
    let mut unreadable = |at: usize, value: &[u8], why: DecodeError| {
        let Some(cell) = location.keys.get(at) else {
            return;
        };
        if why == DecodeError::UnknownKey {
            has_unknown_key = true;
            seal.log_unknown_key(&cell.key, value);
        } else if why.is_from_serializer() {
            seal.log_serializer(&cell.key, slot, why);
        } else {
            warn_unreadable_once(&cell.key, slot, value, why);
        }
    };
    let mut plaintexts = [None, None];
    for ((at, cell), opened) in location.keys.iter().enumerate().zip(&mut plaintexts) {
        let Some(value) = values.get(at).and_then(Option::as_deref) else {
            continue;
        };
        match seal.open(value, &seal_binding(slot, cell)) {
            Ok(text) => *opened = Some((value, text)),
            Err(why) => unreadable(at, value, why),
        }
    }
    let [first, second] = &plaintexts;
    let mut record = RecordView::default();
    if let Some((value, text)) = first {
        let read = match location.format {
            ValueFormat::Record => record::read(text, id).map(|read| record = read),
            ValueFormat::UserPair | ValueFormat::Token => {
                hash::read_token(text, slot.margin).map(|token| record.token = Some(token))
            }
        };
        if let Err(why) = read {
            unreadable(0, value, why);
        }
    }
    if let Some((value, text)) = second {
        match hash::read_refresh(text, id) {
            Ok((refresh, details)) => (record.refresh, record.details) = (Some(refresh), details),
            Err(why) => unreadable(1, value, why),
        }
    }
    if has_unknown_key {
        record = RecordView::default();
    }
    visit(record)
}

/// The record that the cells hold, and the proof of what lies there.
pub(super) fn decode(
    location: &Location<'_>,
    slot: &CredentialSlot,
    values: Vec<RawValue>,
    seal: &Sealer,
) -> StoredRecord {
    let record = view_record(location, slot, &values, seal, |view| view.to_record());
    let witness = values.into_iter().map(|value| value.map(Zeroizing::new));
    StoredRecord {
        record,
        expected: Expected(witness.collect()),
    }
}

/// What each cell gets for a record to be stored. An empty record empties the cells.
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
    let cells: Result<Vec<_>, EncodeError> = match location.format {
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
    let cells = cells.map_err(|unstorable| {
        let message = format!("WeChat gave a credential that cannot be kept: {unstorable}");
        Error::new(ErrorKind::WechatUnavailable, message)
    })?;
    // The published layout never expires its keys, and its reader does not expect it.
    let ttl = if slot.key.kind == CredentialKind::SnapshotUser {
        token_ttl(record, now)
    } else if location.expires {
        record.key_ttl(now)
    } else {
        Duration::ZERO
    };
    let cells = location.keys.iter().zip(cells).map(|(cell, value)| {
        let sealed = value.map(|text| seal.seal(Zeroizing::new(text), &seal_binding(slot, cell)));
        let value = sealed.transpose()?;
        Ok(Write { value, ttl })
    });
    cells.collect()
}

/// Virtual users are kept no longer than their token lives.
fn token_ttl(record: &Record, now: Timestamp) -> Duration {
    let token = record.token.as_ref();
    let life = token.map(|token| now.duration_until(token.lifetime.expires_at()));
    life.unwrap_or_default()
        .clamp(Duration::from_secs(1), MAX_KEY_TTL)
}

/// As many lines about unreadable values are written in each [`A_WHILE`], by this process.
const MAX_LOG_LINES: u32 = 100;

const LOG_WINDOW: Duration = Duration::from_secs(60);

/// Whether another line about an unreadable value may be written. Where all users' values are
/// unreadable, lines for each of them would fill the disk and say nothing more.
fn may_log() -> bool {
    static LINES: Mutex<Option<(Instant, u32)>> = Mutex::new(None);
    let mut lines = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    let (began, written) = lines
        .filter(|(began, _)| began.elapsed() < LOG_WINDOW)
        .unwrap_or_else(|| (Instant::now(), 0));
    *lines = Some((began, written.saturating_add(1)));
    written < MAX_LOG_LINES
}

/// Warns of a value that cannot be read, once for each value: it is read again at every request.
pub(super) fn warn_unreadable_once(
    key: &str,
    slot: &CredentialSlot,
    value: &[u8],
    unreadable: DecodeError,
) {
    static WARNED: LazyLock<(Cache<u64, ()>, RandomState)> =
        LazyLock::new(|| (Cache::new(1_000), RandomState::new()));
    let (warned, hasher) = &*WARNED;
    let hash = hasher.hash_one((key, &slot.key.id, value));
    if warned.get(&hash).is_none() {
        warned.insert(hash, ());
        if !may_log() {
            return;
        }
        tracing::warn!(
            target: "tower_wechat::store",
            app = %slot.key.app,
            kind = slot.key.kind.as_str(),
            user = ?slot.key.id,
            key,
            "a stored value cannot be read and counts as missing: {unreadable}"
        );
    }
}
