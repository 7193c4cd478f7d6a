//! Errors for replies with an errcode. Their texts name the operator's remedy where there is one,
//! and contain no secret.

use std::net::IpAddr;

use super::errcode::{Endpoint, error_kind, recommended_action, retry_delay};
use super::redaction::Redactor;
use crate::clock::Timestamp;
use crate::credential::AppId;
use crate::error::{Error, ErrorKind};

/// Maximum length of WeChat's errmsg in the text of an error: 200 characters, so that the error
/// stays one log line.
const MAX_ERRMSG_CHARS: usize = 200;

/// Returns what the operator has to do about this errcode, as the end of an error's text. Returns
/// `None` for an errcode without advice.
fn operator_advice(errcode: i64, errmsg: &str, app_id: &AppId) -> Option<String> {
    let address = match find_ip(errmsg) {
        Some(ip) => ip.to_string(),
        None => "this server's public IP".to_owned(),
    };
    Some(match errcode {
        40001 | 40125 => {
            format!("check the AppSecret of {app_id} in mp.weixin.qq.com; it may have been reset")
        }
        40013 | 41002 => format!("check the AppID, which is set to {app_id}"),
        41004 => "set the AppSecret".to_owned(),
        40164 | 45035 | 61004 => format!(
            "add {address} to the IP whitelist of the account ({app_id}) in mp.weixin.qq.com; that \
             takes up to ten minutes"
        ),
        89501 | 89503 => {
            format!("the administrator of {app_id} has to confirm {address} in WeChat")
        }
        89506 => format!("the administrator of {app_id} refused {address} twice: wait 24 hours"),
        89507 => format!("the administrator of {app_id} refused {address}: wait an hour"),
        40243 => format!("unfreeze the AppSecret of {app_id} in mp.weixin.qq.com"),
        50007 => format!("the account {app_id} is frozen: see its notices in mp.weixin.qq.com"),
        50004 => format!("the account {app_id} may not fetch tokens: see mp.weixin.qq.com"),
        48001 => format!(
            "the account {app_id} may not use this API: see its permissions in mp.weixin.qq.com"
        ),
        48004 => format!("the API is banned for {app_id}: see its notices in mp.weixin.qq.com"),
        48006 => "this month's clearings of the quota are spent".to_owned(),
        45009 => format!(
            "the day's quota of {app_id} is spent: wait for midnight in Beijing or clear it with \
             cgi-bin/clear_quota"
        ),
        _ => return None,
    })
}

/// Returns the first IP address in an errmsg such as `invalid ip 1.2.3.4 ipv6 ::ffff:1.2.3.4, not
/// in …`. Skips `::`, and returns an IPv4 address that is mapped into IPv6 as IPv4.
fn find_ip(errmsg: &str) -> Option<IpAddr> {
    errmsg
        .split(|c: char| !(c.is_ascii_hexdigit() || matches!(c, '.' | ':')))
        .filter_map(|word| word.trim_end_matches('.').parse::<IpAddr>().ok())
        .map(|ip| ip.to_canonical())
        .find(|ip| !ip.is_unspecified())
}

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

/// The facts about a failed call from which the text of its error is made, and the redactor that
/// removes the secrets of the call.
pub(crate) struct ErrorContext<'a> {
    pub(crate) endpoint: Endpoint,
    pub(crate) path: &'a str,
    pub(crate) app_id: &'a AppId,
    pub(crate) redactor: &'a Redactor<'a>,
    pub(crate) now: Timestamp,
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
    if kind == ErrorKind::WechatConfig
        && let Some(advice) = operator_advice(errcode, errmsg, context.app_id)
    {
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
    use super::*;
    use proptest::prelude::*;

    fn error_for(errcode: i64, errmsg: &str, endpoint: Endpoint, now: i64) -> Error {
        let context = ErrorContext {
            endpoint,
            path: "some/path",
            app_id: &AppId::new("wx1").unwrap(),
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
        let v6 = find_ip("invalid ip 2001:db8::1, not in whitelist hint: [abc]");
        assert_eq!(v6, Some("2001:db8::1".parse().unwrap()));
        assert_eq!(find_ip("bad face :: cafe. 1.2.3"), None);
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
            let _ = (find_rid(&errmsg), find_ip(&errmsg));
        }
    }
}
