//! Publication of invalidations: by the script of a write, or by a separate `PUBLISH` after the
//! write.
//!
//! [`PublishState`](super::publish_state::PublishState) decides whether scripts publish.

use std::sync::Arc;

use redis::RedisError;

use super::scripts::{Invocation, PublishMode, ScriptCall, ScriptReply};
use super::store::RedisStore;
use crate::error::Error;
use crate::store::redis::connection::errors::{ErrorClass, describe_error, is_permanent};

/// The message about a write, and its channel.
pub(super) struct OutgoingInvalidation {
    pub(super) channel: String,
    pub(super) message: String,
}

impl RedisStore {
    /// Runs a script that writes. If the script has not published the invalidation, a separate
    /// command publishes it. A failure of that command does not change the result.
    pub(super) async fn run_write(
        &self,
        mut call: ScriptCall,
        invalidation: Option<OutgoingInvalidation>,
    ) -> Result<ScriptReply, Error> {
        match &invalidation {
            Some(OutgoingInvalidation { channel, message }) => call.arg(channel).arg(message),
            None => call.arg("").arg(""),
        };
        let call = Arc::new(call);
        let reply = self.run_step(&call, self.invoke_with_fallback(&call));
        let reply = reply.await?;
        Ok(match reply {
            ScriptReply::AppliedUnpublished => {
                if let Some(invalidation) = &invalidation {
                    // The future of the rare separate command is boxed to keep the future of
                    // `run_write` small.
                    Box::pin(self.publish(invalidation)).await;
                }
                ScriptReply::Applied
            }
            reply => reply,
        })
    }

    /// Runs a script that writes. If the server may have rejected the text of the script because of
    /// `PUBLISH`, runs the script again without `PUBLISH`. If that succeeds, later writes do not
    /// use `PUBLISH` in scripts.
    async fn invoke_with_fallback(&self, call: &ScriptCall) -> Result<ScriptReply, RedisError> {
        let state = &self.0.publish_state;
        let mut connection = self.0.connection.clone();
        let mode = state.mode();
        let Invocation { reply, sent_text } = call.invoke_in_mode(mode, &mut connection).await;
        // A server that rejects the text of a script has run no part of the script, so a second
        // call is safe.
        let is_rejected =
            |error: &RedisError| ErrorClass::classify(error) == Some(ErrorClass::Other);
        if !(sent_text && mode == PublishMode::InScript && reply.as_ref().is_err_and(is_rejected)) {
            return reply;
        }
        let second = call.invoke_in_mode::<ScriptReply>(PublishMode::Separately, &mut connection);
        let reply = Box::pin(second).await.reply?;
        state.publish_separately();
        Ok(reply)
    }

    /// Publishes a message by a separate command, unless separate commands on its channel are
    /// paused. Logs a failure.
    pub(super) async fn publish(&self, invalidation: &OutgoingInvalidation) {
        let state = &self.0.publish_state;
        if state.is_paused(&invalidation.channel) {
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
                    state.pause(&invalidation.channel);
                }
                log_unpublished(address, &describe_error(&error));
            }
            Err(_) => log_unpublished(address, "Redis did not reply in time"),
        }
    }

    /// Logs once that the server rejects `PUBLISH` in scripts.
    fn log_separate_publishing(&self) {
        if !self.0.publish_state.may_log_separate_publishing() {
            return;
        }
        let address = &self.0.address;
        if self.0.exclusive_writer {
            tracing::warn!(
                target: "tower_wechat::store",
                address,
                "Redis rejected PUBLISH in a script; a separate PUBLISH follows each write. Remove \
                 exclusive_writer: if a process ends between the two, other processes serve stale \
                 tokens"
            );
        } else {
            tracing::info!(
                target: "tower_wechat::store",
                address,
                "Redis rejected PUBLISH in a script; a separate PUBLISH follows each write"
            );
        }
    }
}

fn log_unpublished(address: &str, reason: &str) {
    tracing::debug!(
        target: "tower_wechat::store",
        address,
        "the invalidation of a write was not published: {reason}"
    );
}
