//! Replies in WeChat's form: HTTP 200 also for errors, and unusual content types.

use std::{io, time::Duration};

use axum::{
    http::{HeaderName, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::ser::{CharEscape, CompactFormatter, Formatter, Serializer};

use crate::simulator::error_reply::WechatErrorReply;

/// Returns the content type that WeChat sends with JSON. Paths under `/sns` have `text/plain`.
/// Other paths have `encoding` instead of the standard's `charset`, as issues of several SDKs
/// report.
pub(super) fn content_type(path: &str) -> (HeaderName, &'static str) {
    let value = if path.starts_with("/sns/") {
        "text/plain"
    } else {
        "application/json; encoding=utf-8"
    };
    (header::CONTENT_TYPE, value)
}

#[derive(Serialize)]
struct ErrorBody {
    errcode: i64,
    errmsg: String,
}

/// The reply of a successful call that returns no data: errcode 0 and `ok`.
#[derive(Serialize)]
pub(super) struct EmptyReply {
    errcode: i64,
    errmsg: &'static str,
}

impl EmptyReply {
    pub(super) const OK: Self = Self {
        errcode: 0,
        errmsg: "ok",
    };
}

/// Returns an error in WeChat's form: HTTP 200 with an errcode and an errmsg.
pub(super) fn error_response(path: &str, error: &WechatErrorReply, now: Duration) -> Response {
    let body = ErrorBody {
        errcode: error.errcode,
        errmsg: error.errmsg(now),
    };
    json_response(path, &body)
}

/// Returns the result of a call in WeChat's form: the reply, or the error with HTTP 200.
pub(super) fn api_response<T: Serialize>(
    path: &str,
    result: Result<T, WechatErrorReply>,
    now: Duration,
) -> Response {
    match result {
        Ok(reply) => json_response(path, &reply),
        Err(error) => error_response(path, &error, now),
    }
}

fn json_response<T: Serialize>(path: &str, reply: &T) -> Response {
    let mut body = Vec::new();
    match reply.serialize(&mut Serializer::with_formatter(
        &mut body,
        WechatJsonFormatter,
    )) {
        Ok(()) => ([content_type(path)], body).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// A formatter of JSON as WeChat writes it: `/` is escaped, and most control characters are not.
/// SDKs saw raw bytes such as 0x07 and 0x14 in nicknames.
struct WechatJsonFormatter;

impl Formatter for WechatJsonFormatter {
    fn write_string_fragment<W>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()>
    where
        W: ?Sized + io::Write,
    {
        writer.write_all(fragment.replace('/', "\\/").as_bytes())
    }

    fn write_char_escape<W>(&mut self, writer: &mut W, escape: CharEscape) -> io::Result<()>
    where
        W: ?Sized + io::Write,
    {
        match escape {
            CharEscape::AsciiControl(byte) => writer.write_all(&[byte]),
            other => CompactFormatter.write_char_escape(writer, other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_slashes_are_escaped() {
        let mut body = Vec::new();
        "a/b\u{7}\"c"
            .serialize(&mut Serializer::with_formatter(
                &mut body,
                WechatJsonFormatter,
            ))
            .unwrap();
        assert_eq!(body, b"\"a\\/b\x07\\\"c\"");
    }
}
