//! The URLs of WeChat's pages at which users allow a login.

use percent_encoding::utf8_percent_encode;

use super::query::URI_COMPONENT;
use super::scope::Scope;
use crate::credential::SCOPE_LOGIN;

/// Optional parameters of the authorize URL, which all follow `state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct AuthorizeOptions {
    pub(crate) force_popup: bool,
    pub(crate) force_snapshot: bool,
    pub(crate) connect_redirect: bool,
}

/// The page of WeChat at which users allow a login.
#[derive(Debug, Clone, Copy)]
pub(crate) enum AuthorizePage {
    /// Web authorization of an Official Account (网页授权), in WeChat's browser.
    OfficialAccount {
        scope: Scope,
        options: AuthorizeOptions,
    },
    /// Login of a website app (网站应用), in other browsers: a QR code that the user scans with
    /// WeChat. Its only scope is `snsapi_login`.
    Website,
}

/// The parameters of an authorize URL.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AuthorizationRequest<'a> {
    /// The base URL of WeChat's pages, without a slash at the end.
    pub(crate) open_url: &'a str,
    pub(crate) page: AuthorizePage,
    pub(crate) app_id: &'a str,
    pub(crate) redirect_uri: &'a str,
    pub(crate) state: &'a str,
    /// The AppID of the platform that logs in users on behalf of the account, if one does.
    pub(crate) component_app_id: Option<&'a str>,
}

impl AuthorizationRequest<'_> {
    /// Returns the URL of the page. WeChat checks this URL with a regular expression: the
    /// parameters must have exactly this order and letter case (guides to web authorization, to the
    /// login of website apps, and to web authorization on behalf of an account).
    pub(crate) fn url(&self) -> String {
        let encoded = |text| utf8_percent_encode(text, URI_COMPONENT);
        let (path, scope, options) = match self.page {
            AuthorizePage::OfficialAccount { scope, options } => {
                ("oauth2/authorize", scope.as_str(), options)
            }
            AuthorizePage::Website => ("qrconnect", SCOPE_LOGIN, AuthorizeOptions::default()),
        };
        let mut url = format!(
            "{}/connect/{path}?appid={}&redirect_uri={}&response_type=code&scope={scope}&state={}",
            self.open_url,
            encoded(self.app_id),
            encoded(self.redirect_uri),
            encoded(self.state),
        );
        for (enabled, parameter) in [
            (options.force_popup, "&forcePopup=true"),
            (options.force_snapshot, "&forceSnapShot=true"),
            (options.connect_redirect, "&connect_redirect=1"),
        ] {
            if enabled {
                url.push_str(parameter);
            }
        }
        if let Some(component) = self.component_app_id {
            url.push_str("&component_appid=");
            url.extend(encoded(component));
        }
        url.push_str("#wechat_redirect");
        url
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request<'a>(
        app_id: &'a str,
        redirect_uri: &'a str,
        scope: Scope,
    ) -> AuthorizationRequest<'a> {
        AuthorizationRequest {
            open_url: "https://open.weixin.qq.com",
            page: AuthorizePage::OfficialAccount {
                scope,
                options: AuthorizeOptions::default(),
            },
            app_id,
            redirect_uri,
            state: "STATE",
            component_app_id: None,
        }
    }

    /// URLs equal the examples of WeChat's guide to web authorization (网页授权), character by
    /// character.
    #[test]
    fn matches_wechats_documented_examples() {
        let base = request(
            "wx520c15f417810387",
            "https://chong.qq.com/php/index.php?d=&c=wxAdapter&m=mobileDeal&showwxpaytitle=1&vb2ctag=4_2030_5_1194_60",
            Scope::Base,
        );
        let documented = "https://open.weixin.qq.com/connect/oauth2/authorize?appid=wx520c15f417810387&redirect_uri=https%3A%2F%2Fchong.qq.com%2Fphp%2Findex.php%3Fd%3D%26c%3DwxAdapter%26m%3DmobileDeal%26showwxpaytitle%3D1%26vb2ctag%3D4_2030_5_1194_60&response_type=code&scope=snsapi_base&state=123#wechat_redirect";
        assert_eq!(
            AuthorizationRequest {
                state: "123",
                ..base
            }
            .url(),
            documented
        );

        let documented = "https://open.weixin.qq.com/connect/oauth2/authorize?appid=wx807d86fb6b3d4fd2&redirect_uri=http%3A%2F%2Fdevelopers.weixin.qq.com&response_type=code&scope=snsapi_userinfo&state=STATE#wechat_redirect";
        let userinfo = request(
            "wx807d86fb6b3d4fd2",
            "http://developers.weixin.qq.com",
            Scope::UserInfo,
        );
        assert_eq!(userinfo.url(), documented);
    }

    #[test]
    fn options_stand_between_state_and_fragment() {
        let extras = AuthorizeOptions {
            force_popup: true,
            force_snapshot: true,
            connect_redirect: true,
        };
        let url = AuthorizationRequest {
            page: AuthorizePage::OfficialAccount {
                scope: Scope::UserInfo,
                options: extras,
            },
            ..request("wx1", "https://a.b/c", Scope::UserInfo)
        }
        .url();
        assert!(url.ends_with(
            "&state=STATE&forcePopup=true&forceSnapShot=true&connect_redirect=1#wechat_redirect"
        ));
    }

    /// The parameters have the order of WeChat's guide to web authorization on behalf of an account
    /// (代公众号发起网页授权).
    #[test]
    fn the_platform_is_the_last_parameter() {
        let on_behalf = AuthorizationRequest {
            component_app_id: Some("wxd0bfc95064b5bfc1"),
            ..request("wxf8b4f85f3a794e77", "https://a.b/c", Scope::Base)
        };
        assert_eq!(
            on_behalf.url(),
            "https://open.weixin.qq.com/connect/oauth2/authorize?appid=wxf8b4f85f3a794e77&redirect_uri=https%3A%2F%2Fa.b%2Fc&response_type=code&scope=snsapi_base&state=STATE&component_appid=wxd0bfc95064b5bfc1#wechat_redirect"
        );
        let options = AuthorizeOptions {
            force_popup: true,
            ..AuthorizeOptions::default()
        };
        let scope = Scope::UserInfo;
        let url = AuthorizationRequest {
            page: AuthorizePage::OfficialAccount { scope, options },
            ..on_behalf
        }
        .url();
        let end = "&state=STATE&forcePopup=true&component_appid=wxd0bfc95064b5bfc1#wechat_redirect";
        assert!(url.ends_with(end), "{url}");
    }

    /// The URL has the form of the example in WeChat's guide to the login of website apps
    /// (网站应用微信登录).
    #[test]
    fn website_page_has_its_own_path_and_scope() {
        let redirect_uri = "https://passport.yhd.com/wechat/callback.do";
        let url = AuthorizationRequest {
            page: AuthorizePage::Website,
            state: "3d6be0a4035d839573b04816624a415e",
            ..request("wxbdc5610cc59c1631", redirect_uri, Scope::Base)
        }
        .url();
        assert_eq!(
            url,
            "https://open.weixin.qq.com/connect/qrconnect?appid=wxbdc5610cc59c1631&redirect_uri=https%3A%2F%2Fpassport.yhd.com%2Fwechat%2Fcallback.do&response_type=code&scope=snsapi_login&state=3d6be0a4035d839573b04816624a415e#wechat_redirect"
        );
    }
}
