//! [`ScriptCall`]: a call of a Lua script, which Redis finds by its hash or gets as a text.

use std::sync::Arc;

use redis::{Cmd, FromRedisValue, RedisResult, ServerErrorKind, ToRedisArgs};
use zeroize::Zeroize;

use super::cache::script;
use super::script::Script;
use super::steps::{KeyCounts, PublishMode, Step};
use crate::store::redis::connection::Connection;

impl Script {
    /// Creates a call of this script with one key, which selects the node of a Cluster.
    pub(in crate::store::redis) fn key(&'static self, key: impl ToRedisArgs) -> ScriptCall {
        let mut call = ScriptCall::new(ScriptSource::Fixed(self));
        call.key(key);
        call
    }

    /// Creates a call of this script with two keys in the same slot of a Cluster.
    pub(in crate::store::redis) fn keys(
        &'static self,
        first: impl ToRedisArgs,
        second: impl ToRedisArgs,
    ) -> ScriptCall {
        let mut call = self.key(first);
        call.key(second);
        call
    }
}

/// The script that a call runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ScriptSource {
    Fixed(&'static Script),
    /// The script of a step, generated for these numbers of keys.
    Step(Step, KeyCounts),
}

/// A call of a script, with its `KEYS` and `ARGV`. The arguments are wiped on drop, because they
/// contain tokens.
pub(in crate::store::redis) struct ScriptCall {
    pub(super) source: ScriptSource,
    pub(super) keys: Vec<Vec<u8>>,
    pub(super) arguments: Vec<Vec<u8>>,
}

impl Drop for ScriptCall {
    fn drop(&mut self) {
        for argument in &mut self.arguments {
            argument.as_mut_slice().zeroize();
        }
    }
}

/// The reply to a call. `sent_text` is `true` if the call sent the text of the script.
pub(in crate::store::redis) struct Invocation<T> {
    pub(in crate::store::redis) reply: RedisResult<T>,
    pub(in crate::store::redis) sent_text: bool,
}

impl ScriptCall {
    pub(super) fn new(source: ScriptSource) -> Self {
        Self {
            source,
            keys: Vec::new(),
            arguments: Vec::new(),
        }
    }

    /// Creates a call of a step that has no keys yet. Callers add the keys of leases first, then
    /// the keys of tombstones, then the keys of values.
    pub(in crate::store::redis) fn for_step(step: Step) -> Self {
        Self::new(ScriptSource::Step(step, KeyCounts::default()))
    }

    /// Adds the key of a lease to `KEYS`.
    pub(in crate::store::redis) fn lease_key(&mut self, key: impl ToRedisArgs) -> &mut Self {
        self.counted_key(key, |counts| &mut counts.leases)
    }

    /// Adds the key of a tombstone to `KEYS`.
    pub(in crate::store::redis) fn tombstone_key(&mut self, key: impl ToRedisArgs) -> &mut Self {
        self.counted_key(key, |counts| &mut counts.tombstones)
    }

    /// Adds the key of a value to `KEYS`. Callers add the arguments of the value next.
    pub(in crate::store::redis) fn value_key(&mut self, key: impl ToRedisArgs) -> &mut Self {
        self.counted_key(key, |counts| &mut counts.values)
    }

    fn counted_key(
        &mut self,
        key: impl ToRedisArgs,
        count: impl Fn(&mut KeyCounts) -> &mut usize,
    ) -> &mut Self {
        if let ScriptSource::Step(_, counts) = &mut self.source {
            *count(counts) += 1;
        }
        self.key(key)
    }

    fn key(&mut self, key: impl ToRedisArgs) -> &mut Self {
        key.write_redis_args(&mut self.keys);
        self
    }

    /// Returns the first key, which selects the node of a Cluster.
    pub(in crate::store::redis) fn first_key(&self) -> &[u8] {
        self.keys.first().map_or(&[], Vec::as_slice)
    }

    /// Adds an argument to `ARGV`.
    pub(in crate::store::redis) fn arg(&mut self, argument: impl ToRedisArgs) -> &mut Self {
        argument.write_redis_args(&mut self.arguments);
        self
    }

    /// Runs the script. A step that writes also publishes its message.
    pub(in crate::store::redis) async fn invoke<T: FromRedisValue + Send>(
        &self,
        connection: &mut Connection,
    ) -> RedisResult<T> {
        self.invoke_in_mode(PublishMode::InScript, connection)
            .await
            .reply
    }

    /// Runs the script by its hash. If the server has no script with that hash, runs it by its
    /// text.
    ///
    /// A server loses its scripts in a restart, and a replica does not receive them. The `Script`
    /// type of the Redis library would load the script on every node of a Cluster, and fail if one
    /// node is down. This function sends the text only to the node that runs the script.
    pub(in crate::store::redis) async fn invoke_in_mode<T: FromRedisValue + Send>(
        &self,
        mode: PublishMode,
        connection: &mut Connection,
    ) -> Invocation<T> {
        let cached: Arc<Script>;
        let script = match self.source {
            ScriptSource::Fixed(script) => script,
            ScriptSource::Step(step, counts) => {
                cached = script(step, counts, mode);
                &*cached
            }
        };
        let by_hash = self.command("EVALSHA", &script.hash);
        match by_hash.query_async(connection).await {
            Err(error) if error.kind() == ServerErrorKind::NoScript.into() => {
                let by_text = self.command("EVAL", &script.text);
                Invocation {
                    reply: by_text.query_async(connection).await,
                    sent_text: true,
                }
            }
            reply => Invocation {
                reply,
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

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;
    use crate::store::redis::freed_memory::{leaves_secret, secret};

    fn call() -> ScriptCall {
        let mut call = ScriptCall::for_step(Step::Commit);
        call.lease_key("lease").tombstone_key("tombstone");
        call.arg("owner")
            .arg(secret())
            .value_key("key")
            .arg(secret());
        call
    }

    fn addresses(call: &ScriptCall) -> Vec<*const u8> {
        let secrets = call
            .arguments
            .iter()
            .filter(|argument| argument.len() == secret().len());
        secrets.map(|argument| argument.as_ptr()).collect()
    }

    #[test]
    fn arguments_are_wiped() {
        let call = call();
        let addresses = addresses(&call);
        assert_eq!(addresses.len(), 2);
        assert!(!leaves_secret(call, &addresses));
    }

    #[test]
    fn arguments_of_a_batch_are_wiped() {
        let calls = [Arc::new(call()), Arc::new(call())];
        let batch = ScriptCall::batch(&calls);
        let of_batch = addresses(&batch);
        assert_eq!(of_batch.len(), 4);
        assert!(!leaves_secret(batch, &of_batch));
        let addresses: Vec<_> = calls.iter().flat_map(|call| addresses(call)).collect();
        assert!(!leaves_secret(calls, &addresses));
    }
}
