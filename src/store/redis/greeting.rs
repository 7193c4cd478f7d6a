//! The first words with a server: in RESP3, and where it does not take them, in RESP2.
//!
//! Redis before 6 and many proxies in front of it know no `HELLO`. Each product refuses it in words
//! of its own, and some hang up. So no words are compared: after any refusal that is not about the
//! user or password, the server gets one more try without `HELLO` and `CLIENT SETINFO`.

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ConnectionAddr, ProtocolVersion, RedisError, RedisResult};

use super::address::{Dialer, shown};
use super::guard::describe;
use super::refusal::Refusal;

impl Dialer {
    /// Connects to a server. Returns the connection, and the dialer that speaks as it does.
    pub(super) async fn greet(
        &self,
        address: &ConnectionAddr,
    ) -> RedisResult<(MultiplexedConnection, Self)> {
        self.greet_with(address, |_, config| config).await
    }

    /// Connects as [`greet`](Self::greet) does, with further settings for each protocol.
    pub(super) async fn greet_with(
        &self,
        address: &ConnectionAddr,
        settings: impl Fn(ProtocolVersion, AsyncConnectionConfig) -> AsyncConnectionConfig,
    ) -> RedisResult<(MultiplexedConnection, Self)> {
        let dial = async |dialer: &Self| {
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(self.timeout))
                .set_response_timeout(Some(self.timeout));
            let config = settings(dialer.settings.protocol(), config);
            let client = dialer.client(address)?;
            client
                .get_multiplexed_async_connection_with_config(&config)
                .await
        };
        let refused = match dial(self).await {
            Ok(connection) => return Ok((connection, self.clone())),
            Err(error) if self.may_try_resp2(&error) => error,
            Err(error) => return Err(error),
        };
        let plain = self.clone().speaking(ProtocolVersion::RESP2);
        let connection = match alive(dial(&plain).await).await {
            Ok(connection) => connection,
            // What the server has said is better to know than that it hangs up at last.
            Err(error) if is_reply(&refused) && !is_reply(&error) => return Err(refused),
            Err(error) => return Err(error),
        };
        // A server that hung up may have been on its way down, and be back.
        if !is_reply(&refused)
            && let Ok(connection) = dial(self).await
        {
            return Ok((connection, self.clone()));
        }
        let said = describe(&refused);
        tracing::info!(
            target: "tower_wechat::store",
            address = shown(address),
            "Redis does not take HELLO ({said}); RESP2 is spoken with it"
        );
        Ok((connection, plain))
    }

    /// Returns `true` if an error may be a server's way to say that it does not know `HELLO`.
    fn may_try_resp2(&self, error: &RedisError) -> bool {
        if self.settings.protocol() == ProtocolVersion::RESP2 {
            return false;
        }
        match Refusal::of(error) {
            // A proxy may want AUTH before it looks at anything else. Without a password to give,
            // and after one that was refused, it stays at that.
            Some(Refusal::Rights) => {
                error.code() == Some("NOPERM")
                    || (error.code() == Some("NOAUTH") && self.settings.password().is_some())
            }
            // HELLO is answered even then, so this is not about HELLO.
            Some(Refusal::Busy) => false,
            Some(_) => true,
            None => {
                let hung_up = error.is_connection_dropped() && !error.is_connection_refusal();
                hung_up || !error.is_io_error()
            }
        }
    }
}

/// Returns `true` if the server itself said this.
fn is_reply(error: &RedisError) -> bool {
    error.kind() == redis::ErrorKind::RESP3NotSupported || Refusal::of(error).is_some()
}

/// Passes on a connection on which the server answers, be it with an error.
async fn alive(dialled: RedisResult<MultiplexedConnection>) -> RedisResult<MultiplexedConnection> {
    let mut connection = dialled?;
    match redis::cmd("PING").exec_async(&mut connection).await {
        Err(error) if !is_reply(&error) => Err(error),
        _ => Ok(connection),
    }
}
