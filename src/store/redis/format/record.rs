//! The value of the key layout: one text for a whole record.
//!
//! The format is `2#ACCESS#MS#SPAN#REFRESH#MS#FLAGS#unionid=…`. The number at the start identifies
//! the format. Times are in milliseconds and base 36; `SPAN` is the time from the renewal point to
//! the expiry. A missing token leaves its parts empty. The flags are:
//!
//! - `u` or `b`: the scope is `snsapi_userinfo` or `snsapi_base`.
//! - `o`: the openid equals the user id.
//! - `c`: the record is a copy. A migration or a dual write has written it, and since then no
//!   service that reads the key layout.
//!
//! Details that no flag expresses follow as named parts.
//!
//! The format is short because Redis may store millions of records. With tokens of 110 characters,
//! a record fits into an allocation of 256 bytes. Decimal numbers and full names would take 384
//! bytes.
//!
//! A longer format is also read, for records that people or scripts write:
//! `1#ACCESS#MS#EXPIRES_MS#REFRESH#MS#scope=…#unionid=…#openid=…`.

use std::fmt::Write as _;
use std::time::Duration;

use crate::base36::{Base36, parse_base36};
use crate::clock::Timestamp;
use crate::credential::{
    Lifetime, Record, RecordView, RefreshView, SCOPE_BASE, SCOPE_USER_INFO, TokenView, UserDetails,
    UserDetailsView,
};
use crate::store::redis::format::text::{
    DecodeError, EncodeError, Parts, check_storable, parse_secret, parse_time, parse_utf8,
    plausible_or_zero, read_details, write_details,
};

const FORMAT_SHORT: &str = "2";
const FORMAT_FULL: &str = "1";

/// The flag that marks a record as a copy of a record in the other layout.
const COPY_FLAG: &str = "c";

/// Formats a record in the short format.
pub(crate) fn write(record: &Record, user_id: &str) -> Result<String, EncodeError> {
    write_with_flags(record, user_id, "")
}

/// Formats a copy of a record of the other layout, for a dual write or a migration.
pub(crate) fn write_copy(record: &Record, user_id: &str) -> Result<String, EncodeError> {
    write_with_flags(record, user_id, COPY_FLAG)
}

/// Returns `true` if the value is marked as a copy, so that no service that reads the key layout
/// has written the record since.
#[cfg(any(feature = "cli", test))]
pub(crate) fn is_copy(value: &[u8]) -> bool {
    let Ok(text) = parse_utf8(value) else {
        return false;
    };
    let mut parts = Parts::new(text);
    parts.next() == Some(FORMAT_SHORT)
        && parts.nth(5).is_some_and(|flags| flags.contains(COPY_FLAG))
}

fn write_with_flags(record: &Record, user_id: &str, flags: &str) -> Result<String, EncodeError> {
    let mut out = String::with_capacity(256);
    out.push_str(FORMAT_SHORT);
    match &record.token {
        Some(token) => {
            let (point, end) = (token.lifetime.renew_at(), token.lifetime.expires_at());
            let span = i64::try_from(point.duration_until(end).as_millis()).unwrap_or(i64::MAX);
            let secret = check_storable(token.secret.expose())?;
            // Writing to a String does not fail.
            let _ = write!(
                out,
                "#{secret}#{}#{}",
                Base36(point.as_millis()),
                Base36(span)
            );
        }
        None => out.push_str("###"),
    }
    match &record.refresh {
        Some(refresh) => {
            let secret = check_storable(refresh.secret.expose())?;
            let _ = write!(
                out,
                "#{secret}#{}",
                Base36(refresh.expected_expiry.as_millis())
            );
        }
        None => out.push_str("##"),
    }
    write_details_with_flags(&mut out, &record.details, user_id, flags);
    Ok(out)
}

fn write_details_with_flags(out: &mut String, details: &UserDetails, user_id: &str, flags: &str) {
    let mut rest = details.clone();
    let mut flags = flags.to_owned();
    match rest.scope.as_deref() {
        Some(SCOPE_USER_INFO) => flags.push('u'),
        Some(SCOPE_BASE) => flags.push('b'),
        _ => {}
    }
    if flags.contains(['u', 'b']) {
        rest.scope = None;
    }
    if rest.openid.as_deref() == Some(user_id) {
        flags.push('o');
        rest.openid = None;
    }
    let before = out.len();
    out.push('#');
    out.push_str(&flags);
    write_details(out, &rest, user_id);
    if out.len() == before + 1 {
        out.truncate(before);
    }
}

fn read_details_with_flags<'a>(mut parts: Parts<'a>, user_id: &'a str) -> UserDetailsView<'a> {
    let flags = parts.next().unwrap_or_default();
    let mut details = read_details(parts, user_id);
    for flag in flags.bytes() {
        match flag {
            b'u' => details.scope = Some(SCOPE_USER_INFO.into()),
            b'b' => details.scope = Some(SCOPE_BASE.into()),
            b'o' => details.openid = Some(user_id.into()),
            _ => {}
        }
    }
    details
}

fn parse_base36_time(text: &str) -> Result<Timestamp, DecodeError> {
    let millis = parse_base36(text.as_bytes()).ok_or(DecodeError::InvalidTime)?;
    Ok(Timestamp::from_millis(millis))
}

fn parse_base36_span(text: &str) -> Result<Duration, DecodeError> {
    let millis = parse_base36(text.as_bytes()).and_then(|millis| u64::try_from(millis).ok());
    millis
        .map(Duration::from_millis)
        .ok_or(DecodeError::InvalidTime)
}

/// Parses a record in the short or the longer format.
pub(crate) fn read<'a>(value: &'a [u8], user_id: &'a str) -> Result<RecordView<'a>, DecodeError> {
    let mut parts = Parts::new(parse_utf8(value)?);
    let in_full = match parts.next() {
        Some(FORMAT_SHORT) => false,
        Some(FORMAT_FULL) => true,
        _ => return Err(DecodeError::UnknownFormat),
    };
    let point = |text| {
        if in_full {
            parse_time(text)
        } else {
            parse_base36_time(text)
        }
    };
    let mut part = || parts.next().ok_or(DecodeError::MissingTime);
    let token = match (part()?, part()?, part()?) {
        ("", "", "") => None,
        (token, renew_at, end) => {
            let renew_at = plausible_or_zero(point(renew_at)?);
            let end = match in_full {
                true => parse_time(end)?,
                false => renew_at.saturating_add(parse_base36_span(end)?),
            };
            if end.is_plausible() && end < renew_at {
                return Err(DecodeError::InvalidTime);
            }
            let expires_at = plausible_or_zero(end).max(renew_at);
            let lifetime = Lifetime::from_stored(renew_at, Some(expires_at), Duration::ZERO);
            let secret = parse_secret(token)?;
            Some(TokenView { secret, lifetime })
        }
    };
    let refresh = match (part()?, part()?) {
        ("", "") => None,
        (token, due) => Some(RefreshView {
            secret: parse_secret(token)?,
            expected_expiry: point(due)?,
        }),
    };
    Ok(RecordView {
        token,
        refresh,
        details: match in_full {
            true => read_details(parts, user_id),
            false => read_details_with_flags(parts, user_id),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::{AccessToken, Refresh, RefreshToken, Token};
    use proptest::prelude::*;

    fn record() -> impl Strategy<Value = Record> {
        let token = (
            "[!-\"$-~]{1,120}",
            0i64..4_000_000_000_000,
            any::<i64>(),
            0u64..10_000,
        )
            .prop_map(|(secret, at, expires_in, margin)| Token {
                secret: AccessToken::from(secret),
                lifetime: Lifetime::from_response(
                    Timestamp::from_millis(at),
                    Some(expires_in),
                    Duration::from_secs(margin),
                ),
            });
        let refresh = ("[!-\"$-~]{1,120}", any::<i64>()).prop_map(|(secret, due)| Refresh {
            secret: RefreshToken::from(secret),
            expected_expiry: Timestamp::from_millis(due),
        });
        let text = || proptest::option::of(".{1,40}".prop_map(String::into_boxed_str));
        let from = proptest::option::of(100_000_000_000..=i64::MAX);
        let details =
            (text(), text(), text(), from).prop_map(|(openid, scope, unionid, from)| UserDetails {
                openid,
                scope,
                unionid,
                sessions_valid_from: from.map(Timestamp::from_millis),
            });
        (
            proptest::option::of(token),
            proptest::option::of(refresh),
            details,
        )
            .prop_map(|(token, refresh, details)| Record {
                token,
                refresh,
                details,
            })
    }

    proptest! {
        #[test]
        fn every_record_and_copy_reads_back(record in record(), user_id in ".{1,40}") {
            let written = write(&record, &user_id).unwrap();
            prop_assert_eq!(&read(written.as_bytes(), &user_id).unwrap().to_record(), &record);
            prop_assert!(!is_copy(written.as_bytes()));
            let copy = write_copy(&record, &user_id).unwrap();
            prop_assert_eq!(read(copy.as_bytes(), &user_id).unwrap().to_record(), record);
            prop_assert!(is_copy(copy.as_bytes()));
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>) {
            let _ = (read(&bytes, "user"), is_copy(&bytes));
        }

        #[test]
        fn no_record_like_text_makes_the_reader_panic(text in "[12]#[a-z#=%0-9+-]{0,60}") {
            let _ = read(text.as_bytes(), "user");
        }
    }

    #[test]
    fn the_full_format_is_read() {
        let id = "o1";
        let written = "1#a#1700000000000#1700000900000#r#1702000000000#scope=snsapi_base#openid=";
        let in_full = read(written.as_bytes(), id).unwrap().to_record();
        let short = write(&in_full, id).unwrap();
        assert_eq!(short, "2#a#loyw3v28#jag0#r#lpvyusxs#bo");
        assert_eq!(read(short.as_bytes(), id).unwrap().to_record(), in_full);
    }

    #[test]
    fn a_usual_record_fits_into_256_bytes() {
        let id = "o6_bmjrPTlm6_2sgVt7hMZOPfL2M";
        let now = Timestamp::from_millis(1_700_000_000_000);
        let record = Record {
            token: Some(Token {
                secret: AccessToken::from("a".repeat(110)),
                lifetime: Lifetime::from_response(now, Some(7_200), Duration::from_secs(900)),
            }),
            refresh: Some(Refresh {
                secret: RefreshToken::from("r".repeat(110)),
                expected_expiry: now,
            }),
            details: UserDetails {
                openid: Some(id.into()),
                scope: Some("snsapi_userinfo".into()),
                unionid: None,
                sessions_valid_from: None,
            },
        };
        let written = write(&record, id).unwrap();
        // Redis stores four more bytes with a value of this length.
        assert!(written.len() + 4 <= 256, "{} bytes", written.len());
        let copy = write_copy(&record, id).unwrap();
        assert!(copy.len() + 4 <= 256, "{} bytes", copy.len());
    }
}
