//! The value of a durable secret: `SECRET#MS#SINCE_MS`.
//!
//! The published Spring Boot service splits a value on `#` and uses the first two parts. It takes a
//! value past `MS` as expired, but a durable secret has no expiry. `MS` is therefore far in the
//! future on a write, and ignored on a read. `SINCE_MS` is our own part: the time since which the
//! secret is valid.
//!
//! Other programs write the same key, so a read is lenient. The value may be the secret alone, and
//! a third part that is missing or no time is the time zero. An empty value is no secret.

use std::time::Duration;

use zeroize::Zeroizing;

use crate::clock::Timestamp;
use crate::credential::RefreshToken;
use crate::store::DurableSecret;
use crate::store::redis::format::text::{
    DecodeError, Parts, parse_plausible_time, parse_secret, parse_utf8,
};

/// Time from a write to the expiry in the value: ten years. The published service then takes no
/// stored secret as expired.
const WRITTEN_LIFETIME: Duration = Duration::from_secs(3_652 * 24 * 3_600);

/// Formats a durable secret. Callers check that the secret can be stored.
pub(crate) fn write(value: &DurableSecret, now: Timestamp) -> Zeroizing<String> {
    let expires_at = now.saturating_add(WRITTEN_LIFETIME).as_millis();
    let since = value.since.as_millis();
    // One allocation of the final length, so that no shorter copy of the secret stays in memory.
    let secret = value.secret.expose();
    let mut out = Zeroizing::new(String::with_capacity(secret.len() + 48));
    out.push_str(secret);
    out.push_str(&format!("#{expires_at}#{since}"));
    out
}

/// Parses a durable secret. Returns `None` for an empty value.
pub(crate) fn read(value: &[u8]) -> Result<Option<DurableSecret>, DecodeError> {
    let value = value.trim_ascii();
    if value.is_empty() {
        return Ok(None);
    }
    // A JSON text consists of characters that a token may have, so this check comes first.
    if let Some(error) = DecodeError::from_serializer(value) {
        return Err(error);
    }
    let mut parts = Parts::new(parse_utf8(value)?);
    let secret = parse_secret(parts.next().unwrap_or_default())?;
    let since = parts.nth(1).map(parse_plausible_time);
    Ok(Some(DurableSecret {
        secret: RefreshToken::from(secret),
        since: since
            .and_then(Result::ok)
            .unwrap_or(Timestamp::from_millis(0)),
    }))
}

/// Returns `true` if a value is sealed, or has the third part that only this crate writes.
pub(crate) fn has_since(value: &[u8]) -> bool {
    value.iter().filter(|&&byte| byte == b'#').count() >= 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::DAY;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

    fn secret(text: &str, since: i64) -> DurableSecret {
        DurableSecret {
            secret: RefreshToken::from(text),
            since: Timestamp::from_millis(since),
        }
    }

    #[test]
    fn the_published_reader_finds_a_secret_that_is_not_expired() {
        let written = write(&secret("refreshtoken@@@abc", 1_699_999_999_000), NOW);
        assert_eq!(*written, "refreshtoken@@@abc#2015532800000#1699999999000");
        let parts: Vec<&str> = written.split('#').collect();
        let expires_at: i64 = parts[1].parse().unwrap();
        let years = NOW.duration_until(Timestamp::from_millis(expires_at)) / 365;
        assert!(years > DAY * 10);
    }

    #[test]
    fn reads_what_other_programs_write() {
        for (value, since) in [
            ("refreshtoken@@@abc", 0),
            ("refreshtoken@@@abc\n", 0),
            ("refreshtoken@@@abc#0", 0),
            ("refreshtoken@@@abc#1700000000000", 0),
            ("refreshtoken@@@abc#never", 0),
            ("refreshtoken@@@abc#1700000000000#", 0),
            ("refreshtoken@@@abc#1700000000000#soon", 0),
            ("refreshtoken@@@abc#1700000000000#-5", 0),
            ("refreshtoken@@@abc#1700000000000#99999999999999", 0),
            ("refreshtoken@@@abc#1700000000000#7#more", 7),
            ("refreshtoken@@@abc##7", 7),
        ] {
            let expected = secret("refreshtoken@@@abc", since);
            assert_eq!(read(value.as_bytes()), Ok(Some(expected)), "{value}");
        }
        for value in ["", " ", "\n"] {
            assert_eq!(read(value.as_bytes()), Ok(None), "{value:?}");
        }
    }

    #[test]
    fn unreadable_values_name_their_reason() {
        for (value, error) in [
            (&b"#1700000000000"[..], DecodeError::EmptyToken),
            (b"two words#1700000000000", DecodeError::InvalidToken),
            (b"\"refreshtoken@@@abc\"", DecodeError::Json),
            (b"{\"refresh_token\":\"a\"}", DecodeError::Json),
            (b"s:3:\"abc\";", DecodeError::PhpSerialized),
            (b"\xac\xed\x00\x05t\x00\x03abc", DecodeError::JavaSerialized),
            (b"\xff\xfe", DecodeError::NotUtf8),
        ] {
            assert_eq!(read(value), Err(error), "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn every_storable_secret_reads_back(
            text in "[!-\"$-z|~]{1,64}", since in 0..10_000_000_000_000i64,
        ) {
            let value = secret(&format!("t{text}"), since);
            prop_assert_eq!(read(write(&value, NOW).as_bytes()), Ok(Some(value)));
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes: Vec<u8>) {
            let _ = read(&bytes);
        }
    }
}
