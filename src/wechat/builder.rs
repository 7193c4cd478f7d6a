//! The builder of the client, which checks all settings.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::client::{Inner, WechatClient};
use super::credentials::Credentials;
use super::http::{self, API_URL, BaseUrl};
use super::proxy;
use super::transport::Transport;
use crate::clock::Clock;
use crate::credential::{AppId, AppSecret};
use crate::error::Error;

/// Default base URL of WeChat's authorize pages.
const OPEN_URL: &str = "https://open.weixin.qq.com";

/// Default maximum time for one connection, including the TLS handshake: two seconds. Of the four
/// seconds of an attempt ([`TIMEOUT`]), two are left for the reply.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Default maximum time for one attempt at one host, including its connection: four seconds. Two
/// attempts fit into [`TOTAL_TIMEOUT`].
const TIMEOUT: Duration = Duration::from_secs(4);

/// Default maximum time for one call with its attempts at all hosts: eight seconds. This is shorter
/// than the default lease of 10 seconds, so a call ends before another process can acquire the
/// lease.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(8);

/// A builder of [`WechatClient`].
///
/// ```
/// use std::time::Duration;
/// use tower_wechat::clock::Clock;
/// use tower_wechat::WechatClient;
///
/// let client = WechatClient::builder("wx0123456789abcdef", "the-AppSecret")
///     .api_url("https://api.weixin.qq.com")
///     .fallback_api_urls(["https://api2.weixin.qq.com", "https://sh.api.weixin.qq.com"])
///     .open_url("https://open.weixin.qq.com")
///     .connect_timeout(Duration::from_secs(1))
///     .timeout(Duration::from_secs(2))
///     .total_timeout(Duration::from_secs(5))
///     .clock(Clock::system())
///     .build()?;
/// assert_eq!(client.app_id().as_str(), "wx0123456789abcdef");
/// # Ok::<(), tower_wechat::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "nothing happens before `build`"]
pub struct WechatClientBuilder {
    app_id: String,
    secret: AppSecret,
    api_url: String,
    fallback_api_urls: Vec<String>,
    open_url: String,
    proxy: Option<Zeroizing<String>>,
    connect_timeout: Duration,
    timeout: Duration,
    total_timeout: Duration,
    clock: Clock,
}

impl WechatClientBuilder {
    fn new(app_id: &str, secret: AppSecret) -> Self {
        Self {
            app_id: app_id.to_owned(),
            secret,
            api_url: API_URL.to_owned(),
            fallback_api_urls: Vec::new(),
            open_url: OPEN_URL.to_owned(),
            proxy: None,
            connect_timeout: CONNECT_TIMEOUT,
            timeout: TIMEOUT,
            total_timeout: TOTAL_TIMEOUT,
            clock: Clock::system(),
        }
    }

    /// Sets the base URL of WeChat's API. A path in this URL becomes a prefix of all API paths.
    /// Default: `https://api.weixin.qq.com`.
    pub fn api_url(mut self, url: impl Into<String>) -> Self {
        self.api_url = url.into();
        self
    }

    /// Sets the base URLs that a call tries, in this order, after [`api_url`](Self::api_url) was
    /// unreachable, timed out or returned no valid reply. Default: none.
    ///
    /// WeChat names `https://api2.weixin.qq.com` for disaster recovery, and the access points `sh`,
    /// `sz` and `hk.api.weixin.qq.com`. Some calls must not be sent twice, such as the exchange of
    /// a code. Such a call tries the next URL only if the request was certainly not sent.
    pub fn fallback_api_urls<U: Into<String>>(mut self, urls: impl IntoIterator<Item = U>) -> Self {
        self.fallback_api_urls = urls.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the base URL of the authorize pages. Browsers open these pages, and the client sends no
    /// request to this URL. Default: `https://open.weixin.qq.com`.
    pub fn open_url(mut self, url: impl Into<String>) -> Self {
        self.open_url = url.into();
        self
    }

    /// Sends all calls of this client through a forward proxy. Use it if only the proxy's address
    /// is on the IP whitelist of the account. Default: none.
    ///
    /// The URL is one such as `http://user:password@proxy.internal:3128` or
    /// `socks5://proxy.internal:1080`. Its scheme is `http`, `https`, `socks5` or `socks5h` (the
    /// proxy resolves names); user and password are percent-encoded. No host is exempt: `NO_PROXY`
    /// and all other environment variables are ignored. Browsers and clients of the token center
    /// do not use this proxy.
    ///
    /// ```
    /// use tower_wechat::WechatClient;
    ///
    /// let client = WechatClient::builder("wx0123456789abcdef", "the-AppSecret")
    ///     .proxy("http://user:password@proxy.internal:3128")
    ///     .build()?;
    /// # Ok::<(), tower_wechat::Error>(())
    /// ```
    pub fn proxy(mut self, url: impl Into<String>) -> Self {
        self.proxy = Some(Zeroizing::new(url.into()));
        self
    }

    /// Sets the maximum time for one connection, including the TLS handshake. Default: 2 seconds.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// Sets the maximum time for one attempt, from the connection to the last byte of the reply.
    /// Default: 4 seconds.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the maximum time for one call with its attempts at all hosts. Default: 8 seconds.
    pub fn total_timeout(mut self, timeout: Duration) -> Self {
        self.total_timeout = timeout;
        self
    }

    /// Sets the clock. After WeChat rejected a call because of a limit, the client computes the
    /// time until the limit ends. A limit ends at the next minute or at midnight in Beijing.
    /// Default: the system clock.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Creates the client without connecting.
    ///
    /// TLS is rustls with the operating system's certificates. If the process has no default
    /// `rustls::crypto::CryptoProvider`, this function installs ring's; to use another provider,
    /// install it first. A client with `http` base URLs only, as for a simulator, needs no
    /// certificates. The client ignores the proxies of environment variables. If such a variable is
    /// set and [`proxy`](Self::proxy) is not, the first build of the process logs a warning.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration): the AppID, the AppSecret, a
    /// base URL or the proxy's URL is invalid, a timeout is zero, or TLS cannot be set up. An empty
    /// AppID or AppSecret is invalid.
    pub fn build(self) -> Result<WechatClient, Error> {
        let app_id = check_account(&self.app_id, &self.secret)?;
        let open_url = http::parse_base_url("open_url", &self.open_url)?;
        let mut hosts = vec![http::parse_base_url("api_url", &self.api_url)?];
        for url in &self.fallback_api_urls {
            hosts.push(http::parse_base_url("fallback_api_urls", url)?);
        }
        for (name, timeout) in [
            ("connect_timeout", self.connect_timeout),
            ("timeout", self.timeout),
            ("total_timeout", self.total_timeout),
        ] {
            if timeout.is_zero() {
                return Err(Error::configuration(format!(
                    "{name} is zero: no call could succeed"
                )));
            }
        }
        let proxy = match &self.proxy {
            Some(url) => Some(proxy::parse_proxy(url)?),
            None => {
                proxy::warn_of_unused_proxy_variable();
                None
            }
        };
        let (via, proxy, proxy_is_https) = match proxy {
            Some(it) => (Some(it.address.into()), Some(it.proxy), it.is_https),
            None => (None, None, false),
        };
        let https = proxy_is_https || hosts.iter().any(BaseUrl::is_https);
        let http = http::build_http_client(https, self.connect_timeout, proxy)?;
        let transport = Transport {
            http,
            hosts: hosts.into(),
            proxy_address: via,
            app_id,
            component: None,
            timeout: self.timeout,
            total_timeout: self.total_timeout,
            clock: self.clock,
        };
        let open_url = open_url.as_str().into();
        let credentials = Credentials::Secret(self.secret);
        Ok(WechatClient::from_parts(transport, credentials, open_url))
    }
}

impl fmt::Debug for WechatClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URLs are omitted, because only `build` rejects URLs with a password.
        f.debug_struct("WechatClientBuilder")
            .field("app_id", &self.app_id)
            .finish_non_exhaustive()
    }
}

impl WechatClient {
    /// Creates a client of `https://api.weixin.qq.com` for the account with this AppID and
    /// AppSecret.
    ///
    /// # Errors
    /// The errors of [`WechatClientBuilder::build`].
    pub fn new(app_id: impl AsRef<str>, secret: impl Into<AppSecret>) -> Result<Self, Error> {
        Self::builder(app_id, secret).build()
    }

    /// Returns a builder of a client for this account, with which hosts, timeouts and a proxy can
    /// be set.
    pub fn builder(app_id: impl AsRef<str>, secret: impl Into<AppSecret>) -> WechatClientBuilder {
        WechatClientBuilder::new(app_id.as_ref(), secret.into())
    }

    /// Returns the client of another account, with the hosts, timeouts, proxy and clock of this
    /// client. The two clients share their connections.
    ///
    /// ```
    /// use tower_wechat::WechatClient;
    ///
    /// let shop = WechatClient::new("wx0123456789abcdef", "the-AppSecret")?;
    /// let news = shop.for_account("wxfedcba9876543210", "another-AppSecret")?;
    /// assert_eq!(news.app_id().as_str(), "wxfedcba9876543210");
    /// # Ok::<(), tower_wechat::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration): the AppID or the AppSecret is
    /// invalid or empty.
    pub fn for_account(
        &self,
        app_id: impl AsRef<str>,
        secret: impl Into<AppSecret>,
    ) -> Result<Self, Error> {
        let secret = secret.into();
        let app_id = check_account(app_id.as_ref(), &secret)?;
        let transport = self.inner.transport.for_account(app_id, None);
        let open_url = Arc::clone(&self.inner.open_url);
        let credentials = Credentials::Secret(secret);
        Ok(Self::from_parts(transport, credentials, open_url))
    }

    /// Creates a client whose calls fail at once, for users of the feature `testing`.
    #[cfg(all(feature = "testing", debug_assertions))]
    pub(crate) fn without_network(app_id: &str) -> Result<Self, Error> {
        let mut client = Self::builder(app_id, "no-secret")
            .api_url("http://localhost")
            .build()?;
        if let Some(inner) = Arc::get_mut(&mut client.inner) {
            inner.transport.hosts = Arc::new([]);
        }
        Ok(client)
    }

    pub(super) fn from_parts(
        transport: Transport,
        credentials: Credentials,
        open_url: Arc<str>,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                transport,
                credentials,
                open_url,
            }),
        }
    }
}

/// Returns the AppID of an account, or an error if the AppID or the AppSecret is invalid.
fn check_account(app_id: &str, secret: &AppSecret) -> Result<AppId, Error> {
    let app_id = AppId::new(app_id)
        .map_err(|why| Error::configuration(format!("set the AppID of the account: {why}")))?;
    secret.check().map_err(Error::configuration)?;
    Ok(app_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn builder() -> WechatClientBuilder {
        WechatClientBuilder::new("wx1", AppSecret::from("s3cret")).api_url("http://127.0.0.1:1")
    }

    fn build_error(builder: WechatClientBuilder) -> String {
        let error = builder.build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        error.to_string()
    }

    #[test]
    fn invalid_settings_are_rejected_with_the_reason() {
        let secret = |text: &str| {
            build_error(WechatClientBuilder::new("wx1", text.into()).api_url("http://127.0.0.1"))
        };
        assert!(build_error(WechatClientBuilder::new("", "s".into())).contains("AppID"));
        assert!(build_error(WechatClientBuilder::new("wx 1", "s".into())).contains("AppID"));
        assert!(secret("").contains("AppSecret is empty"));
        assert!(secret("s3cret\n").contains("white space"));
        assert!(!secret("s3cret\n").contains("s3cret"));
        assert!(
            build_error(builder().api_url("api.weixin.qq.com")).contains("api_url is not a URL")
        );
        assert!(build_error(builder().api_url("")).contains("api_url is not a URL"));
        assert!(build_error(builder().api_url("ftp://x")).contains("\"ftp\""));
        assert!(build_error(builder().api_url("http://x/?a=b")).contains("query"));
        assert!(build_error(builder().open_url("http://x/#a")).contains("open_url"));
        assert!(!build_error(builder().open_url("http://u:pw@x/")).contains("pw@"));
        assert!(
            build_error(builder().fallback_api_urls(["nonsense"])).contains("fallback_api_urls")
        );
        assert!(build_error(builder().timeout(Duration::ZERO)).contains("timeout"));
    }

    #[test]
    fn base_urls_may_have_a_path_and_a_trailing_slash() {
        let client = builder()
            .open_url("https://open.example/x/")
            .build()
            .unwrap();
        assert_eq!(client.open_url(), "https://open.example/x");
        assert_eq!(builder().build().unwrap().open_url(), OPEN_URL);
    }

    #[test]
    fn another_account_has_the_same_settings() {
        let first = builder()
            .open_url("https://open.example")
            .fallback_api_urls(["http://127.0.0.1:2"])
            .proxy("http://127.0.0.1:3")
            .timeout(Duration::from_secs(1))
            .total_timeout(Duration::from_secs(3))
            .build()
            .unwrap();
        let second = first.for_account("wx2", "other").unwrap();
        assert_eq!(first.app_id().as_str(), "wx1");
        assert_eq!(second.app_id().as_str(), "wx2");
        assert_eq!(second.open_url(), first.open_url());
        let (one, two) = (&first.inner.transport, &second.inner.transport);
        assert!(Arc::ptr_eq(&one.hosts, &two.hosts));
        assert_eq!(two.proxy_address.as_deref(), Some("127.0.0.1:3"));
        assert_eq!(two.timeout, Duration::from_secs(1));
        assert_eq!(two.total_timeout, Duration::from_secs(3));
        assert_eq!(second.secret("path").unwrap().expose(), "other");
        for (app_id, secret, text) in [
            ("", "other", "AppID"),
            ("wx 2", "other", "AppID"),
            ("wx2", "", "AppSecret is empty"),
            ("wx2", "white space ", "white space"),
        ] {
            let error = first.for_account(app_id, secret).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            assert!(error.to_string().contains(text), "{error}");
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let shown = format!("{:?} {:?}", builder(), builder().build().unwrap());
        assert!(!shown.contains("s3cret"), "{shown}");
    }

    /// Runs in a separate process, which `without_certificates_only_https_fails` starts, because
    /// the test needs an environment without certificates.
    #[test]
    #[ignore = "started by without_certificates_only_https_fails"]
    fn build_without_certificates() {
        assert!(builder().build().is_ok());
        let message = build_error(builder().fallback_api_urls(["https://127.0.0.1:1"]));
        assert!(message.contains("ca-certificates"), "{message}");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn without_certificates_only_https_fails() {
        let name = "wechat::builder::tests::build_without_certificates";
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--ignored"])
            .env("SSL_CERT_FILE", "/nonexistent")
            .env("SSL_CERT_DIR", "/nonexistent")
            .output()
            .unwrap();
        let shown = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && shown.contains("1 passed"),
            "{shown}"
        );
    }
}
