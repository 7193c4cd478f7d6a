//! The steps of a slot, as Lua that is made for the number of their keys.
//!
//! A slot is a list of cells, each a string key or a field of a hash, so that both layouts run the
//! same code. Its leases come first among `KEYS` (one, or two where a record is also written in the
//! other layout), then its tombstones, then its cells. A loop over them would be shorter, and is
//! refused where `KEYS[n]` has to stand there literally; so the Lua of one key is repeated for each.
//!
//! A cell's arguments start with its field (empty for a string key). What is expected in it is `-`
//! for nothing, `=` and the bytes for a value, `*` for anything at all.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use super::Script;

/// A step that works on all the keys of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in super::super) enum Step {
    /// R1: takes the lease where the cells hold what is expected.
    /// `ARGV`: owner, lease in milliseconds, the token that the tombstones are to name (empty leaves
    /// them as they are), and for how many milliseconds; then field and expected value of each cell.
    /// Answers 1 (granted; again, where a claim of ours ran although its answer was lost), 0
    /// (somebody else has it), or 2 and the values (changed).
    AcquireLease,
    /// R2: writes the cells where they hold what is expected, and gives the lease back. R3: where a
    /// tombstone names the predecessor, the cells may be empty as well, and the lease another's.
    /// `ARGV`: owner, predecessor (or empty), the token that the tombstones are to name (empty
    /// removes them), and for how many milliseconds; then field, expected value, new value (`-`
    /// deletes, `*` leaves, `=` and the bytes) and the time to live in milliseconds (`0` for ever,
    /// `keep` for what is left of the old one's) of each cell; channel (or empty) and news.
    /// Answers 1 (written), 3 (written, and the news not published), 0 (the lease is somebody
    /// else's), or 2 and the values (changed).
    Commit,
    /// R2: writes the cells whatever they hold, and removes the tombstones, without a lease.
    /// `ARGV`: field, new value and time to live of each cell, channel and news, as above.
    /// Answers 1 or 3, as above.
    ///
    /// A transaction would do the same on one server. A script is one command, which a Cluster can
    /// answer with `TRYAGAIN` while the two hashes move to another node.
    Overwrite,
    /// Gives leases back, those that are still the owner's. `ARGV`: owner. Answers how many.
    ReleaseLeases,
}

/// Who publishes the news of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in super::super) enum PublishMode {
    /// The script itself: nothing can come between the write and its news.
    InScript,
    /// The store, by a command after the script, whose text must not hold `PUBLISH`.
    Separately,
}

/// How many keys of each sort a call has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct KeyCounts {
    pub(super) leases: usize,
    pub(super) tombstones: usize,
    pub(super) values: usize,
}

/// More shapes than a process uses, so that the texts stay few whatever comes.
const MAX_CACHED_SCRIPTS: usize = 256;

type ScriptCache = HashMap<(Step, KeyCounts, PublishMode), Arc<Script>>;

/// The script of a step for so many keys. It is made once.
pub(super) fn script(step: Step, counts: KeyCounts, mode: PublishMode) -> Arc<Script> {
    static TEXTS: LazyLock<Mutex<ScriptCache>> = LazyLock::new(Mutex::default);
    let mut texts = TEXTS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(script) = texts.get(&(step, counts, mode)) {
        return Arc::clone(script);
    }
    let script = Arc::new(Script::new(build_text(step, counts, mode)));
    if texts.len() < MAX_CACHED_SCRIPTS {
        texts.insert((step, counts, mode), Arc::clone(&script));
    }
    script
}

/// Sets `held`: whether somebody else has a lease.
const CHECK_LEASE: &str = "
holder = redis.call('GET', $KEY)
if holder and holder ~= ARGV[1] then held = true end";

const TAKE_LEASE: &str = "
redis.call('SET', $KEY, ARGV[1], 'PX', ARGV[2])";

const RELEASE_LEASE: &str = "
if redis.call('GET', $KEY) == ARGV[1] then gone = gone + redis.call('DEL', $KEY) end";

const WRITE_TOMBSTONE: &str = "
redis.call('SET', $KEY, ARGV[3], 'PX', ARGV[4])";

const DELETE_TOMBSTONE: &str = "
redis.call('DEL', $KEY)";

/// Sets `succeeds`: whether a tombstone names the predecessor.
const CHECK_TOMBSTONE: &str = "
if ARGV[2] ~= '' and redis.call('GET', $KEY) == ARGV[2] then succeeds = true end";

/// Where cells are compared. `same`: whether every cell holds what is expected; `values`: those of
/// the cells that were compared; `empty`: whether there are none.
const DEFINE_COMPARE: &str = "
local same, values, empty = true, {}, true
local function compare(cell, value, expected)
  if (value and ('=' .. value) or '-') ~= expected then same = false end
  if value then empty = false end
  values[cell] = value
end";

const COMPARE_VALUE: &str = "
if $EXPECTED == '*' then
elseif $FIELD == '' then compare($CELL, redis.call('GET', $KEY), $EXPECTED)
else compare($CELL, redis.call('HGET', $KEY, $FIELD), $EXPECTED) end";

const WRITE_VALUE: &str = "
if $NEW ~= '*' then
  ttl = $TTL
  if ttl == 'keep' then
    left = redis.call('PTTL', $KEY)
    ttl = left > 0 and tostring(left) or '0'
  end
  if $NEW == '-' then
    if $FIELD == '' then redis.call('DEL', $KEY) else redis.call('HDEL', $KEY, $FIELD) end
  elseif $FIELD ~= '' then
    redis.call('HSET', $KEY, $FIELD, string.sub($NEW, 2))
  elseif ttl == '0' then
    redis.call('SET', $KEY, string.sub($NEW, 2))
  else
    redis.call('SET', $KEY, string.sub($NEW, 2), 'PX', ttl)
  end
end";

/// Publishes what the last two of `ARGV` name: a channel, and what to say; nothing where the channel
/// is empty. Who may not publish has written all the same.
const PUBLISH_IN_SCRIPT: &str = "
if ARGV[#ARGV - 1] ~= '' then
  local said = redis.pcall('PUBLISH', ARGV[#ARGV - 1], ARGV[#ARGV])
  if type(said) == 'table' and said.err then return {3} end
end
return {1}";

const REPORT_UNPUBLISHED: &str = "
if ARGV[#ARGV - 1] ~= '' then return {3} end
return {1}";

/// What stands for the arguments of a cell, in their order, and which of `ARGV` is the first.
type Arguments = (usize, &'static [&'static str]);

const ACQUIRE_ARGUMENTS: Arguments = (5, &["$FIELD", "$EXPECTED"]);
const COMMIT_ARGUMENTS: Arguments = (5, &["$FIELD", "$EXPECTED", "$NEW", "$TTL"]);
const OVERWRITE_ARGUMENTS: Arguments = (1, &["$FIELD", "$NEW", "$TTL"]);

impl KeyCounts {
    fn repeat_for_leases(self, lua: &str) -> String {
        repeat_for_keys(1..self.leases + 1, lua)
    }

    fn repeat_for_tombstones(self, lua: &str) -> String {
        let first = self.leases + 1;
        repeat_for_keys(first..first + self.tombstones, lua)
    }

    fn repeat_for_values(self, (first, names): Arguments, lua: &str) -> String {
        let before = self.leases + self.tombstones;
        let of = |cell: usize| {
            let lua = lua.replace("$CELL", &cell.to_string());
            let lua = lua.replace("$KEY", &key(before + cell));
            let start = first + (cell - 1) * names.len();
            let arguments = names.iter().zip(start..);
            arguments.fold(lua, |lua, (name, at)| {
                lua.replace(name, &format!("ARGV[{at}]"))
            })
        };
        (1..self.values + 1).map(of).collect()
    }
}

fn key(number: usize) -> String {
    format!("KEYS[{number}]")
}

fn repeat_for_keys(keys: Range<usize>, lua: &str) -> String {
    keys.map(|at| lua.replace("$KEY", &key(at))).collect()
}

fn build_text(step: Step, counts: KeyCounts, mode: PublishMode) -> String {
    let tell = match mode {
        PublishMode::InScript => PUBLISH_IN_SCRIPT,
        PublishMode::Separately => REPORT_UNPUBLISHED,
    };
    match step {
        Step::AcquireLease => acquire_lease_text(counts),
        Step::Commit => commit_text(counts, tell),
        Step::Overwrite => overwrite_text(counts, tell),
        Step::ReleaseLeases => release_leases_text(counts),
    }
}

fn acquire_lease_text(shape: KeyCounts) -> String {
    let (compare, held) = (
        shape.repeat_for_values(ACQUIRE_ARGUMENTS, COMPARE_VALUE),
        shape.repeat_for_leases(CHECK_LEASE),
    );
    let (take, bury) = (
        shape.repeat_for_leases(TAKE_LEASE),
        shape.repeat_for_tombstones(WRITE_TOMBSTONE),
    );
    format!(
        "{DEFINE_COMPARE}{compare}
if not same then return {{2, values}} end
local holder, held = false, false{held}
if held then return {{0}} end{take}
if ARGV[3] ~= '' then{bury}
end
return {{1}}"
    )
}

fn commit_text(shape: KeyCounts, tell: &str) -> String {
    let (compare, write) = (
        shape.repeat_for_values(COMMIT_ARGUMENTS, COMPARE_VALUE),
        shape.repeat_for_values(COMMIT_ARGUMENTS, WRITE_VALUE),
    );
    let (held, give_back) = (
        shape.repeat_for_leases(CHECK_LEASE),
        shape.repeat_for_leases(RELEASE_LEASE),
    );
    let succeeds = shape.repeat_for_tombstones(CHECK_TOMBSTONE);
    let (bury, unbury) = (
        shape.repeat_for_tombstones(WRITE_TOMBSTONE),
        shape.repeat_for_tombstones(DELETE_TOMBSTONE),
    );
    format!(
        "{DEFINE_COMPARE}{compare}
local succeeds, gone = false, 0{succeeds}
if not same and not (succeeds and empty) then{give_back}
  return {{2, values}}
end
local holder, held = false, false{held}
if held and not succeeds then return {{0}} end
local ttl, left{write}
if ARGV[3] == '' then{unbury}
else{bury}
end{give_back}{tell}"
    )
}

fn overwrite_text(shape: KeyCounts, tell: &str) -> String {
    let unbury = shape.repeat_for_tombstones(DELETE_TOMBSTONE);
    let write = shape.repeat_for_values(OVERWRITE_ARGUMENTS, WRITE_VALUE);
    format!("{unbury}\nlocal ttl, left{write}{tell}")
}

fn release_leases_text(shape: KeyCounts) -> String {
    let give_back = shape.repeat_for_leases(RELEASE_LEASE);
    format!("local gone = 0{give_back}\nreturn gone")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::AppId;
    use crate::store::redis::layout::{Layout, RedisNames};
    use crate::store::redis::scripts as others;
    use crate::store::{CredentialKey, CredentialKind};

    const STEPS: [Step; 4] = [
        Step::AcquireLease,
        Step::Commit,
        Step::Overwrite,
        Step::ReleaseLeases,
    ];

    /// The shapes that the layouts make, with and without the other one beside, and those of an
    /// operator's work.
    fn key_counts() -> Vec<KeyCounts> {
        let (names, app) = (RedisNames::default(), AppId::new("wx0").unwrap());
        let mut shapes = Vec::new();
        let (hashes, keys) = (Layout::Hashes, Layout::Keys);
        for (layout, mirror) in [
            (hashes, None),
            (keys, None),
            (hashes, Some(keys)),
            (keys, Some(hashes)),
        ] {
            for kind in CredentialKind::ALL {
                let (app, id) = (app.clone(), "o".into());
                let name = CredentialKey { app, kind, id };
                let places = names.locations(layout, mirror, &name);
                let cells = places
                    .with_targets()
                    .map(|(place, _)| place.keys.len())
                    .sum();
                let tombstones = places.tombstone_keys.len();
                for leases in [0, places.lease_keys.len()] {
                    for tombstones in [0, tombstones] {
                        shapes.push(KeyCounts {
                            leases,
                            tombstones,
                            values: cells,
                        });
                    }
                }
            }
        }
        // Gives back a lease, and probes.
        shapes.push(KeyCounts {
            leases: 1,
            ..KeyCounts::default()
        });
        shapes
    }

    /// Fails unless each call in a text names its command and, but for `PUBLISH`, its key literally,
    /// and nothing else is done with the keys, of which there are so many.
    fn assert_literal(text: &str, keys: usize) {
        let literal = |rest: &str| {
            let (number, _) = rest.strip_prefix('[')?.split_once(']')?;
            let digits = number.bytes().all(|byte| byte.is_ascii_digit());
            number.parse().ok().filter(|_| digits)
        };
        let mut seen = std::collections::BTreeSet::new();
        for rest in text.split("KEYS").skip(1) {
            let number: Option<usize> = literal(rest);
            seen.insert(number.unwrap_or_else(|| panic!("KEYS{rest}")));
        }
        assert!(seen.iter().all(|at| (1..=keys).contains(at)), "{text}");
        for call in text.split("redis.").skip(1) {
            let (function, arguments) = call.split_once('(').unwrap();
            assert!(["call", "pcall"].contains(&function), "{call}");
            let (command, rest) = arguments[1..].split_once('\'').unwrap();
            assert!(arguments.starts_with('\'') && !command.is_empty(), "{call}");
            if command != "PUBLISH" {
                let key = rest.strip_prefix(", KEYS").and_then(literal);
                assert!(key.is_some(), "{call}");
            }
        }
        assert!(!text.contains('$'), "{text}");
    }

    #[test]
    fn scripts_name_each_key_literally() {
        for shape in key_counts() {
            let keys = shape.leases + shape.tombstones + shape.values;
            for step in STEPS {
                for voice in [PublishMode::InScript, PublishMode::Separately] {
                    let text = build_text(step, shape, voice);
                    assert_literal(&text, keys);
                    let writes = matches!(step, Step::Commit | Step::Overwrite);
                    let publishes = writes && voice == PublishMode::InScript;
                    assert_eq!(text.contains("PUBLISH"), publishes, "{text}");
                }
            }
            let commit = build_text(Step::Commit, shape, PublishMode::InScript);
            for at in 1..=keys {
                assert!(commit.contains(&key(at)), "{at} in {commit}");
            }
        }
        for script in [
            &others::BIND_CODE,
            &others::ACQUIRE_CODE,
            &others::RELEASE_CODE,
            &others::FINISH_CODE,
            &others::DELETE_DEAD_FIELDS,
            &others::SET_REVOKED_AT,
            &others::TRY_CONSUME,
            &others::CHECK,
        ] {
            assert_literal(&script.text, 1);
        }
    }

    #[test]
    fn scripts_are_cached_and_bounded() {
        let shape = |cells| KeyCounts {
            values: cells,
            ..KeyCounts::default()
        };
        let [one, same] =
            [(); 2].map(|()| script(Step::Overwrite, shape(1), PublishMode::InScript));
        assert!(Arc::ptr_eq(&one, &same));
        for cells in 0..MAX_CACHED_SCRIPTS + 10 {
            script(Step::ReleaseLeases, shape(cells), PublishMode::Separately);
        }
        let [one, same] = [(); 2].map(|()| {
            script(
                Step::ReleaseLeases,
                shape(MAX_CACHED_SCRIPTS + 9),
                PublishMode::Separately,
            )
        });
        assert!(!Arc::ptr_eq(&one, &same) && one.text == same.text);
    }
}
