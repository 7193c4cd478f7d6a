//! The operator's remedies for errcodes, each in one sentence.

use std::net::IpAddr;

use super::errcode::Endpoint;
use super::error_context::ErrorContext;
use crate::credential::AppId;

/// Returns what has to be done about this errcode, as the end of an error's text. Returns `None` for
/// an errcode without advice.
pub(super) fn advice(errcode: i64, errmsg: &str, context: &ErrorContext<'_>) -> Option<String> {
    let address = match find_ip(errmsg) {
        Some(ip) => ip.to_string(),
        None => "this server's public IP".to_owned(),
    };
    let of_platform = context
        .component
        .and_then(|component| platform_advice(errcode, &address, component, context));
    of_platform.or_else(|| account_advice(errcode, &address, context.app_id))
}

/// Returns the advice for a call with the credentials of a third-party platform. Returns `None` if
/// the errcode concerns the account alone.
fn platform_advice(
    errcode: i64,
    address: &str,
    component: &AppId,
    context: &ErrorContext<'_>,
) -> Option<String> {
    let account = context.app_id;
    Some(match errcode {
        40001 | 40125 => format!(
            "check the AppSecret of the platform {component} in open.weixin.qq.com; it may have \
             been reset"
        ),
        40013 | 41002 | 61011 if account == component => {
            format!("check the AppID of the platform, which is set to {component}")
        }
        40013 | 41002 | 61011 => format!(
            "check the AppID of the platform, which is set to {component}, and that of the account, \
             {account}"
        ),
        41004 => format!("set the AppSecret of the platform {component}"),
        40164 | 45035 | 61004 => format!(
            "add {address} to the IP whitelist of the platform {component} in open.weixin.qq.com, \
             and publish the change (全网发布)"
        ),
        40243 => {
            format!("unfreeze the AppSecret of the platform {component} in open.weixin.qq.com")
        }
        45009 => {
            let of = match context.endpoint {
                Endpoint::ComponentToken => "component tokens of ",
                Endpoint::CodeExchange
                | Endpoint::UserRefresh
                | Endpoint::UserCall
                | Endpoint::AccountToken
                | Endpoint::AccountCall
                | Endpoint::ComponentCall
                | Endpoint::ComponentCodeExchange
                | Endpoint::ComponentUserRefresh => "",
            };
            format!(
                "the day's quota of {of}{account} is spent: wait for midnight in Beijing or clear \
                 it with cgi-bin/component/clear_quota/v2, at most ten times a month"
            )
        }
        61003 => format!("the owner of {account} has to authorize the platform {component} again"),
        61005 | 61006 => format!(
            "WeChat pushes another ticket within ten minutes: check that the pushes to {component} \
             (授权事件接收URL) reach this service"
        ),
        61007 => format!(
            "the owner of {account} has to grant the platform {component} the permission set of \
             this API (网页服务 for logins)"
        ),
        61009 | 61010 => {
            "the owner of the account has to authorize the platform once more, because \
                          a code is valid once and for a short time"
                .to_owned()
        }
        61023 => format!(
            "if api_get_authorizer_list has no other refresh token, the owner of {account} has to \
             authorize the platform {component} again"
        ),
        61028 => format!(
            "publish the platform {component} (全网发布), or add the account to its test accounts"
        ),
        _ => return None,
    })
}

/// Returns the advice for a call with the credentials of the account.
fn account_advice(errcode: i64, address: &str, app_id: &AppId) -> Option<String> {
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
        61024 => format!(
            "{app_id} is the AppID of a third-party platform (第三方平台), which has no token of its \
             own: make a Platform from its client"
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_ip_of_an_errmsg_is_found() {
        let v6 = find_ip("invalid ip 2001:db8::1, not in whitelist hint: [abc]");
        assert_eq!(v6, Some("2001:db8::1".parse().unwrap()));
        assert_eq!(find_ip("bad face :: cafe. 1.2.3"), None);
    }

    proptest! {
        #[test]
        fn arbitrary_errmsg_never_panics(errmsg in "(ip |[0-9a-f.:,-]|é){0,60}") {
            let _ = find_ip(&errmsg);
        }
    }
}
