//! The values of the published layout: `ACCESS_TOKEN#MS` and `REFRESH_TOKEN#MS`.
//!
//! A Spring Boot service also reads these values. The service splits a value on `#` and uses the
//! first two parts, the second as a `long`. This crate appends its own parts after them.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::credential::{
    Lifetime, Refresh, RefreshView, Token, TokenView, UserDetails, UserDetailsView,
};
use crate::store::redis::format::text::{
    DecodeError, EncodeError, Parts, check_storable, parse_plausible_time, parse_secret,
    parse_time, parse_utf8, plausible_or_zero, read_details, write_details,
};

/// Formats an access token as `TOKEN#MS`, with the time of its renewal. Appends the expiry as a
/// third part if a short lifetime has reduced the margin.
pub(crate) fn write_token(token: &Token, margin: Duration) -> Result<String, EncodeError> {
    let renew_at = token.lifetime.renew_at();
    let mut out = format!(
        "{}#{}",
        check_storable(token.secret.expose())?,
        renew_at.as_millis()
    );
    if renew_at.saturating_add(margin) != token.lifetime.expires_at() {
        out.push_str(&format!("#{}", token.lifetime.expires_at().as_millis()));
    }
    Ok(out)
}

/// Parses an access token from `TOKEN#MS`. An optional third part is its expiry.
pub(crate) fn read_token(value: &[u8], margin: Duration) -> Result<TokenView<'_>, DecodeError> {
    let (secret, renew_at, mut rest) = split_token(value)?;
    let renew_at = plausible_or_zero(renew_at);
    let expires_at = rest.next().and_then(|part| parse_plausible_time(part).ok());
    Ok(TokenView {
        secret,
        lifetime: Lifetime::from_stored(renew_at, expires_at, margin),
    })
}

/// Formats a refresh token as `REFRESH_TOKEN#MS`, followed by the details of the user.
pub(crate) fn write_refresh(
    refresh: &Refresh,
    details: &UserDetails,
    user_id: &str,
) -> Result<String, EncodeError> {
    let secret = check_storable(refresh.secret.expose())?;
    let mut out = format!("{secret}#{}", refresh.expected_expiry.as_millis());
    write_details(&mut out, details, user_id);
    Ok(out)
}

/// Parses a refresh token from `REFRESH_TOKEN#MS`, and the details of the user that follow.
pub(crate) fn read_refresh<'a>(
    value: &'a [u8],
    user_id: &'a str,
) -> Result<(RefreshView<'a>, UserDetailsView<'a>), DecodeError> {
    let (secret, due, rest) = split_token(value)?;
    Ok((
        RefreshView {
            secret,
            expected_expiry: due,
        },
        read_details(rest, user_id),
    ))
}

fn split_token(value: &[u8]) -> Result<(&str, Timestamp, Parts<'_>), DecodeError> {
    let read = || {
        let mut parts = Parts::new(parse_utf8(value)?);
        let token = parts.next().unwrap_or_default();
        let at = parts.next().ok_or(DecodeError::MissingTime)?;
        Ok((parse_secret(token)?, parse_time(at)?, parts))
    };
    // An error that names the serializer helps the operator more than the error of the parser.
    read().map_err(|why| DecodeError::from_serializer(value).unwrap_or(why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::{AccessToken, RefreshToken};
    use proptest::prelude::*;

    const MARGIN: Duration = Duration::from_secs(900);

    fn token(secret: &str, expires_in: i64) -> Token {
        let now = Timestamp::from_millis(1_700_000_000_000);
        Token {
            secret: AccessToken::from(secret),
            lifetime: Lifetime::from_response(now, Some(expires_in), MARGIN),
        }
    }

    /// Reads a value as the published service does. Java's `value.split("#")` drops empty strings
    /// at the end. The service uses the first part, and parses the second part with
    /// `Long.parseLong`.
    fn java_reads(value: &str) -> Option<(String, i64)> {
        let mut parts: Vec<&str> = value.split('#').collect();
        while parts.last().is_some_and(|part| part.is_empty()) {
            parts.pop();
        }
        Some(((*parts.first()?).to_owned(), parts.get(1)?.parse().ok()?))
    }

    #[test]
    fn short_lived_tokens_carry_their_expiry() {
        assert_eq!(
            write_token(&token("tok", 7_200), MARGIN).unwrap(),
            "tok#1700006300000"
        );
        assert_eq!(
            write_token(&token("tok", 600), MARGIN).unwrap(),
            "tok#1700000300000#1700000600000"
        );
    }

    #[test]
    fn malformed_values_are_rejected() {
        for garbage in [
            &b"abc"[..],
            b"tok#",
            b"#123",
            b"tok#12x",
            b"",
            b"#",
            b"##",
            b"\xff#1",
            b"tok# 12",
            b"\xef\xbb\xbftok#12",
            b"to k#12",
            b"tok\x07#12",
            b"tok\n#12",
            b"t\xc3\xb6k#12",
            b"\xac\xed\x00\x05t\x00\x06tok#12",
            b"\"tok#12\"",
            b"{\"@type\":\"com.example.Token\",\"value\":\"tok#12\"}",
            b"[\"java.lang.String\",\"tok#12\"]",
            b"s:6:\"tok#12\";",
        ] {
            assert!(read_token(garbage, MARGIN).is_err(), "{garbage:?}");
            assert!(read_refresh(garbage, "u").is_err(), "{garbage:?}");
        }
    }

    #[test]
    fn extra_parts_are_tolerated() {
        let read = read_token(b"tok#1000#what#ever", MARGIN).unwrap();
        assert_eq!(read.lifetime.expires_at().as_millis(), 901_000);
        let read = read_token(b"tok#1000#2000#x", MARGIN).unwrap();
        assert_eq!(read.lifetime.expires_at().as_millis(), 2_000);
        let (refresh, details) = read_refresh(b"ref#5#junk#scope=snsapi_base#x=y", "u").unwrap();
        assert_eq!(
            (refresh.secret, refresh.expected_expiry.as_millis()),
            ("ref", 5)
        );
        assert_eq!(details.scope.as_deref(), Some("snsapi_base"));
        assert_eq!(details.openid, None);
        // Former versions wrote the time of a logout in seconds.
        for from in ["1700000000", "1700000000000"] {
            let value = format!("ref#5#from={from}");
            let (_, details) = read_refresh(value.as_bytes(), "u").unwrap();
            let at = Timestamp::from_millis(1_700_000_000_000);
            assert_eq!(details.sessions_valid_from, Some(at));
        }
    }

    #[test]
    fn implausible_times_read_as_expired() {
        for at in [
            "9223372036854775807",
            "1700000000000000000",
            "10000000000000",
            "-1",
            "-9223372036854775808",
        ] {
            let value = format!("tok#{at}#{at}");
            let life = read_token(value.as_bytes(), MARGIN).unwrap().lifetime;
            assert_eq!(life.renew_at().as_millis(), 0, "{at}");
            assert!(life.expires_at().is_plausible(), "{at}");
            // The time of a refresh token is read unchanged.
            let value = format!("tok#{at}");
            let (refresh, _) = read_refresh(value.as_bytes(), "u").unwrap();
            assert_eq!(refresh.expected_expiry.as_millis().to_string(), at);
        }
    }

    #[test]
    fn tokens_with_a_separator_are_rejected() {
        assert!(write_token(&token("a#b", 7_200), MARGIN).is_err());
        assert!(write_token(&token("", 7_200), MARGIN).is_err());
    }

    proptest! {
        #[test]
        fn every_token_reads_back_and_java_agrees(
            secret in "[!-\"$-~]{1,200}", at in 0i64..4_000_000_000_000, expires_in: i64, margin in 0u64..10_000,
        ) {
            let margin = Duration::from_secs(margin);
            let lifetime = Lifetime::from_response(Timestamp::from_millis(at), Some(expires_in), margin);
            let token = Token { secret: AccessToken::from(secret.as_str()), lifetime };
            let written = write_token(&token, margin).unwrap();
            prop_assert_eq!(&read_token(written.as_bytes(), margin).unwrap().to_token(), &token);
            prop_assert_eq!(java_reads(&written), Some((secret, lifetime.renew_at().as_millis())));
        }

        #[test]
        fn every_refresh_reads_back_and_java_agrees(
            secret in "[!-\"$-~]{1,200}", due: i64,
            openid in proptest::option::of(".{1,40}"),
            from in proptest::option::of(100_000_000_000..=i64::MAX),
            scope in proptest::option::of(".{1,40}"),
            unionid in proptest::option::of(".{1,40}"),
            user_id in ".{1,40}",
        ) {
            let refresh = Refresh { secret: RefreshToken::from(secret.as_str()), expected_expiry: Timestamp::from_millis(due) };
            let boxed = |text: Option<String>| text.map(String::into_boxed_str);
            let sessions_valid_from = from.map(Timestamp::from_millis);
            let details = UserDetails { openid: boxed(openid), scope: boxed(scope), unionid: boxed(unionid), sessions_valid_from };
            let written = write_refresh(&refresh, &details, &user_id).unwrap();
            let (read, known) = read_refresh(written.as_bytes(), &user_id).unwrap();
            prop_assert_eq!((read.to_refresh(), known.to_details()), (refresh, details));
            prop_assert_eq!(java_reads(&written), Some((secret, due)));
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>, margin in 0u64..10_000) {
            let _ = read_token(&bytes, Duration::from_secs(margin));
            let _ = read_refresh(&bytes, "user");
        }

        #[test]
        fn java_agrees_on_token_like_text(text in "[a-z#=%0-9+-]{0,40}") {
            if let Ok(read) = read_token(text.as_bytes(), MARGIN)
                && read.lifetime.renew_at().as_millis() != 0
            {
                prop_assert_eq!(
                    java_reads(&text),
                    Some((read.secret.to_owned(), read.lifetime.renew_at().as_millis()))
                );
            }
        }
    }
}
