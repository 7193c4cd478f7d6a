//! WeChat's errcodes: what each asks for, and the error that it becomes.

use std::net::IpAddr;
use std::time::Duration;

use super::redaction::Secrets;
use crate::clock::Timestamp;
use crate::credential::AppId;
use crate::error::{Error, ErrorKind};
use crate::reaction::Reaction;

/// The longest errmsg that an error shows, in characters.
const MAX_ERRMSG_CHARS: usize = 200;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Beijing lies eight hours before UTC, in summer and winter.
const BEIJING: Duration = Duration::from_secs(8 * 60 * 60);

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
pub(super) fn reaction(errcode: i64, endpoint: Endpoint) -> Reaction {
    use Endpoint::{AccountCall, AccountToken, CodeExchange, UserCall, UserRefresh};
    match (errcode, endpoint) {
        // System busy, system error.
        (-1 | -1000, _) => Reaction::Retry,

        // The AppSecret is wrong, or the token is not the latest.
        (40001, CodeExchange | AccountToken) => Reaction::Operator,
        (40001, UserCall | AccountCall) => Reaction::Renew,
        // The token is malformed, or expired.
        (40014 | 42001, UserCall | AccountCall) => Reaction::Renew,
        // The refresh carries but one credential, so it can only be that one which is refused.
        (40001 | 40014 | 42001, UserRefresh) => Reaction::Login,

        // The code: bad, used, missing, expired.
        (40029 | 40163 | 41008 | 42003, CodeExchange) => Reaction::Login,
        // The only code that the refresh documents, with a text about codes.
        (40029, UserRefresh) => Reaction::Login,

        // The refresh token: bad, missing, expired; void since the user changed the password.
        (40030 | 41003 | 42002, UserRefresh) => Reaction::Login,
        (42007, CodeExchange | UserRefresh | UserCall) => Reaction::Login,

        // The openid is not one of this token.
        (40003, UserRefresh | UserCall) => Reaction::Login,
        (40003, _) => Reaction::Bug,

        // The scope does not cover the profile; elsewhere the account may not use the API.
        (48001, UserCall) => Reaction::Login,
        (48001, _) => Reaction::Operator,
        (50001, CodeExchange | UserRefresh | UserCall) => Reaction::Login,
        (50001, _) => Reaction::Operator,

        // Quota of the day, limit of the minute.
        (45009 | 45011, _) => Reaction::RateLimited,

        // AppID and AppSecret: bad AppID, bad secret, frozen secret, no AppID, no secret.
        (40013 | 40125 | 40243 | 41002 | 41004, _) => Reaction::Operator,
        // IP: not on the whitelist, not registered, waits for the administrator, was refused.
        (40164 | 45035 | 61004 | 89501 | 89503 | 89506 | 89507, _) => Reaction::Operator,
        // Account: has not authorised, API banned, clear_quota spent, token API barred, frozen.
        (43007 | 48004 | 48006 | 50004 | 50007, _) => Reaction::Operator,
        // Third-party platform: relation to the account, API not granted, codes, unpublished.
        (61003 | 61007 | 61009 | 61010 | 61011 | 61023 | 61028, _) => Reaction::Operator,
        // Its ticket expired or is invalid: WeChat pushes a new one every ten minutes.
        (61005 | 61006, _) => Reaction::Retry,

        // High risk, blacklist, restricted.
        (40226 | 43019 | 50002, _) => Reaction::Deny,

        // grant_type, API path; access_token or openid missing.
        (40002 | 40066 | 41001 | 41009, _) => Reaction::Bug,
        // GET, POST or HTTPS wanted; empty or unreadable body; wrong kind of token.
        (43001..=43003 | 44002 | 47001 | 61014 | 61015 | 61024, _) => Reaction::Bug,

        _ => Reaction::PassThrough,
    }
}

fn kind(errcode: i64, reaction: Reaction) -> ErrorKind {
    match reaction {
        Reaction::Retry => ErrorKind::WechatUnavailable,
        // A minute's limit passes by itself; a day's quota is for the operator to raise or clear.
        Reaction::RateLimited if errcode == 45009 => ErrorKind::WechatConfig,
        Reaction::RateLimited => ErrorKind::WechatUnavailable,
        Reaction::Renew => ErrorKind::TokenRefused,
        Reaction::Login => ErrorKind::LoginRequired,
        Reaction::Operator => ErrorKind::WechatConfig,
        Reaction::Bug | Reaction::Deny | Reaction::PassThrough => ErrorKind::WechatRefused,
    }
}

/// How long an errcode asks to be left alone.
fn cool_down(errcode: i64, now: Timestamp) -> Option<Duration> {
    match errcode {
        45009 => Some(until_next(DAY, now.after(BEIJING))),
        45011 => Some(until_next(MINUTE, now)),
        89506 => Some(DAY),
        89507 => Some(HOUR),
        _ => None,
    }
}

/// After a spent quota (45009) renewals ask WeChat again after this long, and not only at midnight:
/// the operator may clear the quota meanwhile, and the number also stands for limits that end
/// sooner.
const SPENT_QUOTA_PAUSE: Duration = Duration::from_secs(60);

/// Returns the error with the time for which renewals of its account pause: what the errcode asks
/// for, but a minute at most after a spent quota.
pub(crate) fn pausing_renewals(error: Error) -> Error {
    match (error.errcode(), error.retry_after()) {
        (Some(45009), Some(wait)) => error.retrying_after(wait.min(SPENT_QUOTA_PAUSE)),
        _ => error,
    }
}

fn until_next(span: Duration, now: Timestamp) -> Duration {
    let span = i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
    let left = span - now.as_millis().rem_euclid(span);
    Duration::from_millis(left.unsigned_abs())
}

/// What the operator does about it, where one clause says that.
fn advice(errcode: i64, errmsg: &str, app_id: &AppId) -> Option<String> {
    let who = match ip_in(errmsg) {
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
fn ip_in(errmsg: &str) -> Option<IpAddr> {
    errmsg
        .split(|c: char| !(c.is_ascii_hexdigit() || matches!(c, '.' | ':')))
        .filter_map(|word| word.trim_end_matches('.').parse::<IpAddr>().ok())
        .map(|ip| ip.to_canonical())
        .find(|ip| !ip.is_unspecified())
}

/// WeChat's name for the request, as `rid: 6114eeb9-0032c16a-61fbf7ce` somewhere in an errmsg.
fn rid_in(errmsg: &str) -> Option<&str> {
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
pub(crate) struct Refused<'a> {
    pub(crate) endpoint: Endpoint,
    pub(crate) path: &'a str,
    pub(crate) app_id: &'a AppId,
    pub(crate) secrets: &'a Secrets<'a>,
    pub(crate) now: Timestamp,
}

/// The error that an errcode other than 0 becomes.
pub(crate) fn error(errcode: i64, errmsg: &str, refused: &Refused<'_>) -> Error {
    let reaction = reaction(errcode, refused.endpoint);
    let kind = kind(errcode, reaction);
    let rid = rid_in(errmsg);
    let mut text = format!("{}: errcode {errcode}", refused.path);
    // The rid has its own place, and would otherwise pass for a token.
    let shown = match rid {
        Some(rid) => errmsg.replacen(&format!("rid: {rid}"), "", 1),
        None => errmsg.to_owned(),
    };
    let shown = refused.secrets.clean(&shown, MAX_ERRMSG_CHARS);
    match shown.trim_end_matches([' ', ',']) {
        "" => {}
        shown => text.push_str(&format!(" ({shown})")),
    }
    if let Some(rid) = rid {
        text.push_str(&format!(", rid {rid}"));
    }
    if kind == ErrorKind::WechatConfig
        && let Some(advice) = advice(errcode, errmsg, refused.app_id)
    {
        text.push_str(&format!(": {advice}"));
    }
    let error = Error::new(kind, text)
        .with_errcode(errcode, rid)
        .with_reaction(reaction);
    match cool_down(errcode, refused.now) {
        Some(wait) => error.with_retry_after(wait),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [Endpoint; 5] = [
        Endpoint::CodeExchange,
        Endpoint::UserRefresh,
        Endpoint::UserCall,
        Endpoint::AccountToken,
        Endpoint::AccountCall,
    ];

    fn refusal(errcode: i64, errmsg: &str, endpoint: Endpoint, now: i64) -> Error {
        let refused = Refused {
            endpoint,
            path: "some/path",
            app_id: &AppId::new("wx1").unwrap(),
            secrets: &Secrets::new(["s3cret"]),
            now: Timestamp::from_millis(now),
        };
        error(errcode, errmsg, &refused)
    }

    #[test]
    fn one_number_asks_for_different_things() {
        use Endpoint::*;
        let cases = [
            (
                40001,
                CodeExchange,
                Reaction::Operator,
                ErrorKind::WechatConfig,
            ),
            (
                40001,
                AccountToken,
                Reaction::Operator,
                ErrorKind::WechatConfig,
            ),
            (40001, UserCall, Reaction::Renew, ErrorKind::TokenRefused),
            (40001, AccountCall, Reaction::Renew, ErrorKind::TokenRefused),
            (
                40001,
                UserRefresh,
                Reaction::Login,
                ErrorKind::LoginRequired,
            ),
            (42001, AccountCall, Reaction::Renew, ErrorKind::TokenRefused),
            (
                40163,
                CodeExchange,
                Reaction::Login,
                ErrorKind::LoginRequired,
            ),
            (
                40030,
                UserRefresh,
                Reaction::Login,
                ErrorKind::LoginRequired,
            ),
            (
                41003,
                UserRefresh,
                Reaction::Login,
                ErrorKind::LoginRequired,
            ),
            (
                42007,
                UserRefresh,
                Reaction::Login,
                ErrorKind::LoginRequired,
            ),
            (40003, UserCall, Reaction::Login, ErrorKind::LoginRequired),
            (40003, AccountCall, Reaction::Bug, ErrorKind::WechatRefused),
            (48001, UserCall, Reaction::Login, ErrorKind::LoginRequired),
            (
                48001,
                AccountCall,
                Reaction::Operator,
                ErrorKind::WechatConfig,
            ),
            (
                40226,
                CodeExchange,
                Reaction::Deny,
                ErrorKind::WechatRefused,
            ),
            (
                99999,
                UserCall,
                Reaction::PassThrough,
                ErrorKind::WechatRefused,
            ),
        ];
        for (errcode, endpoint, reaction, kind) in cases {
            let error = refusal(errcode, "", endpoint, 0);
            assert_eq!(error.reaction(), Some(reaction), "{errcode} {endpoint:?}");
            assert_eq!(error.kind(), kind, "{errcode} {endpoint:?}");
            assert_eq!(error.errcode(), Some(errcode));
        }
        for endpoint in ALL {
            assert_eq!(reaction(-1, endpoint), Reaction::Retry);
            for errcode in [
                40013, 40125, 40164, 40243, 41002, 41004, 48004, 50004, 50007, 61004,
            ] {
                assert_eq!(reaction(errcode, endpoint), Reaction::Operator, "{errcode}");
            }
        }
    }

    #[test]
    fn an_operator_is_told_which_ip() {
        let error = refusal(
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
        let v6 = ip_in("invalid ip 2001:db8::1, not in whitelist hint: [abc]");
        assert_eq!(v6, Some("2001:db8::1".parse().unwrap()));
        assert_eq!(ip_in("bad face :: cafe. 1.2.3"), None);
    }

    #[test]
    fn limits_end_with_the_minute_and_with_beijings_day() {
        // 2023-11-14 22:13:20 UTC, which is 06:13:20 of the 15th in Beijing.
        const NOW: i64 = 1_700_000_000_000;
        let wait = |errcode| refusal(errcode, "", Endpoint::AccountCall, NOW).retry_after();
        assert_eq!(wait(45011), Some(Duration::from_secs(40)));
        assert_eq!(
            wait(45009),
            Some(DAY - Duration::from_secs(6 * 3_600 + 13 * 60 + 20))
        );
        assert_eq!(wait(89506), Some(DAY));
        assert_eq!(wait(89507), Some(HOUR));
        assert_eq!(wait(40125), None);
        let kind = |errcode| refusal(errcode, "", Endpoint::AccountCall, NOW).kind();
        assert_eq!(kind(45011), ErrorKind::WechatUnavailable);
        assert_eq!(kind(45009), ErrorKind::WechatConfig);
    }

    #[test]
    fn the_text_is_one_short_line_without_secrets() {
        let long = format!("invalid s3cret\n, rid {}", "x ".repeat(300));
        let text = refusal(40125, &long, Endpoint::AccountToken, 0).to_string();
        assert!(
            text.starts_with("some/path: errcode 40125 (invalid ***"),
            "{text}"
        );
        assert!(text.len() < 400 && !text.contains('\n'), "{text}");
    }

    proptest! {
        #[test]
        fn every_refusal_becomes_an_error(errcode: i64, errmsg: String, now: i64, which in 0usize..5) {
            let error = refusal(errcode, &errmsg, ALL[which], now);
            prop_assert_eq!(error.errcode(), Some(errcode));
            prop_assert!(!error.to_string().chars().any(char::is_control));
        }

        #[test]
        fn every_errmsg_is_searched_without_a_panic(errmsg in "(rid: |[0-9a-f.:,-]|é){0,60}") {
            let _ = (rid_in(&errmsg), ip_in(&errmsg));
        }
    }
}
