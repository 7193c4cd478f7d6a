//! Between the cells of a slot and a record.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::time::Duration;

use quick_cache::sync::Cache;
use zeroize::Zeroizing;

use super::names::{Form, Place};
use crate::clock::Timestamp;
use crate::credential::{Record, Unreadable, Unstorable, hash_form, record_form};
use crate::error::{Error, ErrorKind};
use crate::store::{Kind, Slot, Stored, Witness};

/// What a cell holds.
pub(super) type Value = Option<Vec<u8>>;

/// How long a key lives beyond the point at which its refresh token should be dead.
const GRACE: Duration = Duration::from_secs(24 * 3_600);

/// What is to be written into a cell.
pub(super) struct New {
    pub(super) value: Option<Zeroizing<String>>,
    /// Zero for a cell that does not expire.
    pub(super) ttl: Duration,
}

/// Reads the cells. One that cannot be read is a miss and a warning.
pub(super) fn decode(place: &Place, slot: &Slot, values: Vec<Value>) -> Stored {
    let id = &*slot.name.id;
    let mut record = Record::default();
    let cell = |at: usize| values.get(at).and_then(Option::as_deref);
    let readable = |at: usize, what: Result<(), Unreadable>| {
        if let Err(unreadable) = what {
            let key = place.cells.get(at).map_or("", |cell| cell.key.as_str());
            warn_once(key, slot, cell(at).unwrap_or_default(), unreadable);
        }
    };
    match place.form {
        Form::UserPair => {
            let token = cell(0).map(|value| hash_form::read_token(value, slot.margin));
            readable(
                0,
                token.map_or(Ok(()), |token| {
                    token.map(|token| record.token = Some(token))
                }),
            );
            let pair = cell(1).map(|value| hash_form::read_refresh(value, id));
            let pair = pair.map_or(Ok(()), |pair| {
                pair.map(|(refresh, details)| {
                    record.refresh = Some(refresh);
                    record.details = details;
                })
            });
            readable(1, pair);
        }
        Form::Record => {
            let read = cell(0).map(|value| record_form::read(value, id));
            readable(
                0,
                read.map_or(Ok(()), |read| read.map(|read| record = read)),
            );
        }
        Form::Token => {
            let token = cell(0).map(|value| hash_form::read_token(value, slot.margin));
            readable(
                0,
                token.map_or(Ok(()), |token| {
                    token.map(|token| record.token = Some(token))
                }),
            );
        }
    }
    let witness = Witness(
        values
            .into_iter()
            .map(|value| value.map(Zeroizing::new))
            .collect(),
    );
    Stored { record, witness }
}

/// What each cell gets for a record to be stored. An empty record empties the cells.
pub(super) fn encode(
    place: &Place,
    slot: &Slot,
    record: &Record,
    now: Timestamp,
) -> Result<Vec<New>, Error> {
    let id = &*slot.name.id;
    let token = || {
        record
            .token
            .as_ref()
            .map(|token| hash_form::write_token(token, slot.margin))
    };
    let cells: Result<Vec<_>, Unstorable> = match place.form {
        Form::UserPair => {
            let refresh = record.refresh.as_ref();
            let refresh =
                refresh.map(|refresh| hash_form::write_refresh(refresh, &record.details, id));
            [token(), refresh]
                .into_iter()
                .map(Option::transpose)
                .collect()
        }
        Form::Record => {
            let whole = (!record.is_empty()).then(|| record_form::write(record, id));
            [whole].into_iter().map(Option::transpose).collect()
        }
        Form::Token => [token()].into_iter().map(Option::transpose).collect(),
    };
    let cells = cells.map_err(|unstorable| {
        let message = format!("WeChat gave a credential that cannot be kept: {unstorable}");
        Error::new(ErrorKind::WechatUnavailable, message)
    })?;
    // The published layout never expires its keys, and its reader does not expect it.
    let ttl = if slot.name.kind == Kind::SnapshotUser {
        life_of_token(record, now)
    } else if place.expires {
        time_to_live(record, now)
    } else {
        Duration::ZERO
    };
    Ok(cells
        .into_iter()
        .map(|value| New {
            value: value.map(Zeroizing::new),
            ttl,
        })
        .collect())
}

fn time_to_live(record: &Record, now: Timestamp) -> Duration {
    let token = record
        .token
        .as_ref()
        .map(|token| token.lifetime.expires_at());
    let refresh = record
        .refresh
        .as_ref()
        .map(|refresh| refresh.due.after(GRACE));
    let dies_at = token.max(refresh).unwrap_or(now);
    // A refresh token past its point is still tried, so the record stays for another while.
    now.until(dies_at).max(GRACE / 24)
}

/// Virtual users are kept no longer than their token lives.
fn life_of_token(record: &Record, now: Timestamp) -> Duration {
    let token = record.token.as_ref();
    let life = token.map(|token| now.until(token.lifetime.expires_at()));
    life.unwrap_or_default().max(Duration::from_secs(1))
}

/// Warns of a value that cannot be read, once for each value: it is read again at every request.
pub(super) fn warn_once(key: &str, slot: &Slot, value: &[u8], unreadable: Unreadable) {
    static WARNED: LazyLock<(Cache<u64, ()>, RandomState)> =
        LazyLock::new(|| (Cache::new(1_000), RandomState::new()));
    let (warned, hasher) = &*WARNED;
    let hash = hasher.hash_one((key, &slot.name.id, value));
    if warned.get(&hash).is_none() {
        warned.insert(hash, ());
        tracing::warn!(
            target: "tower_wechat::store",
            app = %slot.name.app,
            kind = slot.name.kind.as_str(),
            user = ?slot.name.id,
            key,
            "a stored value cannot be read and counts as missing: {unreadable}"
        );
    }
}
