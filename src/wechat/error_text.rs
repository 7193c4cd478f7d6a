//! Errors for replies with an errcode. Their texts name the operator's remedy where there is one,
//! and contain no secret.

use super::advice::advice;
use super::errcode::{error_kind, recommended_action, retry_delay};
use super::error_context::ErrorContext;
use crate::error::{Error, RecommendedAction};

/// Maximum length of WeChat's errmsg in the text of an error: 200 characters, so that the error
/// stays one log line.
const MAX_ERRMSG_CHARS: usize = 200;

/// Returns WeChat's id of the request, which an errmsg contains as
/// `rid: 6114eeb9-0032c16a-61fbf7ce`.
fn find_rid(errmsg: &str) -> Option<&str> {
    const RID_CHARS: usize = 26;
    errmsg
        .match_indices("rid: ")
        .filter_map(|(at, name)| errmsg.get(at + name.len()..)?.get(..RID_CHARS))
        .find(|rid| {
            rid.bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-'))
        })
}

/// Creates the error of a call that WeChat answered with an errcode other than 0.
pub(crate) fn error_from_errcode(errcode: i64, errmsg: &str, context: &ErrorContext<'_>) -> Error {
    let action = recommended_action(errcode, context.endpoint);
    let kind = error_kind(errcode, action);
    let rid = find_rid(errmsg);
    let mut text = format!("{}: errcode {errcode}", context.path);
    // The rid is removed here and appended after the redaction, which would take the rid for a
    // token.
    let shown = match rid {
        Some(rid) => errmsg.replacen(&format!("rid: {rid}"), "", 1),
        None => errmsg.to_owned(),
    };
    let shown = context.redactor.redact(&shown, MAX_ERRMSG_CHARS);
    match shown.trim_end_matches([' ', ',']) {
        "" => {}
        shown => text.push_str(&format!(" ({shown})")),
    }
    if let Some(rid) = rid {
        text.push_str(&format!(", rid {rid}"));
    }
    // A token that WeChat rejected is renewed, and a user logs in again, without the operator.
    let is_for_operator = !matches!(
        action,
        RecommendedAction::RenewToken | RecommendedAction::LogIn
    );
    if is_for_operator && let Some(advice) = advice(errcode, errmsg, context) {
        text.push_str(&format!(": {advice}"));
    }
    let error = Error::new(kind, text)
        .with_errcode(errcode, rid)
        .with_recommended_action(action);
    match retry_delay(errcode, context.now) {
        Some(wait) => error.with_retry_after(wait),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::super::errcode::Endpoint;
    use super::super::redaction::Redactor;
    use super::*;
    use crate::clock::Timestamp;
    use crate::credential::AppId;
    use proptest::prelude::*;

    fn error_for(errcode: i64, errmsg: &str, endpoint: Endpoint, now: i64) -> Error {
        let context = ErrorContext {
            endpoint,
            path: "some/path",
            app_id: &AppId::new("wx1").unwrap(),
            component: None,
            redactor: &Redactor::new(["s3cret"]),
            now: Timestamp::from_millis(now),
        };
        error_from_errcode(errcode, errmsg, &context)
    }

    #[test]
    fn the_error_names_the_ip_to_whitelist() {
        let error = error_for(
            40164,
            "invalid ip 1.2.3.4 ipv6 ::ffff:1.2.3.4, not in whitelist, rid: 6114eeb9-0032c16a-61fbf7ce",
            Endpoint::AccountToken,
            0,
        );
        assert_eq!(
            error.to_string(),
            "some/path: errcode 40164 (invalid ip 1.2.3.4 ipv6 ::ffff:1.2.3.4, not in whitelist), \
             rid 6114eeb9-0032c16a-61fbf7ce: add 1.2.3.4 to the IP whitelist of the account (wx1) \
             in mp.weixin.qq.com; that takes up to ten minutes"
        );
        assert_eq!(error.rid(), Some("6114eeb9-0032c16a-61fbf7ce"));
    }

    #[test]
    fn error_text_is_one_short_line_without_secrets() {
        let long = format!("invalid s3cret\n, rid {}", "x ".repeat(300));
        let text = error_for(40125, &long, Endpoint::AccountToken, 0).to_string();
        assert!(
            text.starts_with("some/path: errcode 40125 (invalid ***"),
            "{text}"
        );
        assert!(text.len() < 400 && !text.contains('\n'), "{text}");
    }

    proptest! {
        #[test]
        fn every_errcode_becomes_an_error(errcode: i64, errmsg: String, now: i64, which in 0..Endpoint::ALL.len()) {
            let error = error_for(errcode, &errmsg, Endpoint::ALL[which], now);
            prop_assert_eq!(error.errcode(), Some(errcode));
            prop_assert!(!error.to_string().chars().any(char::is_control));
        }

        #[test]
        fn arbitrary_errmsg_never_panics(errmsg in "(rid: |[0-9a-f.:,-]|é){0,60}") {
            let _ = find_rid(&errmsg);
        }
    }
}
