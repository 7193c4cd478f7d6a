//! The key layout's value: one text that holds all of a record.
//!
//! `1#ACCESS#MS#EXPIRES_MS#REFRESH#MS#scope=…#unionid=…#openid=…`, where a half that is missing
//! leaves its parts empty. The leading number names the form, so that a later one can differ.

use super::stored_text::{
    Unreadable, Unstorable, read_details, storable, text, time, write_details,
};
use super::{AccessToken, Lifetime, Record, Refresh, RefreshToken, Token};

const FORM: &str = "1";

/// Writes a whole record.
pub(crate) fn write(record: &Record, user_id: &str) -> Result<String, Unstorable> {
    let mut out = String::with_capacity(384);
    out.push_str(FORM);
    match &record.token {
        Some(token) => {
            out.push_str(&format!(
                "#{}#{}#{}",
                storable(token.secret.expose())?,
                token.lifetime.renew_at().as_millis(),
                token.lifetime.expires_at().as_millis(),
            ));
        }
        None => out.push_str("###"),
    }
    match &record.refresh {
        Some(refresh) => out.push_str(&format!(
            "#{}#{}",
            storable(refresh.secret.expose())?,
            refresh.due.as_millis()
        )),
        None => out.push_str("##"),
    }
    write_details(&mut out, &record.details, user_id);
    Ok(out)
}

/// Reads a whole record.
pub(crate) fn read(value: &[u8], user_id: &str) -> Result<Record, Unreadable> {
    let mut parts = text(value)?.split('#');
    if parts.next() != Some(FORM) {
        return Err(Unreadable::UnknownForm);
    }
    let mut part = || parts.next().ok_or(Unreadable::NoTime);
    let token = match (part()?, part()?, part()?) {
        ("", "", "") => None,
        ("", ..) => return Err(Unreadable::EmptyToken),
        (secret, renew_at, expires_at) => {
            let (renew_at, expires_at) = (time(renew_at)?, time(expires_at)?);
            if expires_at < renew_at {
                return Err(Unreadable::BadTime);
            }
            let lifetime = Lifetime::stored(renew_at, Some(expires_at), std::time::Duration::ZERO);
            Some(Token {
                secret: AccessToken::from(secret),
                lifetime,
            })
        }
    };
    let refresh = match (part()?, part()?) {
        ("", "") => None,
        ("", _) => return Err(Unreadable::EmptyToken),
        (secret, due) => Some(Refresh {
            secret: RefreshToken::from(secret),
            due: time(due)?,
        }),
    };
    Ok(Record {
        token,
        refresh,
        details: read_details(parts, user_id),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::credential::Details;
    use proptest::prelude::*;
    use std::time::Duration;

    fn record() -> impl Strategy<Value = Record> {
        let token = (
            "[^#]{1,120}",
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
        let refresh = ("[^#]{1,120}", any::<i64>()).prop_map(|(secret, due)| Refresh {
            secret: RefreshToken::from(secret),
            due: Timestamp::from_millis(due),
        });
        let text = || proptest::option::of(".{1,40}".prop_map(String::into_boxed_str));
        let from = proptest::option::of(0..=u32::MAX);
        let details =
            (text(), text(), text(), from).prop_map(|(openid, scope, unionid, from)| Details {
                openid,
                scope,
                unionid,
                sessions_from: from.map(|from| Timestamp::from_millis(i64::from(from) * 1_000)),
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
            prop_assert_eq!(read(written.as_bytes(), &user_id).unwrap(), record);
        }

        #[test]
        fn every_byte_string_is_a_value_or_a_miss(bytes: Vec<u8>) {
            let _ = read(&bytes, "user");
        }

        #[test]
        fn record_shaped_strings_too(text in "1#[a-z#=%0-9+-]{0,60}") {
            let _ = read(text.as_bytes(), "user");
        }
    }

    #[test]
    fn a_record_of_ordinary_size_is_below_384_bytes() {
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
                unionid: Some(id.into()),
                sessions_from: None,
            },
        };
        let written = write(&record, id).unwrap();
        assert!(written.len() < 384, "{} bytes", written.len());
    }
}
