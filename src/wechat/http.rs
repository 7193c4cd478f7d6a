//! HTTP clients and base URLs, for WeChat's API and for token centers.

use std::time::Duration;

use reqwest::Url;

use crate::error::Error;

/// Default base URL of WeChat's API.
pub(super) const API_URL: &str = "https://api.weixin.qq.com";

/// Maximum number of idle connections to one host: eight. Calls are rare and replies are small, so
/// few connections are needed.
const MAX_IDLE_CONNECTIONS: usize = 8;

/// Time after which an idle connection is closed: 15 seconds. The servers' own limits are longer. A
/// request on a connection that the server has just closed would be lost.
const IDLE_CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);

/// A base URL of WeChat's API or of a token center.
pub(crate) struct BaseUrl {
    /// The URL without a slash at the end.
    text: String,
    /// The host and port, for errors and logs. The port is left out if it is the default of the
    /// scheme.
    address: String,
    is_https: bool,
}

impl BaseUrl {
    /// Returns the URL without a slash at the end.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the host and port, for errors and logs. The port is left out if it is the default of
    /// the scheme.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Returns `true` if connections to the host use TLS.
    pub(crate) fn is_https(&self) -> bool {
        self.is_https
    }
}

/// Parses the base URL of the setting `name`. The error names the setting and does not contain the
/// URL, which may hold a password.
pub(crate) fn parse_base_url(name: &str, text: &str) -> Result<BaseUrl, Error> {
    let url = Url::parse(text.trim()).map_err(|why| {
        Error::configuration(format!(
            "{name} is not a URL ({why}): set one such as {API_URL}"
        ))
    })?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Error::configuration(format!(
            "{name} has the scheme {:?}: set an http or https URL such as {API_URL}",
            url.scheme()
        )));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(Error::configuration(format!(
            "{name} has a query or a fragment: set a URL that ends before '?' and '#'"
        )));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Error::configuration(format!(
            "{name} names a user or a password: set it without them"
        )));
    }
    let host = url.host_str().unwrap_or_default();
    let address = match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    };
    Ok(BaseUrl {
        text: url.as_str().trim_end_matches('/').to_owned(),
        address,
        is_https: url.scheme() == "https",
    })
}

/// Creates an HTTP client that uses `proxy` and ignores the proxies of the environment and of the
/// system. Without `https`, the client loads no certificates.
pub(crate) fn build_http_client(
    https: bool,
    connect_timeout: Duration,
    proxy: Option<reqwest::Proxy>,
) -> Result<reqwest::Client, Error> {
    // reqwest's builder panics without a crypto provider, even if no host uses TLS.
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // An error means that another thread has installed a crypto provider first. reqwest then
        // uses that provider.
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
        // Another crate may enable reqwest's HTTP/2, whose library logs the path and query of each
        // request, and with them the secrets.
        .http1_only()
        .no_proxy();
    let builder = match proxy {
        Some(proxy) => builder.proxy(proxy),
        None => builder,
    };
    let builder = if https {
        builder
    } else {
        // reqwest reads the system's certificates here, and fails on a machine without any. A
        // client without TLS does not need them.
        builder.tls_certs_only([])
    };
    builder.build().map_err(|error| {
        Error::configuration(format!(
            "TLS cannot start ({}): install the system's CA certificates (package \
             ca-certificates)",
            root_cause(&error)
        ))
    })
}

/// Returns the text of an error's innermost source. The outer errors of reqwest contain the URL
/// with its secrets, and the innermost source does not.
pub(crate) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
