//! The scripts that run a step of several credentials in one call.
//!
//! They apply a step only in its usual case. For each other case they change nothing and tell the
//! caller to send the step alone, so that the scripts of [`steps`](super::steps) decide about every
//! conflict and every error. One call reads all values with one `MGET`, or one `HMGET` for each
//! hash, where single steps read each value with a separate command.
//!
//! `ARGV` starts with the number of steps. `KEYS` and the rest of `ARGV` are those of the single
//! steps, one after the other. All steps have as many keys and arguments as the first. The fields of
//! a value position belong to one hash, or all of them are empty.
//!
//! A script names its keys by computed indices, so these scripts are not for a Cluster.

use std::sync::{Arc, LazyLock};

use redis::FromRedisValue;

use super::call::{ScriptCall, ScriptSource};
use super::script::Script;
use super::steps::{KeyCounts, Step};

/// The keys that come before the values of a step: its lease and its tombstone.
const KEYS_BEFORE_VALUES: usize = 2;

/// The number of the argument in which a step has the value of its tombstone. It is empty unless the
/// step deletes a pair.
const TOMBSTONE_ARGUMENT: usize = 2;

/// The number of the argument in which a step has the field of its first value.
const FIRST_FIELD_ARGUMENT: usize = 4;

/// Lua code that reads the values of all steps, and defines the function `same`: whether the values
/// of a step are the expected ones. `width` is the number of arguments for each value.
///
/// `MGET` replies nil for a key of another type. So a step that expects no value under a string key
/// is never the usual case.
const READ_VALUES: &str = "
local n = tonumber(ARGV[1])
local k, a = #KEYS / n, (#ARGV - 1) / n
local stored = {}
for v = 1, k - 2 do
  local at, names = 6 + (v - 1) * width, {}
  if ARGV[at] == '' then
    for i = 0, n - 1 do names[i + 1] = KEYS[i * k + 2 + v] end
    stored[v] = redis.call('MGET', unpack(names))
  else
    for i = 0, n - 1 do names[i + 1] = ARGV[i * a + at] end
    stored[v] = redis.call('HMGET', KEYS[2 + v], unpack(names))
  end
end
local function same(i)
  for v = 1, k - 2 do
    local at = i * a + 6 + (v - 1) * width
    local value, expected = stored[v][i + 1], ARGV[at + 1]
    if (value and ('=' .. value) or '-') ~= expected then return false end
    if not value and ARGV[at] == '' then return false end
  end
  return true
end";

/// Acquires leases. Returns a code for each step: 1 (acquired), or 4 (send the step alone). Returns
/// an error if the server rejects the first write.
static ACQUIRE_LEASES: LazyLock<Script> = LazyLock::new(|| {
    Script::new(format!(
        "
local width = 2{READ_VALUES}
local codes, written = {{}}, false
for i = 0, n - 1 do
  codes[i + 1] = 4
  if same(i) then
    local taken = redis.pcall('SET', KEYS[i * k + 1], ARGV[i * a + 2], 'NX', 'PX', ARGV[i * a + 3])
    if type(taken) == 'table' and taken.ok then codes[i + 1], written = 1, true end
    if type(taken) == 'table' and taken.err and not written then return taken end
  end
end
return codes"
    ))
});

/// Commits records whose leases their owners hold, and that delete no value. A server without memory,
/// or without the right to write, then rejects the first write, so that no step is half applied.
/// Returns a code for each step: 1 (written), 3 (written, but not published), or 4 (send the step
/// alone).
static COMMIT_RECORDS: LazyLock<Script> = LazyLock::new(|| {
    Script::new(format!(
        "
local width = 4{READ_VALUES}
local leases = {{}}
for i = 0, n - 1 do leases[i + 1] = KEYS[i * k + 1] end
local holders = redis.call('MGET', unpack(leases))
local function keeps_all(i)
  for v = 1, k - 2 do
    if ARGV[i * a + 8 + (v - 1) * 4] == '-' then return false end
  end
  return true
end
local codes, ready, seen, gone = {{}}, {{}}, {{}}, {{}}
for i = 0, n - 1 do
  local lease, holder, owner = leases[i + 1], holders[i + 1], ARGV[i * a + 2]
  codes[i + 1] = 4
  if not seen[lease] and same(i) and keeps_all(i) and holder == owner then
    ready[#ready + 1] = i
    gone[#gone + 1] = KEYS[i * k + 2]
    gone[#gone + 1] = lease
  end
  seen[lease] = true
end
if #ready == 0 then return codes end
for v = 1, k - 2 do
  local set = {{}}
  for _, i in ipairs(ready) do
    local key, at = KEYS[i * k + 2 + v], i * a + 6 + (v - 1) * 4
    local field, new, ttl = ARGV[at], ARGV[at + 2], ARGV[at + 3]
    local value = string.sub(new, 2)
    if field ~= '' then
      set[#set + 1] = field
      set[#set + 1] = value
    elseif ttl == '0' then redis.call('SET', key, value)
    else redis.call('SET', key, value, 'PX', ttl) end
  end
  if #set > 0 then redis.call('HSET', KEYS[2 + v], unpack(set)) end
end
redis.call('DEL', unpack(gone))
for _, i in ipairs(ready) do
  local channel, message = ARGV[i * a + a], ARGV[i * a + a + 1]
  codes[i + 1] = 1
  if channel ~= '' then
    local said = redis.pcall('PUBLISH', channel, message)
    if type(said) == 'table' and said.err then codes[i + 1] = 3 end
  end
end
return codes"
    ))
});

/// The reply to one step of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::redis) enum BatchedReply {
    /// The script has acquired the lease or written the values.
    Applied,
    /// The script has written the values, but has not published the message about the write.
    AppliedUnpublished,
    /// The script has changed nothing. The caller sends the step alone.
    SendAlone,
}

impl FromRedisValue for BatchedReply {
    fn from_redis_value(value: redis::Value) -> Result<Self, redis::ParsingError> {
        Ok(match i64::from_redis_value(value)? {
            1 => Self::Applied,
            3 => Self::AppliedUnpublished,
            _ => Self::SendAlone,
        })
    }
}

impl ScriptCall {
    /// Returns `true` if a batch may contain this call: it acquires one lease or commits one record,
    /// and writes no tombstone.
    pub(in crate::store::redis) fn is_batchable(&self) -> bool {
        let tombstone = self.arguments.get(TOMBSTONE_ARGUMENT);
        matches!(
            self.source,
            ScriptSource::Step(
                Step::AcquireLease | Step::Commit,
                KeyCounts {
                    leases: 1,
                    tombstones: 1,
                    ..
                }
            )
        ) && tombstone.is_some_and(Vec::is_empty)
    }

    /// Returns `true` if a batch may contain both calls: they have the same step, and their values
    /// are string keys or fields of the same hashes.
    pub(in crate::store::redis) fn may_share_batch(&self, other: &Self) -> bool {
        let has_fields = |call: &Self| {
            let field = call.arguments.get(FIRST_FIELD_ARGUMENT);
            field.is_some_and(|field| !field.is_empty())
        };
        self.source == other.source
            && self.arguments.len() == other.arguments.len()
            && has_fields(self) == has_fields(other)
            && (!has_fields(self)
                || self.keys.get(KEYS_BEFORE_VALUES..) == other.keys.get(KEYS_BEFORE_VALUES..))
    }

    /// Returns one call that runs all `calls`, which may share a batch. The reply has one
    /// [`BatchedReply`] for each of them.
    pub(in crate::store::redis) fn batch(calls: &[Arc<Self>]) -> Self {
        let script = match calls.first().map(|call| call.source) {
            Some(ScriptSource::Step(Step::Commit, _)) => &COMMIT_RECORDS,
            _ => &ACQUIRE_LEASES,
        };
        let mut batch = Self::new(ScriptSource::Fixed(script));
        batch.arg(calls.len());
        for call in calls {
            batch.keys.extend_from_slice(&call.keys);
            batch.arguments.extend_from_slice(&call.arguments);
        }
        batch
    }
}
