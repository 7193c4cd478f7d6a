//! Between the cells of a slot and a record.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::time::Duration;

use quick_cache::sync::Cache;
use zeroize::Zeroizing;

use super::names::{Cell, Form, Place};
use super::seal::{Opened, Seal};
use crate::clock::Timestamp;
use crate::credential::sealed_form::Binding;
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

/// What a sealed value of a cell is bound to.
pub(super) fn binding<'a>(slot: &'a Slot, cell: &'a Cell) -> Binding<'a> {
    Binding {
        app: slot.name.app.as_str(),
        kind: slot.name.kind.as_str(),
        user: &slot.name.id,
        key: &cell.key,
    }
}

/// Reads the cells. One that cannot be read is a miss and a warning. Where one is sealed with a key
/// that this process lacks, all of the record is a miss: what others can read is neither renewed
/// from nor deleted by halves.
pub(super) fn decode(place: &Place, slot: &Slot, values: Vec<Value>, seal: &Seal) -> Stored {
    let id = &*slot.name.id;
    let mut record = Record::default();
    let mut others = false;
    let mut read = |at: usize, into: &mut dyn FnMut(&[u8]) -> Result<(), Unreadable>| {
        let value = values.get(at).and_then(Option::as_deref);
        let (Some(value), Some(cell)) = (value, place.cells.get(at)) else {
            return;
        };
        let opened = seal.open(value, &binding(slot, cell));
        match opened.and_then(|opened: Opened<'_>| into(&opened)) {
            Ok(()) => {}
            Err(Unreadable::OtherKey) => {
                others = true;
                seal.tell_other_key(&cell.key, value);
            }
            Err(unreadable) => warn_once(&cell.key, slot, value, unreadable),
        }
    };
    match place.form {
        Form::UserPair => {
            read(0, &mut |value| {
                record.token = Some(hash_form::read_token(value, slot.margin)?);
                Ok(())
            });
            read(1, &mut |value| {
                let (refresh, details) = hash_form::read_refresh(value, id)?;
                record.refresh = Some(refresh);
                record.details = details;
                Ok(())
            });
        }
        Form::Record => read(0, &mut |value| {
            record = record_form::read(value, id)?;
            Ok(())
        }),
        Form::Token => read(0, &mut |value| {
            record.token = Some(hash_form::read_token(value, slot.margin)?);
            Ok(())
        }),
    }
    if others {
        record = Record::default();
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
    seal: &Seal,
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
    let cells = place.cells.iter().zip(cells).map(|(cell, value)| {
        let sealed = value.map(|text| seal.seal(Zeroizing::new(text), &binding(slot, cell)));
        let value = sealed.transpose()?;
        Ok(New { value, ttl })
    });
    cells.collect()
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
