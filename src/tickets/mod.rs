//! The account's `jsapi_ticket`, and signatures for pages that use the JS-SDK.

mod source;
mod ticket;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use self::source::TicketSource;
pub use self::ticket::JsapiTicket;
use crate::accounts::{AccountTokens, OwnCredential};
use crate::credential::{AccessToken, AppId};
use crate::error::Error;
use crate::jssdk::{AllowedHosts, JsConfig};
use crate::provider::{CacheEntry, CredentialProvider, ProviderConfig, RenewalTiming, StoreAccess};
use crate::store::CredentialKind;

/// Time before a ticket's expiry at which the ticket is due for renewal: five minutes. An early
/// request has no drawback, because WeChat returns the current ticket again.
const RENEW_MARGIN: Duration = Duration::from_secs(5 * 60);

/// Maximum number of entries in the cache of an account's ticket: 16, although an account has only
/// one ticket.
const CACHE_CAPACITY: usize = 16;

/// The account's `jsapi_ticket`, and signatures for pages that use the JS-SDK.
///
/// A store that all processes share holds the ticket, for one hour at most (in Redis as
/// `sys.wxJsapiTicket`). Exactly one process renews the ticket. A prefetch task in each process
/// loads the next ticket before the current one expires.
///
/// Clones are cheap and share all state.
///
/// ```no_run
/// use tower_wechat::{AccountTokens, Error, JsConfig, MemoryStore, Tickets, WechatClient};
///
/// # async fn run() -> Result<(), Error> {
/// let wechat = WechatClient::new("wx0123456789abcdef", "the AppSecret")?;
/// let accounts = AccountTokens::new(wechat, MemoryStore::new());
/// let tickets = Tickets::new(&accounts, ["h5.example.com"])?;
///
/// // `url` is location.href, as the page sent it.
/// let url = "https://h5.example.com/page?from=singlemessage";
/// let config: JsConfig = tickets.js_config(url).await?;
/// let json = serde_json::to_string(&config);
/// # let _ = json;
/// # Ok(()) }
/// ```
///
/// ```
/// use std::time::Duration;
/// use tower_wechat::{Error, Tickets};
///
/// async fn run(tickets: Tickets) -> Result<(), Error> {
///     // At start-up, so that the first page need not wait:
///     if let Err(error) = tickets.prefetch().await {
///         eprintln!("no ticket of {} yet: {error}", tickets.app_id());
///     }
///     // When pages report `invalid signature`:
///     let ticket = tickets.get().await?;
///     tickets.report_invalid(ticket.ticket()).await?;
///     // After the server has stopped accepting requests, in this order:
///     tickets.shutdown(Duration::from_secs(10)).await;
///     tickets.accounts().shutdown(Duration::from_secs(10)).await;
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct Tickets(Arc<Inner>);

struct Inner {
    credential: OwnCredential,
    accounts: AccountTokens,
    hosts: AllowedHosts,
}

impl Tickets {
    /// Returns the error of [`new`](Self::new) for these hosts, if there is one.
    pub(crate) fn check_hosts(hosts: impl IntoIterator<Item = String>) -> Result<(), Error> {
        AllowedHosts::new(hosts).map(drop)
    }

    /// Creates the tickets of an account, with the store and the settings of its tokens.
    ///
    /// Only pages of `hosts` are signed. Name the hosts that mp.weixin.qq.com lists as
    /// JS接口安全域名:
    ///
    /// - `h5.example.com`: exactly this host, at the default port of http or https.
    /// - `h5.example.com:8443`: this host at port 8443 only.
    /// - `localhost:*`: this host at any port.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration): a host is invalid, or `hosts`
    /// is empty.
    pub fn new<H: AsRef<str>>(
        accounts: &AccountTokens,
        hosts: impl IntoIterator<Item = H>,
    ) -> Result<Self, Error> {
        let hosts = AllowedHosts::new(hosts)?;
        let settings = ProviderConfig {
            margin: RENEW_MARGIN,
            timing: RenewalTiming::AtRenewalTime,
            cache_capacity: CACHE_CAPACITY,
            ..accounts.provider().config().clone()
        };
        let source = TicketSource::new(accounts, RENEW_MARGIN);
        let provider = CredentialProvider::new(
            accounts.app_id().clone(),
            CredentialKind::JsapiTicket,
            settings,
            accounts.clock().clone(),
            StoreAccess::Full(accounts.writable_store().clone()),
            Box::new(source),
        );
        Ok(Self(Arc::new(Inner {
            credential: OwnCredential::new(provider),
            accounts: accounts.clone(),
            hosts,
        })))
    }

    /// Returns the AppID of the account.
    pub fn app_id(&self) -> &AppId {
        self.provider().app()
    }

    /// Returns the account's tokens, which requests for tickets carry.
    pub fn accounts(&self) -> &AccountTokens {
        &self.0.accounts
    }

    /// Loads the ticket and the account's token into memory before the first request needs them,
    /// and starts their prefetch tasks; see [`AccountTokens::prefetch`].
    ///
    /// # Errors
    /// Returns the errors of [`get`](Self::get).
    pub async fn prefetch(&self) -> Result<(), Error> {
        // A stored ticket is loaded without the token, so the token must be requested too.
        let (token, ticket) = tokio::join!(self.0.accounts.prefetch(), self.get());
        token.and(ticket.map(drop))
    }

    /// Returns the values that the page at `url` passes to `wx.config`.
    ///
    /// `url` is `location.href` as the page sent it. The URL is not normalized. The part from the
    /// first `#` on is not signed.
    ///
    /// # Errors
    /// The errors of [`get`](Self::get), and
    /// [`ErrorKind::BadRequest`](crate::ErrorKind::BadRequest): the URL has another host, contains
    /// a user name or a control character, or is not http or https.
    pub async fn js_config(&self, url: &str) -> Result<JsConfig, Error> {
        self.0.hosts.check(url)?;
        let ticket = self.get().await?;
        let now = self.provider().clock().now();
        Ok(JsConfig::for_page(self.app_id(), ticket.ticket(), now, url))
    }

    /// Returns a usable ticket: from memory, else from the store. Fetches a ticket first if the
    /// store has none that is usable.
    ///
    /// # Errors
    /// Returns the errors of [`AccountTokens::get`].
    pub async fn get(&self) -> Result<JsapiTicket, Error> {
        let entry = self.0.credential.get().await?;
        Ok(self.ticket(entry))
    }

    /// Reports that WeChat rejects signatures with the ticket `invalid` (`invalid signature`), and
    /// returns the current ticket.
    ///
    /// A new ticket is requested only if `invalid` is still the current one. All processes together
    /// request at most one ticket a minute and 200 a day because of reports. WeChat may return the
    /// same ticket again.
    ///
    /// # Errors
    /// Returns the errors of [`get`](Self::get).
    pub async fn report_invalid(&self, invalid: &AccessToken) -> Result<JsapiTicket, Error> {
        let current = self.0.credential.report_invalid(invalid).await;
        current.map(|entry| self.ticket(entry))
    }

    /// Stops the prefetch task, and waits up to `timeout` for a running renewal. Returns `true` if
    /// the renewal has ended.
    ///
    /// Shut down the tickets before the account's tokens, because a renewal of the ticket needs a
    /// token.
    pub async fn shutdown(&self, timeout: Duration) -> bool {
        self.0.credential.shutdown(timeout).await
    }

    fn ticket(&self, entry: CacheEntry) -> JsapiTicket {
        JsapiTicket::new(entry, self.provider().clock())
    }

    fn provider(&self) -> &CredentialProvider {
        self.0.credential.provider()
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets")
            .field("provider", self.provider())
            .field("hosts", &self.0.hosts)
            .finish_non_exhaustive()
    }
}
