//! WeChat's errcodes: the recommended action, the error kind and the retry delay of each.

use std::time::Duration;

use crate::clock::{DAY, Timestamp};
use crate::error::{Error, ErrorKind, RecommendedAction};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

/// The account has not authorized the platform, or not any more.
#[cfg(feature = "platform")]
pub(crate) const NOT_AUTHORIZED: i64 = 61003;

/// A family of API endpoints, within which an errcode has one meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "platform"), allow(dead_code))] // the calls of a platform
pub(crate) enum Endpoint {
    /// The exchange of a login code (`sns/oauth2/access_token`), which carries the AppSecret and
    /// the code.
    CodeExchange,
    /// The refresh of a user's tokens (`sns/oauth2/refresh_token`), which carries the refresh token
    /// and no AppSecret.
    UserRefresh,
    /// A call for a user, such as `sns/userinfo` or `sns/auth`, which carries the user's access
    /// token.
    UserCall,
    /// A call for the account's access token (`cgi-bin/token`, `cgi-bin/stable_token`), which
    /// carries the AppSecret.
    AccountToken,
    /// Any other call of an API, which carries the account's access token.
    AccountCall,
    /// A call that carries the AppSecret of a third-party platform (`api_component_token`,
    /// `api_start_push_ticket`).
    ComponentToken,
    /// Any other call under `cgi-bin/component/`, which carries a component token.
    ComponentCall,
    /// The exchange of a login code on behalf of an account (`sns/oauth2/component/access_token`),
    /// which carries the code and a component token.
    ComponentCodeExchange,
    /// The refresh of a user's tokens on behalf of an account
    /// (`sns/oauth2/component/refresh_token`), which carries the refresh token and a component
    /// token.
    ComponentUserRefresh,
}

#[cfg(any(test, fuzzing))]
impl Endpoint {
    pub(crate) const ALL: [Self; 9] = [
        Self::CodeExchange,
        Self::UserRefresh,
        Self::UserCall,
        Self::AccountToken,
        Self::AccountCall,
        Self::ComponentToken,
        Self::ComponentCall,
        Self::ComponentCodeExchange,
        Self::ComponentUserRefresh,
    ];
}

/// Returns the recommended action for an errcode in the reply of this family of endpoints.
///
/// Codes and meanings come from WeChat's list of global return codes and from the documentation of
/// the endpoints. The actions are this crate's judgement.
pub(super) fn recommended_action(errcode: i64, endpoint: Endpoint) -> RecommendedAction {
    use Endpoint::{
        AccountCall, AccountToken, CodeExchange, ComponentCall, ComponentCodeExchange,
        ComponentToken, ComponentUserRefresh, UserCall, UserRefresh,
    };
    match (errcode, endpoint) {
        // WeChat is busy or has an internal error.
        (-1 | -1000, _) => RecommendedAction::Retry,

        // 40001 means a wrong AppSecret if the call carries the AppSecret, and an outdated or
        // unknown token if the call carries an access token.
        (40001, CodeExchange | AccountToken | ComponentToken) => RecommendedAction::ContactOperator,
        // The access token is outdated (40001), malformed (40014) or expired (42001).
        (
            40001 | 40014 | 42001,
            UserCall | AccountCall | ComponentCall | ComponentCodeExchange | ComponentUserRefresh,
        ) => RecommendedAction::RenewToken,
        // The component token is expired (42006), or does not match the platform (61014).
        (42006 | 61014, ComponentCall | ComponentCodeExchange | ComponentUserRefresh) => {
            RecommendedAction::RenewToken
        }
        // A refresh carries only the refresh token, so each of these errcodes concerns that token.
        (40001 | 40014 | 42001, UserRefresh) => RecommendedAction::LogIn,

        // The login code is invalid, used, missing or expired.
        (40029 | 40163 | 41008 | 42003, CodeExchange | ComponentCodeExchange) => {
            RecommendedAction::LogIn
        }
        // WeChat documents only this errcode for a refresh, with the text "invalid code".
        (40029, UserRefresh | ComponentUserRefresh) => RecommendedAction::LogIn,

        // The refresh token is invalid, missing or expired. 42007: the user changed the password,
        // which revokes the user's tokens.
        (40030 | 41003 | 42002, UserRefresh | ComponentUserRefresh) => RecommendedAction::LogIn,
        (
            42007,
            CodeExchange | UserRefresh | UserCall | ComponentCodeExchange | ComponentUserRefresh,
        ) => RecommendedAction::LogIn,

        // The openid is not that of the user's token. In a call without a user's token, the
        // application sent a wrong openid.
        (40003, UserRefresh | UserCall | ComponentUserRefresh) => RecommendedAction::LogIn,
        (40003, _) => RecommendedAction::FixRequest,

        // 48001 in a call for a user: the scope that the user granted does not cover the call. In
        // any other call: the account may not use the API.
        (48001, UserCall) => RecommendedAction::LogIn,
        (48001, _) => RecommendedAction::ContactOperator,
        // 50001 in a call with a user's code or token: the user has not authorized the call. In any
        // other call: the account may not use the API.
        (
            50001,
            CodeExchange | UserRefresh | UserCall | ComponentCodeExchange | ComponentUserRefresh,
        ) => RecommendedAction::LogIn,
        (50001, _) => RecommendedAction::ContactOperator,

        // The daily quota (45009) or the limit per minute (45011) is used up.
        (45009 | 45011, _) => RecommendedAction::BackOff,

        // The AppID is invalid, the AppSecret is invalid or frozen, or one of them is missing.
        (40013 | 40125 | 40243 | 41002 | 41004, _) => RecommendedAction::ContactOperator,
        // The IP address is not on the whitelist or not registered, or the administrator has not
        // confirmed it or has rejected it.
        (40164 | 45035 | 61004 | 89501 | 89503 | 89506 | 89507, _) => {
            RecommendedAction::ContactOperator
        }
        // The account has not authorized the call, may not use the API or the token API, has used
        // up `clear_quota`, or is frozen.
        (43007 | 48004 | 48006 | 50004 | 50007, _) => RecommendedAction::ContactOperator,
        // Third-party platform: the account has not authorized the platform (61003) or the API
        // (61007), the account's authorization code (61009, 61010) or refresh token (61023) is
        // invalid, or the platform is unknown (61011) or not published (61028).
        (61003 | 61007 | 61009 | 61010 | 61011 | 61023 | 61028, _) => {
            RecommendedAction::ContactOperator
        }
        // The AppID is that of a third-party platform, and the call is not for platforms.
        (61024, _) => RecommendedAction::ContactOperator,
        // Third-party platform: the platform's ticket is expired or invalid. WeChat pushes a new
        // ticket every ten minutes.
        (61005 | 61006, _) => RecommendedAction::Retry,

        // The user is a high risk, on the blacklist, or restricted.
        (40226 | 43019 | 50002, _) => RecommendedAction::DenyUser,

        // The grant_type or the API path is wrong, or the access token or the openid is missing.
        (40002 | 40066 | 41001 | 41009, _) => RecommendedAction::FixRequest,
        // The call requires GET, POST or HTTPS, its body is empty or cannot be parsed, or its token
        // is of the wrong kind. 40170: a page of accounts is too large.
        (40170 | 43001..=43003 | 44002 | 47001 | 61014 | 61015, _) => RecommendedAction::FixRequest,

        _ => RecommendedAction::PassThrough,
    }
}

pub(super) fn error_kind(errcode: i64, action: RecommendedAction) -> ErrorKind {
    match action {
        RecommendedAction::ContactOperator if matches!(errcode, 61003 | 61023) => {
            ErrorKind::AccountNotAuthorized
        }
        // The authorization code comes from a browser.
        RecommendedAction::ContactOperator if matches!(errcode, 61009 | 61010) => {
            ErrorKind::BadRequest
        }
        RecommendedAction::Retry => ErrorKind::WechatUnavailable,
        // The operator can raise or clear a daily quota (45009). A limit per minute ends without
        // any action.
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

/// Returns the time after which another call may succeed, for errcodes that imply one.
pub(super) fn retry_delay(errcode: i64, now: Timestamp) -> Option<Duration> {
    match errcode {
        45009 => Some(now.duration_until_beijing_midnight()),
        45011 => Some(duration_until_next_minute(now)),
        89506 => Some(DAY),
        89507 => Some(HOUR),
        _ => None,
    }
}

/// Maximum time for which renewals are suppressed after a spent quota (45009): one minute. Renewals
/// do not wait until midnight, because the operator may clear the quota earlier. WeChat also uses
/// this errcode for shorter limits.
const QUOTA_RETRY_DELAY: Duration = Duration::from_secs(60);

/// Returns the error with `retry_after` set to the time for which renewals of the account are
/// suppressed. That is at most [`QUOTA_RETRY_DELAY`] for a spent quota (45009). Any other error is
/// returned unchanged.
pub(crate) fn with_renewal_delay(error: Error) -> Error {
    match (error.errcode(), error.retry_after()) {
        (Some(45009), Some(wait)) => error.clone_with_retry_after(wait.min(QUOTA_RETRY_DELAY)),
        _ => error,
    }
}

/// Returns the time until the next full minute, or one minute if `now` is a full minute.
fn duration_until_next_minute(now: Timestamp) -> Duration {
    let elapsed = now.as_millis().rem_euclid(60_000);
    MINUTE.saturating_sub(Duration::from_millis(elapsed.unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        for (errcode, endpoint, action, kind) in cases {
            let recommended = recommended_action(errcode, endpoint);
            assert_eq!(recommended, action, "{errcode} {endpoint:?}");
            assert_eq!(
                error_kind(errcode, recommended),
                kind,
                "{errcode} {endpoint:?}"
            );
        }
        for endpoint in Endpoint::ALL {
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
    fn errcodes_of_platforms_have_their_kinds() {
        use Endpoint::*;
        let with_component_token = [ComponentCall, ComponentCodeExchange, ComponentUserRefresh];
        let kind = |errcode, endpoint| error_kind(errcode, recommended_action(errcode, endpoint));
        for endpoint in with_component_token {
            for errcode in [40001, 40014, 42001, 42006, 61014] {
                assert_eq!(
                    kind(errcode, endpoint),
                    ErrorKind::TokenRefused,
                    "{errcode}"
                );
            }
        }
        assert_eq!(kind(40001, ComponentToken), ErrorKind::WechatConfig);
        for errcode in [61005, 61006] {
            assert_eq!(kind(errcode, ComponentToken), ErrorKind::WechatUnavailable);
        }
        for errcode in [61009, 61010] {
            assert_eq!(kind(errcode, ComponentCall), ErrorKind::BadRequest);
        }
        for errcode in [40029, 40163, 42003] {
            assert_eq!(
                kind(errcode, ComponentCodeExchange),
                ErrorKind::LoginRequired
            );
        }
        for errcode in [40030, 42002, 42007, 41003] {
            assert_eq!(
                kind(errcode, ComponentUserRefresh),
                ErrorKind::LoginRequired
            );
        }
        for endpoint in Endpoint::ALL {
            for errcode in [
                40013, 40125, 41004, 45009, 61004, 61007, 61011, 61024, 61028,
            ] {
                assert_eq!(
                    kind(errcode, endpoint),
                    ErrorKind::WechatConfig,
                    "{errcode}"
                );
            }
            for errcode in [61003, 61023] {
                assert_eq!(kind(errcode, endpoint), ErrorKind::AccountNotAuthorized);
            }
        }
    }

    #[test]
    fn limits_end_at_the_minute_and_at_beijing_midnight() {
        // 2023-11-14 22:13:20 UTC, which is 06:13:20 of the 15th in Beijing.
        const NOW: i64 = 1_700_000_000_000;
        let wait = |errcode| retry_delay(errcode, Timestamp::from_millis(NOW));
        assert_eq!(wait(45011), Some(Duration::from_secs(40)));
        assert_eq!(
            wait(45009),
            Some(DAY - Duration::from_secs(6 * 3_600 + 13 * 60 + 20))
        );
        assert_eq!(wait(89506), Some(DAY));
        assert_eq!(wait(89507), Some(HOUR));
        assert_eq!(wait(40125), None);
        let kind = |errcode| error_kind(errcode, RecommendedAction::BackOff);
        assert_eq!(kind(45011), ErrorKind::WechatUnavailable);
        assert_eq!(kind(45009), ErrorKind::WechatConfig);
    }
}
