//! The atomic steps, as Lua.
//!
//! Those of a slot are in [`steps`], for each number of keys a text of its own. The others have one
//! key each. Some managed Clusters look at a text before they run it: every call here names its
//! command and its key literally (`KEYS[1]`, `KEYS[2]` …), and nothing else is done with `KEYS`.
//!
//! Every key of a call lies in one slot of a Cluster; [`names`](super::names) sees to that.

mod steps;

use std::sync::{Arc, LazyLock};

use redis::{Cmd, FromRedisValue, RedisResult, ServerErrorKind, ToRedisArgs};
use sha1::{Digest, Sha1};

use self::steps::KeyCounts;
pub(super) use self::steps::{PublishMode, Step};
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

    /// A call with this key, by which a Cluster finds the node.
    pub(super) fn key(&'static self, key: impl ToRedisArgs) -> ScriptCall {
        let mut call = ScriptCall::new(ScriptSource::Fixed(self));
        call.key(key);
        call
    }
}

/// Where the text of a call comes from.
#[derive(Clone, Copy)]
enum ScriptSource {
    Fixed(&'static Script),
    /// By the number of its keys.
    Step(Step, KeyCounts),
}

/// A call of a script: its `KEYS` and `ARGV`.
pub(super) struct ScriptCall {
    source: ScriptSource,
    keys: Vec<Vec<u8>>,
    arguments: Vec<Vec<u8>>,
}

/// The answer to a call, and whether the server has read its text for it.
pub(super) struct Invocation<T> {
    pub(super) reply: RedisResult<T>,
    pub(super) sent_text: bool,
}

impl ScriptCall {
    fn new(source: ScriptSource) -> Self {
        Self {
            source,
            keys: Vec::new(),
            arguments: Vec::new(),
        }
    }

    /// A call of a step without a key so far: its leases come first, then its tombstones, then its
    /// cells.
    pub(super) fn for_step(step: Step) -> Self {
        Self::new(ScriptSource::Step(step, KeyCounts::default()))
    }

    pub(super) fn lease_key(&mut self, key: impl ToRedisArgs) -> &mut Self {
        self.counted_key(key, |shape| &mut shape.leases)
    }

    pub(super) fn tombstone_key(&mut self, key: impl ToRedisArgs) -> &mut Self {
        self.counted_key(key, |shape| &mut shape.tombstones)
    }

    /// The key of a cell, whose arguments follow.
    pub(super) fn value_key(&mut self, key: impl ToRedisArgs) -> &mut Self {
        self.counted_key(key, |shape| &mut shape.values)
    }

    fn counted_key(
        &mut self,
        key: impl ToRedisArgs,
        count: impl Fn(&mut KeyCounts) -> &mut usize,
    ) -> &mut Self {
        if let ScriptSource::Step(_, shape) = &mut self.source {
            *count(shape) += 1;
        }
        self.key(key)
    }

    fn key(&mut self, key: impl ToRedisArgs) -> &mut Self {
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

    /// Runs it, and publishes in the script where there is something to publish.
    pub(super) async fn invoke<T: FromRedisValue + Send>(
        &self,
        connection: &mut Connection,
    ) -> RedisResult<T> {
        self.invoke_in_mode(PublishMode::InScript, connection)
            .await
            .reply
    }

    /// Runs it by its name, and where Redis does not know that yet, by its text.
    ///
    /// A restart and a fail-over forget scripts, since replicas never hear of them. The library's
    /// own `Script` would then load it on every node of a Cluster and fail where one is down; the
    /// text goes to the node that is asked, and to no other.
    pub(super) async fn invoke_in_mode<T: FromRedisValue + Send>(
        &self,
        mode: PublishMode,
        connection: &mut Connection,
    ) -> Invocation<T> {
        let kept: Arc<Script>;
        let script = match self.source {
            ScriptSource::Fixed(script) => script,
            ScriptSource::Step(step, shape) => {
                kept = steps::script(step, shape, mode);
                &*kept
            }
        };
        let by_name = self.command("EVALSHA", &script.hash);
        match by_name.query_async(connection).await {
            Err(error) if error.kind() == ServerErrorKind::NoScript.into() => {
                let by_text = self.command("EVAL", &script.text);
                Invocation {
                    reply: by_text.query_async(connection).await,
                    sent_text: true,
                }
            }
            answer => Invocation {
                reply: answer,
                sent_text: false,
            },
        }
    }

    fn command(&self, name: &str, script: &str) -> Cmd {
        let mut command = redis::cmd(name);
        command.arg(script).arg(self.keys.len());
        command.arg(&self.keys).arg(&self.arguments);
        command
    }
}

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
pub(super) static ACQUIRE_CODE: LazyLock<Script> = LazyLock::new(|| {
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
pub(super) static FINISH_CODE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
if ARGV[1] ~= '' and redis.call('GET', KEYS[1]) ~= '?' .. ARGV[1] then return end
redis.call('SET', KEYS[1], '=' .. ARGV[2], 'PX', ARGV[3])
",
    )
});

/// Deletes the fields of a hash that still hold what the sweep judged dead.
/// `ARGV`: field and value of each candidate. Answers how many were deleted.
pub(super) static DELETE_DEAD_FIELDS: LazyLock<Script> = LazyLock::new(|| {
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
pub(super) static SET_REVOKED_AT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local at, last = tonumber(ARGV[1]), tonumber(redis.call('GET', KEYS[1]) or '0') or 0
if last < 100000000000 then last = last * 1000 end
if last >= at then at = last + 1 end
redis.call('SET', KEYS[1], string.format('%.0f', at), 'PX', ARGV[2])
",
    )
});

/// Runs every command that the scripts of a login and a renewal need, on a key of checks, and leaves
/// nothing there. `ARGV`: for how many milliseconds the key stays where a later command is refused, and
/// whether users lie in hashes (`1`). A hash would stay for ever, so the right to delete it is used
/// before it is made.
pub(super) static CHECK: LazyLock<Script> = LazyLock::new(|| {
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

/// Takes one use of an allowance.
/// `ARGV`: the uses there are, and its life in milliseconds from the first one. Answers 1 where one
/// was left.
pub(super) static TRY_CONSUME: LazyLock<Script> = LazyLock::new(|| {
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
