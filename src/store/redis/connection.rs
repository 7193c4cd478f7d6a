//! The one connection that all tasks share, and connections of their own for messages.

use std::time::Duration;

use redis::aio::{ConnectionLike, PubSub};
use redis::{
    Client, Cmd, ConnectionInfo, Pipeline, ProtocolVersion, RedisFuture, RedisResult, Value,
};

use super::single::Single;

/// How every task speaks with Redis. It comes back by itself when Redis does; clones share it.
#[derive(Clone)]
pub(super) struct Connection {
    link: Link,
    client: Client,
    timeout: Duration,
}

/// By topology.
#[derive(Clone)]
enum Link {
    /// One server.
    Single(Single),
}

impl Connection {
    /// Connects, and asks for a sign of life. Every answer is waited for at most `timeout`.
    pub(super) async fn open(
        info: ConnectionInfo,
        protocol: ProtocolVersion,
        timeout: Duration,
    ) -> RedisResult<Self> {
        // RESP3 lets the manager hear a disconnect at once: under RESP2 the next command fails.
        let settings = info.redis_settings().clone().set_protocol(protocol);
        let client = Client::open(info.set_redis_settings(settings))?;
        let single = Single::open(client.clone(), timeout).await?;
        let mut connection = Self {
            link: Link::Single(single),
            client,
            timeout,
        };
        redis::cmd("PING").exec_async(&mut connection).await?;
        Ok(connection)
    }

    /// A connection of its own that subscribes: to the server, to the present primary of a
    /// Sentinel group, or to a node of a Cluster, which hears what is published on any other.
    ///
    /// It ends when that server goes away or stops being the primary, and its stream of messages
    /// with it; whoever listens asks for another one then, and takes what it knew for outdated.
    pub(super) async fn subscriber(&self) -> RedisResult<PubSub> {
        let client = self.client.clone();
        tokio::time::timeout(self.timeout, client.get_async_pubsub())
            .await
            .unwrap_or_else(|_| {
                let late = std::io::Error::from(std::io::ErrorKind::TimedOut);
                Err(late.into())
            })
    }
}

impl Connection {
    /// Whether a subscriber hears all messages in the order in which they were published: those of
    /// one server. The nodes of a Cluster pass each other's on as well as they can.
    pub(super) fn keeps_order(&self) -> bool {
        match &self.link {
            Link::Single(_) => true,
        }
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match &mut self.link {
            Link::Single(single) => single.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        commands: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match &mut self.link {
            Link::Single(single) => single.req_packed_commands(commands, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        self.client.get_connection_info().redis_settings().db()
    }
}
