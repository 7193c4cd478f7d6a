//! News of writes: published by the very script that writes, or by the store where scripts may not.
//!
//! Some servers refuse `PUBLISH` inside scripts, and some managed Clusters refuse a whole text that
//! holds it. The write then comes first and its news right behind it, in a command of its own. A
//! process that ends between the two leaves others to find out after `cache_ttl`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use redis::RedisError;
use tokio::time::Instant;

use super::guard::describe;
use super::news::{REST_AFTER_REFUSAL, lasts};
use super::refusal::Refusal;
use super::scripts::{Call, Invoked, Voice};
use super::{Answer, RedisStore};
use crate::error::Error;

/// What is said of a write, and where.
pub(super) struct Tidings {
    pub(super) channel: String,
    pub(super) news: String,
}

/// Who publishes at present.
#[derive(Default)]
pub(super) struct Publishing {
    /// Whether the server refuses the text of scripts that publish.
    apart: AtomicBool,
    /// Whether the operator knows that scripts may not publish.
    told: AtomicBool,
    /// Until when the store does not try either, because the server has refused it.
    rests_until: Mutex<Option<Instant>>,
}

impl Publishing {
    fn voice(&self) -> Voice {
        match self.apart.load(Ordering::Relaxed) {
            true => Voice::Apart,
            false => Voice::InScript,
        }
    }

    fn rests(&self) -> bool {
        let until = self.rests_until.lock();
        let until = until.unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    fn rest(&self) {
        let until = Instant::now() + REST_AFTER_REFUSAL;
        *self
            .rests_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(until);
    }
}

impl RedisStore {
    /// Runs a step that writes, and publishes its news where the script did not. What becomes of the
    /// news does not change the answer.
    pub(super) async fn write(
        &self,
        mut call: Call,
        tidings: Option<Tidings>,
    ) -> Result<Answer, Error> {
        match &tidings {
            Some(Tidings { channel, news }) => call.arg(channel).arg(news),
            None => call.arg("").arg(""),
        };
        let answer = self.run(call.first_key(), self.invoke(&call)).await?;
        Ok(match answer {
            Answer(3, values) => {
                if let Some(tidings) = &tidings {
                    // In a box, since it is rare.
                    Box::pin(self.publish(tidings)).await;
                }
                Answer(1, values)
            }
            answer => answer,
        })
    }

    async fn invoke(&self, call: &Call) -> Result<Answer, RedisError> {
        let publishing = &self.0.publishing;
        let mut connection = self.0.connection.clone();
        let voice = publishing.voice();
        let Invoked { answer, by_text } = call.invoke_as(voice, &mut connection).await;
        // Where a server has looked at the text and refused it, nothing of it was run.
        let refused = |error: &RedisError| Refusal::of(error) == Some(Refusal::Command);
        if !(by_text && voice == Voice::InScript && answer.as_ref().is_err_and(refused)) {
            return answer;
        }
        let again = call.invoke_as::<Answer>(Voice::Apart, &mut connection);
        let again = Box::pin(again).await.answer?;
        publishing.apart.store(true, Ordering::Relaxed);
        Ok(again)
    }

    /// Publishes by a command of its own.
    async fn publish(&self, tidings: &Tidings) {
        let publishing = &self.0.publishing;
        if publishing.rests() {
            return;
        }
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(&tidings.channel).arg(&tidings.news);
        let mut connection = self.0.connection.clone();
        let published = publish.exec_async(&mut connection);
        let address = &self.0.address;
        match tokio::time::timeout(self.0.timeout, published).await {
            Ok(Ok(())) => self.tell_that_it_publishes(),
            Ok(Err(error)) => {
                // Who listens on this channel tells the operator what is refused.
                if lasts(&error) {
                    publishing.rest();
                }
                untold(address, &describe(&error));
            }
            Err(_) => untold(address, "no answer in time"),
        }
    }

    /// One line on what the server lacks.
    fn tell_that_it_publishes(&self) {
        if self.0.publishing.told.swap(true, Ordering::Relaxed) {
            return;
        }
        let address = &self.0.address;
        if self.0.sole_writer {
            tracing::warn!(
                target: "tower_wechat::store",
                address,
                "Redis refused PUBLISH in a script; news follows each write as a command. Leave \
                 sole_writer out: a process that ends between the two leaves others stale"
            );
        } else {
            tracing::info!(
                target: "tower_wechat::store",
                address,
                "Redis refused PUBLISH in a script; news follows each write as a command"
            );
        }
    }
}

fn untold(address: &str, why: &str) {
    tracing::debug!(target: "tower_wechat::store", address, "the news of a write was not published: {why}");
}
