//! Classes of errors from Redis: how long an error reply lasts, and which commands it concerns.
//!
//! Code that treats transient and permanent errors differently uses [`ErrorClass`]. The class
//! depends on the code of a reply, because the text differs between versions and products. Two
//! errors have no specific code and are recognized by their text: an error inside a script, and a
//! server with too many connections.

use redis::{RedisError, ServerError};

/// The text of the error for a server that Sentinels name as primary and that is a replica.
pub(in crate::store::redis) const NOT_PRIMARY: &str = "the server is not the primary yet";

/// The class of an error reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::redis) enum ErrorClass {
    /// The server temporarily rejects every command: it loads its data, runs a script that does not
    /// end, or waits for another server. The condition passes without a change by an operator.
    Busy,
    /// The server could not run this command, because a slot of the Cluster is being moved. A retry
    /// may succeed. Commands for other slots are not affected.
    Retry,
    /// The server has rejected the command because it is a replica. Another server accepts writes.
    Replica,
    /// The server serves reads and rejects writes: its memory is full, it cannot save to disk, or
    /// too few replicas are connected.
    WritesRejected,
    /// The ACL user of this connection lacks a permission, or the server rejects the user or
    /// password.
    NotPermitted,
    /// The key holds a value of another Redis type than the command requires.
    WrongType,
    /// The server is a node of a Cluster, and another node serves the key.
    WrongNode,
    /// Any other error reply. The error lasts until an operator changes something.
    Other,
}

/// The error codes of Redis, each with its class and a sentence for operators.
const KNOWN_CODES: &[(&str, ErrorClass, &str)] = {
    use ErrorClass::{
        Busy, NotPermitted, Other, Replica, Retry, WritesRejected, WrongNode, WrongType,
    };
    &[
        ("BUSY", Busy, "Redis runs a script that does not end"),
        ("LOADING", Busy, "Redis is loading its data"),
        (
            "MASTERDOWN",
            Busy,
            "the server is a replica that has lost its primary",
        ),
        (
            "CLUSTERDOWN",
            Busy,
            "the Redis Cluster does not serve all slots",
        ),
        (
            "TRYAGAIN",
            Retry,
            "a slot of the Redis Cluster is being moved",
        ),
        ("UNBLOCKED", Replica, "the server has become a replica"),
        (
            "READONLY",
            Replica,
            "the server is a replica, and Redis refuses writes there",
        ),
        (
            "OOM",
            WritesRejected,
            "the memory of Redis is full, and it refuses writes",
        ),
        (
            "MISCONF",
            WritesRejected,
            "Redis cannot save to disk, and refuses writes",
        ),
        (
            "NOREPLICAS",
            WritesRejected,
            "too few replicas are connected, and Redis refuses writes",
        ),
        (
            "NOPERM",
            NotPermitted,
            "Redis does not let this user run a command",
        ),
        ("NOAUTH", NotPermitted, "Redis asks for a password"),
        (
            "WRONGPASS",
            NotPermitted,
            "Redis refuses the user or password",
        ),
        (
            "WRONGTYPE",
            WrongType,
            "a key holds a value of another type",
        ),
        (
            "MOVED",
            WrongNode,
            "the server is a node of a Redis Cluster",
        ),
        ("ASK", WrongNode, "the server is a node of a Redis Cluster"),
        (
            "CROSSSLOT",
            Other,
            "the keys of a command lie in several slots",
        ),
    ]
};

impl ErrorClass {
    /// Returns the class of an error, or `None` if the error is not a reply of the server.
    pub(in crate::store::redis) fn classify(error: &RedisError) -> Option<Self> {
        if error.kind() == redis::ErrorKind::AuthenticationFailed {
            return Some(Self::NotPermitted);
        }
        server_error(error).as_ref().map(Self::classify_reply)
    }

    /// Returns the class of an error reply.
    pub(in crate::store::redis) fn classify_reply(reply: &ServerError) -> Self {
        find_known_code(reply).map_or(Self::Other, |(_, class, _)| *class)
    }

    /// Returns `true` if the command may succeed in a retry without a change by an operator.
    pub(in crate::store::redis) fn is_transient(self) -> bool {
        match self {
            Self::Busy | Self::Retry | Self::Replica | Self::WritesRejected => true,
            Self::NotPermitted | Self::WrongType | Self::WrongNode | Self::Other => false,
        }
    }
}

/// Returns `true` if the server that sent this error reply may have become a replica, or lost its
/// primary.
pub(in crate::store::redis) fn indicates_replica(reply: &ServerError) -> bool {
    find_known_code(reply)
        .is_some_and(|(code, class, _)| *class == ErrorClass::Replica || *code == "MASTERDOWN")
}

/// Returns `true` if another server may soon replace the primary that sent this error reply.
pub(in crate::store::redis) fn may_precede_failover(reply: &ServerError) -> bool {
    find_known_code(reply)
        .is_some_and(|(code, class, _)| *class == ErrorClass::Busy || *code == "NOREPLICAS")
}

/// Returns a sentence for operators about an error reply with a known code. The sentence contains
/// no address.
pub(in crate::store::redis) fn operator_message(error: &RedisError) -> Option<&'static str> {
    if error.kind() == redis::ErrorKind::AuthenticationFailed {
        return Some("Redis refuses the user or password");
    }
    find_known_code(&server_error(error)?).map(|(_, _, sentence)| *sentence)
}

/// Returns `true` if the error is a rejection of the connection's user or password.
pub(in crate::store::redis) fn rejects_credentials(error: &RedisError) -> bool {
    ErrorClass::classify(error) == Some(ErrorClass::NotPermitted) && error.code() != Some("NOPERM")
}

/// Returns `true` if this error of a command on a channel lasts until an operator changes
/// something.
///
/// A rejected user or password does not count, because it affects every command. The channel is
/// then retried as soon as other commands succeed.
pub(in crate::store::redis) fn is_permanent(error: &RedisError) -> bool {
    let concerns_channel = |class: ErrorClass| !class.is_transient() && !rejects_credentials(error);
    ErrorClass::classify(error).is_some_and(concerns_channel)
}

/// Returns the text of an error for logs and messages, at most 160 characters.
///
/// Leaves out the arguments that Redis quotes for an unknown command, because they may be secret.
pub(in crate::store::redis) fn describe_error(error: &RedisError) -> String {
    let text = match server_error(error) {
        Some(reply) => format!("{} {}", reply.code(), reply.details().unwrap_or_default()),
        None => error.to_string(),
    };
    let text = text.split(", with args").next().unwrap_or_default();
    text.chars()
        .filter(|c| !c.is_control())
        .take(160)
        .collect::<String>()
        .trim_end()
        .to_owned()
}

/// Returns the server's error reply to a command, or to the first failed command of a pipeline.
pub(in crate::store::redis) fn server_error(error: &RedisError) -> Option<ServerError> {
    error
        .clone()
        .into_server_errors()?
        .first()
        .map(|(_, reply)| reply.clone())
}

/// Returns the error of a connection that has not replied in time.
pub(in crate::store::redis) fn timed_out() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}

type KnownCode = (&'static str, ErrorClass, &'static str);

/// Returns the entry of [`KNOWN_CODES`] for an error reply.
fn find_known_code(reply: &ServerError) -> Option<&'static KnownCode> {
    let by_code = |code: &str| KNOWN_CODES.iter().find(|(known, ..)| *known == code);
    if let Some(known) = by_code(reply.code()) {
        return Some(known);
    }
    // If a command in a script fails, Redis before version 7 replies ERR and quotes the code of the
    // failed command in the text. For a transaction, `EXECABORT` does so.
    let text = reply.details().unwrap_or_default();
    if let Some(known) = text
        .split([' ', ':', ','])
        .find_map(|word| by_code(word.trim_start_matches('-')))
    {
        return Some(known);
    }
    // A server with too many connections replies ERR without another code, although the error is
    // transient.
    let full = text.contains("max number of clients");
    full.then_some(&(
        "ERR",
        ErrorClass::Busy,
        "Redis has as many connections as it takes",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classify_text(reply: &str) -> ErrorClass {
        let mut bytes = b"-".to_vec();
        bytes.extend(reply.as_bytes());
        bytes.extend(b"\r\n");
        let value = redis::parse_redis_value(&bytes).unwrap();
        ErrorClass::classify(&value.extract_error().unwrap_err()).expect(reply)
    }

    #[test]
    fn each_code_is_classified() {
        for (code, class, _) in KNOWN_CODES {
            assert_eq!(classify_text(&format!("{code} whatever it says")), *class);
            assert_eq!(classify_text(code), *class, "alone");
        }
        for permanent in [
            "ERR unknown command 'EVAL'",
            "NOSCRIPT x",
            "EXOTIC",
            "NOPROTO sorry",
        ] {
            assert_eq!(classify_text(permanent), ErrorClass::Other, "{permanent}");
        }
    }

    #[test]
    fn codes_inside_script_errors_are_found() {
        for (text, class) in [
            (
                "ERR Error running script (call to f_0): @user_script:3: @user_script: 3: \
                 -READONLY You can't write against a read only replica.",
                ErrorClass::Replica,
            ),
            (
                "ERR user_script:1: -OOM command not allowed when used memory > 'maxmemory'.",
                ErrorClass::WritesRejected,
            ),
            (
                "READONLY You can't write against a read only replica. script: 0, on @user_script:3.",
                ErrorClass::Replica,
            ),
            (
                "EXECABORT Transaction discarded because of: MISCONF Redis is configured to save",
                ErrorClass::WritesRejected,
            ),
            ("ERR max number of clients reached", ErrorClass::Busy),
        ] {
            assert_eq!(classify_text(text), class, "{text}");
        }
    }
}
