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

/// How long before the end of its hour a ticket is due for renewal. WeChat repeats the current
/// one, so nothing is lost by asking early.
const RENEW_MARGIN: Duration = Duration::from_secs(5 * 60);

const CACHE_CAPACITY: usize = 16;

/// The account's `jsapi_ticket`, and signatures for pages that use the JS-SDK.
///
/// The ticket is kept like the account's token: in the store that all processes share
/// (`sys.wxJsapiTicket`), for an hour at most, renewed ahead of time and by one process only.
///
/// Clones are cheap and share everything.
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
/// async fn life(tickets: Tickets) -> Result<(), Error> {
///     // At start-up, so that the first page finds it:
///     if let Err(error) = tickets.prefetch().await {
///         eprintln!("no ticket of {} yet: {error}", tickets.app_id());
///     }
///     // When pages report `invalid signature`:
///     let ticket = tickets.get().await?;
///     tickets.report_invalid(ticket.ticket()).await?;
///     // After the server has stopped taking requests, in this order:
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
    /// The ticket of the account, in the same store and with the same times as its token.
    ///
    /// `hosts` are those whose pages are signed: the ones that mp.weixin.qq.com lists as
    /// JS接口安全域名. `h5.example.com` stands for exactly that host at the usual port of http or
    /// https, `h5.example.com:8443` for another port, and `localhost:*` for any.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) for a host that is none, and
    /// where no host is named.
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

    /// The account whose ticket this is.
    pub fn app_id(&self) -> &AppId {
        self.provider().app()
    }

    /// The account's tokens, which the ticket is made from.
    pub fn accounts(&self) -> &AccountTokens {
        &self.0.accounts
    }

    /// Fetches the ticket and the account's token, so that the first request finds them; see
    /// [`AccountTokens::prefetch`].
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn prefetch(&self) -> Result<(), Error> {
        // A ticket that another process has stored asks for no token; who needs that one does.
        let (token, ticket) = tokio::join!(self.0.accounts.prefetch(), self.get());
        token.and(ticket.map(drop))
    }

    /// What the page at `url` passes to `wx.config`.
    ///
    /// `url` is `location.href` as the page sent it. It is not normalized in any way; what follows
    /// the first `#` is not signed.
    ///
    /// # Errors
    /// [`ErrorKind::BadRequest`](crate::ErrorKind::BadRequest) for a URL of another host, one that
    /// names a user, is not http or https, or holds a control character; and those of
    /// [`get`](Self::get).
    pub async fn js_config(&self, url: &str) -> Result<JsConfig, Error> {
        self.0.hosts.check(url)?;
        let ticket = self.get().await?;
        let now = self.provider().clock().now();
        Ok(JsConfig::for_page(self.app_id(), ticket.ticket(), now, url))
    }

    /// A usable ticket: from memory, else from the store, renewed if it must be.
    ///
    /// # Errors
    /// As [`AccountTokens::get`].
    pub async fn get(&self) -> Result<JsapiTicket, Error> {
        let entry = self.0.credential.get().await?;
        Ok(self.ticket(entry))
    }

    /// Reports that pages signed with `refused` are told `invalid signature`, and answers with the
    /// current ticket. WeChat is asked only if `refused` is still the current one, once a minute
    /// and 200 times a day at most by all processes together, and may repeat it.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn report_invalid(&self, invalid: &AccessToken) -> Result<JsapiTicket, Error> {
        let current = self.0.credential.report_invalid(invalid).await;
        current.map(|entry| self.ticket(entry))
    }

    /// Ends the task that looks ahead, and waits for a renewal under way, for at most `patience`.
    /// Shut the tickets down before the account's tokens. Answers whether all has ended.
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
