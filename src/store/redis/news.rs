//! News over Redis: each write is [published](super::publish) by the very script that makes it, and
//! heard on a connection that does nothing else.
//!
//! One channel for each account carries `KIND MARK ID` for each write (`-` instead of the mark for
//! a deletion). Every store that listens also publishes a proof of its own there now and then, on
//! the connection that it reads and writes through. Redis keeps the order of what it sends to one
//! listener, so a proof that is heard proves that everything published before it was heard too.

use std::collections::HashMap;
use std::fmt;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{Stream, StreamExt};
use redis::{Msg, RedisError};
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::RedisStore;
use super::connection::Connection;
use super::guard::describe;
use super::refusal::Refusal;
use super::start_up::refuses_us;
use crate::credential::AppId;
use crate::store::news::{News, PROVED_EVERY, Teller};
use crate::store::{Feed, Kind, LeaseOwner, Mark, Name, Told};

/// The rest before the channel is subscribed again, at first and at most.
const FIRST_REST: Duration = Duration::from_millis(50);
const LONGEST_REST: Duration = Duration::from_secs(2);

/// The rest after Redis has said no: only its operator can change that.
pub(super) const REST_AFTER_REFUSAL: Duration = Duration::from_secs(60);

/// A message that is longer than any of ours is not read.
const LONGEST_MESSAGE: usize = 1_024;

/// The channels that are heard, and the tasks that hear them: dropping this ends those.
#[derive(Default)]
pub(super) struct Channels(Mutex<HashMap<AppId, Channel>>);

#[derive(Default)]
struct Channel {
    teller: Teller,
    listening: Arc<AtomicBool>,
    task: Option<AbortHandle>,
}

impl Drop for Channels {
    fn drop(&mut self) {
        let channels = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        for task in channels
            .values()
            .filter_map(|channel| channel.task.as_ref())
        {
            task.abort();
        }
    }
}

impl RedisStore {
    /// Hears the channel of an account, from now on.
    pub(super) fn hear(&self, app: &AppId) -> Option<Feed> {
        let runtime = Handle::try_current().ok()?;
        let mut channels = self
            .0
            .channels
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let channel = channels.entry(app.clone()).or_default();
        // The runtime that ran the task may be gone.
        if channel.task.as_ref().is_none_or(AbortHandle::is_finished) {
            channel.listening.store(false, Ordering::Release);
            let hearing = Hearing {
                app: app.clone(),
                connection: self.0.connection.clone(),
                timeout: self.0.timeout,
                address: self.0.address.clone(),
                channel: self.0.names.news(app),
                teller: channel.teller.clone(),
                listening: Arc::clone(&channel.listening),
                proves: self.0.sole_writer,
                instance: LeaseOwner::unique(),
                told: AtomicBool::new(false),
                awaited: Mutex::default(),
            };
            channel.task = Some(runtime.spawn(hearing.run()).abort_handle());
        }
        // In this order: a channel that is opened between the two tells so.
        let receiver = channel.teller.listen();
        Some(Feed::from_outside(
            receiver,
            channel.listening.load(Ordering::Acquire),
        ))
    }
}

/// Hears one channel until it is aborted.
struct Hearing {
    app: AppId,
    connection: Connection,
    timeout: Duration,
    address: String,
    channel: String,
    teller: Teller,
    listening: Arc<AtomicBool>,
    /// Whether a proof means anything: only where nobody writes without telling.
    proves: bool,
    instance: LeaseOwner,
    /// Whether the operator knows what Redis refuses.
    told: AtomicBool,
    /// The proof that is on its way, and when it was sent.
    awaited: Mutex<Option<(u64, Instant)>>,
}

impl Hearing {
    async fn run(self) {
        let mut rest = FIRST_REST;
        loop {
            let began = Instant::now();
            // Before the subscription: a move that is on its way ends it.
            let mut moves = self.connection.moves();
            match self.subscribe().await {
                Ok(messages) => {
                    self.listening.store(true, Ordering::Release);
                    self.teller.tell(Told::Listening);
                    tokio::select! {
                        () = self.pass_on(messages) => {}
                        () = self.prove() => {}
                        // The old server passes on what the new one publishes, if it follows it.
                        () = self.connection.moved(&mut moves) => {}
                    }
                    self.listening.store(false, Ordering::Release);
                    tracing::debug!(target: "tower_wechat::store", app = %self.app, address = self.address, "the news channel is lost");
                }
                Err(error) if lasts(&error) => {
                    self.tell_operator(&error);
                    rest = REST_AFTER_REFUSAL;
                }
                Err(error) => {
                    let said = describe(&error);
                    tracing::debug!(target: "tower_wechat::store", app = %self.app, address = self.address, "no news channel: {said}");
                }
            }
            if began.elapsed() > LONGEST_REST * 4 {
                rest = FIRST_REST;
            }
            tokio::time::sleep(rest.mul_f64(0.75 + 0.5 * fastrand::f64())).await;
            rest = (rest * 2).min(LONGEST_REST);
        }
    }

    async fn subscribe(&self) -> Result<impl Stream<Item = Msg> + use<>, RedisError> {
        let late = || RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut));
        let mut subscriber = self.connection.subscriber().await?;
        let subscribed = subscriber.subscribe(&self.channel);
        let subscribed = tokio::time::timeout(self.timeout, subscribed).await;
        subscribed.unwrap_or_else(|_| Err(late()))?;
        Ok(subscriber.into_on_message())
    }

    /// One line for what only the operator can change.
    fn tell_operator(&self, error: &RedisError) {
        if self.told.swap(true, Ordering::Relaxed) {
            return;
        }
        let (address, channel, said) = (&self.address, &self.channel, describe(error));
        let cure = match Refusal::of(error) {
            Some(Refusal::Rights) => {
                format!("let this user run +subscribe +publish on &{channel}")
            }
            _ => "a server or proxy without channels cannot do better".to_owned(),
        };
        tracing::warn!(
            target: "tower_wechat::store", address,
            "Redis does not let us use the channel {channel} ({said}): what one process \
             changes, others see only when they read it again, at the latest after cache_ttl; {cure}"
        );
    }

    /// Passes on what is published, until the connection ends.
    async fn pass_on(&self, messages: impl Stream<Item = Msg>) {
        let mut messages = pin!(messages);
        while let Some(message) = messages.next().await {
            match Message::read(message.get_payload_bytes()) {
                Some(Message::Written { kind, mark, id }) => {
                    let (app, id) = (self.app.clone(), id.into());
                    let name = Name { app, kind, id };
                    self.teller
                        .tell(Told::Written(Arc::new(News { name, mark })));
                }
                Some(Message::Proof { instance, number }) if instance == self.instance.as_str() => {
                    let mut awaited = self.awaited();
                    if let Some((_, sent)) = awaited.take_if(|(sent, _)| *sent == number)
                        && self.proves
                    {
                        self.teller.tell(Told::Complete(sent));
                    }
                }
                Some(Message::Proof { .. }) => {}
                None => {
                    tracing::debug!(target: "tower_wechat::store", app = %self.app, "a message on the news channel is none of ours");
                }
            }
        }
    }

    /// Sends proofs, until one does not come back: the subscription is then as good as dead.
    async fn prove(&self) {
        let mut connection = self.connection.clone();
        for number in 0_u64.. {
            *self.awaited() = Some((number, Instant::now()));
            let mut publish = redis::cmd("PUBLISH");
            publish
                .arg(&self.channel)
                .arg(proof(&self.instance, number));
            let published = publish.exec_async(&mut connection);
            let published = tokio::time::timeout(self.timeout, published).await;
            if let Ok(Err(error)) = &published
                && lasts(error)
            {
                // What others publish can be heard all the same.
                self.tell_operator(error);
                tokio::time::sleep(REST_AFTER_REFUSAL).await;
                continue;
            }
            tokio::time::sleep(PROVED_EVERY).await;
            // Where it could not be sent, Redis is away, or busy: the next one will tell.
            if matches!(published, Ok(Ok(()))) && self.awaited().is_some() {
                return;
            }
        }
    }

    fn awaited(&self) -> MutexGuard<'_, Option<(u64, Instant)>> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether Redis has said no, and will say so until somebody changes something. A password that is
/// asked for concerns every command, not the channel: it is tried again as soon as Redis serves.
pub(super) fn lasts(error: &RedisError) -> bool {
    let of_channel = |refusal: Refusal| !refusal.passes() && !refuses_us(error);
    Refusal::of(error).is_some_and(of_channel)
}

impl fmt::Debug for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Channels")
    }
}

/// What goes over a channel.
#[derive(Debug, PartialEq, Eq)]
enum Message<'a> {
    Written {
        kind: Kind,
        mark: Option<Mark>,
        id: &'a str,
    },
    Proof {
        instance: &'a str,
        number: u64,
    },
}

const PROOF: &str = "proof";

impl<'a> Message<'a> {
    fn read(payload: &'a [u8]) -> Option<Self> {
        if payload.len() > LONGEST_MESSAGE {
            return None;
        }
        let (kind, rest) = std::str::from_utf8(payload).ok()?.split_once(' ')?;
        let (second, third) = rest.split_once(' ')?;
        if kind == PROOF {
            return Some(Self::Proof {
                instance: second,
                number: third.parse().ok()?,
            });
        }
        Some(Self::Written {
            kind: Kind::ALL.into_iter().find(|known| known.as_str() == kind)?,
            mark: match second {
                "-" => None,
                mark => Some(mark.parse().ok()?),
            },
            id: third,
        })
    }
}

fn proof(instance: &LeaseOwner, number: u64) -> String {
    format!("{PROOF} {} {number}", instance.as_str())
}

/// What the scripts publish of a write.
pub(super) fn written(name: &Name, mark: Option<Mark>) -> String {
    let mark = mark.map_or_else(|| "-".into(), |mark| mark.to_string());
    format!("{} {mark} {}", name.kind.as_str(), name.id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(at in 0..Kind::ALL.len(), mark: Option<u64>, id in "\\PC{0,64}") {
            let kind = Kind::ALL[at];
            let mark = mark.map(|mark| format!("{mark:016x}").parse::<Mark>().unwrap());
            let name = Name { app: AppId::new("wx1").unwrap(), kind, id: id.as_str().into() };
            let text = written(&name, mark);
            prop_assert_eq!(Message::read(text.as_bytes()), Some(Message::Written { kind, mark, id: &id }));
        }

        #[test]
        fn nothing_makes_the_reader_panic(bytes: Vec<u8>) {
            let _ = Message::read(&bytes);
        }

        #[test]
        fn nothing_like_a_message_makes_the_reader_panic(
            text in "(user|snapshot_user|access_token|proof|x)? ?(-|[0-9a-f+-]{0,20}|\\PC{0,8}) ?\\PC{0,16}",
        ) {
            let _ = Message::read(text.as_bytes());
        }
    }

    #[test]
    fn only_whole_messages_count() {
        fn read(text: &str) -> Option<Message<'_>> {
            Message::read(text.as_bytes())
        }
        assert!(read("user 00000000000000ff oA").is_some());
        assert!(read("user - two words").is_some());
        for text in [
            "",
            "user",
            "user oA",
            "user ff oA",
            "user 00000000000000fg oA",
            "user +0000000000000ff oA",
            "users - oA",
            "proof x -1",
            "proof x",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(
            read(&format!("user - {}", "a".repeat(LONGEST_MESSAGE))),
            None
        );
        let owner = LeaseOwner::unique();
        let (instance, number) = (owner.as_str(), 7);
        assert_eq!(
            read(&proof(&owner, 7)),
            Some(Message::Proof { instance, number })
        );
    }
}
