//! The scripts that have a fixed number of keys and a fixed text.

use std::sync::LazyLock;

use super::script::Script;

/// Binds a login code to a login, unless the code is bound to another login. `ARGV`: login, TTL in
/// milliseconds. Returns 0 (bound to another login), 1 (bound by this call) or 2 (bound to this
/// login before).
pub(in crate::store::redis) static BIND_CODE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local bound = redis.call('GET', KEYS[1])
if bound and bound ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return bound and 2 or 1
",
    )
});

/// Acquires the lease of a login code. The value of the key is `?` and the owner, or `=` and the
/// outcome. The second key may hold the response of a suspended exchange. `ARGV`: owner, TTL in
/// milliseconds. If the owner holds the lease after the call, whether or not it held the lease
/// before, returns `!` and the response, or nothing without a response. Otherwise returns the value
/// of the first key.
pub(in crate::store::redis) static ACQUIRE_CODE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local value = redis.call('GET', KEYS[1])
if value and value ~= '?' .. ARGV[1] then return value end
redis.call('SET', KEYS[1], '?' .. ARGV[1], 'PX', ARGV[2])
local response = redis.call('GET', KEYS[2])
return response and '!' .. response
",
    )
});

/// Releases the lease of a login code. `ARGV`: owner. Returns 1, or 0 if the owner does not hold
/// the lease.
pub(in crate::store::redis) static RELEASE_CODE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
if redis.call('GET', KEYS[1]) ~= '?' .. ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
",
    )
});

/// Writes the outcome of a login code if the owner holds its lease. `ARGV`: owner, outcome, TTL in
/// milliseconds. If the owner is empty, writes regardless of the lease. A write also deletes the
/// second key, which may hold the response of a suspended exchange.
pub(in crate::store::redis) static FINISH_CODE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
if ARGV[1] ~= '' and redis.call('GET', KEYS[1]) ~= '?' .. ARGV[1] then return end
redis.call('SET', KEYS[1], '=' .. ARGV[2], 'PX', ARGV[3])
redis.call('DEL', KEYS[2])
",
    )
});

/// Suspends the exchange of a login code. Writes an outcome to the first key and WeChat's response
/// to the second key, unless another owner holds the lease or the exchange has finished. `ARGV`:
/// owner, outcome, its TTL in milliseconds, response, its TTL in milliseconds. Returns 1, or 0
/// without a write.
pub(in crate::store::redis) static SUSPEND_CODE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local value = redis.call('GET', KEYS[1])
if value and value ~= '?' .. ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[4], 'PX', ARGV[5])
redis.call('SET', KEYS[1], '=' .. ARGV[2], 'PX', ARGV[3])
return 1
",
    )
});

/// Deletes the fields of a hash whose values have not changed since the sweep has read them.
/// `ARGV`: field and value of each field. Returns the number of deleted fields.
pub(in crate::store::redis) static DELETE_UNCHANGED_FIELDS: LazyLock<Script> =
    LazyLock::new(|| {
        Script::new(
            r"
local deleted = 0
for at = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[at]) == ARGV[at + 1] then
    deleted = deleted + redis.call('HDEL', KEYS[1], ARGV[at])
  end
end
return deleted
",
        )
    });

/// Writes the time at which a user logged out everywhere. `ARGV`: time and TTL in milliseconds. If
/// the stored time is not earlier, writes the stored time plus one millisecond. Converts a stored
/// time in seconds, which an older version wrote.
pub(in crate::store::redis) static SET_REVOKED_AT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local at, last = tonumber(ARGV[1]), tonumber(redis.call('GET', KEYS[1]) or '0') or 0
if last < 100000000000 then last = last * 1000 end
if last >= at then at = last + 1 end
redis.call('SET', KEYS[1], string.format('%.0f', at), 'PX', ARGV[2])
",
    )
});

/// Writes the time of the last complete list of a platform's accounts, unless a later time is
/// stored. `ARGV`: field and time in milliseconds.
#[cfg(feature = "platform")]
pub(in crate::store::redis) static SET_LISTED_AT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local last = redis.call('HGET', KEYS[1], ARGV[1])
if last and (string.find(last, '%D') or #last > 13) then last = nil end
if last and (tonumber(last) or 0) >= tonumber(ARGV[2]) then return end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
",
    )
});

/// Runs every command by which the scripts of a login and a renewal read and write, on the key of
/// health checks. Then deletes the key.
///
/// `ARGV`: TTL in milliseconds, which removes the key if a later command fails, and `1` if users
/// are stored in hashes. A hash gets no TTL. So the script creates the hash only after a `DEL` has
/// succeeded, which shows that the server permits the deletion of the hash.
pub(in crate::store::redis) static CHECK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
redis.call('SET', KEYS[1], '0', 'PX', ARGV[1])
redis.call('GET', KEYS[1])
redis.call('INCR', KEYS[1])
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[1])
if ARGV[2] == '1' then
  redis.call('HGET', KEYS[1], 'field')
  redis.call('HDEL', KEYS[1], 'field')
  redis.call('HSET', KEYS[1], 'field', '')
  redis.call('DEL', KEYS[1])
end
",
    )
});

/// Counts one use of a quota. The window starts with the first use. `ARGV`: limit, window in
/// milliseconds. Returns 1, or 0 without counting if the quota is used up.
pub(in crate::store::redis) static TRY_CONSUME: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local spent = tonumber(redis.call('GET', KEYS[1]) or '0')
if spent >= tonumber(ARGV[1]) then return 0 end
redis.call('INCR', KEYS[1])
if spent == 0 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 1
",
    )
});
