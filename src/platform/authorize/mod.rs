//! The pages on which the owner of an account (公众号) authorizes a third-party platform.

mod account_link;
mod allowance;
mod customer;
mod failure;
mod hook;
mod log;
mod response;
mod service;
mod state;
mod urls;

use std::fmt;
use std::sync::Arc;

use self::account_link::OfferedAccounts;
use self::allowance::PageAllowance;
pub use self::customer::Customer;
pub use self::hook::AuthorizedAccount;
use self::hook::{AuthorizedHook, AuthorizedResult};
use self::state::StateSigner;
use self::urls::{NextPage, ReturnUrl};
use super::{Platform, PlatformState};
use crate::credential::AppId;
use crate::error::Error;
use crate::identity::CookieKeys;

/// A Tower service with two pages: the links with which the owner of an account (公众号) authorizes
/// the platform at WeChat, and the result.
///
/// [`Platform::authorize_pages`] creates it. It is mounted on two paths, in axum or in any router of
/// Tower services:
///
/// | path | response to `GET` |
/// |---|---|
/// | one of the application's choice | a page with links to WeChat, for computers and for phones |
/// | the path of the return URL, and behind it one segment: the state | the result |
///
/// The host of both must be the platform's 授权发起页域名. WeChat accepts a link on a page of that host,
/// and neither a redirect nor an address that a person types. The page therefore lets browsers send its
/// origin as the referrer.
///
/// Each load of the page fetches a pre-auth code from WeChat, which is never shared. An open page loads
/// itself again before its code expires.
///
/// # Guard
///
/// Put a layer of the application around both routes that lets only signed-in customers pass, and
/// inserts a [`Customer`] into the extensions. Without it, any person can cause calls to WeChat up to
/// [`max_pages`](Self::max_pages), and can choose the customer with `?for=…`. With it, a link that a
/// customer sends to the owner of another account connects nothing: the owner returns from WeChat as another customer, or as none.
///
/// ```no_run
/// use axum::Router;
/// use tower_wechat::platform::{AuthorizedAccount, Platform};
/// use tower_wechat::{CookieKeys, Error};
///
/// fn routes(platform: &Platform, keys: &CookieKeys) -> Result<Router, Error> {
///     let pages = platform
///         .authorize_pages("https://h5.example.com/wechat/authorized", keys)?
///         .on_authorized(link)
///         .redirect_to("/settings/accounts")?;
///     Ok(Router::new()
///         .route_service("/wechat/authorize", pages.clone())
///         .route_service("/wechat/authorized/{state}", pages))
/// }
///
/// /// Links the account to the customer in the application's database.
/// async fn link(account: AuthorizedAccount) -> Result<(), std::io::Error> {
///     println!("{} belongs to {:?}", account.app_id(), account.customer());
///     Ok(())
/// }
/// ```
///
/// # Errors
///
/// Browsers that open a page receive a page. Other clients receive `{"error": CODE, "message": TEXT}`.
///
/// | status | cause |
/// |---|---|
/// | 400 `invalid_state` | the return has no state of these pages, an expired one, or that of another customer; the code in the URL is not used, and the hook does not run |
/// | 400 `bad_request` | WeChat returned without a code, or a parameter is invalid |
/// | 400 `bad_request` | WeChat did not accept the code |
/// | 429 with `Retry-After` | more pages were opened than [`max_pages`](Self::max_pages) allows |
/// | 503 with `Retry-After` | WeChat or the store is not available, the hook failed (`application`), or (`platform_starting`) WeChat has not pushed a verify ticket yet |
#[derive(Clone)]
pub struct AuthorizePages(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    platform: Arc<PlatformState>,
    return_url: ReturnUrl,
    signer: StateSigner,
    offered: OfferedAccounts,
    allowance: PageAllowance,
    hook: Option<AuthorizedHook>,
    next_page: Option<NextPage>,
}

impl Platform {
    /// Creates the pages on which owners authorize their accounts to this platform.
    ///
    /// `return_url` is the URL below which WeChat's returns arrive, on the host of the platform's
    /// 授权发起页域名: `https://h5.example.com/wechat/authorized` for
    /// `https://h5.example.com/wechat/authorized/STATE`. Its last segment differs from that of the page
    /// with the links.
    ///
    /// `keys` authenticate the state. All processes have the same keys, such as those of the
    /// [`Login`](crate::Login).
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration): `return_url` is no `http` or
    /// `https` URL of a host and a plain path, or this process
    /// [follows](super::PlatformBuilder::follow) the platform of another system, which authorizes the
    /// accounts.
    pub fn authorize_pages(
        &self,
        return_url: impl AsRef<str>,
        keys: &CookieKeys,
    ) -> Result<AuthorizePages, Error> {
        let platform = &self.0;
        if platform.followed().is_some() {
            return Err(Error::configuration(
                "a process that follows the platform of another system has no authorize pages: let the \
                 owners authorize at the other system",
            ));
        }
        let return_url = ReturnUrl::parse(return_url.as_ref())?;
        let signer = StateSigner::new(platform.component.app_id(), keys, return_url.as_str());
        Ok(AuthorizePages(Arc::new(Inner {
            platform: Arc::clone(platform),
            return_url,
            signer,
            offered: OfferedAccounts::default(),
            allowance: PageAllowance::default(),
            hook: None,
            next_page: None,
        })))
    }
}

impl AuthorizePages {
    /// Sets the kind of accounts that WeChat's page offers, by WeChat's number (`auth_type`): 1 for
    /// 公众号, 2 for mini programs, 3 for both, 6 for all kinds. Default: 1.
    pub fn auth_type(self, number: u8) -> Self {
        self.set(|inner| inner.offered.auth_type = number)
    }

    /// Sets the only account that may be authorized (`biz_appid`). Default: any account of the
    /// [`auth_type`](Self::auth_type).
    pub fn only_account(self, account: AppId) -> Self {
        self.set(|inner| inner.offered.only = Some(account))
    }

    /// Sets how many pages with links all processes together show in ten minutes. Each costs a call of
    /// WeChat, and an open page loads itself again twice an hour. Further loads receive 429 with
    /// `Retry-After`. Default: 1,000.
    pub fn max_pages(self, number: u32) -> Self {
        self.set(|inner| inner.allowance.pages = number)
    }

    /// Sets a hook that runs when an owner returns from WeChat, before the page with the result is shown.
    /// Default: no hook.
    ///
    /// The hook links the account to the customer in the application's database. It runs again when the
    /// owner reloads the page or authorizes again, so it should be idempotent. It may take five seconds.
    /// If it returns an error, panics or times out, the browser gets a page with 503 `application`, and a
    /// reload runs it again. The log has the error, with the account and the customer.
    ///
    /// An owner may close the browser before WeChat returns. The account is then authorized, because
    /// WeChat also pushes an event, and [`Platform::app_ids`] contains it. The hook does not run until
    /// the owner opens the links again.
    pub fn on_authorized<F, Fut>(self, hook: F) -> Self
    where
        F: Fn(AuthorizedAccount) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: AuthorizedResult> + Send + 'static,
    {
        let hook = AuthorizedHook::new(hook);
        self.set(|inner| inner.hook = Some(hook))
    }

    /// Sets the page of the application to which browsers are redirected after an authorization: a path,
    /// or a URL. The query gets `appid`, and `for` if there is a customer. Default: no redirect, but a
    /// page that names the account.
    ///
    /// Any person can open that page with any query. Link accounts to customers in the
    /// [hook](Self::on_authorized), and use the query only to show what was linked.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration): `page` is neither a path nor an
    /// `http` or `https` URL.
    pub fn redirect_to(self, page: impl AsRef<str>) -> Result<Self, Error> {
        let page = NextPage::parse(page.as_ref())?;
        Ok(self.set(|inner| inner.next_page = Some(page)))
    }

    fn set(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }
}

impl fmt::Debug for AuthorizePages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorizePages")
            .field("return_url", &self.0.return_url.as_str())
            .field("offered", &self.0.offered)
            .finish_non_exhaustive()
    }
}
