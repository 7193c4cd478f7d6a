//! Error replies in WeChat's form: an errcode, WeChat's text for it, and the id of the request.

use std::{net::IpAddr, time::Duration};

use super::random;

/// Minimum length of a well-formed token after its prefix and underscore: 40 characters. An unknown
/// shorter text gets 40014 instead of 40001.
const MIN_TOKEN_BODY_CHARS: usize = 40;

/// The error of a call, sent as HTTP 200 with `{"errcode": …, "errmsg": …}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WechatErrorReply {
    pub(super) errcode: i64,
    text: Option<String>,
}

impl WechatErrorReply {
    pub(super) const fn new(errcode: i64) -> Self {
        Self {
            errcode,
            text: None,
        }
    }

    /// Returns the error for a token that this account never issued. A well-formed token, such as
    /// another account's, gets 40001. A text that cannot be a token gets 40014.
    pub(super) fn unknown_token(token: &str) -> Self {
        let is_well_formed = token.split_once('_').is_some_and(|(prefix, rest)| {
            (1..=4).contains(&prefix.len())
                && prefix.bytes().all(|byte| byte.is_ascii_digit())
                && rest.len() >= MIN_TOKEN_BODY_CHARS
                && rest.bytes().all(|byte| random::URL_SAFE.contains(&byte))
        });
        Self::new(if is_well_formed { 40001 } else { 40014 })
    }

    /// Returns 40164 in the form of replies since 2021, which contain an IPv4 address twice: as it
    /// is, and mapped into IPv6.
    pub(super) fn ip_not_whitelisted(ip: IpAddr) -> Self {
        let mapped = match ip {
            IpAddr::V4(v4) => v4.to_ipv6_mapped(),
            IpAddr::V6(v6) => v6,
        };
        let text = format!("invalid ip {ip} ipv6 {mapped}, not in whitelist");
        Self {
            errcode: 40164,
            text: Some(text),
        }
    }

    /// Returns 61004, whose text contains the address of the caller.
    #[cfg(feature = "platform")]
    pub(super) fn ip_not_registered(ip: IpAddr) -> Self {
        Self {
            errcode: 61004,
            text: Some(format!("access clientip is not registered requestIP: {ip}")),
        }
    }

    /// Returns the errmsg of the reply. Unless the errcode is 0, the errmsg ends with ` rid: …`,
    /// the id of the request.
    pub(super) fn errmsg(&self, now: Duration) -> String {
        let text = self
            .text
            .as_deref()
            .unwrap_or_else(|| errmsg_for(self.errcode));
        if self.errcode == 0 {
            text.to_owned()
        } else {
            format!("{text} rid: {}", random::rid(now))
        }
    }
}

/// Returns WeChat's text for an errcode, as seen in replies or as in the global list of error
/// codes. Any other errcode has the text `simulated error`.
fn errmsg_for(errcode: i64) -> &'static str {
    match errcode {
        -1000 | -1 => "system error",
        0 => "ok",
        40001 => {
            "invalid credential, access_token is invalid or not latest, could get access_token by \
             getStableAccessToken, more details at https://mmbizurl.cn/s/JtxxFh33r"
        }
        40002 => "invalid grant_type",
        40003 => "invalid openid",
        40008 => "invalid message type",
        40013 => "invalid appid",
        40014 => "invalid access_token",
        40029 => "invalid code",
        40030 => "invalid refresh_token",
        40037 => "invalid template_id",
        40066 => "invalid url",
        40097 => "invalid args",
        40125 => "invalid appsecret",
        40163 => "code been used",
        40164 => "invalid ip, not in whitelist",
        40226 => "high risk user, code blocked",
        40243 => "appsecret is frozen",
        41001 => "access_token missing",
        41002 => "appid missing",
        41003 => "refresh_token missing",
        41004 => "appsecret missing",
        41008 => "missing code",
        41009 => "missing openid",
        42001 => "access_token expired",
        42002 => "refresh_token expired",
        42003 => "code expired",
        42007 => "access_token and refresh_token exception",
        43001 => "require GET method",
        43002 => "require POST method",
        43003 => "require https",
        43004 => "require subscribe",
        44002 => "empty post data",
        45009 => "reach max api daily quota limit",
        45011 => "api minute-quota reach limit, must slower, retry next minute",
        47001 => "data format error",
        48001 => "api unauthorized",
        48004 => "api forbidden for irregularities, view detail on mp.weixin.qq.com",
        48006 => "forbid to clear quota because of reaching the limit",
        50001 => "user unauthorized",
        50002 => "user limited",
        50004 => "token api forbidden",
        50007 => "account is frozen",
        40170 => "args count exceed count limit",
        61003 => "component is not authorized by this account",
        61004 => "access clientip is not registered",
        61005 => "component ticket is expired",
        61006 => "component ticket is invalid",
        61007 => "api is unauthorized to component",
        61009 => "code is invalid",
        61010 => "code is expired",
        61011 => "invalid component",
        61014 => "must use component token for component api",
        61015 => "must use biz token for not component api",
        61023 => "refresh_token is invalid",
        61024 => "must use api(api_component_token) to get token for component acct",
        89503 => "this ip is waiting for the confirmation of the administrator",
        89506 => "this ip was refused twice by the administrator, not allowed within 24 hours",
        89507 => "this ip was refused by the administrator, not allowed within 1 hour",
        _ => "simulated error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ipv4_address_is_also_shown_mapped() {
        let errmsg =
            WechatErrorReply::ip_not_whitelisted([1, 2, 3, 4].into()).errmsg(Duration::ZERO);
        assert!(
            errmsg.starts_with("invalid ip 1.2.3.4 ipv6 ::ffff:1.2.3.4, not in whitelist rid: "),
            "{errmsg}"
        );
    }

    #[test]
    fn a_rid_has_three_groups_of_eight() {
        let errmsg = WechatErrorReply::new(40029).errmsg(Duration::from_secs(0x6114_eeb9));
        let rid = errmsg.strip_prefix("invalid code rid: ").unwrap();
        assert!(rid.starts_with("6114eeb9-"));
        assert_eq!(rid.len(), 26);
        assert!(rid.split('-').all(|group| group.len() == 8));
    }
}
