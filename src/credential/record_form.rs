//! The key layout's value: one text that holds all of a record.
//!
//! `2#ACCESS#MS#SPAN#REFRESH#MS#MARKS#unionid=…`, with the points and the span from renewal to
//! death in milliseconds and base 36. The marks are `u` or `b` for the scope `snsapi_userinfo` or
//! `snsapi_base`, `o` where the openid is the user id, and `c` for a copy that services which read
//! the hash layout have left here; what they cannot say stands behind them under its name. A half that is missing leaves its parts empty. The leading number names the
//! form, so that a later one can differ.
//!
//! It is short because there are millions of it: with tokens of 110 characters it fits into the
//! 256 bytes that Redis' allocator would hand out anyway, where decimal points and names in full
//! would take 384.
//!
//! The same in full is read too, for whoever writes records by hand or by a script:
//! `1#ACCESS#MS#EXPIRES_MS#REFRESH#MS#scope=…#unionid=…#openid=…`.

use std::fmt::Write as _;
use std::time::Duration;

use super::stored_text::{
    Parts, Unreadable, Unstorable, plausible, read_details, secret, storable, text, time,
    write_details,
};
use super::{Base36, read_base36};
use super::{Details, DetailsView, Lifetime, Record, RecordView, RefreshView, TokenView};
use crate::clock::Timestamp;

const FORM: &str = "2";
const IN_FULL: &str = "1";

/// The mark of a copy.
const COPY: &str = "c";

const USERINFO: &str = "snsapi_userinfo";
const BASE: &str = "snsapi_base";

/// Writes a whole record.
pub(crate) fn write(record: &Record, user_id: &str) -> Result<String, Unstorable> {
    write_marked(record, user_id, "")
}

/// Writes a copy of what lies in the other layout, for services that do not read it yet.
pub(crate) fn write_copy(record: &Record, user_id: &str) -> Result<String, Unstorable> {
    write_marked(record, user_id, COPY)
}

/// Returns `true` if a record was written as a copy, and by no service that reads this layout since.
#[cfg(any(feature = "cli", test))]
pub(crate) fn is_copy(value: &[u8]) -> bool {
    let Ok(text) = text(value) else {
        return false;
    };
    let mut parts = Parts::of(text);
    parts.next() == Some(FORM) && parts.nth(5).is_some_and(|marks| marks.contains(COPY))
}

fn write_marked(record: &Record, user_id: &str, marks: &str) -> Result<String, Unstorable> {
    let mut out = String::with_capacity(256);
    out.push_str(FORM);
    match &record.token {
        Some(token) => {
            let (point, end) = (token.lifetime.renew_at(), token.lifetime.expires_at());
            let span = i64::try_from(point.until(end).as_millis()).unwrap_or(i64::MAX);
            let secret = storable(token.secret.expose())?;
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
            let secret = storable(refresh.secret.expose())?;
            let _ = write!(out, "#{secret}#{}", Base36(refresh.due.as_millis()));
        }
        None => out.push_str("##"),
    }
    write_details_marked(&mut out, &record.details, user_id, marks);
    Ok(out)
}

fn write_details_marked(out: &mut String, details: &Details, user_id: &str, marks: &str) {
    let mut rest = details.clone();
    let mut marks = marks.to_owned();
    match rest.scope.as_deref() {
        Some(USERINFO) => marks.push('u'),
        Some(BASE) => marks.push('b'),
        _ => {}
    }
    if marks.contains(['u', 'b']) {
        rest.scope = None;
    }
    if rest.openid.as_deref() == Some(user_id) {
        marks.push('o');
        rest.openid = None;
    }
    let before = out.len();
    out.push('#');
    out.push_str(&marks);
    write_details(out, &rest, user_id);
    if out.len() == before + 1 {
        out.truncate(before);
    }
}

fn read_marked<'a>(mut parts: Parts<'a>, user_id: &'a str) -> DetailsView<'a> {
    let marks = parts.next().unwrap_or_default();
    let mut details = read_details(parts, user_id);
    for mark in marks.bytes() {
        match mark {
            b'u' => details.scope = Some(USERINFO.into()),
            b'b' => details.scope = Some(BASE.into()),
            b'o' => details.openid = Some(user_id.into()),
            _ => {}
        }
    }
    details
}

fn short_time(text: &str) -> Result<Timestamp, Unreadable> {
    let millis = read_base36(text).ok_or(Unreadable::BadTime)?;
    Ok(Timestamp::from_millis(millis))
}

fn span(text: &str) -> Result<Duration, Unreadable> {
    let millis = read_base36(text).and_then(|millis| u64::try_from(millis).ok());
    millis.map(Duration::from_millis).ok_or(Unreadable::BadTime)
}

/// Reads a whole record.
pub(crate) fn read<'a>(value: &'a [u8], user_id: &'a str) -> Result<RecordView<'a>, Unreadable> {
    let mut parts = Parts::of(text(value)?);
    let in_full = match parts.next() {
        Some(FORM) => false,
        Some(IN_FULL) => true,
        _ => return Err(Unreadable::UnknownForm),
    };
    let point = |text| {
        if in_full {
            time(text)
        } else {
            short_time(text)
        }
    };
    let mut part = || parts.next().ok_or(Unreadable::NoTime);
    let token = match (part()?, part()?, part()?) {
        ("", "", "") => None,
        (token, renew_at, end) => {
            let renew_at = plausible(point(renew_at)?);
            let end = match in_full {
                true => time(end)?,
                false => renew_at.after(span(end)?),
            };
            if end.is_plausible() && end < renew_at {
                return Err(Unreadable::BadTime);
            }
            let expires_at = plausible(end).max(renew_at);
            let lifetime = Lifetime::stored(renew_at, Some(expires_at), Duration::ZERO);
            let secret = secret(token)?;
            Some(TokenView { secret, lifetime })
        }
    };
    let refresh = match (part()?, part()?) {
        ("", "") => None,
        (token, due) => Some(RefreshView {
            secret: secret(token)?,
            due: point(due)?,
        }),
    };
    Ok(RecordView {
        token,
        refresh,
        details: match in_full {
            true => read_details(parts, user_id),
            false => read_marked(parts, user_id),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::super::{AccessToken, Refresh, RefreshToken, Token};
    use super::*;
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
                lifetime: Lifetime::granted(
                    Timestamp::from_millis(at),
                    Some(expires_in),
                    Duration::from_secs(margin),
                ),
            });
        let refresh = ("[!-\"$-~]{1,120}", any::<i64>()).prop_map(|(secret, due)| Refresh {
            secret: RefreshToken::from(secret),
            due: Timestamp::from_millis(due),
        });
        let text = || proptest::option::of(".{1,40}".prop_map(String::into_boxed_str));
        let from = proptest::option::of(100_000_000_000..=i64::MAX);
        let details =
            (text(), text(), text(), from).prop_map(|(openid, scope, unionid, from)| Details {
                openid,
                scope,
                unionid,
                sessions_from: from.map(Timestamp::from_millis),
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
        fn every_record_reads_back(record in record(), user_id in ".{1,40}") {
            let written = write(&record, &user_id).unwrap();
            prop_assert_eq!(&read(written.as_bytes(), &user_id).unwrap().to_record(), &record);
            prop_assert!(!is_copy(written.as_bytes()));
            let copy = write_copy(&record, &user_id).unwrap();
            prop_assert_eq!(read(copy.as_bytes(), &user_id).unwrap().to_record(), record);
            prop_assert!(is_copy(copy.as_bytes()));
        }

        #[test]
        fn every_byte_string_is_a_value_or_a_miss(bytes: Vec<u8>) {
            let _ = (read(&bytes, "user"), is_copy(&bytes));
        }

        #[test]
        fn record_shaped_strings_too(text in "[12]#[a-z#=%0-9+-]{0,60}") {
            let _ = read(text.as_bytes(), "user");
        }
    }

    #[test]
    fn a_record_in_full_is_read_too() {
        let id = "o1";
        let written = "1#a#1700000000000#1700000900000#r#1702000000000#scope=snsapi_base#openid=";
        let in_full = read(written.as_bytes(), id).unwrap().to_record();
        let short = write(&in_full, id).unwrap();
        assert_eq!(short, "2#a#loyw3v28#jag0#r#lpvyusxs#bo");
        assert_eq!(read(short.as_bytes(), id).unwrap().to_record(), in_full);
    }

    #[test]
    fn a_record_of_ordinary_size_fits_into_256_bytes() {
        let id = "o6_bmjrPTlm6_2sgVt7hMZOPfL2M";
        let now = Timestamp::from_millis(1_700_000_000_000);
        let record = Record {
            token: Some(Token {
                secret: AccessToken::from("a".repeat(110)),
                lifetime: Lifetime::granted(now, Some(7_200), Duration::from_secs(900)),
            }),
            refresh: Some(Refresh {
                secret: RefreshToken::from("r".repeat(110)),
                due: now,
            }),
            details: Details {
                openid: Some(id.into()),
                scope: Some("snsapi_userinfo".into()),
                unionid: None,
                sessions_from: None,
            },
        };
        let written = write(&record, id).unwrap();
        // Redis puts four bytes of its own around it.
        assert!(written.len() + 4 <= 256, "{} bytes", written.len());
        let copy = write_copy(&record, id).unwrap();
        assert!(copy.len() + 4 <= 256, "{} bytes", copy.len());
    }
}
