//! Handshake with a server: RESP3 first, then RESP2 if the server rejects it.
//!
//! Redis before version 6 and many proxies do not support `HELLO`. Each product rejects it with
//! another message, and some close the connection. So no messages are compared. The handshake is
//! repeated without `HELLO` and `CLIENT SETINFO`, unless the error shows another cause, such as a
//! wrong password or a busy server.

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, ConnectionAddr, ProtocolVersion, RedisError, RedisResult};

use crate::store::redis::connection::connector::Connector;
use crate::store::redis::connection::errors::{ErrorClass, describe_error};
use crate::store::redis::connection::url::format_address;

impl Connector {
    /// Connects to a server. Returns the connection, and a connector with the accepted protocol.
    pub(in crate::store::redis) async fn connect(
        &self,
        address: &ConnectionAddr,
    ) -> RedisResult<(MultiplexedConnection, Self)> {
        self.connect_with(address, |_, config| config).await
    }

    /// Connects as [`connect`](Self::connect) does. `configure` may change the settings of the
    /// connection for each protocol.
    pub(in crate::store::redis) async fn connect_with(
        &self,
        address: &ConnectionAddr,
        configure: impl Fn(ProtocolVersion, AsyncConnectionConfig) -> AsyncConnectionConfig,
    ) -> RedisResult<(MultiplexedConnection, Self)> {
        let connect_once = async |connector: &Self| {
            let config = AsyncConnectionConfig::new()
                .set_connection_timeout(Some(self.timeout))
                .set_response_timeout(Some(self.timeout));
            let config = configure(connector.connection_info.protocol(), config);
            let client = connector.client_for(address)?;
            client
                .get_multiplexed_async_connection_with_config(&config)
                .await
        };
        let rejection = match connect_once(self).await {
            Ok(connection) => return Ok((connection, self.clone())),
            Err(error) if self.may_try_resp2(&error) => error,
            Err(error) => return Err(error),
        };
        let resp2 = self.clone().with_protocol(ProtocolVersion::RESP2);
        let connection = match ensure_responding(connect_once(&resp2).await).await {
            Ok(connection) => connection,
            // The attempt with RESP2 also failed, but without an error reply. The error reply to the
            // RESP3 handshake explains more.
            Err(error) if is_server_reply(&rejection) && !is_server_reply(&error) => {
                return Err(rejection);
            }
            Err(error) => return Err(error),
        };
        // A server that closed the connection may have been restarting, so RESP3 is tried again.
        if !is_server_reply(&rejection)
            && let Ok(connection) = connect_once(self).await
        {
            return Ok((connection, self.clone()));
        }
        let message = describe_error(&rejection);
        tracing::info!(
            target: "tower_wechat::store",
            address = format_address(address),
            "Redis rejected HELLO ({message}), so the connection uses RESP2"
        );
        Ok((connection, resp2))
    }

    /// Returns `true` if the error of a RESP3 handshake may come from a server that does not
    /// support `HELLO`.
    fn may_try_resp2(&self, error: &RedisError) -> bool {
        if self.connection_info.protocol() == ProtocolVersion::RESP2 {
            return false;
        }
        match ErrorClass::classify(error) {
            // The ACL user may lack the permission to run HELLO, or a proxy may require AUTH before
            // any other command. Without a password, or after a rejected one, RESP2 would fail in
            // the same way.
            Some(ErrorClass::NotPermitted) => {
                error.code() == Some("NOPERM")
                    || (error.code() == Some("NOAUTH") && self.connection_info.password().is_some())
            }
            // A busy server still replies to HELLO, so the error is not about HELLO.
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
                let is_closed = error.is_connection_dropped() && !error.is_connection_refusal();
                is_closed || !error.is_io_error()
            }
        }
    }
}

/// Returns `true` if an error is a reply of the server.
fn is_server_reply(error: &RedisError) -> bool {
    error.kind() == redis::ErrorKind::RESP3NotSupported || ErrorClass::classify(error).is_some()
}

/// Returns the connection if the server replies to `PING`, even with an error.
async fn ensure_responding(
    connected: RedisResult<MultiplexedConnection>,
) -> RedisResult<MultiplexedConnection> {
    let mut connection = connected?;
    match redis::cmd("PING").exec_async(&mut connection).await {
        Err(error) if !is_server_reply(&error) => Err(error),
        _ => Ok(connection),
    }
}
