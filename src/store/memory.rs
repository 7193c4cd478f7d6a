//! A store in the memory of one process.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use zeroize::Zeroizing;

use super::news::{Mark, News, Teller};
use super::{
    Allowance, BoxFuture, Claim, CodeBinding, CodeClaim, CodeName, Commit, Feed, Kind, LeaseOwner,
    Name, Slot, Store, Stored, TOMBSTONE_LIFE, Told, Witness, predecessor,
};
use crate::clock::{Clock, Timestamp};
use crate::credential::{AppId, Record};
use crate::error::Error;
use crate::room::shrink_map;

/// Records whose refresh token should be dead are dropped when the map has doubled since the last
/// look, so that looking costs nothing per insertion.
const FIRST_SWEEP_AT: usize = 1_024;

/// Keeps credentials in the memory of this process: for development, tests, and services that run
/// as one process and may ask their users to log in again after a restart.
///
/// Clones share the same memory. It keeps every promise that [`RedisStore`](crate::RedisStore)
/// keeps, within one process.
///
/// ```
/// use std::time::Duration;
/// use tower_wechat::{Clock, MemoryStore, Timestamp, UserTokens, WechatClient};
///
/// # fn main() -> Result<(), tower_wechat::Error> {
/// # let wechat = WechatClient::new("wx0123456789abcdef", "secret")?;
/// let users = UserTokens::new(wechat.clone(), MemoryStore::new());
///
/// // In a test that moves the time:
/// let clock = Clock::manual(Timestamp::from_millis(1_700_000_000_000));
/// let store = MemoryStore::with_clock(clock.clone());
/// let users = UserTokens::builder(wechat, store).clock(clock.clone()).build();
/// clock.advance(Duration::from_secs(7_200));
/// # Ok(()) }
/// ```
#[derive(Clone, Default)]
pub struct MemoryStore {
    shared: Arc<Mutex<Shelves>>,
    clock: Clock,
}

#[derive(Default)]
struct Shelves {
    cells: HashMap<Name, Cell>,
    leases: HashMap<Name, Lease>,
    tombstones: HashMap<Name, Tombstone>,
    allowances: HashMap<(AppId, Box<str>), Spent>,
    codes: HashMap<CodeName, Code>,
    /// The login of each code, and until when it is remembered.
    bound: HashMap<CodeName, (u64, Timestamp)>,
    revoked: HashMap<Name, Revoked>,
    /// Numbers every write, so that a witness never matches a later value (no ABA).
    writes: u64,
    /// Made when the first engine listens.
    teller: Option<Teller>,
    sweep_at: usize,
    sweep_tombstones_at: usize,
    sweep_codes_at: usize,
    sweep_bound_at: usize,
    sweep_revoked_at: usize,
}

struct Revoked {
    at: Timestamp,
    until: Timestamp,
}

struct Code {
    state: CodeState,
    until: Timestamp,
}

enum CodeState {
    Claimed(LeaseOwner),
    Settled(String),
}

struct Cell {
    record: Record,
    write: u64,
}

/// How much of an allowance is spent.
struct Spent {
    uses: u32,
    until: Timestamp,
}

struct Lease {
    owner: LeaseOwner,
    until: Timestamp,
}

/// Names the refresh token of a deleted pair.
struct Tombstone {
    token: Zeroizing<Vec<u8>>,
    until: Timestamp,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store whose leases run out by `clock`.
    #[must_use]
    pub fn with_clock(clock: Clock) -> Self {
        Self {
            shared: Arc::default(),
            clock,
        }
    }

    /// Forgets all leases, as a fail-over may.
    #[cfg(test)]
    pub(crate) fn lose_leases(&self) {
        self.shelves().leases.clear();
    }

    fn shelves(&self) -> MutexGuard<'_, Shelves> {
        // A panic while the lock was held cannot leave a half-written record: every step below
        // replaces whole values.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shelves {
    fn stored(&self, slot: &Slot) -> Stored {
        match self.cells.get(&slot.name) {
            Some(cell) => Stored {
                record: cell.record.clone(),
                witness: witness(Some(cell)),
            },
            None => Stored {
                record: Record::default(),
                witness: witness(None),
            },
        }
    }

    fn holds(&self, slot: &Slot, expected: &Witness) -> bool {
        witness(self.cells.get(&slot.name)) == *expected
    }

    /// Whether another owner has the lease.
    fn is_held(&self, slot: &Slot, owner: &LeaseOwner, now: Timestamp) -> bool {
        let lease = self.leases.get(&slot.name);
        lease.is_some_and(|lease| lease.until > now && lease.owner != *owner)
    }

    fn claim(
        &mut self,
        slot: &Slot,
        expected: &Witness,
        owner: &LeaseOwner,
        until: Timestamp,
        now: Timestamp,
    ) -> Claim {
        if !self.holds(slot, expected) {
            return Claim::Changed(self.stored(slot));
        }
        if self.is_held(slot, owner, now) {
            return Claim::Held;
        }
        let owner = owner.clone();
        self.leases
            .insert(slot.name.clone(), Lease { owner, until });
        Claim::Granted
    }

    fn commit(
        &mut self,
        slot: &Slot,
        expected: &Witness,
        record: &Record,
        owner: &LeaseOwner,
        now: Timestamp,
    ) -> Commit {
        let succeeds = self.succeeds(slot, expected, record, now);
        let free = succeeds && !self.cells.contains_key(&slot.name);
        if !self.holds(slot, expected) && !free {
            self.release(slot, owner, now);
            return Commit::Changed(self.stored(slot));
        }
        if self.is_held(slot, owner, now) && !succeeds {
            return Commit::LeaseLost;
        }
        self.write(slot, record, now);
        self.release(slot, owner, now);
        Commit::Done
    }

    /// Whether a tombstone names the refresh token that `record` succeeds.
    fn succeeds(&self, slot: &Slot, expected: &Witness, record: &Record, now: Timestamp) -> bool {
        let Some(before) = predecessor(refresh_token(expected), record) else {
            return false;
        };
        let tombstone = self.tombstones.get(&slot.name);
        tombstone.is_some_and(|stone| stone.until > now && stone.token.as_slice() == before)
    }

    fn bury(&mut self, slot: &Slot, expected: &Witness, now: Timestamp) {
        let Some(token) = refresh_token(expected) else {
            return;
        };
        let tombstone = Tombstone {
            token: Zeroizing::new(token.to_vec()),
            until: now.after(TOMBSTONE_LIFE),
        };
        self.tombstones.insert(slot.name.clone(), tombstone);
        if self.tombstones.len() >= self.sweep_tombstones_at.max(FIRST_SWEEP_AT) {
            self.tombstones.retain(|_, stone| stone.until > now);
            shrink_map(&mut self.tombstones);
            self.sweep_tombstones_at = self.tombstones.len() * 2;
        }
    }

    fn write(&mut self, slot: &Slot, record: &Record, now: Timestamp) {
        self.writes += 1;
        self.tombstones.remove(&slot.name);
        if let Some(teller) = &self.teller {
            let (name, mark) = (slot.name.clone(), Mark::of_record(record));
            teller.tell(Told::Written(Arc::new(News { name, mark })));
        }
        if record.is_empty() {
            self.cells.remove(&slot.name);
            shrink_map(&mut self.cells);
            return;
        }
        let cell = Cell {
            record: record.clone(),
            write: self.writes,
        };
        self.cells.insert(slot.name.clone(), cell);
        if self.cells.len() >= self.sweep_at.max(FIRST_SWEEP_AT) {
            self.cells.retain(|_, cell| !cell.record.is_dead(now));
            shrink_map(&mut self.cells);
            self.leases.retain(|_, lease| lease.until > now);
            shrink_map(&mut self.leases);
            self.sweep_at = self.cells.len() * 2;
        }
    }

    fn keep_code(&mut self, code: &CodeName, state: CodeState, now: Timestamp, ttl: Duration) {
        let until = now.after(ttl);
        self.codes.insert(code.clone(), Code { state, until });
        if self.codes.len() >= self.sweep_codes_at.max(FIRST_SWEEP_AT) {
            self.codes.retain(|_, code| code.until > now);
            shrink_map(&mut self.codes);
            self.sweep_codes_at = self.codes.len() * 2;
        }
    }

    fn revoke(&mut self, name: &Name, at: Timestamp, now: Timestamp, ttl: Duration) {
        let until = now.after(ttl);
        let last = self.revoked.get(name).map(|last| last.at);
        let at = last.map_or(at, |last| at.max(last.after(Duration::from_millis(1))));
        self.revoked.insert(name.clone(), Revoked { at, until });
        if self.revoked.len() >= self.sweep_revoked_at.max(FIRST_SWEEP_AT) {
            self.revoked.retain(|_, revoked| revoked.until > now);
            shrink_map(&mut self.revoked);
            self.sweep_revoked_at = self.revoked.len() * 2;
        }
    }

    /// Removes the owner's lease. Returns `false` if the owner has none, or if it has expired.
    fn release(&mut self, slot: &Slot, owner: &LeaseOwner, now: Timestamp) -> bool {
        match self.leases.entry(slot.name.clone()) {
            Entry::Occupied(lease) if lease.get().owner == *owner => {
                let was_held = lease.remove().until > now;
                shrink_map(&mut self.leases);
                was_held
            }
            _ => false,
        }
    }

    /// Returns `true` if the owner has the right to exchange a code, and it has not expired.
    fn is_claimed_by(&self, code: &CodeName, owner: &LeaseOwner, now: Timestamp) -> bool {
        let known = self.codes.get(code).filter(|code| code.until > now);
        matches!(known.map(|code| &code.state), Some(CodeState::Claimed(holder)) if holder == owner)
    }
}

/// The number of the write, and the refresh token.
fn witness(cell: Option<&Cell>) -> Witness {
    let write = cell.map(|cell| cell.write.to_be_bytes().to_vec());
    let refresh = cell.and_then(|cell| cell.record.refresh.as_ref());
    let refresh = refresh.map(|refresh| refresh.secret.expose().as_bytes().to_vec());
    Witness([write, refresh].map(|part| part.map(Zeroizing::new)).into())
}

fn refresh_token(expected: &Witness) -> Option<&[u8]> {
    expected.0.get(1)?.as_ref().map(|token| token.as_slice())
}

impl Store for MemoryStore {
    fn load<'a>(&'a self, slot: &'a Slot) -> BoxFuture<'a, Result<Stored, Error>> {
        Box::pin(async move { Ok(self.shelves().stored(slot)) })
    }

    fn claim<'a>(
        &'a self,
        slot: &'a Slot,
        expected: &'a Witness,
        owner: &'a LeaseOwner,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Claim, Error>> {
        Box::pin(async move {
            let now = self.clock.now();
            let until = now.after(ttl);
            Ok(self.shelves().claim(slot, expected, owner, until, now))
        })
    }

    fn commit<'a>(
        &'a self,
        slot: &'a Slot,
        expected: &'a Witness,
        record: &'a Record,
        owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<Commit, Error>> {
        Box::pin(async move {
            let now = self.clock.now();
            Ok(self.shelves().commit(slot, expected, record, owner, now))
        })
    }

    fn announce_deletion<'a>(
        &'a self,
        slot: &'a Slot,
        expected: &'a Witness,
        owner: &'a LeaseOwner,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<Claim, Error>> {
        Box::pin(async move {
            let now = self.clock.now();
            let mut shelves = self.shelves();
            let claim = shelves.claim(slot, expected, owner, now.after(ttl), now);
            if matches!(claim, Claim::Granted) {
                shelves.bury(slot, expected, now);
            }
            Ok(claim)
        })
    }

    fn delete<'a>(
        &'a self,
        slot: &'a Slot,
        expected: &'a Witness,
        owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<Commit, Error>> {
        Box::pin(async move {
            let (now, nothing) = (self.clock.now(), Record::default());
            let mut shelves = self.shelves();
            let commit = shelves.commit(slot, expected, &nothing, owner, now);
            if matches!(commit, Commit::Done) {
                shelves.bury(slot, expected, now);
            }
            Ok(commit)
        })
    }

    fn release<'a>(
        &'a self,
        slot: &'a Slot,
        owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move {
            let now = self.clock.now();
            Ok(self.shelves().release(slot, owner, now))
        })
    }

    fn put<'a>(&'a self, slot: &'a Slot, record: &'a Record) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let now = self.clock.now();
            self.shelves().write(slot, record, now);
            Ok(())
        })
    }

    fn spend<'a>(&'a self, allowance: &'a Allowance) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move {
            let now = self.clock.now();
            let mut shelves = self.shelves();
            shelves.allowances.retain(|_, spent| now < spent.until);
            shrink_map(&mut shelves.allowances);
            let of = (allowance.app.clone(), allowance.name.clone());
            let spent = shelves.allowances.entry(of).or_insert_with(|| Spent {
                uses: 0,
                until: now.after(allowance.span),
            });
            let left = spent.uses < allowance.uses;
            spent.uses += u32::from(left);
            Ok(left)
        })
    }

    fn bind_code<'a>(
        &'a self,
        code: &'a CodeName,
        login: u64,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<CodeBinding, Error>> {
        Box::pin(async move {
            let now = self.clock.now();
            let mut shelves = self.shelves();
            let known = shelves.bound.get(code).filter(|(_, until)| *until > now);
            let binding = match known {
                Some((other, _)) if *other != login => return Ok(CodeBinding::Others),
                Some(_) => CodeBinding::Ours,
                None => CodeBinding::First,
            };
            shelves.bound.insert(code.clone(), (login, now.after(ttl)));
            if shelves.bound.len() >= shelves.sweep_bound_at.max(FIRST_SWEEP_AT) {
                shelves.bound.retain(|_, (_, until)| *until > now);
                shrink_map(&mut shelves.bound);
                shelves.sweep_bound_at = shelves.bound.len() * 2;
            }
            Ok(binding)
        })
    }

    fn claim_code<'a>(
        &'a self,
        code: &'a CodeName,
        owner: &'a LeaseOwner,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<CodeClaim, Error>> {
        Box::pin(async move {
            let now = self.clock.now();
            let mut shelves = self.shelves();
            let known = shelves.codes.get(code).filter(|code| code.until > now);
            Ok(match known.map(|code| &code.state) {
                Some(CodeState::Settled(outcome)) => CodeClaim::Settled(outcome.clone()),
                Some(CodeState::Claimed(holder)) if holder != owner => CodeClaim::Held,
                _ => {
                    let claimed = CodeState::Claimed(owner.clone());
                    shelves.keep_code(code, claimed, now, ttl);
                    CodeClaim::Granted
                }
            })
        })
    }

    fn release_code<'a>(
        &'a self,
        code: &'a CodeName,
        owner: &'a LeaseOwner,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move {
            let now = self.clock.now();
            let mut shelves = self.shelves();
            let ours = shelves.is_claimed_by(code, owner, now);
            if ours {
                shelves.codes.remove(code);
            }
            Ok(ours)
        })
    }

    fn settle_code<'a>(
        &'a self,
        code: &'a CodeName,
        owner: Option<&'a LeaseOwner>,
        outcome: &'a str,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let now = self.clock.now();
            let mut shelves = self.shelves();
            let ours = owner.is_none_or(|owner| shelves.is_claimed_by(code, owner, now));
            if ours {
                let settled = CodeState::Settled(outcome.to_owned());
                shelves.keep_code(code, settled, now, ttl);
            }
            Ok(())
        })
    }

    fn revoke<'a>(
        &'a self,
        name: &'a Name,
        at: Timestamp,
        ttl: Duration,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            self.shelves().revoke(name, at, self.clock.now(), ttl);
            Ok(())
        })
    }

    fn revoked<'a>(&'a self, name: &'a Name) -> BoxFuture<'a, Result<Option<Timestamp>, Error>> {
        Box::pin(async move {
            let now = self.clock.now();
            let shelves = self.shelves();
            let revoked = shelves.revoked.get(name);
            Ok(revoked
                .filter(|revoked| revoked.until > now)
                .map(|revoked| revoked.at))
        })
    }

    fn news(&self, _app: &AppId) -> Option<Feed> {
        let mut shelves = self.shelves();
        let teller = shelves.teller.get_or_insert_default();
        Some(Feed::from_within(teller.listen()))
    }

    fn ping<'a>(&'a self, _app: &'a AppId, _kind: Kind) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async { Ok(()) })
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let records = self.shelves().cells.len();
        f.debug_struct("MemoryStore")
            .field("records", &records)
            .finish_non_exhaustive()
    }
}
