//! The scripts of a slot, generated for the number of their keys.
//!
//! Both layouts use the same scripts: a value is a string key or a field of a hash. `KEYS` contains
//! the leases first (two during a dual write, otherwise one), then the tombstones, then the keys of
//! the values. The Lua code for one key is repeated for each key. A loop would be shorter, but
//! `KEYS[n]` must be literal.
//!
//! The arguments of a value start with its field, which is empty for a string key. The expected
//! value is `-` for a missing value, `=` and the bytes for a value, or `*` for any value.

use std::ops::Range;

/// A script that works on all keys of a slot in one atomic step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in super::super) enum Step {
    /// Acquires the lease if the values are the expected ones (one renewal).
    ///
    /// `ARGV`: owner, TTL of the lease in milliseconds, value of the tombstones (empty does not
    /// change them), their TTL in milliseconds; then field and expected value of each key.
    ///
    /// Returns 1 if the lease is acquired or was held by the owner before, and 0 if another owner
    /// holds it. Returns 2 and the current values if they are not the expected ones.
    AcquireLease,
    /// Writes the values if the current ones are the expected ones, and releases the lease (newest
    /// wins). If a tombstone names the replaced refresh token, the script also writes into an empty
    /// slot, and while another owner holds the lease (nothing lost).
    ///
    /// `ARGV`: owner, replaced refresh token (may be empty), value of the tombstones (empty deletes
    /// them), their TTL in milliseconds. Then for each key: field, expected value, new value (`-`
    /// deletes, `*` keeps, `=` and the bytes) and TTL in milliseconds (`0` does not expire, `keep`
    /// keeps the remaining TTL). Then the channel (may be empty) and the message.
    ///
    /// Returns 1 (written), 3 (written, but not published) or 0 (another owner holds the lease).
    /// Returns 2 and the current values if they are not the expected ones; the lease is released
    /// then too.
    Commit,
    /// Writes the values without a lease, and deletes the tombstones (newest wins).
    ///
    /// `ARGV`: field, expected value, new value and TTL of each key, channel and message. Returns 1
    /// or 3, or 2 and the current values if they are not the expected ones. The arguments and
    /// results mean the same as in [`Commit`](Self::Commit).
    ///
    /// While the two hashes move to another node of a Cluster, a node can reject the script as a
    /// whole with `TRYAGAIN`.
    Overwrite,
    /// Writes the entry of an account at a platform, unless the stored entry is newer. The entry is
    /// a field of a hash, and its value is `STATE#MS`.
    ///
    /// `ARGV`: field, state, time in milliseconds, channel and message. Returns 1 or 3, and
    /// publishes only a change of the state. Returns 2 and the stored value if it is newer. A value
    /// of another form counts as older.
    #[cfg(feature = "platform")]
    RecordAuthorization,
    /// Releases the leases that the owner holds. `ARGV`: owner. Returns the number of released
    /// leases.
    ReleaseLeases,
}

/// The sender of the message that a write publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in super::super) enum PublishMode {
    /// The script publishes the message, in the same atomic step as its write.
    InScript,
    /// The store publishes the message by a command after the script. The text of the script does
    /// not contain `PUBLISH`, because some servers reject such a text.
    Separately,
}

/// The numbers of leases, tombstones and values among the keys of one call of a script.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub(super) struct KeyCounts {
    pub(super) leases: usize,
    pub(super) tombstones: usize,
    pub(super) values: usize,
}

/// Lua code that sets `held` to `true` if another owner holds the lease.
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

/// Lua code that sets `succeeds` to `true` if the tombstone names the replaced refresh token.
const CHECK_TOMBSTONE: &str = "
if ARGV[2] ~= '' and redis.call('GET', $KEY) == ARGV[2] then succeeds = true end";

/// Lua code that defines the function `compare`, which compares one value with the expected one,
/// and the variables that hold its results. `values` contains all compared values. `same` is `true`
/// if every value is the expected one. `empty` is `true` if no compared value exists.
const DEFINE_COMPARE: &str = "
local same, values, empty = true, {}, true
local function compare(cell, value, expected)
  if (value and ('=' .. value) or '-') ~= expected then same = false end
  if value then empty = false end
  values[cell] = value
end";

const COMPARE_VALUE: &str = "
if $EXPECTED == '*' then
elseif $FIELD == '' then compare($INDEX, redis.call('GET', $KEY), $EXPECTED)
else compare($INDEX, redis.call('HGET', $KEY, $FIELD), $EXPECTED) end";

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

/// Lua code that writes the entry of an account. A time of more than 13 digits is no time in
/// milliseconds.
#[cfg(feature = "platform")]
const RECORD_AUTHORIZATION: &str = "
local value = redis.call('HGET', KEYS[1], ARGV[1])
local state, since = string.match(value or '', '^(%a+)#(%d+)')
if since and (state .. '#' .. since ~= value or #since > 13) then state, since = nil, nil end
if since and tonumber(since) > tonumber(ARGV[3]) then return {2, {value}} end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. '#' .. ARGV[3])
if state == ARGV[2] then return {1} end";

/// Lua code that publishes a message, and returns 1, or 3 if `PUBLISH` fails. The last two
/// arguments are the channel and the message. Publishes nothing if the channel is empty.
const PUBLISH_IN_SCRIPT: &str = "
if ARGV[#ARGV - 1] ~= '' then
  local said = redis.pcall('PUBLISH', ARGV[#ARGV - 1], ARGV[#ARGV])
  if type(said) == 'table' and said.err then return {3} end
end
return {1}";

const REPORT_UNPUBLISHED: &str = "
if ARGV[#ARGV - 1] ~= '' then return {3} end
return {1}";

/// The number of the first argument in `ARGV` that belongs to a value, and the placeholders for the
/// arguments of one value.
type Arguments = (usize, &'static [&'static str]);

const ACQUIRE_ARGUMENTS: Arguments = (5, &["$FIELD", "$EXPECTED"]);
const COMMIT_ARGUMENTS: Arguments = (5, &["$FIELD", "$EXPECTED", "$NEW", "$TTL"]);
const OVERWRITE_ARGUMENTS: Arguments = (1, &["$FIELD", "$EXPECTED", "$NEW", "$TTL"]);

impl KeyCounts {
    /// Repeats the Lua code for the key of each lease.
    fn repeat_for_leases(self, lua: &str) -> String {
        repeat_for_keys(1..self.leases + 1, lua)
    }

    /// Repeats the Lua code for the key of each tombstone.
    fn repeat_for_tombstones(self, lua: &str) -> String {
        let first = self.leases + 1;
        repeat_for_keys(first..first + self.tombstones, lua)
    }

    /// Repeats the Lua code for the key of each value, and replaces the placeholders of its
    /// arguments.
    fn repeat_for_values(self, (first, names): Arguments, lua: &str) -> String {
        let before = self.leases + self.tombstones;
        let lua_of = |index: usize| {
            let lua = lua.replace("$INDEX", &index.to_string());
            let lua = lua.replace("$KEY", &key(before + index));
            let start = first + (index - 1) * names.len();
            let arguments = names.iter().zip(start..);
            arguments.fold(lua, |lua, (name, number)| {
                lua.replace(name, &format!("ARGV[{number}]"))
            })
        };
        (1..self.values + 1).map(lua_of).collect()
    }
}

fn key(number: usize) -> String {
    format!("KEYS[{number}]")
}

fn repeat_for_keys(keys: Range<usize>, lua: &str) -> String {
    keys.map(|number| lua.replace("$KEY", &key(number)))
        .collect()
}

/// Returns the text of the script of a step.
pub(super) fn build_text(step: Step, counts: KeyCounts, mode: PublishMode) -> String {
    let publish = match mode {
        PublishMode::InScript => PUBLISH_IN_SCRIPT,
        PublishMode::Separately => REPORT_UNPUBLISHED,
    };
    match step {
        Step::AcquireLease => acquire_lease_text(counts),
        Step::Commit => commit_text(counts, publish),
        Step::Overwrite => overwrite_text(counts, publish),
        #[cfg(feature = "platform")]
        Step::RecordAuthorization => format!("{RECORD_AUTHORIZATION}{publish}"),
        Step::ReleaseLeases => release_leases_text(counts),
    }
}

fn acquire_lease_text(counts: KeyCounts) -> String {
    let (compare, held) = (
        counts.repeat_for_values(ACQUIRE_ARGUMENTS, COMPARE_VALUE),
        counts.repeat_for_leases(CHECK_LEASE),
    );
    let (take, write_tombstones) = (
        counts.repeat_for_leases(TAKE_LEASE),
        counts.repeat_for_tombstones(WRITE_TOMBSTONE),
    );
    format!(
        "{DEFINE_COMPARE}{compare}
if not same then return {{2, values}} end
local holder, held = false, false{held}
if held then return {{0}} end{take}
if ARGV[3] ~= '' then{write_tombstones}
end
return {{1}}"
    )
}

fn commit_text(counts: KeyCounts, publish: &str) -> String {
    let (compare, write) = (
        counts.repeat_for_values(COMMIT_ARGUMENTS, COMPARE_VALUE),
        counts.repeat_for_values(COMMIT_ARGUMENTS, WRITE_VALUE),
    );
    let (held, release) = (
        counts.repeat_for_leases(CHECK_LEASE),
        counts.repeat_for_leases(RELEASE_LEASE),
    );
    let succeeds = counts.repeat_for_tombstones(CHECK_TOMBSTONE);
    let (write_tombstones, delete_tombstones) = (
        counts.repeat_for_tombstones(WRITE_TOMBSTONE),
        counts.repeat_for_tombstones(DELETE_TOMBSTONE),
    );
    format!(
        "{DEFINE_COMPARE}{compare}
local succeeds, gone = false, 0{succeeds}
if not same and not (succeeds and empty) then{release}
  return {{2, values}}
end
local holder, held = false, false{held}
if held and not succeeds then return {{0}} end
local ttl, left{write}
if ARGV[3] == '' then{delete_tombstones}
else{write_tombstones}
end{release}{publish}"
    )
}

fn overwrite_text(counts: KeyCounts, publish: &str) -> String {
    let compare = counts.repeat_for_values(OVERWRITE_ARGUMENTS, COMPARE_VALUE);
    let delete_tombstones = counts.repeat_for_tombstones(DELETE_TOMBSTONE);
    let write = counts.repeat_for_values(OVERWRITE_ARGUMENTS, WRITE_VALUE);
    format!(
        "{DEFINE_COMPARE}{compare}
if not same then return {{2, values}} end{delete_tombstones}
local ttl, left{write}{publish}"
    )
}

fn release_leases_text(counts: KeyCounts) -> String {
    let release = counts.repeat_for_leases(RELEASE_LEASE);
    format!("local gone = 0{release}\nreturn gone")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::AppId;
    use crate::store::redis::layout::{Layout, RedisNames};
    use crate::store::redis::scripts::fixed;
    use crate::store::{CredentialKey, CredentialKind};

    const STEPS: [Step; 4] = [
        Step::AcquireLease,
        Step::Commit,
        Step::Overwrite,
        Step::ReleaseLeases,
    ];

    /// Returns the numbers of keys of all layouts, with and without a dual write. Also returns the
    /// numbers of keys for tasks of operators, which may need no leases or tombstones.
    fn key_counts() -> Vec<KeyCounts> {
        let (names, app) = (RedisNames::default(), AppId::new("wx0").unwrap());
        let mut all_counts = Vec::new();
        let (hashes, keys) = (Layout::Hashes, Layout::Keys);
        for (layout, dual_write) in [
            (hashes, None),
            (keys, None),
            (hashes, Some(keys)),
            (keys, Some(hashes)),
        ] {
            for kind in CredentialKind::ALL {
                let (app, id) = (app.clone(), "o".into());
                let credential = CredentialKey { app, kind, id };
                let locations = names.locations(layout, dual_write, &credential);
                let values = locations
                    .with_targets()
                    .map(|(location, _)| location.keys.len())
                    .sum();
                let tombstones = locations.tombstone_keys.len();
                for leases in [0, locations.lease_keys.len()] {
                    for tombstones in [0, tombstones] {
                        all_counts.push(KeyCounts {
                            leases,
                            tombstones,
                            values,
                        });
                    }
                }
            }
        }
        // The release of a lease and the test of scripts at start-up use one lease and no values.
        all_counts.push(KeyCounts {
            leases: 1,
            ..KeyCounts::default()
        });
        all_counts
    }

    /// Fails unless each call in a script contains its command and its key literally. A call of
    /// `PUBLISH` has no key. Also fails if the script uses a key beyond the first `keys`, or `KEYS`
    /// for anything else.
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
        assert!(
            seen.iter().all(|number| (1..=keys).contains(number)),
            "{text}"
        );
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

    #[cfg(feature = "platform")]
    #[test]
    fn the_entry_of_an_account_has_one_literal_key() {
        let counts = KeyCounts {
            values: 1,
            ..KeyCounts::default()
        };
        for (mode, publishes) in [
            (PublishMode::InScript, true),
            (PublishMode::Separately, false),
        ] {
            let text = build_text(Step::RecordAuthorization, counts, mode);
            assert_literal(&text, 1);
            assert_eq!(text.contains("PUBLISH"), publishes, "{text}");
        }
    }

    #[test]
    fn scripts_name_each_key_literally() {
        for counts in key_counts() {
            let keys = counts.leases + counts.tombstones + counts.values;
            for step in STEPS {
                for mode in [PublishMode::InScript, PublishMode::Separately] {
                    let text = build_text(step, counts, mode);
                    assert_literal(&text, keys);
                    let writes = matches!(step, Step::Commit | Step::Overwrite);
                    let publishes = writes && mode == PublishMode::InScript;
                    assert_eq!(text.contains("PUBLISH"), publishes, "{text}");
                }
            }
            let commit = build_text(Step::Commit, counts, PublishMode::InScript);
            for number in 1..=keys {
                assert!(commit.contains(&key(number)), "{number} in {commit}");
            }
        }
        for script in [
            &fixed::BIND_CODE,
            &fixed::RELEASE_CODE,
            &fixed::DELETE_UNCHANGED_FIELDS,
            &fixed::SET_REVOKED_AT,
            &fixed::TRY_CONSUME,
            &fixed::CHECK,
            #[cfg(feature = "platform")]
            &fixed::SET_LISTED_AT,
        ] {
            assert_literal(&script.text, 1);
        }
        for script in [
            &fixed::ACQUIRE_CODE,
            &fixed::FINISH_CODE,
            &fixed::SUSPEND_CODE,
        ] {
            assert_literal(&script.text, 2);
        }
    }
}
