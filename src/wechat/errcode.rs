//! WeChat's errcodes: what each asks for, and the error that it becomes.

use std::net::IpAddr;
use std::time::Duration;

use super::redaction::Redactor;
use crate::clock::Timestamp;
use crate::credential::AppId;
use crate::error::{Error, ErrorKind};
use crate::reaction::RecommendedAction;

/// The longest errmsg that an error shows, in characters.
const MAX_ERRMSG_CHARS: usize = 200;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Beijing lies eight hours before UTC, in summer and winter.
const BEIJING_OFFSET: Duration = Duration::from_secs(8 * 60 * 60);

/// Families of endpoints in which one errcode means one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// `sns/oauth2/access_token`: carries the secret and the user's code.
    CodeExchange,
    /// `sns/oauth2/refresh_token`: carries the user's refresh token and no secret.
    UserRefresh,
    /// `sns/userinfo`, `sns/auth`: carry the user's access token.
    UserCall,
    /// `cgi-bin/token`, `cgi-bin/stable_token`: carry the secret.
    AccountToken,
    /// Everything that carries the account's access token.
    AccountCall,
}

/// The table. Codes and meanings are those of WeChat's global return codes and of the tables of
/// the endpoints; what to do about them is this crate's judgement.
pub(super) fn recommended_action(errcode: i64, endpoint: Endpoint) -> RecommendedAction {
    use Endpoint::{AccountCall, AccountToken, CodeExchange, UserCall, UserRefresh};
    match (errcode, endpoint) {
        // System busy, system error.
        (-1 | -1000, _) => RecommendedAction::Retry,

        // The AppSecret is wrong, or the token is not the latest.
        (40001, CodeExchange | AccountToken) => RecommendedAction::ContactOperator,
        (40001, UserCall | AccountCall) => RecommendedAction::RenewToken,
        // The token is malformed, or expired.
        (40014 | 42001, UserCall | AccountCall) => RecommendedAction::RenewToken,
        // The refresh carries but one credential, so it can only be that one which is refused.
        (40001 | 40014 | 42001, UserRefresh) => RecommendedAction::LogIn,

        // The code: bad, used, missing, expired.
        (40029 | 40163 | 41008 | 42003, CodeExchange) => RecommendedAction::LogIn,
        // The only code that the refresh documents, with a text about codes.
        (40029, UserRefresh) => RecommendedAction::LogIn,

        // The refresh token: bad, missing, expired; void since the user changed the password.
        (40030 | 41003 | 42002, UserRefresh) => RecommendedAction::LogIn,
        (42007, CodeExchange | UserRefresh | UserCall) => RecommendedAction::LogIn,

        // The openid is not one of this token.
        (40003, UserRefresh | UserCall) => RecommendedAction::LogIn,
        (40003, _) => RecommendedAction::FixRequest,

        // The scope does not cover the profile; elsewhere the account may not use the API.
        (48001, UserCall) => RecommendedAction::LogIn,
        (48001, _) => RecommendedAction::ContactOperator,
        (50001, CodeExchange | UserRefresh | UserCall) => RecommendedAction::LogIn,
        (50001, _) => RecommendedAction::ContactOperator,

        // Quota of the day, limit of the minute.
        (45009 | 45011, _) => RecommendedAction::BackOff,

        // AppID and AppSecret: bad AppID, bad secret, frozen secret, no AppID, no secret.
        (40013 | 40125 | 40243 | 41002 | 41004, _) => RecommendedAction::ContactOperator,
        // IP: not on the whitelist, not registered, waits for the administrator, was refused.
        (40164 | 45035 | 61004 | 89501 | 89503 | 89506 | 89507, _) => {
            RecommendedAction::ContactOperator
        }
        // Account: has not authorised, API banned, clear_quota spent, token API barred, frozen.
        (43007 | 48004 | 48006 | 50004 | 50007, _) => RecommendedAction::ContactOperator,
        // Third-party platform: relation to the account, API not granted, codes, unpublished.
        (61003 | 61007 | 61009 | 61010 | 61011 | 61023 | 61028, _) => {
            RecommendedAction::ContactOperator
        }
        // Its ticket expired or is invalid: WeChat pushes a new one every ten minutes.
        (61005 | 61006, _) => RecommendedAction::Retry,

        // High risk, blacklist, restricted.
        (40226 | 43019 | 50002, _) => RecommendedAction::DenyUser,

        // grant_type, API path; access_token or openid missing.
        (40002 | 40066 | 41001 | 41009, _) => RecommendedAction::FixRequest,
        // GET, POST or HTTPS wanted; empty or unreadable body; wrong kind of token.
        (43001..=43003 | 44002 | 47001 | 61014 | 61015 | 61024, _) => RecommendedAction::FixRequest,

        _ => RecommendedAction::PassThrough,
    }
}

fn error_kind(errcode: i64, reaction: RecommendedAction) -> ErrorKind {
    match reaction {
        RecommendedAction::Retry => ErrorKind::WechatUnavailable,
        // A minute's limit passes by itself; a day's quota is for the operator to raise or clear.
        RecommendedAction::BackOff if errcode == 45009 => ErrorKind::WechatConfig,
        RecommendedAction::BackOff => ErrorKind::WechatUnavailable,
        RecommendedAction::RenewToken => ErrorKind::TokenRefused,
        RecommendedAction::LogIn => ErrorKind::LoginRequired,
        RecommendedAction::ContactOperator => ErrorKind::WechatConfig,
        RecommendedAction::FixRequest
        | RecommendedAction::DenyUser
        | RecommendedAction::PassThrough => ErrorKind::WechatRefused,
    }
}

/// How long an errcode asks to be left alone.
fn retry_delay(errcode: i64, now: Timestamp) -> Option<Duration> {
    match errcode {
        45009 => Some(time_until_next(DAY, now.saturating_add(BEIJING_OFFSET))),
        45011 => Some(time_until_next(MINUTE, now)),
        89506 => Some(DAY),
        89507 => Some(HOUR),
        _ => None,
    }
}

/// After a spent quota (45009) renewals ask WeChat again after this long, and not only at midnight:
/// the operator may clear the quota meanwhile, and the number also stands for limits that end
/// sooner.
const QUOTA_RETRY_DELAY: Duration = Duration::from_secs(60);

/// Returns the error with the time for which renewals of its account pause: what the errcode asks
/// for, but a minute at most after a spent quota.
pub(crate) fn with_renewal_delay(error: Error) -> Error {
    match (error.errcode(), error.retry_after()) {
        (Some(45009), Some(wait)) => error.clone_with_retry_after(wait.min(QUOTA_RETRY_DELAY)),
        _ => error,
    }
}

fn time_until_next(span: Duration, now: Timestamp) -> Duration {
    let span = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    let left = span - now.as_millis().rem_euclid(span);
    Duration::from_millis(left.unsigned_abs())
}

/// What the operator does about it, where one clause says that.
fn operator_advice(errcode: i64, errmsg: &str, app_id: &AppId) -> Option<String> {
    let who = match find_ip(errmsg) {
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
            "add {who} to the IP whitelist of the account ({app_id}) in mp.weixin.qq.com; that \
             takes up to ten minutes"
        ),
        89501 | 89503 => {
            format!("the administrator of {app_id} has to confirm {who} in WeChat")
        }
        89506 => format!("the administrator of {app_id} refused {who} twice: wait 24 hours"),
        89507 => format!("the administrator of {app_id} refused {who}: wait an hour"),
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

/// The first IP address in a text such as `invalid ip 1.2.3.4 ipv6 ::ffff:1.2.3.4, not in …`.
fn find_ip(errmsg: &str) -> Option<IpAddr> {
    errmsg
        .split(|c: char| !(c.is_ascii_hexdigit() || matches!(c, '.' | ':')))
        .filter_map(|word| word.trim_end_matches('.').parse::<IpAddr>().ok())
        .map(|ip| ip.to_canonical())
        .find(|ip| !ip.is_unspecified())
}

/// WeChat's name for the request, as `rid: 6114eeb9-0032c16a-61fbf7ce` somewhere in an errmsg.
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

/// Where a refusal comes from, and what must not show in its text.
pub(crate) struct ErrorContext<'a> {
    pub(crate) endpoint: Endpoint,
    pub(crate) path: &'a str,
    pub(crate) app_id: &'a AppId,
    pub(crate) redactor: &'a Redactor<'a>,
    pub(crate) now: Timestamp,
}

/// The error that an errcode other than 0 becomes.
pub(crate) fn error_from_errcode(errcode: i64, errmsg: &str, refused: &ErrorContext<'_>) -> Error {
    let reaction = recommended_action(errcode, refused.endpoint);
    let kind = error_kind(errcode, reaction);
    let rid = find_rid(errmsg);
    let mut text = format!("{}: errcode {errcode}", refused.path);
    // The rid has its own place, and would otherwise pass for a token.
    let shown = match rid {
        Some(rid) => errmsg.replacen(&format!("rid: {rid}"), "", 1),
        None => errmsg.to_owned(),
    };
    let shown = refused.redactor.redact(&shown, MAX_ERRMSG_CHARS);
    match shown.trim_end_matches([' ', ',']) {
        "" => {}
        shown => text.push_str(&format!(" ({shown})")),
    }
    if let Some(rid) = rid {
        text.push_str(&format!(", rid {rid}"));
    }
    if kind == ErrorKind::WechatConfig
        && let Some(advice) = operator_advice(errcode, errmsg, refused.app_id)
    {
        text.push_str(&format!(": {advice}"));
    }
    let error = Error::new(kind, text)
        .with_errcode(errcode, rid)
        .with_recommended_action(reaction);
    match retry_delay(errcode, refused.now) {
        Some(wait) => error.with_retry_after(wait),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ENDPOINTS: [Endpoint; 5] = [
        Endpoint::CodeExchange,
        Endpoint::UserRefresh,
        Endpoint::UserCall,
        Endpoint::AccountToken,
        Endpoint::AccountCall,
    ];

    fn error_for(errcode: i64, errmsg: &str, endpoint: Endpoint, now: i64) -> Error {
        let refused = ErrorContext {
            endpoint,
            path: "some/path",
            app_id: &AppId::new("wx1").unwrap(),
            redactor: &Redactor::new(["s3cret"]),
            now: Timestamp::from_millis(now),
        };
        error_from_errcode(errcode, errmsg, &refused)
    }

    #[test]
    fn one_errcode_means_different_things() {
        use Endpoint::*;
        let cases = [
            (
                40001,
                CodeExchange,
                RecommendedAction::ContactOperator,
                ErrorKind::WechatConfig,
            ),
            (
                40001,
                AccountToken,
                RecommendedAction::ContactOperator,
                ErrorKind::WechatConfig,
            ),
            (
                40001,
                UserCall,
                RecommendedAction::RenewToken,
                ErrorKind::TokenRefused,
            ),
            (
                40001,
                AccountCall,
                RecommendedAction::RenewToken,
                ErrorKind::TokenRefused,
            ),
            (
                40001,
                UserRefresh,
                RecommendedAction::LogIn,
                ErrorKind::LoginRequired,
            ),
            (
                42001,
                AccountCall,
                RecommendedAction::RenewToken,
                ErrorKind::TokenRefused,
            ),
            (
                40163,
                CodeExchange,
                RecommendedAction::LogIn,
                ErrorKind::LoginRequired,
            ),
            (
                40030,
                UserRefresh,
                RecommendedAction::LogIn,
                ErrorKind::LoginRequired,
            ),
            (
                41003,
                UserRefresh,
                RecommendedAction::LogIn,
                ErrorKind::LoginRequired,
            ),
            (
                42007,
                UserRefresh,
                RecommendedAction::LogIn,
                ErrorKind::LoginRequired,
            ),
            (
                40003,
                UserCall,
                RecommendedAction::LogIn,
                ErrorKind::LoginRequired,
            ),
            (
                40003,
                AccountCall,
                RecommendedAction::FixRequest,
                ErrorKind::WechatRefused,
            ),
            (
                48001,
                UserCall,
                RecommendedAction::LogIn,
                ErrorKind::LoginRequired,
            ),
            (
                48001,
                AccountCall,
                RecommendedAction::ContactOperator,
                ErrorKind::WechatConfig,
            ),
            (
                40226,
                CodeExchange,
                RecommendedAction::DenyUser,
                ErrorKind::WechatRefused,
            ),
            (
                99999,
                UserCall,
                RecommendedAction::PassThrough,
                ErrorKind::WechatRefused,
            ),
        ];
        for (errcode, endpoint, reaction, kind) in cases {
            let error = error_for(errcode, "", endpoint, 0);
            assert_eq!(
                error.recommended_action(),
                Some(reaction),
                "{errcode} {endpoint:?}"
            );
            assert_eq!(error.kind(), kind, "{errcode} {endpoint:?}");
            assert_eq!(error.errcode(), Some(errcode));
        }
        for endpoint in ENDPOINTS {
            assert_eq!(recommended_action(-1, endpoint), RecommendedAction::Retry);
            for errcode in [
                40013, 40125, 40164, 40243, 41002, 41004, 48004, 50004, 50007, 61004,
            ] {
                assert_eq!(
                    recommended_action(errcode, endpoint),
                    RecommendedAction::ContactOperator,
                    "{errcode}"
                );
            }
        }
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
    fn limits_end_at_the_minute_and_at_beijing_midnight() {
        // 2023-11-14 22:13:20 UTC, which is 06:13:20 of the 15th in Beijing.
        const NOW: i64 = 1_700_000_000_000;
        let wait = |errcode| error_for(errcode, "", Endpoint::AccountCall, NOW).retry_after();
        assert_eq!(wait(45011), Some(Duration::from_secs(40)));
        assert_eq!(
            wait(45009),
            Some(DAY - Duration::from_secs(6 * 3_600 + 13 * 60 + 20))
        );
        assert_eq!(wait(89506), Some(DAY));
        assert_eq!(wait(89507), Some(HOUR));
        assert_eq!(wait(40125), None);
        let kind = |errcode| error_for(errcode, "", Endpoint::AccountCall, NOW).kind();
        assert_eq!(kind(45011), ErrorKind::WechatUnavailable);
        assert_eq!(kind(45009), ErrorKind::WechatConfig);
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
        fn every_errcode_becomes_an_error(errcode: i64, errmsg: String, now: i64, which in 0usize..5) {
            let error = error_for(errcode, &errmsg, ENDPOINTS[which], now);
            prop_assert_eq!(error.errcode(), Some(errcode));
            prop_assert!(!error.to_string().chars().any(char::is_control));
        }

        #[test]
        fn arbitrary_errmsg_never_panics(errmsg in "(rid: |[0-9a-f.:,-]|é){0,60}") {
            let _ = (find_rid(&errmsg), find_ip(&errmsg));
        }
    }
}
