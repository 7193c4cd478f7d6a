//! The links to WeChat's pages, on which the owner of an account authorizes the platform.

use percent_encoding::utf8_percent_encode;

use crate::credential::AppId;
use crate::login::query::URI_COMPONENT;

/// The accounts that WeChat's page offers.
#[derive(Debug, Clone)]
pub(super) struct OfferedAccounts {
    /// WeChat's number for a kind of accounts (`auth_type`).
    pub(super) auth_type: u8,
    /// The only account that may be authorized (`biz_appid`).
    pub(super) only: Option<AppId>,
}

impl Default for OfferedAccounts {
    /// Offers 公众号.
    fn default() -> Self {
        Self {
            auth_type: 1,
            only: None,
        }
    }
}

/// The parameters of both links.
pub(super) struct AccountLink<'a> {
    pub(super) component: &'a AppId,
    pub(super) pre_auth_code: &'a str,
    /// The URL to which WeChat returns.
    pub(super) redirect_uri: &'a str,
    pub(super) offered: &'a OfferedAccounts,
}

impl AccountLink<'_> {
    /// Returns the URL of the page with a QR code, for browsers on a computer. `mp_url` is the base URL
    /// of the page, without a slash at the end.
    pub(super) fn for_computer(&self, mp_url: &str) -> String {
        let parameters = self.parameters();
        format!("{mp_url}/cgi-bin/componentloginpage?{parameters}")
    }

    /// Returns the URL of the page in WeChat's browser on a phone. `open_url` is the base URL of the
    /// page, without a slash at the end.
    pub(super) fn for_phone(&self, open_url: &str) -> String {
        let parameters = self.parameters();
        format!(
            "{open_url}/wxaopen/safe/bindcomponent?action=bindcomponent&no_scan=1&{parameters}#wechat_redirect"
        )
    }

    fn parameters(&self) -> String {
        let encoded = |text| utf8_percent_encode(text, URI_COMPONENT);
        let mut parameters = format!(
            "component_appid={}&pre_auth_code={}&redirect_uri={}&auth_type={}",
            encoded(self.component.as_str()),
            encoded(self.pre_auth_code),
            encoded(self.redirect_uri),
            self.offered.auth_type,
        );
        if let Some(only) = &self.offered.only {
            parameters.push_str("&biz_appid=");
            parameters.extend(encoded(only.as_str()));
        }
        parameters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_have_the_documented_form() {
        let component = AppId::new("wxC").unwrap();
        let default = OfferedAccounts::default();
        let link = |offered| AccountLink {
            component: &component,
            pre_auth_code: "preauthcode@@@a/b",
            redirect_uri: "https://a.b/c/STATE",
            offered,
        };
        assert_eq!(
            link(&default).for_computer("https://mp.weixin.qq.com"),
            "https://mp.weixin.qq.com/cgi-bin/componentloginpage?component_appid=wxC&\
             pre_auth_code=preauthcode%40%40%40a%2Fb&redirect_uri=https%3A%2F%2Fa.b%2Fc%2FSTATE&\
             auth_type=1"
        );
        let one = OfferedAccounts {
            auth_type: 3,
            only: Some(AppId::new("wxA").unwrap()),
        };
        assert_eq!(
            link(&one).for_phone("https://open.weixin.qq.com"),
            "https://open.weixin.qq.com/wxaopen/safe/bindcomponent?action=bindcomponent&no_scan=1&\
             component_appid=wxC&pre_auth_code=preauthcode%40%40%40a%2Fb&\
             redirect_uri=https%3A%2F%2Fa.b%2Fc%2FSTATE&auth_type=3&biz_appid=wxA#wechat_redirect"
        );
    }
}
