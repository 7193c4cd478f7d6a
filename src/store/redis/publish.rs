//! Publication of invalidations, by the script that writes or by a separate command.
//!
//! - In the script: the state at start. The write and its message are one atomic step.
//! - Separately: entered for good when the server rejects the text of a script that contains
//!   `PUBLISH`, as some managed Clusters do. A server may also reject only the command inside the
//!   script, which the reply of the script reports each time. The message then follows the write as a
//!   separate command. If a process ends between the two, other processes see the write after
//!   `cache_ttl`.
//! - Paused: for a while after the server has rejected the separate command too, for example because
//!   the ACL user has no permission for the channel. Writes go on without messages.

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

/// The message about a write, and its channel.
pub(super) struct OutgoingInvalidation {
    pub(super) channel: String,
    pub(super) message: String,
}

/// The state of publication, shared by all tasks.
///
/// The flags are independent of other memory, so `Relaxed` is enough. A task that reads an old value
/// makes one more attempt, which the server rejects again.
#[derive(Default)]
pub(super) struct PublishState {
    /// `true` after the server rejected the text of a script that publishes.
    must_publish_separately: AtomicBool,
    /// `true` after a log line has reported separate publication.
    separate_publishing_logged: AtomicBool,
    /// The end of the pause after the server rejected a separate `PUBLISH`.
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
    /// Runs a script that writes, and publishes its message if the script did not. A failed
    /// publication does not change the result.
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
            ScriptReply::AppliedUnpublished => {
                if let Some(invalidation) = &invalidation {
                    // Boxed to keep the usual future small.
                    Box::pin(self.publish(invalidation)).await;
                }
                ScriptReply::Applied
            }
            answer => answer,
        })
    }

    async fn invoke_with_fallback(&self, call: &ScriptCall) -> Result<ScriptReply, RedisError> {
        let publishing = &self.0.publish_state;
        let mut connection = self.0.connection.clone();
        let mode = publishing.mode();
        let Invocation {
            reply: answer,
            sent_text: by_text,
        } = call.invoke_in_mode(mode, &mut connection).await;
        // A server that rejects the text of a script has run nothing of it, so a second call is safe.
        let refused = |error: &RedisError| ErrorClass::classify(error) == Some(ErrorClass::Other);
        if !(by_text && mode == PublishMode::InScript && answer.as_ref().is_err_and(refused)) {
            return answer;
        }
        let again = call.invoke_in_mode::<ScriptReply>(PublishMode::Separately, &mut connection);
        let again = Box::pin(again).await.reply?;
        publishing
            .must_publish_separately
            .store(true, Ordering::Relaxed);
        Ok(again)
    }

    /// Publishes a message by a separate command.
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
                // The listener of this channel logs the missing permission.
                if is_permanent(&error) {
                    publishing.pause();
                }
                log_unpublished(address, &describe_error(&error));
            }
            Err(_) => log_unpublished(address, "no answer in time"),
        }
    }

    /// Logs once that the server rejects `PUBLISH` in scripts.
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
