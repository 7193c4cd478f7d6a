//! Setting up the client, and saying what is wrong with a set-up.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use zeroize::Zeroizing;

use super::client::WechatClient;
use super::proxy;
use super::transport::{ApiHost, Transport};
use crate::clock::Clock;
use crate::credential::{AppId, AppSecret};
use crate::error::{Error, ErrorKind};

/// Where WeChat's API answers unless something else is set.
const API_URL: &str = "https://api.weixin.qq.com";

/// Where WeChat's authorize pages are unless something else is set.
const OPEN_URL: &str = "https://open.weixin.qq.com";

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long one try may take, its connection included.
const TIMEOUT: Duration = Duration::from_secs(4);

/// How long a call may take, its tries at other hosts included: shorter than a lease of 10 s.
const TOTAL_TIMEOUT: Duration = Duration::from_secs(8);

/// WeChat's answers are rare and small: few connections wait for more, and none so long that the
/// other side has closed it meanwhile, which would lose a request.
const MAX_IDLE_CONNECTIONS: usize = 8;
const IDLE_CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);

/// Sets up a [`WechatClient`].
///
/// ```
/// use std::time::Duration;
/// use tower_wechat::{Clock, WechatClient};
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
    pub(super) fn new(app_id: &str, secret: AppSecret) -> Self {
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

    /// The base URL of the API; `https://api.weixin.qq.com` unless set. A path is kept as a
    /// prefix.
    pub fn api_url(mut self, url: impl Into<String>) -> Self {
        self.api_url = url.into();
        self
    }

    /// Base URLs to try in this order when the API's own cannot be reached or does not make
    /// sense, such as `https://api2.weixin.qq.com`, WeChat's remote alternative for disasters, or
    /// the points `sh`, `sz` and `hk.api.weixin.qq.com`. None unless set.
    ///
    /// A call that must not be made twice, such as the exchange of a code, moves on only when it
    /// is certain that the request was not sent.
    pub fn fallback_api_urls<U: Into<String>>(mut self, urls: impl IntoIterator<Item = U>) -> Self {
        self.fallback_api_urls = urls.into_iter().map(Into::into).collect();
        self
    }

    /// The base URL of the authorize pages; `https://open.weixin.qq.com` unless set. Browsers go
    /// there, this client does not.
    pub fn open_url(mut self, url: impl Into<String>) -> Self {
        self.open_url = url.into();
        self
    }

    /// Sends all calls of this client through a forward proxy, such as
    /// `http://user:password@proxy.internal:3128` or `socks5://proxy.internal:1080`: where only
    /// the proxy's address is on the IP whitelist of the account. Schemes are `http`, `https`,
    /// `socks5` and `socks5h` (the proxy resolves names); user and password are percent-encoded.
    /// No host is exempt, and neither `NO_PROXY` nor any other variable of the environment counts.
    /// Browsers and the token center's clients do not go through it. None unless set.
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

    /// How long a connection, TLS included, may take; 2 s unless set.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long one try may take from its connection to the reply's last byte; 4 s unless set.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long a call may take with its tries at all hosts; 8 s unless set.
    pub fn total_timeout(mut self, timeout: Duration) -> Self {
        self.total_timeout = timeout;
        self
    }

    /// The clock that tells how far the next minute and Beijing's midnight are, when WeChat
    /// limits calls; the system's unless set.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Makes the client. Connects to nothing.
    ///
    /// TLS comes from rustls with the operating system's certificates. Where the process has no
    /// default `rustls::crypto::CryptoProvider` yet, ring's becomes the default; to use another,
    /// install it first. With `http` base URLs alone, as with a simulator, no
    /// certificates are needed. Proxies named in the environment are not used; a warning says so
    /// where there is one, see [`proxy`](Self::proxy).
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`], in one sentence: the AppID or the AppSecret is empty or has
    /// characters that none has, a base URL or the proxy's is none, a timeout is zero, or TLS
    /// cannot start.
    pub fn build(self) -> Result<WechatClient, Error> {
        let app_id = AppId::new(&self.app_id)
            .map_err(|why| configuration_error(format!("set the AppID of the account: {why}")))?;
        check_app_secret(&self.secret)?;
        let open_url = parse_base_url("open_url", &self.open_url)?;
        let mut hosts = vec![ApiHost::new(&parse_base_url("api_url", &self.api_url)?)];
        for url in &self.fallback_api_urls {
            hosts.push(ApiHost::new(&parse_base_url("fallback_api_urls", url)?));
        }
        for (name, timeout) in [
            ("connect_timeout", self.connect_timeout),
            ("timeout", self.timeout),
            ("total_timeout", self.total_timeout),
        ] {
            if timeout.is_zero() {
                return Err(configuration_error(format!(
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
        let https = proxy_is_https || hosts.iter().any(ApiHost::is_https);
        let http = build_http_client(https, self.connect_timeout, proxy)?;
        let transport = Transport {
            http,
            hosts,
            proxy_address: via,
            app_id,
            timeout: self.timeout,
            total_timeout: self.total_timeout,
            clock: self.clock,
        };
        let open_url = open_url.as_str().trim_end_matches('/').into();
        Ok(WechatClient::from_parts(transport, self.secret, open_url))
    }
}

impl fmt::Debug for WechatClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the URLs: nobody has yet refused those with a password.
        f.debug_struct("WechatClientBuilder")
            .field("app_id", &self.app_id)
            .finish_non_exhaustive()
    }
}

fn configuration_error(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Configuration, message.into())
}

fn check_app_secret(secret: &AppSecret) -> Result<(), Error> {
    let text = secret.expose();
    if text.is_empty() {
        return Err(configuration_error(
            "the AppSecret is empty: set the one that mp.weixin.qq.com shows for the account",
        ));
    }
    // A secret read from a file with its last newline is refused by WeChat with a text that
    // nobody connects with a newline.
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(configuration_error(
            "the AppSecret holds white space or characters that none has: set it without them",
        ));
    }
    Ok(())
}

/// Reads a base URL. What is wrong with one is told without its text, which may hold a password.
pub(crate) fn parse_base_url(name: &str, text: &str) -> Result<Url, Error> {
    let url = Url::parse(text.trim()).map_err(|why| {
        configuration_error(format!(
            "{name} is not a URL ({why}): set one such as {API_URL}"
        ))
    })?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(configuration_error(format!(
            "{name} has the scheme {:?}: set an http or https URL such as {API_URL}",
            url.scheme()
        )));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(configuration_error(format!(
            "{name} has a query or a fragment: set a URL that ends before '?' and '#'"
        )));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(configuration_error(format!(
            "{name} names a user or a password: set it without them"
        )));
    }
    Ok(url)
}

/// Makes a client that looks neither at the environment nor at the system for a proxy.
pub(crate) fn build_http_client(
    https: bool,
    connect_timeout: Duration,
    proxy: Option<reqwest::Proxy>,
) -> Result<reqwest::Client, Error> {
    // The builder needs a provider even where no host speaks TLS, and panics without one.
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Losing the race to another installer is as good as winning it.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    let builder = reqwest::Client::builder()
        .user_agent(concat!("tower-wechat/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(connect_timeout)
        .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS)
        .pool_idle_timeout(IDLE_CONNECTION_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        // Another crate's features must not bring HTTP/2, whose library logs each request's path,
        // secrets and all.
        .http1_only()
        .no_proxy();
    let builder = match proxy {
        Some(proxy) => builder.proxy(proxy),
        None => builder,
    };
    let builder = if https {
        builder
    } else {
        // The system's certificates are read when the client is built, and a machine without any
        // would fail here although nothing needs them.
        builder.tls_certs_only([])
    };
    builder.build().map_err(|error| {
        configuration_error(format!(
            "TLS cannot start ({}): install the system's CA certificates (package \
             ca-certificates)",
            root_cause(&error)
        ))
    })
}

/// The text of the error that began it all, which names neither URL nor secret.
pub(crate) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

impl WechatClient {
    fn from_parts(transport: Transport, secret: AppSecret, open_url: Box<str>) -> Self {
        Self {
            inner: Arc::new(super::client::Inner {
                transport,
                secret,
                open_url,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn debug_shows_no_secret() {
        let shown = format!("{:?} {:?}", builder(), builder().build().unwrap());
        assert!(!shown.contains("s3cret"), "{shown}");
    }

    /// Runs in a process of its own, started by the test below: what it needs is an environment
    /// without certificates.
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
