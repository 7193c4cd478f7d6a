//! Redaction: removes secrets from texts for errors and logs.

use std::borrow::Cow;
use std::ops::Range;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// The text that replaces a secret.
const REDACTED: &str = "***";

/// Minimum length of a run of letters, digits, `_` and `-` that is redacted: 20 characters.
/// WeChat's tokens are longer, and words are shorter.
const MIN_TOKEN_LIKE_CHARS: usize = 20;

/// The characters that are escaped in a query value: all except the unreserved characters of RFC
/// 3986.
pub(super) const QUERY_VALUE_ESCAPES: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// The secrets that one call sends, which must not appear in texts about its reply.
#[derive(Default)]
pub(crate) struct Redactor<'a>(Vec<Cow<'a, str>>);

impl<'a> Redactor<'a> {
    pub(crate) fn new(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let mut all: Vec<Cow<'a, str>> = Vec::new();
        for secret in secrets.into_iter().filter(|secret| !secret.is_empty()) {
            let encoded: Cow<'a, str> = utf8_percent_encode(secret, QUERY_VALUE_ESCAPES).into();
            if encoded != secret {
                all.push(encoded);
            }
            all.push(Cow::Borrowed(secret));
        }
        // The longest secret is replaced first. If one secret is the beginning of another,
        // replacing the shorter one first would leave the rest of the longer one in the text.
        all.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self(all)
    }

    /// Returns one line of at most `max_chars` characters, without control characters, without the
    /// secrets of this call and without texts that look like tokens.
    pub(super) fn redact(&self, text: &str, max_chars: usize) -> String {
        // The text is truncated last. Otherwise the first half of a token could remain, too short
        // to be recognized.
        let text = self.0.iter().fold(text.to_owned(), |text, secret| {
            text.replace(secret.as_ref(), REDACTED)
        });
        truncate(
            &redact_token_like(&redact_named_values(&to_single_line(&text))),
            max_chars,
        )
    }
}

/// Replaces each run of white space and control characters by one space. Removes invisible
/// characters, such as those that change the direction of text in a terminal.
fn to_single_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if c.is_whitespace() || c.is_control() => {
                if !out.is_empty() && !out.ends_with(' ') {
                    out.push(' ');
                }
            }
            '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' => {}
            '\u{feff}' => {}
            c => out.push(c),
        }
    }
    out.truncate(out.trim_end().len());
    out
}

/// Replaces the values of names that end in `token`, `ticket` or `secret`, in JSON and in query
/// strings. A value is replaced however short it is.
fn redact_named_values(text: &str) -> String {
    // Positions in `lower` are positions in `text`, because only ASCII letters change.
    let lower = text.to_ascii_lowercase();
    let mut name_ends: Vec<usize> = ["token", "ticket", "secret"]
        .iter()
        .flat_map(|name| lower.match_indices(name).map(|(at, name)| at + name.len()))
        .collect();
    name_ends.sort_unstable();
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for name_end in name_ends {
        if name_end < done {
            // The name lies within a value that is already replaced.
            continue;
        }
        let value = value_range(&text[name_end..]).unwrap_or_default();
        out.push_str(&text[done..name_end + value.start]);
        if !value.is_empty() {
            out.push_str(REDACTED);
        }
        done = name_end + value.end;
    }
    out.push_str(&text[done..]);
    out
}

/// Returns the range of the value in the text after a name, such as `":"value"`, `=value&` or
/// `: value`. Returns `None` if neither `:` nor `=` follows the name.
fn value_range(rest: &str) -> Option<Range<usize>> {
    let sign = rest.find(|c: char| !matches!(c, '"' | '\'' | '\\' | ' '))?;
    if !rest[sign..].starts_with([':', '=']) {
        return None;
    }
    let space = rest[sign + 1..].find(|c: char| !matches!(c, ' ' | '\\'))?;
    let at = sign + 1 + space;
    let (start, end) = match rest[at..].chars().next()? {
        // The value ends at the closing quote and not at a blank, because the reply may be invalid
        // just because its token contains a blank. Without a closing quote, the value extends to
        // the end of the text.
        quote @ ('"' | '\'') => (at + 1, rest[at + 1..].find(quote)),
        _ => (at, rest[at..].find(['"', '\'', '&', ',', '}', '<', ' '])),
    };
    Some(start..end.map_or(rest.len(), |end| start + end))
}

/// Replaces each run of at least [`MIN_TOKEN_LIKE_CHARS`] letters, digits, `_` and `-`, which may
/// be a token.
fn redact_token_like(text: &str) -> String {
    let is_token_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let run = rest.find(|c| !is_token_char(c)).unwrap_or(rest.len());
        out.push_str(if run >= MIN_TOKEN_LIKE_CHARS {
            REDACTED
        } else {
            &rest[..run]
        });
        rest = &rest[run..];
        let gap = rest.find(is_token_char).unwrap_or(rest.len());
        out.push_str(&rest[..gap]);
        rest = &rest[gap..];
    }
    out
}

/// Truncates a text that is longer than `max_chars` characters. The last character is then an
/// ellipsis.
fn truncate(text: &str, max_chars: usize) -> String {
    match text.char_indices().nth(max_chars) {
        None => text.to_owned(),
        Some(_) => {
            let mut out: String = text.chars().take(max_chars.saturating_sub(1)).collect();
            out.push('…');
            out
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn redacted(text: &str) -> String {
        Redactor::default().redact(text, 80)
    }

    #[test]
    fn ordinary_text_is_kept() {
        let text = "invalid ip 1.2.3.4 ipv6 ::ffff:1.2.3.4, not in whitelist";
        assert_eq!(redacted(text), text);
        assert_eq!(redacted("access_token expired"), "access_token expired");
        assert_eq!(redacted("a\r\n\tb\u{7}\u{202e}c"), "a b c");
        assert_eq!(redacted("张三"), "张三");
    }

    #[test]
    fn token_like_text_is_redacted() {
        assert_eq!(redacted("say 83_AbCdEfGhIjKlMnOpQrSt!"), "say ***!");
        assert_eq!(
            redacted(r#"{"access_token":"t","refresh_token": "r","openid":"o"#),
            r#"{"access_token":"***","refresh_token": "***","openid":"o"#
        );
        assert_eq!(
            redacted("/x?appid=wx&secret=s&code=1"),
            "/x?appid=wx&secret=***&code=1"
        );
        assert_eq!(redacted(r#"{"access_token":"#), r#"{"access_token":"#);
        assert_eq!(
            redacted(r#"{"ticket":"a, b","refresh_token":"","access_token":nul"#),
            r#"{"ticket":"***","refresh_token":"","access_token":***"#
        );
        assert_eq!(
            redacted(r#"\"access_token\": \"a b\""#),
            r#"\"access_token\": \"***""#
        );
    }

    #[test]
    fn a_secret_that_is_a_prefix_is_redacted() {
        let secrets = Redactor::new(["abc", "abcdef", "a/b"]);
        assert_eq!(
            secrets.redact("abcdef abc a/b a%2Fb", 80),
            "*** *** *** ***"
        );
    }

    proptest! {
        #[test]
        fn output_is_one_short_line_without_the_secret(
            before in any::<String>(), secret in "[A-Za-z0-9_+/=-]{4,60}", after in any::<String>(),
        ) {
            let text = format!("{before}{secret}{after}");
            let shown = Redactor::new([secret.as_str()]).redact(&text, 80);
            prop_assert!(!shown.contains(&secret));
            prop_assert!(shown.chars().count() <= 80);
            prop_assert!(!shown.chars().any(char::is_control));
        }
    }
}
