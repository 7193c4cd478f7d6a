//! The one connection that all tasks share, and connections of their own for messages.

use std::time::Duration;

use redis::aio::{ConnectionLike, PubSub};
use redis::{Cmd, FromRedisValue, Pipeline, RedisError, RedisFuture, RedisResult, Value};
use tokio::sync::watch;

use super::address::{Address, Certificates, Dialer, Topology};
#[cfg(feature = "cluster")]
use super::cluster::Nodes;
use super::primary::{OpenError, Primary};
use super::refusal::Refusal;
use super::sentinel::Sentinels;
use super::single::Single;
use super::start_up::{check_mode, primary_error, start_up_error, with_unresolved};
use crate::error::{Error, ErrorKind};

/// A node of a Cluster usually has neighbouring slots; so many ranges of them are told apart.
const PARTS: usize = 64;

/// How every task speaks with Redis. It comes back by itself when Redis does; clones share it.
#[derive(Clone)]
pub(super) struct Connection {
    link: Link,
    timeout: Duration,
    database: i64,
}

/// By topology.
#[derive(Clone)]
enum Link {
    /// One server.
    Single(Single),
    /// The primary among several, as Sentinels name it.
    Sentinel(Primary),
    #[cfg(feature = "cluster")]
    Cluster(Nodes),
}

/// What a connection is made from.
pub(super) struct Target<'a> {
    pub(super) address: &'a Address,
    pub(super) certificates: &'a Certificates,
    /// User and password at the Sentinels.
    pub(super) sentinel_user: Option<&'a (String, zeroize::Zeroizing<String>)>,
    /// How long an answer is waited for.
    pub(super) timeout: Duration,
    /// A key of ours, to see whether reading is allowed.
    pub(super) key: &'a str,
}

impl Target<'_> {
    fn dialer(&self) -> Result<Dialer, Error> {
        Ok(Dialer {
            settings: self.address.settings.clone(),
            certificates: self.certificates.read(self.address.tls)?,
            timeout: self.timeout,
        })
    }

    /// Connects, and asks for a sign of life.
    pub(super) async fn connect(&self) -> Result<Connection, Error> {
        match self.open().await {
            Err(error) if error.kind() == ErrorKind::StoreUnavailable => {
                Err(with_unresolved(error, self.address.hosts()).await)
            }
            outcome => outcome,
        }
    }

    async fn open(&self) -> Result<Connection, Error> {
        let address = self.address;
        let dialer = self.dialer()?;
        let shown = address.shown();
        let refused = |error: RedisError| start_up_error(&shown, &error);
        let link = match &address.topology {
            Topology::Single(at) => {
                let single = Single::open(at.clone(), dialer).await;
                Link::Single(single.map_err(refused)?)
            }
            Topology::Sentinel { group, sentinels } => {
                let mut of_sentinels = Dialer {
                    settings: redis::RedisConnectionInfo::default(),
                    ..dialer.clone()
                }
                .speaking(dialer.settings.protocol());
                if let Some((user, password)) = self.sentinel_user {
                    let settings = of_sentinels.settings.set_password(password.as_str());
                    of_sentinels.settings = if user.is_empty() {
                        settings
                    } else {
                        settings.set_username(user)
                    };
                }
                let sentinels =
                    Sentinels::new(group.clone(), sentinels, &of_sentinels, address.tls);
                let primary = Primary::open(sentinels, dialer).await;
                Link::Sentinel(primary.map_err(|error| match error {
                    OpenError::Sentinels(error) => error,
                    OpenError::Server(named, error) => primary_error(&named, &error),
                })?)
            }
            #[cfg(feature = "cluster")]
            Topology::Cluster(nodes) => {
                let dialer = super::seeds::probe(&dialer, nodes).await?;
                let nodes = Nodes::open(nodes.clone(), dialer, address.tls).await;
                Link::Cluster(nodes.map_err(refused)?)
            }
            #[cfg(not(feature = "cluster"))]
            Topology::Cluster(_) => {
                return Err(super::start_up::misconfigured(
                    "redis+cluster:// needs the feature `cluster` of tower-wechat, and this \
                     program was built without it",
                ));
            }
        };
        let mut connection = Connection {
            link,
            timeout: self.timeout,
            database: address.settings.db(),
        };
        match connection.ping(self.key).await {
            // It serves reads, and health says that nobody can log in.
            Err(error) if Refusal::of(&error) == Some(Refusal::WritesRefused) => {}
            alive => alive.map_err(refused)?,
        }
        if matches!(&connection.link, Link::Single(single) if single.knows_hello()) {
            check_mode(&mut connection, &shown).await?;
        }
        Ok(connection)
    }
}

/// A value that may be missing.
fn one_value(answer: Value) -> RedisResult<Option<Vec<u8>>> {
    match answer {
        Value::BulkString(bytes) => Ok(Some(bytes)),
        Value::Nil => Ok(None),
        other => Ok(redis::from_redis_value(other.extract_error()?)?),
    }
}

impl Connection {
    /// A connection of its own that subscribes: to the server, to the present primary of a
    /// Sentinel group, or to a node of a Cluster, which hears what is published on any other.
    ///
    /// It ends when that server goes away or stops being the primary, and its stream of messages
    /// with it; whoever listens asks for another one then, and takes what it knew for outdated.
    pub(super) async fn subscriber(&self) -> RedisResult<PubSub> {
        let connecting = async {
            match &self.link {
                Link::Single(single) => single.client()?.get_async_pubsub().await,
                Link::Sentinel(primary) => primary.client().await?.get_async_pubsub().await,
                #[cfg(feature = "cluster")]
                Link::Cluster(nodes) => nodes.client().await?.get_async_pubsub().await,
            }
        };
        tokio::time::timeout(self.timeout, connecting)
            .await
            .unwrap_or_else(|_| {
                let late = std::io::Error::from(std::io::ErrorKind::TimedOut);
                Err(late.into())
            })
    }

    /// Returns when commands go to another server than before, whose messages a subscriber of the
    /// old one may miss. It may never return: the other topologies end such subscriptions.
    pub(super) async fn moved(&self, moves: &mut Option<watch::Receiver<u64>>) {
        if let Some(moves) = moves
            && moves.changed().await.is_ok()
        {
            return;
        }
        std::future::pending::<()>().await;
    }

    /// What [`moved`](Self::moved) waits on, from this moment.
    pub(super) fn moves(&self) -> Option<watch::Receiver<u64>> {
        match &self.link {
            Link::Single(single) => Some(single.moves()),
            Link::Sentinel(_) => None,
            #[cfg(feature = "cluster")]
            Link::Cluster(_) => None,
        }
    }

    /// An answer did not come in time: another server may have taken over.
    pub(super) fn suspect(&self) {
        match &self.link {
            Link::Single(_) => {}
            Link::Sentinel(primary) => primary.suspect(),
            #[cfg(feature = "cluster")]
            Link::Cluster(nodes) => nodes.suspect(),
        }
    }

    /// Whether keys lie on several servers.
    pub(super) fn is_cluster(&self) -> bool {
        match &self.link {
            Link::Single(_) | Link::Sentinel(_) => false,
            #[cfg(feature = "cluster")]
            Link::Cluster(_) => true,
        }
    }

    /// In how many parts the keys may fail one without the others.
    pub(super) fn parts(&self) -> usize {
        if self.is_cluster() { PARTS } else { 1 }
    }

    /// The part that a key belongs to.
    #[cfg_attr(not(feature = "cluster"), allow(unused_variables))]
    pub(super) fn part(&self, key: &[u8]) -> usize {
        match &self.link {
            Link::Single(_) | Link::Sentinel(_) => 0,
            #[cfg(feature = "cluster")]
            Link::Cluster(_) => super::cluster::part(key, PARTS),
        }
    }

    /// Asks for a sign of life.
    pub(super) async fn ping(&mut self, key: &str) -> RedisResult<()> {
        if self.is_cluster() {
            // To ping all nodes would take one that is down for all.
            return Cmd::get(key).exec_async(self).await;
        }
        let answer: Value = redis::cmd("PING").query_async(self).await?;
        match &answer {
            Value::SimpleString(pong) if pong == "PONG" => Ok(()),
            Value::BulkString(pong) if pong == b"PONG" => Ok(()),
            _ => Err((redis::ErrorKind::UnexpectedReturnType, "no answer to PING").into()),
        }
    }

    /// What a command reads that finds one value or none.
    pub(super) async fn value(&self, command: &Cmd) -> RedisResult<Option<Vec<u8>>> {
        let answer = match &self.link {
            // Without a box of its own: this is what every look into the store takes.
            Link::Single(single) => single.command(command).await,
            Link::Sentinel(primary) => Box::pin(primary.command(command)).await,
            #[cfg(feature = "cluster")]
            Link::Cluster(nodes) => Box::pin(nodes.command(command)).await,
        };
        one_value(answer?)
    }

    /// The same of two commands, in one round trip where that is possible.
    pub(super) async fn two_values(
        &self,
        [one, two]: [Cmd; 2],
    ) -> RedisResult<[Option<Vec<u8>>; 2]> {
        if self.is_cluster() {
            let both = Box::pin(async { tokio::try_join!(self.value(&one), self.value(&two)) });
            return both.await.map(|(one, two)| [one, two]);
        }
        let mut together = Pipeline::with_capacity(2);
        together.add_command(one).add_command(two);
        let answers = match &self.link {
            Link::Single(single) => single.commands(&together, 0, 2).await,
            Link::Sentinel(primary) => Box::pin(primary.commands(&together, 0, 2)).await,
            #[cfg(feature = "cluster")]
            Link::Cluster(nodes) => Box::pin(nodes.commands(&together, 0, 2)).await,
        };
        let mut answers = answers?.into_iter();
        let mut next = || one_value(answers.next().unwrap_or(Value::Nil));
        Ok([next()?, next()?])
    }

    /// Reads several things in one round trip; on a Cluster one after another, so that each finds its
    /// node while slots move.
    pub(super) async fn read_all<T: FromRedisValue + Send + Sync>(
        &self,
        reads: &[Cmd],
    ) -> RedisResult<Vec<T>> {
        let mut connection = self.clone();
        if self.is_cluster() {
            let mut all = Vec::with_capacity(reads.len());
            for read in reads {
                all.push(read.query_async(&mut connection).await?);
            }
            return Ok(all);
        }
        let mut together = redis::pipe();
        for read in reads {
            together.add_command(read.clone());
        }
        together.query_async(&mut connection).await
    }
}

/// For going through all keys.
#[cfg(feature = "cli")]
impl Connection {
    /// The primaries over which the keys are spread; none where one server has them all.
    pub(super) async fn primaries(
        &self,
    ) -> RedisResult<std::collections::BTreeMap<String, String>> {
        match &self.link {
            Link::Single(_) | Link::Sentinel(_) => Ok(Default::default()),
            Link::Cluster(nodes) => nodes.primaries().await,
        }
    }

    /// A command for one of these, or for the one server that there is.
    pub(super) async fn command_at(
        &self,
        primary: Option<&str>,
        command: &Cmd,
    ) -> RedisResult<Value> {
        match (&self.link, primary) {
            (Link::Cluster(nodes), Some(primary)) => {
                nodes.command_at(primary, command.clone()).await
            }
            _ => self.clone().req_packed_command(command).await,
        }
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match &mut self.link {
            Link::Single(single) => Box::pin(single.command(command)),
            Link::Sentinel(primary) => Box::pin(primary.command(command)),
            #[cfg(feature = "cluster")]
            Link::Cluster(nodes) => Box::pin(nodes.command(command)),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        commands: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match &mut self.link {
            Link::Single(single) => Box::pin(single.commands(commands, offset, count)),
            Link::Sentinel(primary) => Box::pin(primary.commands(commands, offset, count)),
            #[cfg(feature = "cluster")]
            Link::Cluster(nodes) => Box::pin(nodes.commands(commands, offset, count)),
        }
    }

    fn get_db(&self) -> i64 {
        self.database
    }
}
