//! What an error reply of Redis means: for how long it holds, and for which commands.
//!
//! Every place that must tell a passing answer from a lasting one asks here, and nothing else in
//! the store looks at the codes of replies. Codes are compared, never sentences: those differ from
//! version to version and from product to product.

use redis::{RedisError, ServerError};

/// What is said of a server that Sentinels name, and that is a replica.
pub(in crate::store::redis) const NOT_PRIMARY: &str = "the server is not the primary yet";

/// The meaning of an error reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store::redis) enum ErrorClass {
    /// The server refuses every command for now: it loads its data, runs a script that does not
    /// end, or waits for another server. Passes without anybody changing something here.
    Busy,
    /// The server could not run this command at this moment. Others are not affected.
    Retry,
    /// The server is a replica. Another server takes writes.
    Replica,
    /// The server serves reads and refuses writes: its memory is full, it cannot save to disk, or
    /// too few replicas are connected.
    WritesRejected,
    /// The user of this connection lacks a right, or is not let in at all.
    NotPermitted,
    /// The key holds a value of another type.
    WrongType,
    /// The key lies on another server: this one is a node of a Cluster.
    WrongNode,
    /// Any other error, which holds until somebody changes something.
    Other,
}

/// The codes that have a meaning here, each with the sentence that tells it to an operator.
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
    /// The meaning of what the server said, unless the error is none of the server's.
    pub(in crate::store::redis) fn classify(error: &RedisError) -> Option<Self> {
        if error.kind() == redis::ErrorKind::AuthenticationFailed {
            return Some(Self::NotPermitted);
        }
        server_error(error).as_ref().map(Self::classify_reply)
    }

    /// The meaning of an error reply.
    pub(in crate::store::redis) fn classify_reply(reply: &ServerError) -> Self {
        find_known_code(reply).map_or(Self::Other, |(_, refusal, _)| *refusal)
    }

    /// Returns `true` if the same command may succeed later although nobody changes anything.
    pub(in crate::store::redis) fn is_transient(self) -> bool {
        match self {
            Self::Busy | Self::Retry | Self::Replica | Self::WritesRejected => true,
            Self::NotPermitted | Self::WrongType | Self::WrongNode | Self::Other => false,
        }
    }
}

/// Returns `true` if a server that refuses like this may have handed its part over to another one.
pub(in crate::store::redis) fn indicates_replica(reply: &ServerError) -> bool {
    find_known_code(reply)
        .is_some_and(|(code, refusal, _)| *refusal == ErrorClass::Replica || *code == "MASTERDOWN")
}

/// Returns `true` if another server may soon take the place of a primary that refuses like this.
pub(in crate::store::redis) fn may_precede_failover(reply: &ServerError) -> bool {
    find_known_code(reply)
        .is_some_and(|(code, refusal, _)| *refusal == ErrorClass::Busy || *code == "NOREPLICAS")
}

/// A sentence on an error reply that names no address.
pub(in crate::store::redis) fn operator_message(error: &RedisError) -> Option<&'static str> {
    if error.kind() == redis::ErrorKind::AuthenticationFailed {
        return Some("Redis refuses the user or password");
    }
    find_known_code(&server_error(error)?).map(|(_, _, sentence)| *sentence)
}

/// Whether the server does not take our user or password.
pub(in crate::store::redis) fn rejects_credentials(error: &RedisError) -> bool {
    ErrorClass::classify(error) == Some(ErrorClass::NotPermitted) && error.code() != Some("NOPERM")
}

/// Whether Redis has said no, and will say so until somebody changes something. A password that is
/// asked for concerns every command, not the channel: it is tried again as soon as Redis serves.
pub(in crate::store::redis) fn is_permanent(error: &RedisError) -> bool {
    let of_channel = |refusal: ErrorClass| !refusal.is_transient() && !rejects_credentials(error);
    ErrorClass::classify(error).is_some_and(of_channel)
}

/// What Redis or the connection to it says, without what could hold a secret: Redis quotes the
/// arguments of a command that it does not know.
pub(in crate::store::redis) fn describe_error(error: &RedisError) -> String {
    let text = match server_error(error) {
        Some(said) => format!("{} {}", said.code(), said.details().unwrap_or_default()),
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

/// What the server itself said, of one command or of the first that failed in a pipeline.
pub(in crate::store::redis) fn server_error(error: &RedisError) -> Option<ServerError> {
    error
        .clone()
        .into_server_errors()?
        .first()
        .map(|(_, said)| said.clone())
}

/// Returns the error of a connection that has not replied in time.
pub(in crate::store::redis) fn timed_out() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}

type KnownCode = (&'static str, ErrorClass, &'static str);

fn find_known_code(reply: &ServerError) -> Option<&'static KnownCode> {
    let by_code = |code: &str| KNOWN_CODES.iter().find(|(known, ..)| *known == code);
    if let Some(known) = by_code(reply.code()) {
        return Some(known);
    }
    // Redis before 7 answers ERR for a command that failed in a script, and puts the code of that
    // command into the text; `EXECABORT` does the same for a transaction.
    let text = reply.details().unwrap_or_default();
    if let Some(known) = text
        .split([' ', ':', ','])
        .find_map(|word| by_code(word.trim_start_matches('-')))
    {
        return Some(known);
    }
    // The one answer that passes by itself and has no code: a server that is full of connections.
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
        for (code, meaning, _) in KNOWN_CODES {
            assert_eq!(classify_text(&format!("{code} whatever it says")), *meaning);
            assert_eq!(classify_text(code), *meaning, "alone");
        }
        for lasting in [
            "ERR unknown command 'EVAL'",
            "NOSCRIPT x",
            "EXOTIC",
            "NOPROTO sorry",
        ] {
            assert_eq!(classify_text(lasting), ErrorClass::Other, "{lasting}");
        }
    }

    #[test]
    fn codes_inside_script_errors_are_found() {
        for (text, meaning) in [
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
            assert_eq!(classify_text(text), meaning, "{text}");
        }
    }
}
