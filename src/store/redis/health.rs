//! Health checks: test commands that show whether this process can read and write credentials.

use std::time::Duration;

use futures_util::future::try_join_all;
use redis::{Cmd, Value};

use super::locations::RedisKey;
use super::scripts;
use super::store::RedisStore;
use crate::clock::duration_millis;
use crate::credential::AppId;
use crate::error::Error;
use crate::store::{CredentialKey, CredentialKind};

/// TTL of the key that a health check writes: one minute. Redis then removes the key if the script
/// fails before the deletion of the key.
const KEY_TTL: Duration = Duration::from_secs(60);

/// The message for operators if a server rejects the script of a health check with an unknown
/// error. Servers report missing permissions inside a script in different words.
const SCRIPT_REJECTED: &str = "Redis refuses a script of ours: this user lacks the right to a command in it, \
                       or the server has rules for scripts";

/// The hashes that a store reads, and the hashes that it writes, for credentials of one kind.
struct Hashes {
    read: Vec<String>,
    written: Vec<String>,
}

impl RedisStore {
    /// Returns the hashes that this store reads and writes for credentials of a kind.
    /// [`Layout::Keys`] has no hashes of users, because each record has its own key there.
    ///
    /// [`Layout::Keys`]: super::Layout::Keys
    fn hashes(&self, app: &AppId, kind: CredentialKind) -> Hashes {
        let inner = &*self.0;
        if kind == CredentialKind::ComponentToken {
            // A platform also keeps its accounts in a hash.
            let accounts = vec![inner.names.platform_key(app.as_str(), "accounts")];
            return Hashes {
                read: accounts.clone(),
                written: accounts,
            };
        }
        let (app, id) = (app.clone(), inner.names.health_key().into());
        let credential = CredentialKey { app, kind, id };
        let locations = inner
            .names
            .locations(inner.layout, inner.dual_write, &credential);
        let hashes = |keys: &[RedisKey<'_>]| -> Vec<String> {
            let hashes = keys.iter().filter(|key| key.field.is_some());
            hashes.map(|key| key.key.to_string()).collect()
        };
        Hashes {
            read: hashes(&locations.read.keys),
            written: locations
                .with_targets()
                .flat_map(|(location, _)| hashes(&location.keys))
                .collect(),
        }
    }

    /// Checks that this process can read and write credentials of a kind. The result may be one
    /// second old.
    ///
    /// A read does not find a full memory, a disk error, too few replicas, a primary that has
    /// become a replica, or a missing permission. The check therefore also runs a script that
    /// writes. The check also accesses each hash by name, because the key may have another type, or
    /// the ACL user may lack access to the key.
    pub(super) async fn check_writing(
        &self,
        app: &AppId,
        kind: CredentialKind,
    ) -> Result<(), Error> {
        let hashes = self.hashes(app, kind);
        if let Some(result) = self.0.health_cache.get(&hashes.written) {
            return result;
        }
        let key = self.0.names.health_key();
        let get = Cmd::get(&key);
        let fields = |command: &str, hashes: &[String]| -> Vec<Cmd> {
            let one = |hash| redis::cmd(command).arg(hash).arg(&key).to_owned();
            hashes.iter().map(one).collect()
        };
        let (reads, writes) = (
            fields("HGET", &hashes.read),
            fields("HDEL", &hashes.written),
        );
        let (read, reads, writes, script) = tokio::join!(
            self.command::<Value>(&get),
            try_join_all(reads.iter().map(|read| self.command::<Value>(read))),
            try_join_all(writes.iter().map(|write| self.command::<Value>(write))),
            self.check_script(&key, !hashes.written.is_empty()),
        );
        let result = match (read, reads, script, writes) {
            // This error is not cached, unlike the results below: while Redis is down, the circuit
            // breaker limits the number of commands.
            (Err(error), ..) => return Err(error),
            (Ok(_), Err(error), ..) => Err(error),
            (_, _, Err(error), _) | (_, _, _, Err(error)) => Err(error.with_reads_served()),
            (Ok(_), Ok(_), Ok(()), Ok(_)) => Ok(()),
        };
        self.0.health_cache.insert(hashes.written, &result);
        result
    }

    /// Runs a script with every command that logins and renewals use, on the key of health checks.
    async fn check_script(&self, key: &str, uses_hashes: bool) -> Result<(), Error> {
        let mut call = scripts::CHECK.key(key);
        call.arg(duration_millis(KEY_TTL))
            .arg(i32::from(uses_hashes));
        let result = self.run_script::<Value>(&call).await;
        result
            .map(drop)
            .map_err(|error| error.with_reason_if_none(SCRIPT_REJECTED))
    }

    /// Checks that this process can read, for tokens of another system. The ACL user may lack the
    /// permission to read this crate's keys. The error `NOPERM` counts as success, because it shows
    /// that Redis replies.
    pub(super) async fn check_reading(&self) -> Result<(), Error> {
        let key = self.0.names.health_key();
        let reading = async {
            let mut connection = self.0.connection.clone();
            match Cmd::get(&key).exec_async(&mut connection).await {
                Err(error) if error.code() == Some("NOPERM") => Ok(()),
                result => result,
            }
        };
        self.run_command(key.as_bytes(), reading).await
    }
}
