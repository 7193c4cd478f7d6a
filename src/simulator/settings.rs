//! The settings of the simulated WeChat, which a test may change while it runs.
//!
//! The macro `settings!` takes the one list of all settings. The macro defines the struct, the
//! defaults, the JSON of `GET /_sim/settings` and the patch of `POST /_sim/settings`. None of these
//! can thus lack a setting.

use std::{net::IpAddr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize};

use super::clock::MAX_OFFSET;

/// The type of a setting, with its conversion to and from JSON.
trait SettingType: Sized {
    /// The type that represents the setting in JSON.
    type Json;

    fn to_json(&self) -> Self::Json;

    /// Converts the JSON value of the field `name` into the value of the setting.
    ///
    /// # Errors
    /// Returns a sentence that says why the value is invalid.
    fn from_json(name: &str, json: Self::Json) -> Result<Self, String>;

    /// Deserializes a field of a patch. `None`, from `null`, leaves the setting unchanged. A list
    /// overrides this function, and `null` then allows all values.
    fn deserialize_patch<'de, D>(deserializer: D) -> Result<Option<Self::Json>, D::Error>
    where
        D: Deserializer<'de>,
        Self::Json: Deserialize<'de>,
    {
        Option::deserialize(deserializer)
    }
}

/// A duration, which is a number of whole seconds in JSON.
impl SettingType for Duration {
    type Json = u64;

    fn to_json(&self) -> u64 {
        self.as_secs()
    }

    fn from_json(name: &str, secs: u64) -> Result<Self, String> {
        let duration = Self::from_secs(secs);
        if duration > MAX_OFFSET {
            return Err(format!("`{name}` is longer than a hundred years"));
        }
        Ok(duration)
    }
}

macro_rules! plain_setting_types {
    ($($type:ty),*) => {$(
        impl SettingType for $type {
            type Json = Self;

            fn to_json(&self) -> Self {
                *self
            }

            fn from_json(_: &str, json: Self) -> Result<Self, String> {
                Ok(json)
            }
        }
    )*};
}

plain_setting_types!(bool, u64);

/// A list of allowed values. `null` allows all values, also in a patch.
impl<T: Clone> SettingType for Option<Vec<T>> {
    type Json = Self;

    fn to_json(&self) -> Self {
        self.clone()
    }

    fn from_json(_: &str, json: Self) -> Result<Self, String> {
        Ok(json)
    }

    fn deserialize_patch<'de, D>(deserializer: D) -> Result<Option<Self>, D::Error>
    where
        D: Deserializer<'de>,
        Self: Deserialize<'de>,
    {
        Self::deserialize(deserializer).map(Some)
    }
}

/// A field of a patch: the new value of the setting, or `None` to leave the setting unchanged.
#[derive(Debug)]
struct PatchField<T: SettingType>(Option<T::Json>);

impl<T: SettingType> Default for PatchField<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<'de, T> Deserialize<'de> for PatchField<T>
where
    T: SettingType<Json: Deserialize<'de>>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize_patch(deserializer).map(Self)
    }
}

/// Defines the settings from a list. Each entry of the list has documentation, a name, a type, a
/// name in JSON and a default.
macro_rules! settings {
    (
        $(#[$struct_meta:meta])*
        pub struct SimulatorSettings;
        $(
            $(#[$meta:meta])*
            $name:ident: $type:ty, $json_name:ident = $default:expr;
        )*
    ) => {
        $(#[$struct_meta])*
        pub struct SimulatorSettings {
            $($(#[$meta])* pub $name: $type,)*
        }

        impl Default for SimulatorSettings {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }

        /// The settings as `GET /_sim/settings` returns them.
        #[derive(Debug, Serialize)]
        pub(super) struct SettingsJson {
            $($json_name: <$type as SettingType>::Json,)*
        }

        impl SimulatorSettings {
            pub(super) fn to_json(&self) -> SettingsJson {
                SettingsJson { $($json_name: self.$name.to_json(),)* }
            }
        }

        /// The body of `POST /_sim/settings`, which contains the settings to change.
        #[derive(Debug, Default, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub(super) struct SettingsPatch {
            $($json_name: PatchField<$type>,)*
        }

        impl SettingsPatch {
            /// Changes all given settings, or none if one of the values is invalid.
            ///
            /// # Errors
            /// Returns a sentence that says which value is invalid.
            pub(super) fn apply(self, settings: &mut SimulatorSettings) -> Result<(), String> {
                let mut changed = settings.clone();
                $(
                    if let Some(json) = self.$json_name.0 {
                        changed.$name = SettingType::from_json(stringify!($json_name), json)?;
                    }
                )*
                *settings = changed;
                Ok(())
            }
        }
    };
}

settings! {
    /// The settings of the simulated WeChat, which apply to all its apps. The defaults are WeChat's
    /// own figures.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> std::io::Result<()> {
    /// use std::time::Duration;
    /// use tower_wechat::simulator::Simulator;
    ///
    /// let sim = Simulator::start().await?;
    /// sim.settings(|settings| {
    ///     settings.user_token_lifetime = Duration::from_secs(60);
    ///     settings.rotate_refresh_token = true;
    /// });
    /// # sim.stop().await;
    /// # Ok(())
    /// # }
    /// ```
    #[derive(Debug, Clone, PartialEq, Eq)]
    #[non_exhaustive]
    pub struct SimulatorSettings;

    /// Lifetime of a user's access token. Default: 7,200 s (documentation of
    /// `sns/oauth2/access_token`).
    user_token_lifetime: Duration, user_token_secs = Duration::from_secs(7200);

    /// Lifetime of a user's refresh token. Default: 30 days (documentation of
    /// `sns/oauth2/refresh_token`).
    refresh_token_lifetime: Duration, refresh_token_secs = Duration::from_secs(30 * 24 * 3600);

    /// Lifetime of an unused code of the authorize page. Default: 5 minutes (guide to web
    /// authorization). The lifetime of a code of `connect/qrconnect` is twice as long, as the documentation
    /// of website login says.
    code_lifetime: Duration, code_secs = Duration::from_secs(300);

    /// `true`: each refresh returns a new refresh token and invalidates the old one. WeChat's pages
    /// say that a refresh token cannot be renewed, and some SDKs report that it changes. Default:
    /// `false`.
    rotate_refresh_token: bool, rotate_refresh_token = false;

    /// Lifetime of the account's access token. Default: 7,200 s (documentation of `cgi-bin/token`).
    account_token_lifetime: Duration, account_token_secs = Duration::from_secs(7200);

    /// Time for which a token of `cgi-bin/token` still works after the next one was issued.
    /// `cgi-bin/stable_token` issues its next token this time before the expiry of its current
    /// token, but not in the first half of the lifetime. Default: 5 minutes (documentation of both
    /// calls).
    account_token_overlap: Duration, account_token_overlap_secs = Duration::from_secs(300);

    /// Lifetime of a ticket. Every reply contains the full lifetime and not the time that is left,
    /// as developers saw in WeChat's replies. Default: 7,200 s.
    ticket_lifetime: Duration, ticket_secs = Duration::from_secs(7200);

    /// `true`: the authorize page and the page with the QR code return at once, as the active user.
    /// `false`: the page asks for consent with two buttons, if the scope needs consent. Default:
    /// `true`.
    auto_approve: bool, auto_approve = true;

    /// `true`: the deny button of the page inside WeChat redirects to the application with `state` and without `code`, as
    /// older documentation says. `false`: WeChat's window closes and the application gets no
    /// request, as newer reports say. Default: `true`.
    deny_redirects: bool, deny_redirects = true;

    /// `true`: the deny button of the page with the QR code (`connect/qrconnect`) redirects to the
    /// application with `state` and without `code`, as older documentation says. `false`: the page
    /// offers another scan, and the application gets no request, as WeChat does today. Default:
    /// `false`.
    qr_deny_redirects: bool, qr_deny_redirects = false;

    /// `true`: the simulator fetches the callback without cookies just before the browser does, as
    /// WeChat's servers were seen to do. Only for `http://` callbacks. Default: `false`.
    callback_twice: bool, callback_twice = false;

    /// Allowed host names of a `redirect_uri` (网页授权域名), compared as a whole, in any letter case.
    /// Other hosts get error page 10003. Apps with their own
    /// [hosts](super::SimulatedApp::redirect_hosts) ignore this setting. Default: `None`, which
    /// allows any host.
    redirect_hosts: Option<Vec<String>>, redirect_hosts = None;

    /// IP addresses that may fetch the account's token. Other addresses get 40164. Default: `None`,
    /// which allows all addresses.
    ip_whitelist: Option<Vec<IpAddr>>, ip_whitelist = None;

    /// `true`: the AppSecret is frozen, and calls with it get 40243. Default: `false`.
    secret_frozen: bool, secret_frozen = false;

    /// `true`: the account is frozen, and calls for its token get 50007. Default: `false`.
    account_frozen: bool, account_frozen = false;

    /// Maximum number of calls of `cgi-bin/token` per day. Further calls get 45009. A day begins at
    /// midnight in Beijing. Default: 2,000, which a new account has (page on API call limits).
    token_daily_quota: u64, token_daily_quota = 2_000;

    /// Maximum number of calls of `cgi-bin/stable_token` per day. Further calls get 45009. Default:
    /// 500,000 (documentation of `cgi-bin/stable_token`).
    stable_token_daily_quota: u64, stable_token_daily_quota = 500_000;

    /// Lifetime of a third-party platform's component token. Default: 7,200 s (documentation of
    /// `api_component_token`).
    component_token_lifetime: Duration, component_token_secs = Duration::from_secs(7200);

    /// Time for which a component token still works after the next one was issued. WeChat's staff
    /// says five minutes, and other reports say that it ends at once. Default: 5 minutes.
    component_token_overlap: Duration, component_token_overlap_secs = Duration::from_secs(300);

    /// Maximum number of calls of `api_component_token` per day. Further calls get 45009. Default:
    /// 2,000, the smaller of the two numbers that developers report.
    component_token_daily_quota: u64, component_token_daily_quota = 2_000;

    /// Lifetime of a verify ticket. Older tickets get 61005. Default: 12 hours (documentation of the
    /// ticket).
    verify_ticket_lifetime: Duration, verify_ticket_secs = Duration::from_secs(12 * 3600);

    /// Time on the simulator's clock from one push of a verify ticket to the next. Zero: the
    /// simulator pushes no tickets by itself. Default: 10 minutes (documentation of the ticket).
    ticket_push_interval: Duration, ticket_push_secs = Duration::from_secs(600);

    /// Lifetime of a pre_auth_code. Default: 1,800 s (documentation of `api_create_preauthcode`).
    pre_auth_code_lifetime: Duration, pre_auth_code_secs = Duration::from_secs(1800);

    /// Lifetime of an authorization code of an account. Default: 3,600 s, as seen in WeChat's
    /// replies.
    authorization_code_lifetime: Duration, authorization_code_secs = Duration::from_secs(3600);

    /// `true`: each call of `api_authorizer_token` returns a new refresh token. WeChat's staff says
    /// both. Default: `false`.
    rotate_authorizer_refresh_token: bool, rotate_authorizer_refresh_token = false;

    /// Time for which a refresh token of an account still works after a call of
    /// `api_authorizer_token` has returned the next one. Default: 5 minutes, as WeChat's staff says.
    authorizer_refresh_token_grace: Duration, authorizer_refresh_token_grace_secs = Duration::from_secs(300);
}
