//! The atomic steps, as Lua.
//!
//! Those of a slot know it as a list of cells, each a string key or a field of a hash, so that both
//! layouts run the same code. The leases come first among `KEYS` (one, or two where a record is
//! also written in the other layout); the tombstones follow, then the cells. `ARGV[1]` names the
//! owner, `ARGV[2]` how many leases there are, `ARGV[3]` how many tombstones. A cell's arguments start with its field (empty for a string key) and
//! what is expected in it: `-` for nothing, `=` and the bytes for a value, `*` for anything at all.
//!
//! Every key of a call lies in one slot of a Cluster; [`names`](super::names) sees to that.

use std::sync::LazyLock;

use redis::{Cmd, FromRedisValue, RedisResult, ServerErrorKind, ToRedisArgs};
use sha1::{Digest, Sha1};

use super::connection::Connection;

/// A script, and the name that Redis gives it.
pub(super) struct Script {
    text: String,
    hash: String,
}

impl Script {
    fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        let digest = Sha1::digest(text.as_bytes());
        let hash = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Self { text, hash }
    }

    /// A call without a key so far; the first one it gets is that by which a Cluster finds the
    /// node.
    pub(super) fn call(&self) -> Call<'_> {
        Call {
            script: self,
            keys: Vec::new(),
            arguments: Vec::new(),
        }
    }

    /// A call with this first key.
    pub(super) fn key(&self, key: impl ToRedisArgs) -> Call<'_> {
        let mut call = self.call();
        call.key(key);
        call
    }
}

/// A call of a script: its `KEYS` and `ARGV`.
pub(super) struct Call<'a> {
    script: &'a Script,
    keys: Vec<Vec<u8>>,
    arguments: Vec<Vec<u8>>,
}

impl Call<'_> {
    pub(super) fn key(&mut self, key: impl ToRedisArgs) -> &mut Self {
        key.write_redis_args(&mut self.keys);
        self
    }

    /// The key that the node is found by.
    pub(super) fn first_key(&self) -> &[u8] {
        self.keys.first().map_or(&[], Vec::as_slice)
    }

    pub(super) fn arg(&mut self, argument: impl ToRedisArgs) -> &mut Self {
        argument.write_redis_args(&mut self.arguments);
        self
    }

    /// Runs it by its name, and where Redis does not know that yet, by its text.
    ///
    /// A restart and a fail-over forget scripts, since replicas never hear of them. The library's
    /// own `Script` would then load it on every node of a Cluster and fail where one is down; the
    /// text goes to the node that is asked, and to no other.
    pub(super) async fn invoke<T: FromRedisValue + Send>(
        &self,
        connection: &mut Connection,
    ) -> RedisResult<T> {
        let by_name = self.command("EVALSHA", &self.script.hash);
        match by_name.query_async(connection).await {
            Err(error) if error.kind() == ServerErrorKind::NoScript.into() => {
                let by_text = self.command("EVAL", &self.script.text);
                by_text.query_async(connection).await
            }
            answer => answer,
        }
    }

    fn command(&self, name: &str, script: &str) -> Cmd {
        let mut command = redis::cmd(name);
        command.arg(script).arg(self.keys.len());
        command.arg(&self.keys).arg(&self.arguments);
        command
    }
}

/// Defines `held()`, whether somebody else has a lease; `release()`, which gives ours back;
/// `bury(token, ttl)`, which writes the tombstones, or removes them where the token is empty; and
/// `check(start, step)`, which returns whether every cell holds what is expected, the values of the
/// cells that were compared, and whether there are none.
const CELLS: &str = r"
local owner, leases, tombstones = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local others = leases + tombstones
local function held()
  for lease = 1, leases do
    local holder = redis.call('GET', KEYS[lease])
    if holder and holder ~= owner then return true end
  end
  return false
end
local function release()
  for lease = 1, leases do
    if redis.call('GET', KEYS[lease]) == owner then redis.call('DEL', KEYS[lease]) end
  end
end
local function read(key, field)
  if field == '' then return redis.call('GET', key) end
  return redis.call('HGET', key, field)
end
local function check(start, step)
  local same, values, empty = true, {}, true
  for cell = 1, #KEYS - others do
    local at = start + (cell - 1) * step
    if ARGV[at + 1] ~= '*' then
      local value = read(KEYS[others + cell], ARGV[at])
      if (value and ('=' .. value) or '-') ~= ARGV[at + 1] then same = false end
      if value then empty = false end
      values[cell] = value
    end
  end
  return same, values, empty
end
local function bury(token, ttl)
  for tombstone = leases + 1, others do
    if token == '' then
      redis.call('DEL', KEYS[tombstone])
    else
      redis.call('SET', KEYS[tombstone], token, 'PX', ttl)
    end
  end
end
";

/// Defines `write(key, field, new, ttl)`: `new` is `-` to delete, `*` to leave, or `=` and the bytes;
/// `ttl` is in milliseconds, `0` for ever, `keep` for what is left of the old one's.
const WRITE: &str = r"
local function write(key, field, new, ttl)
  if new == '*' then return end
  if ttl == 'keep' then
    local left = redis.call('PTTL', key)
    ttl = left > 0 and tostring(left) or '0'
  end
  if new == '-' then
    if field == '' then redis.call('DEL', key) else redis.call('HDEL', key, field) end
  elseif field ~= '' then
    redis.call('HSET', key, field, string.sub(new, 2))
  elseif ttl == '0' then
    redis.call('SET', key, string.sub(new, 2))
  else
    redis.call('SET', key, string.sub(new, 2), 'PX', ttl)
  end
end
";

/// Defines `tell()`, which publishes what the last two of `ARGV` name: a channel, and what to say;
/// nothing where the channel is empty. Who may not publish writes all the same.
const TELL: &str = r"
local function tell()
  if ARGV[#ARGV - 1] ~= '' then redis.pcall('PUBLISH', ARGV[#ARGV - 1], ARGV[#ARGV]) end
end
";

/// R1: takes the lease where the cells hold what is expected.
/// `ARGV`: owner, number of leases and of tombstones, lease in milliseconds, then field and expected
/// value of each cell; in the end the token that the tombstones are to name, and for how many
/// milliseconds. An empty token leaves them as they are.
/// Answers 1 (granted; again, where a claim of ours ran although its answer was lost), 0 (somebody
/// else has it), or 2 and the values (changed).
pub(super) static CLAIM: LazyLock<Script> = LazyLock::new(|| {
    Script::new(format!(
        "{CELLS}{}",
        r"
local same, values = check(5, 2)
if not same then return {2, values} end
if held() then return {0} end
for lease = 1, leases do redis.call('SET', KEYS[lease], owner, 'PX', ARGV[4]) end
if ARGV[#ARGV - 1] ~= '' then bury(ARGV[#ARGV - 1], ARGV[#ARGV]) end
return {1}
"
    ))
});

/// R2: writes the cells where they hold what is expected, and gives the lease back. R3: where a
/// tombstone names the predecessor, the cells may be empty as well, and the lease another's.
/// `ARGV`: owner, number of leases and of tombstones, predecessor (or empty), the token that the
/// tombstones are to name (empty removes them), and for how many milliseconds; then field, expected
/// value, new value (`-` deletes) and the time to live in milliseconds (0: for ever) of each cell;
/// channel and news.
/// Answers 1 (written), 0 (the lease is somebody else's), or 2 and the values (changed).
pub(super) static COMMIT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(format!(
        "{CELLS}{WRITE}{TELL}{}",
        r"
local same, values, empty = check(7, 4)
local succeeds = false
for tombstone = leases + 1, others do
  if ARGV[4] ~= '' and redis.call('GET', KEYS[tombstone]) == ARGV[4] then succeeds = true end
end
if not same and not (succeeds and empty) then
  release()
  return {2, values}
end
if held() and not succeeds then return {0} end
for cell = 1, #KEYS - others do
  local at = 7 + (cell - 1) * 4
  write(KEYS[others + cell], ARGV[at], ARGV[at + 2], ARGV[at + 3])
end
bury(ARGV[5], ARGV[6])
release()
tell()
return {1}
"
    ))
});

/// R2: writes the cells whatever they hold, and removes the tombstones. `KEYS` are the tombstones
/// and the cells, without a lease.
/// `ARGV`: number of tombstones, then field, new value and time to live of each cell, channel and
/// news, as above.
///
/// A transaction would do the same on one server. A script is one command, which a Cluster can
/// answer with `TRYAGAIN` while the two hashes move to another node.
pub(super) static PUT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(format!(
        "{WRITE}{TELL}{}",
        r"
local tombstones = tonumber(ARGV[1])
for tombstone = 1, tombstones do redis.call('DEL', KEYS[tombstone]) end
for cell = 1, #KEYS - tombstones do
  local at = cell * 3 - 1
  write(KEYS[tombstones + cell], ARGV[at], ARGV[at + 1], ARGV[at + 2])
end
tell()
"
    ))
});

/// Gives leases back, those that are still ours. All of `KEYS` are leases.
pub(super) static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local gone = 0
for _, lease in ipairs(KEYS) do
  if redis.call('GET', lease) == ARGV[1] then gone = gone + redis.call('DEL', lease) end
end
return gone
",
    )
});

/// Binds a code to a login, unless it is bound to another one. `ARGV`: the login, and for how many
/// milliseconds. Answers 0 (another one's), 1 (bound now) or 2 (bound before).
pub(super) static BIND_CODE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local bound = redis.call('GET', KEYS[1])
if bound and bound ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return bound and 2 or 1
",
    )
});

/// Takes the right to exchange a code. The key holds `?` and who has the right, or `=` and what
/// came of it. `ARGV`: owner, and for how many milliseconds.
/// Answers nothing (granted; again, where a claim of ours ran although its answer was lost), or
/// what the key holds.
pub(super) static CLAIM_CODE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local value = redis.call('GET', KEYS[1])
if value and value ~= '?' .. ARGV[1] then return value end
redis.call('SET', KEYS[1], '?' .. ARGV[1], 'PX', ARGV[2])
return false
",
    )
});

/// Gives back the right to exchange a code, if it is still the owner's. `ARGV`: owner. Answers how
/// many rights were given back.
pub(super) static RELEASE_CODE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
if redis.call('GET', KEYS[1]) ~= '?' .. ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
",
    )
});

/// Says what came of a code. `ARGV`: owner (empty: whoever has the right), what came of it, and
/// for how many milliseconds to say so.
pub(super) static SETTLE_CODE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
if ARGV[1] ~= '' and redis.call('GET', KEYS[1]) ~= '?' .. ARGV[1] then return end
redis.call('SET', KEYS[1], '=' .. ARGV[2], 'PX', ARGV[3])
",
    )
});

/// Deletes the fields of a hash that still hold what the sweep judged dead.
/// `ARGV`: field and value of each candidate. Answers how many were deleted.
pub(super) static SWEEP: LazyLock<Script> = LazyLock::new(|| {
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

/// Remembers when a user has logged out everywhere: at the time in `ARGV[1]`, or just behind the last
/// one, in milliseconds. Former versions wrote seconds. `ARGV[2]`: for how many milliseconds.
pub(super) static REVOKE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local at, last = tonumber(ARGV[1]), tonumber(redis.call('GET', KEYS[1]) or '0') or 0
if last < 100000000000 then last = last * 1000 end
if last >= at then at = last + 1 end
redis.call('SET', KEYS[1], string.format('%.0f', at), 'PX', ARGV[2])
",
    )
});

/// Takes one use of an allowance.
/// `ARGV`: the uses there are, and its life in milliseconds from the first one. Answers 1 where one
/// was left.
pub(super) static SPEND: LazyLock<Script> = LazyLock::new(|| {
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
