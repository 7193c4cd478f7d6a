//! News of writes: published by the very script that writes, or by the store where scripts may not.
//!
//! Some servers refuse `PUBLISH` inside scripts, and some managed Clusters refuse a whole text that
//! holds it. The write then comes first and its news right behind it, in a command of its own. A
//! process that ends between the two leaves others to find out after `cache_ttl`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use redis::RedisError;
use tokio::time::Instant;

use super::invalidation::REJECTED_RETRY_DELAY;
use super::scripts::{Invocation, PublishMode, ScriptCall};
use super::store::RedisStore;
use super::write::ScriptReply;
use crate::error::Error;
use crate::store::redis::connection::errors::{ErrorClass, describe_error, is_permanent};

/// What is said of a write, and where.
pub(super) struct OutgoingInvalidation {
    pub(super) channel: String,
    pub(super) message: String,
}

/// Who publishes at present.
#[derive(Default)]
pub(super) struct PublishState {
    /// Whether the server refuses the text of scripts that publish.
    must_publish_separately: AtomicBool,
    /// Whether the operator knows that scripts may not publish.
    separate_publishing_logged: AtomicBool,
    /// Until when the store does not try either, because the server has refused it.
    paused_until: Mutex<Option<Instant>>,
}

impl PublishState {
    fn mode(&self) -> PublishMode {
        match self.must_publish_separately.load(Ordering::Relaxed) {
            true => PublishMode::Separately,
            false => PublishMode::InScript,
        }
    }

    fn is_paused(&self) -> bool {
        let until = self.paused_until.lock();
        let until = until.unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    fn pause(&self) {
        let until = Instant::now() + REJECTED_RETRY_DELAY;
        *self
            .paused_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(until);
    }
}

impl RedisStore {
    /// Runs a step that writes, and publishes its news where the script did not. What becomes of the
    /// news does not change the answer.
    pub(super) async fn run_write(
        &self,
        mut call: ScriptCall,
        invalidation: Option<OutgoingInvalidation>,
    ) -> Result<ScriptReply, Error> {
        match &invalidation {
            Some(OutgoingInvalidation {
                channel,
                message: news,
            }) => call.arg(channel).arg(news),
            None => call.arg("").arg(""),
        };
        let answer = self
            .run_command(call.first_key(), self.invoke_with_fallback(&call))
            .await?;
        Ok(match answer {
            ScriptReply(3, values) => {
                if let Some(tidings) = &invalidation {
                    // In a box, since it is rare.
                    Box::pin(self.publish(tidings)).await;
                }
                ScriptReply(1, values)
            }
            answer => answer,
        })
    }

    async fn invoke_with_fallback(&self, call: &ScriptCall) -> Result<ScriptReply, RedisError> {
        let publishing = &self.0.publish_state;
        let mut connection = self.0.connection.clone();
        let voice = publishing.mode();
        let Invocation {
            reply: answer,
            sent_text: by_text,
        } = call.invoke_in_mode(voice, &mut connection).await;
        // Where a server has looked at the text and refused it, nothing of it was run.
        let refused = |error: &RedisError| ErrorClass::classify(error) == Some(ErrorClass::Other);
        if !(by_text && voice == PublishMode::InScript && answer.as_ref().is_err_and(refused)) {
            return answer;
        }
        let again = call.invoke_in_mode::<ScriptReply>(PublishMode::Separately, &mut connection);
        let again = Box::pin(again).await.reply?;
        publishing
            .must_publish_separately
            .store(true, Ordering::Relaxed);
        Ok(again)
    }

    /// Publishes by a command of its own.
    async fn publish(&self, invalidation: &OutgoingInvalidation) {
        let publishing = &self.0.publish_state;
        if publishing.is_paused() {
            return;
        }
        let mut publish = redis::cmd("PUBLISH");
        publish
            .arg(&invalidation.channel)
            .arg(&invalidation.message);
        let mut connection = self.0.connection.clone();
        let published = publish.exec_async(&mut connection);
        let address = &self.0.address;
        match tokio::time::timeout(self.0.command_timeout, published).await {
            Ok(Ok(())) => self.log_separate_publishing(),
            Ok(Err(error)) => {
                // Who listens on this channel tells the operator what is refused.
                if is_permanent(&error) {
                    publishing.pause();
                }
                log_unpublished(address, &describe_error(&error));
            }
            Err(_) => log_unpublished(address, "no answer in time"),
        }
    }

    /// One line on what the server lacks.
    fn log_separate_publishing(&self) {
        if self
            .0
            .publish_state
            .separate_publishing_logged
            .swap(true, Ordering::Relaxed)
        {
            return;
        }
        let address = &self.0.address;
        if self.0.exclusive_writer {
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

fn log_unpublished(address: &str, reason: &str) {
    tracing::debug!(target: "tower_wechat::store", address, "the news of a write was not published: {reason}");
}
