//! The first words with a server: in RESP3, and where it does not take them, in RESP2.
//!
//! Redis before 6 and many proxies in front of it know no `HELLO`. Each product refuses it in words
//! of its own, and some hang up. So no words are compared: after any refusal that is not about the
//! user or password, the server gets one more try without `HELLO` and `CLIENT SETINFO`.

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ConnectionAddr, ProtocolVersion, RedisError, RedisResult};

use crate::store::redis::connection::connector::Connector;
use crate::store::redis::connection::errors::{ErrorClass, describe_error};
use crate::store::redis::connection::url::format_address;

impl Connector {
    /// Connects to a server. Returns the connection, and the dialer that speaks as it does.
    pub(in crate::store::redis) async fn connect(
        &self,
        address: &ConnectionAddr,
    ) -> RedisResult<(MultiplexedConnection, Self)> {
        self.connect_with(address, |_, config| config).await
    }

    /// Connects as [`greet`](Self::greet) does, with further settings for each protocol.
    pub(in crate::store::redis) async fn connect_with(
        &self,
        address: &ConnectionAddr,
        configure: impl Fn(ProtocolVersion, AsyncConnectionConfig) -> AsyncConnectionConfig,
    ) -> RedisResult<(MultiplexedConnection, Self)> {
        let connect_once = async |dialer: &Self| {
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(self.timeout))
                .set_response_timeout(Some(self.timeout));
            let config = configure(dialer.connection_info.protocol(), config);
            let client = dialer.client_for(address)?;
            client
                .get_multiplexed_async_connection_with_config(&config)
                .await
        };
        let rejection = match connect_once(self).await {
            Ok(connection) => return Ok((connection, self.clone())),
            Err(error) if self.may_try_resp2(&error) => error,
            Err(error) => return Err(error),
        };
        let plain = self.clone().with_protocol(ProtocolVersion::RESP2);
        let connection = match ensure_responding(connect_once(&plain).await).await {
            Ok(connection) => connection,
            // What the server has said is better to know than that it hangs up at last.
            Err(error) if is_server_reply(&rejection) && !is_server_reply(&error) => {
                return Err(rejection);
            }
            Err(error) => return Err(error),
        };
        // A server that hung up may have been on its way down, and be back.
        if !is_server_reply(&rejection)
            && let Ok(connection) = connect_once(self).await
        {
            return Ok((connection, self.clone()));
        }
        let message = describe_error(&rejection);
        tracing::info!(
            target: "tower_wechat::store",
            address = format_address(address),
            "Redis does not take HELLO ({message}); RESP2 is spoken with it"
        );
        Ok((connection, plain))
    }

    /// Returns `true` if an error may be a server's way to say that it does not know `HELLO`.
    fn may_try_resp2(&self, error: &RedisError) -> bool {
        if self.connection_info.protocol() == ProtocolVersion::RESP2 {
            return false;
        }
        match ErrorClass::classify(error) {
            // A proxy may want AUTH before it looks at anything else. Without a password to give,
            // and after one that was refused, it stays at that.
            Some(ErrorClass::NotPermitted) => {
                error.code() == Some("NOPERM")
                    || (error.code() == Some("NOAUTH") && self.connection_info.password().is_some())
            }
            // HELLO is answered even then, so this is not about HELLO.
            Some(ErrorClass::Busy) => false,
            Some(
                ErrorClass::Retry
                | ErrorClass::Replica
                | ErrorClass::WritesRejected
                | ErrorClass::WrongType
                | ErrorClass::WrongNode
                | ErrorClass::Other,
            ) => true,
            None => {
                let hung_up = error.is_connection_dropped() && !error.is_connection_refusal();
                hung_up || !error.is_io_error()
            }
        }
    }
}

/// Returns `true` if the server itself said this.
fn is_server_reply(error: &RedisError) -> bool {
    error.kind() == redis::ErrorKind::RESP3NotSupported || ErrorClass::classify(error).is_some()
}

/// Passes on a connection on which the server answers, be it with an error.
async fn ensure_responding(
    connected: RedisResult<MultiplexedConnection>,
) -> RedisResult<MultiplexedConnection> {
    let mut connection = connected?;
    match redis::cmd("PING").exec_async(&mut connection).await {
        Err(error) if !is_server_reply(&error) => Err(error),
        _ => Ok(connection),
    }
}
