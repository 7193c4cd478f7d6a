//! Parser of WeChat's replies: pure functions from bytes to values.
//!
//! WeChat sends JSON under any Content-Type, with raw control characters and invalid UTF-8 inside
//! nicknames. Numbers may come as strings. Gateways in between return HTML or an empty body. The
//! parser repairs what it can, and returns [`InvalidReply`] for the rest. The parser never panics.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::credential::{AccessToken, RefreshToken, UserId, is_valid_token};

/// The fields of a reply, which is a JSON object.
pub(crate) type ReplyFields = Map<String, Value>;

const BYTE_ORDER_MARK: char = '\u{feff}';

/// The reason why a reply is invalid. The text of the reason contains nothing of the reply, because
/// a reply may contain secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidReply {
    #[error("an empty body")]
    Empty,
    #[error("something other than JSON")]
    NotJson,
    #[error("JSON that is not an object")]
    NotObject,
    #[error("an errcode that is not a number")]
    InvalidErrcode,
    #[error("more than 1 MiB")]
    TooLarge,
    #[error("neither success nor an errcode")]
    MissingErrcode,
    #[error("no {0}")]
    MissingField(&'static str),
    #[error("a {0} that cannot be one")]
    MalformedToken(&'static str),
    #[error("an answer for another openid")]
    WrongOpenid,
}

/// A parsed reply: its errcode, which is 0 for a success, and all its fields.
#[derive(Debug)]
pub(crate) struct ApiReply {
    pub(crate) errcode: i64,
    pub(crate) fields: ReplyFields,
}

impl ApiReply {
    pub(crate) fn errmsg(&self) -> &str {
        self.fields
            .get("errmsg")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }
}

/// Parses the body of a reply. A missing errcode is read as 0.
pub(crate) fn parse(body: &[u8]) -> Result<ApiReply, InvalidReply> {
    let text = String::from_utf8_lossy(body);
    let text = text.trim_start_matches(BYTE_ORDER_MARK).trim();
    if text.is_empty() {
        return Err(InvalidReply::Empty);
    }
    let value: Value =
        serde_json::from_str(&repair_json(text)).map_err(|_| InvalidReply::NotJson)?;
    let Value::Object(fields) = value else {
        return Err(InvalidReply::NotObject);
    };
    let errcode = match fields.get("errcode") {
        None | Some(Value::Null) => 0,
        Some(value) => parse_integer(value).ok_or(InvalidReply::InvalidErrcode)?,
    };
    Ok(ApiReply { errcode, fields })
}

/// Repairs two mistakes that WeChat's JSON may contain, and changes nothing else.
///
/// Raw control characters U+0000–U+001F inside strings are escaped. Half of a surrogate pair, such
/// as `\ud83d` alone from an emoji that was cut, becomes U+FFFD.
fn repair_json(text: &str) -> Cow<'_, str> {
    if !text.bytes().any(|byte| byte < 0x20 || byte == b'\\') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    // `true` between the quotes of a string. Control characters and backslashes are repaired only
    // inside strings. Outside, control characters are white space, and a backslash is an error.
    let mut in_string = false;
    let mut rest = text;
    // The loop searches only for ASCII characters, so every index is a character boundary.
    while let Some(at) = rest.find(|c: char| matches!(c, '"' | '\\') || c < '\u{20}') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let taken = match rest.as_bytes()[0] {
            b'"' => {
                in_string = !in_string;
                out.push('"');
                1
            }
            b'\\' if in_string => copy_escape(&mut out, rest),
            control @ 0..0x20 if in_string => {
                out.push_str(&format!("\\u{control:04x}"));
                1
            }
            other => {
                out.push(char::from(other));
                1
            }
        };
        rest = &rest[taken..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// Copies the escape sequence at the start of `rest` to `out`, and returns its length in `rest`.
/// Half of a surrogate pair is replaced by U+FFFD.
fn copy_escape(out: &mut String, rest: &str) -> usize {
    match (
        parse_utf16_escape(rest),
        parse_utf16_escape(rest.get(6..).unwrap_or("")),
    ) {
        (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => {
            out.push_str(&rest[..12]);
            12
        }
        (Some(0xd800..=0xdfff), _) => {
            out.push_str("\\ufffd");
            6
        }
        _ => {
            // Copies the backslash with the character after it, so that an escaped quote does not
            // end the string. A backslash before a control character is escaped alone: the caller
            // then escapes the control character.
            match rest[1..].chars().next() {
                Some(c) if c >= '\u{20}' => {
                    out.push('\\');
                    out.push(c);
                    1 + c.len_utf8()
                }
                _ => {
                    out.push_str("\\\\");
                    1
                }
            }
        }
    }
}

/// Returns the UTF-16 code unit of an escape `\uXXXX` at the start of a text, or `None` if the text
/// starts otherwise.
fn parse_utf16_escape(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    u16::from_str_radix(digits, 16).ok()
}

/// Parses an integer from a JSON number, or from a string that contains a number. A fraction is cut
/// off, and values outside the range of `i64` saturate.
pub(super) fn parse_integer(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number
            .as_i64()
            .or_else(|| to_saturating_i64(number.as_f64()?)),
        Value::String(text) => {
            let text = text.trim();
            text.parse()
                .ok()
                .or_else(|| to_saturating_i64(text.parse().ok()?))
        }
        _ => None,
    }
}

#[allow(clippy::cast_possible_truncation)] // the cast saturates, and NaN is excluded
fn to_saturating_i64(number: f64) -> Option<i64> {
    number.is_finite().then_some(number as i64)
}

/// Returns the text of this field, or `None` if the field is missing, empty or not a text.
pub(super) fn non_empty_text<'a>(fields: &'a ReplyFields, name: &str) -> Option<&'a str> {
    fields
        .get(name)
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty())
}

/// Returns the openid of a reply, or `None` if the reply has no openid that is a valid user id.
pub(super) fn valid_openid(fields: &ReplyFields) -> Option<&str> {
    non_empty_text(fields, "openid").filter(|openid| UserId::check(openid).is_ok())
}

/// Returns the access token or ticket in this field. Returns an error if the field is missing,
/// empty or malformed.
pub(super) fn required_token(
    fields: &ReplyFields,
    name: &'static str,
) -> Result<AccessToken, InvalidReply> {
    optional_token(fields, name)?
        .map(AccessToken::from)
        .ok_or(InvalidReply::MissingField(name))
}

/// Returns the refresh token of a reply, or `None` if the refresh token is missing or empty. A
/// malformed refresh token is an error.
pub(super) fn optional_refresh_token(
    fields: &ReplyFields,
) -> Result<Option<RefreshToken>, InvalidReply> {
    Ok(optional_token(fields, "refresh_token")?.map(RefreshToken::from))
}

/// Returns the token in this field, or `None` if the field is missing or empty. A malformed token is
/// an error.
pub(super) fn optional_token<'a>(
    fields: &'a ReplyFields,
    name: &'static str,
) -> Result<Option<&'a str>, InvalidReply> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(token)) if token.is_empty() => Ok(None),
        Some(Value::String(token)) if is_valid_token(token) => Ok(Some(token)),
        Some(_) => Err(InvalidReply::MalformedToken(name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn fields(body: &[u8]) -> ReplyFields {
        parse(body).unwrap().fields
    }

    #[test]
    fn malformed_json_is_repaired() {
        let nickname = |body: &[u8]| fields(body)["nickname"].as_str().unwrap().to_owned();
        assert_eq!(nickname(b"\xef\xbb\xbf {\"nickname\":\"a\"}\n"), "a");
        assert_eq!(
            nickname(b"{\"nickname\":\"a\x07\x00\nb\"}"),
            "a\u{7}\u{0}\nb"
        );
        assert_eq!(
            nickname(b"{\"nickname\":\"a\xff\xe5\xbcb\"}"),
            "a\u{fffd}\u{fffd}b"
        );
        assert_eq!(nickname(br#"{"nickname":"a\n\/\"\\"}"#), "a\n/\"\\");
        assert_eq!(nickname(br#"{"nickname":"\ud83d\ude00"}"#), "😀");
        assert_eq!(
            nickname(br#"{"nickname":"\ud83d\u0041\ude00"}"#),
            "\u{fffd}A\u{fffd}"
        );
        assert_eq!(nickname(br#"{"nickname":"\\ud83d"}"#), "\\ud83d");
        assert_eq!(nickname(b"{\n\t\"nickname\":\r\n\"a\"}"), "a");
        assert_eq!(nickname(b"{\"nickname\":\"a\\\nb\"}"), "a\\\nb");
    }

    #[test]
    fn invalid_replies_are_rejected_with_the_reason() {
        let bad = |body: &[u8]| parse(body).unwrap_err();
        assert_eq!(bad(b""), InvalidReply::Empty);
        assert_eq!(bad(b"\xef\xbb\xbf \r\n"), InvalidReply::Empty);
        assert_eq!(bad(b"<html>502</html>"), InvalidReply::NotJson);
        assert_eq!(bad(br#"{"access_token":"a"#), InvalidReply::NotJson);
        assert_eq!(bad(br#"{"a":"\"#), InvalidReply::NotJson);
        assert_eq!(bad(b"[1]"), InvalidReply::NotObject);
        assert_eq!(bad(b"\"ok\""), InvalidReply::NotObject);
        assert_eq!(bad(br#"{"errcode":"no"}"#), InvalidReply::InvalidErrcode);
        assert_eq!(bad("[".repeat(100_000).as_bytes()), InvalidReply::NotJson);
    }

    #[test]
    fn errcodes_are_parsed_in_all_forms() {
        let errcode = |body: &str| parse(body.as_bytes()).unwrap().errcode;
        assert_eq!(errcode("{}"), 0);
        assert_eq!(errcode(r#"{"errcode":0,"errmsg":"ok"}"#), 0);
        assert_eq!(errcode(r#"{"errcode":null}"#), 0);
        assert_eq!(errcode(r#"{"errcode":"40001"}"#), 40001);
        assert_eq!(errcode(r#"{"errcode":-1}"#), -1);
        assert_eq!(errcode(r#"{"errcode":42001.0}"#), 42001);
    }

    #[test]
    fn numbers_are_parsed_in_all_forms() {
        for (value, number) in [
            (json!(7200), Some(7_200)),
            (json!("7200"), Some(7_200)),
            (json!(" 7200 "), Some(7_200)),
            (json!(7200.9), Some(7_200)),
            (json!("7.2e3"), Some(7_200)),
            (json!(0), Some(0)),
            (json!(-5), Some(-5)),
            (json!(u64::MAX), Some(i64::MAX)),
            (json!("99999999999999999999"), Some(i64::MAX)),
            (json!("NaN"), None),
            (json!("inf"), None),
            (json!(""), None),
            (json!(null), None),
            (json!([7200]), None),
        ] {
            assert_eq!(parse_integer(&value), number, "{value}");
        }
    }

    #[test]
    fn only_valid_tokens_are_accepted() {
        let of = |value: Value| {
            let Value::Object(fields) = json!({ "access_token": value }) else {
                unreachable!()
            };
            required_token(&fields, "access_token").map(|token| token.expose().to_owned())
        };
        assert_eq!(of(json!("83_a-B.~+/=")).unwrap(), "83_a-B.~+/=");
        assert_eq!(of(json!("a".repeat(2_048))).unwrap().len(), 2_048);
        for bad in [
            json!("a#b"),
            json!("a b"),
            json!("é"),
            json!("\n"),
            json!(1),
            json!("a".repeat(2_049)),
        ] {
            assert_eq!(
                of(bad.clone()),
                Err(InvalidReply::MalformedToken("access_token")),
                "{bad}"
            );
        }
        for none in [json!(null), json!("")] {
            assert_eq!(of(none), Err(InvalidReply::MissingField("access_token")));
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }

        #[test]
        fn json_like_text_never_panics(text in r#"[{]"(a|\\|"|\\u|d83d|[\x00-\x1f]|é|:|,|1|[}]){0,40}"#) {
            let _ = parse(text.as_bytes());
        }

        #[test]
        fn valid_json_is_unchanged(nickname: String, number: i64) {
            let value = json!({ "nickname": nickname, "n": number, "nested": { "a\"\\": [nickname] } });
            let Value::Object(expected) = &value else { unreachable!() };
            prop_assert_eq!(&fields(value.to_string().as_bytes()), expected);
            let pretty = serde_json::to_string_pretty(&value).unwrap();
            prop_assert_eq!(&fields(pretty.as_bytes()), expected);
        }

        #[test]
        fn control_characters_are_kept(nickname in "[a-z\\x00-\\x1f]{0,40}") {
            let body = format!("{{\"nickname\":\"{nickname}\"}}");
            prop_assert_eq!(&fields(body.as_bytes())["nickname"], &json!(nickname));
        }
    }
}
