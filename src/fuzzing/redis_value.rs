//! Fuzzing of the values that the store reads from Redis, where other programs may write too.

use std::time::Duration;

use crate::store::redis::format::external::ExternalFormat::{
    JsonObject, JsonString, Php, Raw, RawOrJsonString,
};
use crate::store::redis::format::{external, hash, record, sealed};

/// Reads the bytes in every form of a value in Redis. Checks that a value that this crate writes is
/// read back unchanged. Checks that every external token has at least one character and only
/// printable characters.
pub fn redis_value(data: &[u8]) {
    let margin = Duration::from_secs(900);
    let token = |value: &[u8]| {
        let read = hash::read_token(value, margin).ok();
        read.map(|token| token.to_token())
    };
    if let Some(read) = token(data)
        && let Ok(written) = hash::write_token(&read, margin)
    {
        assert_eq!(token(written.as_bytes()), Some(read), "{written}");
    }
    let refresh = |value: &[u8]| {
        let read = hash::read_refresh(value, "oUser").ok();
        read.map(|(refresh, details)| (refresh.to_refresh(), details.to_details()))
    };
    if let Some(read) = refresh(data)
        && let Ok(written) = hash::write_refresh(&read.0, &read.1, "oUser")
    {
        assert_eq!(refresh(written.as_bytes()), Some(read), "{written}");
    }
    let record = |value: &[u8]| {
        let read = record::read(value, "oUser").ok();
        read.map(|record| record.to_record())
    };
    if let Some(read) = record(data)
        && let Ok(written) = record::write(&read, "oUser")
    {
        assert_eq!(record(written.as_bytes()), Some(read), "{written}");
    }
    for form in [Raw, JsonString, RawOrJsonString, JsonObject, Php] {
        if let Ok(token) = external::read_token(data, form) {
            let token = token.expose();
            assert!(!token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()));
        }
    }
    let _ = external::read_seconds(data);
    let _ = sealed::split(data);
    #[cfg(feature = "sealing")]
    let _ = sealed::decode_body(data);
}
