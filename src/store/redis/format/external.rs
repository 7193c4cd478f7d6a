//! Formats in which other SDKs store an account token in Redis. The constructors of
//! [`ExternalToken`](crate::redis::ExternalToken) name the public sources of the formats.

use serde_json::Value;

use crate::bytes::parse_big_endian;
use crate::credential::{AccessToken, is_valid_token};
use crate::store::redis::format::text::{DecodeError, parse_utf8};

/// The format in which another SDK stores an account token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExternalFormat {
    /// The token alone, without quotes.
    Raw,
    /// A JSON string: `"TOKEN"`.
    JsonString,
    /// A JSON string if the value starts with a quote, otherwise the token alone.
    RawOrJsonString,
    /// A JSON object with the token: `{"access_token": "TOKEN", …}`.
    JsonObject,
    /// The output of PHP's `serialize` or igbinary for a string, or for an array with an
    /// `access_token`.
    Php,
}

/// Parses a token from a value in this format. Fails if the value cannot contain a token of WeChat.
pub(crate) fn read_token(value: &[u8], format: ExternalFormat) -> Result<AccessToken, DecodeError> {
    let form = match format {
        ExternalFormat::RawOrJsonString if value.starts_with(b"\"") => ExternalFormat::JsonString,
        form => form,
    };
    let by_serializer = DecodeError::from_serializer(value);
    let read = extract_token(value, form);
    // An error that names the serializer helps the operator more than the error of the parser.
    let token = read.map_err(|why| by_serializer.unwrap_or(why))?;
    if token.is_empty() {
        return Err(DecodeError::EmptyToken);
    }
    if !is_valid_token(&token) {
        return Err(by_serializer.unwrap_or(DecodeError::InvalidToken));
    }
    // WeChat's tokens contain letters, digits, '_' and '-'. A quote or a brace shows that the value
    // has another format.
    if token.contains(['"', '{', '}', '\\']) {
        return Err(by_serializer.unwrap_or(DecodeError::UnknownFormat));
    }
    Ok(AccessToken::from(token))
}

fn extract_token(value: &[u8], format: ExternalFormat) -> Result<String, DecodeError> {
    Ok(match format {
        ExternalFormat::Raw | ExternalFormat::RawOrJsonString => parse_utf8(value)?.to_owned(),
        ExternalFormat::JsonString => match parse_json(value)? {
            Value::String(token) => token,
            _ => return Err(DecodeError::UnknownFormat),
        },
        ExternalFormat::JsonObject => match parse_json(value)?.get("access_token") {
            Some(Value::String(token)) => token.clone(),
            _ => return Err(DecodeError::UnknownFormat),
        },
        ExternalFormat::Php => php_token(value)?,
    })
}

/// Parses a JSON number of seconds since the Unix epoch, which wechatpy uses for the expiry.
pub(crate) fn read_seconds(value: &[u8]) -> Result<i64, DecodeError> {
    match parse_json(value)? {
        Value::Number(seconds) => seconds.as_i64().ok_or(DecodeError::InvalidTime),
        _ => Err(DecodeError::InvalidTime),
    }
}

fn parse_json(value: &[u8]) -> Result<Value, DecodeError> {
    serde_json::from_slice(value).map_err(|_| DecodeError::UnknownFormat)
}

/// A scalar of PHP's `serialize` or igbinary. Only texts can be tokens.
enum PhpValue<'a> {
    Text(&'a [u8]),
    Other,
}

fn php_token(value: &[u8]) -> Result<String, DecodeError> {
    let mut rest = value;
    let token = if value.starts_with(b"a:") {
        php_array_field(&mut rest, b"access_token")
    } else if take_prefix(&mut rest, IGBINARY).is_some() {
        igbinary_token(&mut rest)
    } else {
        match php_scalar(&mut rest) {
            Some(PhpValue::Text(token)) => Some(token),
            _ => None,
        }
    };
    match token {
        Some(token) if rest.is_empty() => parse_utf8(token).map(str::to_owned),
        _ => Err(DecodeError::UnknownFormat),
    }
}

/// Returns the text with the key `name` in a flat array, such as
/// `a:2:{s:12:"access_token";s:3:"abc";s:10:"expires_in";i:7200;}`.
fn php_array_field<'a>(rest: &mut &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    take_prefix(rest, b"a:")?;
    let count = take_number(rest, b':')?;
    take_prefix(rest, b"{")?;
    let mut found = None;
    for _ in 0..count {
        let key = php_scalar(rest)?;
        let value = php_scalar(rest)?;
        if let (PhpValue::Text(key), PhpValue::Text(value)) = (key, value)
            && key == name
        {
            found = Some(value);
        }
    }
    take_prefix(rest, b"}")?;
    found
}

/// Parses a scalar of PHP's `serialize`: `s:3:"abc";`, `i:7200;`, `d:7200.5;`, `b:1;` or `N;`.
fn php_scalar<'a>(rest: &mut &'a [u8]) -> Option<PhpValue<'a>> {
    if take_prefix(rest, b"s:").is_some() {
        let length = take_number(rest, b':')?;
        take_prefix(rest, b"\"")?;
        let (text, after) = rest.split_at_checked(length)?;
        *rest = after;
        take_prefix(rest, b"\";")?;
        return Some(PhpValue::Text(text));
    }
    let end = rest.iter().position(|byte| *byte == b';')?;
    let (value, after) = rest.split_at_checked(end + 1)?;
    let known = value == b"N;" || value.get(1) == Some(&b':') && b"idb".contains(value.first()?);
    *rest = after;
    known.then_some(PhpValue::Other)
}

/// The first bytes of a value in igbinary's format 2.
const IGBINARY: &[u8] = &[0, 0, 0, 2];

/// Parses the token from a string of igbinary, or from a flat array with an `access_token`.
fn igbinary_token<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let mut texts = Vec::new();
    let width = match rest.first()? {
        0x14 => 1,
        0x15 => 2,
        0x16 => 4,
        _ => {
            return match igbinary_scalar(rest, &mut texts)? {
                PhpValue::Text(token) => Some(token),
                PhpValue::Other => None,
            };
        }
    };
    take_byte(rest)?;
    let count = take_big_endian(rest, width)?;
    let mut found = None;
    for _ in 0..count {
        let key = igbinary_scalar(rest, &mut texts)?;
        let value = igbinary_scalar(rest, &mut texts)?;
        if let (PhpValue::Text(b"access_token"), PhpValue::Text(value)) = (key, value) {
            found = Some(value);
        }
    }
    found
}

/// Parses a scalar of igbinary. Collects the strings in `texts`, because a repeated string is
/// stored as the number of its first occurrence.
fn igbinary_scalar<'a>(rest: &mut &'a [u8], texts: &mut Vec<&'a [u8]>) -> Option<PhpValue<'a>> {
    let kind = take_byte(rest)?;
    let skipped = match kind {
        // Null, false and true have no further bytes.
        0x00 | 0x04 | 0x05 => 0,
        // Integers have one, two, four or eight further bytes, and a float (0x0c) has eight.
        0x06 | 0x07 => 1,
        0x08 | 0x09 => 2,
        0x0a | 0x0b => 4,
        0x0c | 0x20 | 0x21 => 8,
        0x0d => return Some(PhpValue::Text(b"")),
        0x0e..=0x10 => {
            let number = take_big_endian(rest, 1 << (kind - 0x0e))?;
            return texts.get(number).copied().map(PhpValue::Text);
        }
        0x11..=0x13 => {
            let length = take_big_endian(rest, 1 << (kind - 0x11))?;
            let (text, after) = rest.split_at_checked(length)?;
            *rest = after;
            texts.push(text);
            return Some(PhpValue::Text(text));
        }
        _ => return None,
    };
    *rest = rest.get(skipped..)?;
    Some(PhpValue::Other)
}

fn take_byte(rest: &mut &[u8]) -> Option<u8> {
    let (first, after) = rest.split_first()?;
    *rest = after;
    Some(*first)
}

fn take_big_endian(rest: &mut &[u8], width: usize) -> Option<usize> {
    let (bytes, after) = rest.split_at_checked(width)?;
    *rest = after;
    usize::try_from(parse_big_endian(bytes)).ok()
}

fn take_prefix(rest: &mut &[u8], prefix: &[u8]) -> Option<()> {
    *rest = rest.strip_prefix(prefix)?;
    Some(())
}

fn take_number(rest: &mut &[u8], end: u8) -> Option<usize> {
    let at = rest.iter().position(|byte| *byte == end)?;
    let (digits, after) = rest.split_at_checked(at)?;
    *rest = after.get(1..)?;
    let digits = std::str::from_utf8(digits).ok()?;
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(value: &str, form: ExternalFormat) -> Option<String> {
        read_token(value.as_bytes(), form)
            .ok()
            .map(|token| token.expose().to_owned())
    }

    #[test]
    fn each_format_is_read() {
        let token = Some("83_aB-c".to_owned());
        assert_eq!(read("83_aB-c", ExternalFormat::Raw), token);
        assert_eq!(read("\"83_aB-c\"", ExternalFormat::JsonString), token);
        assert_eq!(read("83_aB-c", ExternalFormat::RawOrJsonString), token);
        assert_eq!(read("\"83_aB-c\"", ExternalFormat::RawOrJsonString), token);
        let object = r#"{"access_token":"83_aB-c","expires_in":7200}"#;
        assert_eq!(read(object, ExternalFormat::JsonObject), token);
        assert_eq!(read(r#"s:7:"83_aB-c";"#, ExternalFormat::Php), token);
        let array = r#"a:2:{s:12:"access_token";s:7:"83_aB-c";s:10:"expires_in";i:7200;}"#;
        assert_eq!(read(array, ExternalFormat::Php), token);
        let array = r#"a:3:{i:0;N;s:10:"expires_in";d:7200.5;s:12:"access_token";s:7:"83_aB-c";}"#;
        assert_eq!(read(array, ExternalFormat::Php), token);
        assert_eq!(read_seconds(b"1700000000"), Ok(1_700_000_000));
    }

    #[test]
    fn malformed_and_other_formats_are_rejected() {
        use ExternalFormat::{JsonObject, JsonString, Php, Raw};
        for (value, forms) in [
            ("", &[Raw, JsonString, JsonObject, Php][..]),
            ("\"83_a\"", &[Raw, JsonObject, Php]),
            (r#"{"access_token":"83_a"}"#, &[Raw, JsonString, Php]),
            (r#"s:4:"83_a";"#, &[Raw, JsonString, JsonObject]),
            ("83 a", &[Raw]),
            ("83_\u{e9}", &[Raw]),
            (r#"{"access_token":7}"#, &[JsonObject]),
            ("{", &[JsonObject, JsonString]),
            (r#"s:5:"83_a";"#, &[Php]),
            (r#"s:3:"83_a";"#, &[Php]),
            (r#"s:99999999999999999999:"83_a";"#, &[Php]),
            (r#"s:4:"83_a";s:4:"83_a";"#, &[Php]),
            (r#"a:1:{s:12:"access_token";s:4:"83_a";"#, &[Php]),
            (r#"a:9999999999:{s:12:"access_token";s:4:"83_a";}"#, &[Php]),
            (r#"O:8:"stdClass":0:{}"#, &[Php]),
            (r#"s:0:"";"#, &[Php]),
        ] {
            for form in forms {
                assert_eq!(read(value, *form), None, "{value} as {form:?}");
            }
        }
        assert!(read_token(b"\xac\xed\x00\x05t\x00\x0483_a", ExternalFormat::Raw).is_err());
        // Each of these values is truncated, has a wrong length or another type, or has bytes after
        // its end.
        for broken in [
            &b"\0\0\0\x02"[..],
            b"\0\0\0\x02\x11",
            b"\0\0\0\x02\x11\x0883_easy",
            b"\0\0\0\x02\x13\xff\xff\xff\xff83_easy",
            b"\0\0\0\x02\x11\x0783_easy!",
            b"\0\0\0\x02\x0e\x07",
            b"\0\0\0\x02\x16\xff\xff\xff\xff",
            b"\0\0\0\x02\x17\x01a",
            b"\0\0\0\x02\x0d",
            b"\0\0\0\x01\x11\x0783_easy",
        ] {
            let why = read_token(broken, Php).unwrap_err();
            assert!(
                matches!(why, DecodeError::Igbinary | DecodeError::EmptyToken),
                "{broken:?}"
            );
        }
    }

    /// PHP 8.2 with igbinary 3.2 has produced these bytes.
    #[test]
    fn igbinary_is_read() {
        let token = |value: &[u8]| read_token(value, ExternalFormat::Php).unwrap();
        assert_eq!(token(b"\0\0\0\x02\x11\x0783_easy").expose(), "83_easy");
        let long = [b"\0\0\0\x02\x12\x01\x2c".as_slice(), &[b'a'; 300]].concat();
        assert_eq!(token(&long).expose().len(), 300);
        let array =
            b"\0\0\0\x02\x14\x02\x11\x0caccess_token\x11\x0783_easy\x11\x0aexpires_in\x08\x1c\x20";
        assert_eq!(token(array).expose(), "83_easy");
        let all =
            b"\0\0\0\x02\x14\x09\x11\x0aexpires_in\x08\x1c\x20\x11\x01n\x00\x11\x01b\x05\x11\x01d\
            \x0c\x3f\xf8\0\0\0\0\0\0\x11\x03neg\x07\x05\x06\x00\x11\x01x\x11\x0caccess_token\
            \x11\x0783_easy\x11\x05again\x0e\x07\x11\x01e\x0d";
        assert_eq!(token(all).expose(), "83_easy");
    }

    #[test]
    fn errors_name_the_serializer() {
        use ExternalFormat::{JsonObject, Php, Raw};
        let why = |value: &[u8], form| read_token(value, form).unwrap_err();
        assert_eq!(why(b"s:7:\"83_easy\";", Raw), DecodeError::PhpSerialized);
        assert_eq!(
            why(b"\0\0\0\x02\x11\x0783_easy", Raw),
            DecodeError::Igbinary
        );
        assert_eq!(why(b"{\"access_token\":\"83\"}", Raw), DecodeError::Json);
        assert_eq!(why(b"\"83_a\"", JsonObject), DecodeError::Json);
        assert_eq!(
            why(b"\xac\xed\x00\x05t\x00\x0283", Php),
            DecodeError::JavaSerialized
        );
        assert_eq!(
            why("\u{feff}83_a".as_bytes(), Raw),
            DecodeError::InvalidToken
        );
        assert!(read_seconds(b"\"soon\"").is_err() && read_seconds(b"1e999").is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes: Vec<u8>, text in "[asid:;{}\"0-9_.a-c]{0,40}") {
            use ExternalFormat::{JsonObject, JsonString, Php, Raw};
            for form in [Raw, JsonString, JsonObject, Php] {
                let _ = read_token(&bytes, form);
                let _ = read_token(text.as_bytes(), form);
            }
            let _ = read_seconds(&bytes);
        }

        #[test]
        fn every_php_string_reads_back(token in "[A-Za-z0-9_-]{1,200}") {
            let written = format!("s:{}:\"{token}\";", token.len());
            prop_assert_eq!(read(&written, ExternalFormat::Php), Some(token));
        }
    }
}
