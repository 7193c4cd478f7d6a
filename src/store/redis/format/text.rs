//! Elements of the text formats of stored values: parts between `#`, numbers, and named details.

use std::borrow::Cow;

use memchr::{Memchr, memchr, memchr_iter};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

use crate::clock::Timestamp;
use crate::credential::{UserDetails, UserDetailsView, is_valid_token};

/// The first bytes of Java's own serialization: `STREAM_MAGIC` and `STREAM_VERSION` (Java Object
/// Serialization Specification, section 6.4).
pub(crate) const SERIALIZATION_MAGIC: [u8; 4] = [0xac, 0xed, 0x00, 0x05];

/// The remedy for values and names of a Java serializer, for log lines.
pub(crate) const SERIALIZER_REMEDY: &str = "let the Java service use StringRedisTemplate, or set \
     RedisSerializer.string() for keys, hash keys and hash values";

/// The reason why a stored value cannot be decoded. The reason does not contain the value, which
/// may be a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("it is not UTF-8")]
    NotUtf8,
    #[error("it has no '#' between a token and its time")]
    MissingTime,
    #[error("its token is empty")]
    EmptyToken,
    #[error(
        "its token holds what no token of WeChat's does: a byte order mark, a blank, a control \
         character or a letter beyond ASCII"
    )]
    InvalidToken,
    #[error("its time is not a whole number of milliseconds")]
    InvalidTime,
    #[error("it is of a form that this version does not know")]
    UnknownFormat,
    #[error("Java's own serialization has written it (it begins with AC ED 00 05)")]
    JavaSerialized,
    #[error("a JSON serializer has written it (it begins with a quote or a bracket)")]
    Json,
    #[error("PHP's serialize has written it")]
    PhpSerialized,
    #[error("PHP's igbinary has written it, and it is neither a string nor an array of that kind")]
    Igbinary,
    #[error("it is sealed with a key that this process does not have")]
    UnknownKey,
    #[cfg(feature = "sealing")]
    #[error("its seal is broken: it was changed, cut, or copied from another place")]
    BrokenSeal,
    #[cfg(feature = "sealing")]
    #[error("it is not sealed, and plain values are refused")]
    NotSealed,
}

impl DecodeError {
    /// Returns the error for a value of an unsupported serializer, which the first bytes of the
    /// value identify. Returns `None` for all other values. No token starts with these bytes.
    pub(crate) fn from_serializer(value: &[u8]) -> Option<Self> {
        match value {
            _ if value.starts_with(&SERIALIZATION_MAGIC) => Some(Self::JavaSerialized),
            [b'"' | b'{' | b'[', ..] => Some(Self::Json),
            [0, 0, 0, 1 | 2, ..] => Some(Self::Igbinary),
            [b's' | b'a' | b'O' | b'C', b':', digit, ..] if digit.is_ascii_digit() => {
                Some(Self::PhpSerialized)
            }
            _ => None,
        }
    }

    /// Returns `true` if an unsupported serializer of another service has written the value. All
    /// values of that service then cause the same error.
    pub(crate) fn is_from_serializer(self) -> bool {
        match self {
            Self::JavaSerialized | Self::Json | Self::PhpSerialized | Self::Igbinary => true,
            Self::NotUtf8
            | Self::MissingTime
            | Self::EmptyToken
            | Self::InvalidToken
            | Self::InvalidTime
            | Self::UnknownFormat
            | Self::UnknownKey => false,
            #[cfg(feature = "sealing")]
            Self::BrokenSeal | Self::NotSealed => false,
        }
    }
}

/// The reason why a secret cannot be stored. The published format cannot escape its separator, so a
/// secret that contains it could not be read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a token that can be stored has 1 to 2,048 visible ASCII characters, and no '#'")]
pub(crate) struct EncodeError;

pub(crate) fn parse_utf8(bytes: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|_| DecodeError::NotUtf8)
}

/// Parses a number of milliseconds as Java's `Long.parseLong` does, with ASCII digits only.
pub(crate) fn parse_time(text: &str) -> Result<Timestamp, DecodeError> {
    text.parse()
        .map(Timestamp::from_millis)
        .map_err(|_| DecodeError::InvalidTime)
}

/// Parses a time of an access token. Treats an implausible time, such as a number of nanoseconds or
/// `Long.MAX_VALUE`, as expired. The engine then fetches the next token, and no addition of times
/// overflows.
pub(crate) fn parse_plausible_time(text: &str) -> Result<Timestamp, DecodeError> {
    parse_time(text).map(plausible_or_zero)
}

/// Replaces an implausible time by the Unix epoch, which counts as expired.
pub(crate) fn plausible_or_zero(at: Timestamp) -> Timestamp {
    match at.is_plausible() {
        true => at,
        false => Timestamp::from_millis(0),
    }
}

/// Checks a token from a stored value. Rejects an empty text and characters that no token contains.
pub(crate) fn parse_secret(text: &str) -> Result<&str, DecodeError> {
    match text {
        "" => Err(DecodeError::EmptyToken),
        token if is_valid_token(token) => Ok(token),
        _ => Err(DecodeError::InvalidToken),
    }
}

pub(crate) fn check_storable(secret: &str) -> Result<&str, EncodeError> {
    is_valid_token(secret).then_some(secret).ok_or(EncodeError)
}

const ESCAPED: &AsciiSet = &CONTROLS.add(b'#').add(b'%');

/// Appends the details as `#name=value` parts. An openid that equals the user id is written as an
/// empty value, which saves memory for millions of users.
pub(crate) fn write_details(out: &mut String, details: &UserDetails, user_id: &str) {
    let openid = details.openid.as_deref().map(|openid| match openid {
        same if same == user_id => "",
        other => other,
    });
    let parts = [
        ("scope", details.scope.as_deref()),
        ("unionid", details.unionid.as_deref()),
    ];
    for (name, value) in parts.into_iter().filter_map(|(n, v)| Some((n, v?))) {
        if !value.is_empty() {
            push_part(out, name, value);
        }
    }
    if let Some(openid) = openid {
        push_part(out, "openid", openid);
    }
    if let Some(from) = details.sessions_valid_from {
        push_part(out, "from", &from.as_millis().to_string());
    }
}

fn push_part(out: &mut String, name: &str, value: &str) {
    out.push('#');
    out.push_str(name);
    out.push('=');
    out.extend(utf8_percent_encode(value, ESCAPED));
}

/// Smallest stored logout time that is a number of milliseconds. Smaller numbers are seconds, as
/// older versions stored them. As milliseconds, the smaller numbers would be times before March
/// 1973.
const MIN_MILLIS: i64 = 100_000_000_000;

/// Converts the stored time at which a user last logged out everywhere, in seconds or milliseconds,
/// to a timestamp.
pub(crate) fn parse_revoked_at(stored: i64) -> Timestamp {
    let millis = match stored {
        seconds if seconds < MIN_MILLIS => seconds.saturating_mul(1_000),
        millis => millis,
    };
    Timestamp::from_millis(millis)
}

/// Parses the details of a user from parts of the form `name=value`. Ignores all other parts and
/// unknown names.
pub(crate) fn read_details<'a>(parts: Parts<'a>, user_id: &'a str) -> UserDetailsView<'a> {
    let mut details = UserDetailsView::default();
    for part in parts {
        let Some(equals) = memchr(b'=', part.as_bytes()) else {
            continue;
        };
        let (name, value) = (&part[..equals], &part[equals + 1..]);
        let value = match memchr(b'%', value.as_bytes()) {
            Some(_) => percent_decode_str(value).decode_utf8_lossy(),
            None => Cow::Borrowed(value),
        };
        let known = |value: Cow<'a, str>| Some(value).filter(|value| !value.is_empty());
        match name {
            "openid" => details.openid = known(value).or(Some(Cow::Borrowed(user_id))),
            "scope" => details.scope = known(value),
            "unionid" => details.unionid = known(value),
            "from" => details.sessions_valid_from = value.parse().ok().map(parse_revoked_at),
            _ => {}
        }
    }
    details
}

/// An iterator over the parts of a text between `#`. An empty text has one part, as in
/// `str::split`.
pub(crate) struct Parts<'a> {
    rest: Option<&'a str>,
    /// The number of bytes before `rest`.
    consumed: usize,
    separators: Memchr<'a>,
}

impl<'a> Parts<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self {
            rest: Some(text),
            consumed: 0,
            separators: memchr_iter(b'#', text.as_bytes()),
        }
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = &'a str;

    /// Returns the next part. Searches with `memchr`, which is faster than the standard search for
    /// short texts.
    #[inline]
    fn next(&mut self) -> Option<&'a str> {
        let left = self.rest?;
        let Some(end) = self.separators.next() else {
            self.rest = None;
            return Some(left);
        };
        let (part, behind) = left.split_at(end - self.consumed);
        self.rest = Some(&behind[1..]);
        self.consumed = end + 1;
        Some(part)
    }
}
