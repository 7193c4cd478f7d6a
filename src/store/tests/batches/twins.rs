//! Two servers with the same content, whose final content and messages are compared.

use std::collections::BTreeMap;

use ::redis::{Commands, Value};

use super::*;

/// Maximum difference between the TTLs of a key on both servers: ten seconds.
const TTL_TOLERANCE: i64 = 10_000;

/// A key of a server: its value, and its TTL in milliseconds.
#[derive(Debug)]
struct Stored {
    value: String,
    ttl: i64,
}

/// Two servers with the same content. A test runs its steps at the same time on the first one, and
/// one after another on the second one.
pub(super) struct Twins {
    pub(super) together: RedisServer,
    pub(super) alone: RedisServer,
}

/// A subscriber of all channels of a server.
pub(super) struct Subscriber {
    connection: Connection,
    operator: Connection,
}

impl Twins {
    pub(super) fn start() -> Self {
        Self {
            together: RedisServer::start(),
            alone: RedisServer::start(),
        }
    }

    fn both(&self) -> [&RedisServer; 2] {
        [&self.together, &self.alone]
    }

    pub(super) fn clear(&self) {
        for server in self.both() {
            let _: () = operate(&mut server.connection(), &["FLUSHALL"]);
        }
    }

    /// Copies all keys of the first server to the second one.
    pub(super) fn copy(&self) {
        let (mut from, mut to) = (self.together.connection(), self.alone.connection());
        for key in from.keys::<_, Vec<String>>("*").unwrap() {
            let dump: Vec<u8> = ::redis::cmd("DUMP").arg(&key).query(&mut from).unwrap();
            let ttl: i64 = from.pttl(&key).unwrap();
            let mut restore = ::redis::cmd("RESTORE");
            let restore = restore.arg(&key).arg(ttl.max(0)).arg(dump).arg("REPLACE");
            let _: () = restore.query(&mut to).unwrap();
        }
    }

    /// Creates the same Redis user on both servers. Returns the URLs for this user.
    pub(super) fn create_users(&self, rights: &[&str]) -> [String; 2] {
        self.both().map(|server| create_user(server, rights))
    }

    pub(super) fn urls(&self) -> [String; 2] {
        self.both().map(RedisServer::url)
    }

    /// Returns the differences between both servers. `equal` compares two values of the same key.
    pub(super) fn differences(&self, equal: impl Fn(&str, &str, &str) -> bool) -> Vec<String> {
        let [mut first, second] = self.both().map(contents);
        let mut differences = Vec::new();
        for (key, alone) in second {
            let together = first.remove(&key);
            let same = together.as_ref().is_some_and(|together| {
                equal(&key, &together.value, &alone.value)
                    && (together.ttl < 0) == (alone.ttl < 0)
                    && (together.ttl - alone.ttl).abs() <= TTL_TOLERANCE
            });
            if !same {
                differences.push(format!("{key}: {together:?} together, {alone:?} alone"));
            }
        }
        let only = first
            .iter()
            .map(|(key, stored)| format!("{key}: {stored:?} together, only"));
        differences.extend(only);
        differences
    }

    pub(super) fn subscribe(&self) -> [Subscriber; 2] {
        self.both().map(Subscriber::new)
    }
}

impl Subscriber {
    pub(super) fn new(server: &RedisServer) -> Self {
        let mut connection = server.connection();
        let _: Value = operate(&mut connection, &["PSUBSCRIBE", "*"]);
        Self {
            connection,
            operator: server.connection(),
        }
    }

    /// Returns all messages so far, in alphabetical order. `publish` is the server's name of
    /// `PUBLISH`.
    pub(super) fn messages(&mut self, publish: &str) -> Vec<String> {
        let _: () = operate(&mut self.operator, &[publish, "the end", ""]);
        let mut messages = Vec::new();
        loop {
            // A message has four parts: its kind, the pattern, the channel and the text.
            let message = self.connection.recv_response().unwrap();
            let [_, _, channel, text]: [String; 4] = ::redis::from_redis_value(message).unwrap();
            if channel == "the end" {
                messages.sort();
                return messages;
            }
            messages.push(format!("{channel}: {text}"));
        }
    }
}

fn contents(server: &RedisServer) -> BTreeMap<String, Stored> {
    let mut connection = server.connection();
    let keys: Vec<String> = connection.keys("*").unwrap();
    let mut contents = BTreeMap::new();
    for key in keys {
        let ttl: i64 = connection.pttl(&key).unwrap();
        let kind: String = operate(&mut connection, &["TYPE", &key]);
        let mut put = |key: String, value: Vec<u8>| {
            let value = value.escape_ascii().to_string();
            contents.insert(key, Stored { value, ttl });
        };
        match kind.as_str() {
            "hash" => {
                let fields: BTreeMap<String, Vec<u8>> = connection.hgetall(&key).unwrap();
                for (field, value) in fields {
                    put(format!("{key} {field}"), value);
                }
            }
            "list" => {
                let list: Vec<Vec<u8>> = connection.lrange(&key, 0, -1).unwrap();
                put(key, list.concat());
            }
            _ => put(key.clone(), connection.get(&key).unwrap()),
        }
    }
    contents
}
