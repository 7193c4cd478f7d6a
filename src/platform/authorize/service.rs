//! The pages as a Tower service.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Method, Request, Uri};
use tower_service::Service;
use tracing::Instrument;
use zeroize::Zeroizing;

use super::super::pre_auth_code_hash;
use super::AuthorizePages;
use super::account_link::AccountLink;
use super::customer::Customer;
use super::failure::{AuthorizeFailure, Failed};
use super::hook::AuthorizedAccount;
use super::response::{self, PageResponse};
use super::state::{AuthorizeState, StateError};
use crate::credential::AppId;
use crate::html_page::{Button, HtmlPage, Icon};
use crate::identity::RequestHead;
use crate::login::query::query_pairs;
use crate::navigation::{Browser, browser, is_navigation};
use crate::wechat::PreAuthCode;

/// Time before the expiry of a pre-auth code at which the page loads itself again: two minutes. The
/// owner of the account needs a moment at WeChat before the code is used.
const RENEW_BEFORE_EXPIRY: Duration = Duration::from_secs(120);

/// Minimum time until the page loads itself again: 30 seconds.
const MIN_REFRESH: Duration = Duration::from_secs(30);

/// Maximum length of a code in a return: 1,024 bytes.
const MAX_CODE_BYTES: usize = 1_024;

impl<B> Service<Request<B>> for AuthorizePages {
    type Response = PageResponse;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<PageResponse, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let pages = self.clone();
        let head = RequestHead::from_request(&request);
        let is_page_load = is_navigation(&head);
        let action = pages.action(&head);
        Box::pin(async move {
            let answered = match action {
                Ok(action) => pages.perform(action).await,
                Err(failure) => Err(Failed::from(failure)),
            };
            Ok(answered.unwrap_or_else(|failed| {
                response::failure(failed.failure, is_page_load, failed.retry_after)
            }))
        })
    }
}

/// What a request asks for.
enum Action {
    RejectMethod,
    /// Answers a `HEAD` request for the links, for which no code is fetched.
    DescribeLinks,
    ShowLinks {
        customer: Option<Customer>,
        /// Whether the guard of the application has named the customer.
        is_guarded: bool,
        browser: Browser,
    },
    /// Answers a `HEAD` request for a return, which spends no code.
    DescribeReturn,
    Return {
        state: AuthorizeState,
        code: Zeroizing<String>,
    },
}

impl AuthorizePages {
    /// Returns what a request asks for, after all checks that need no call.
    fn action(&self, head: &RequestHead<'_>) -> Result<Action, AuthorizeFailure> {
        let is_head = match *head.method {
            Method::GET => false,
            Method::HEAD => true,
            _ => return Ok(Action::RejectMethod),
        };
        let of_application = head.extensions.get::<Customer>();
        let Some(state) = self.0.return_url.state_in(head.original_uri().path()) else {
            let customer = match of_application {
                Some(customer) => Some(customer.clone()),
                None => customer_in_query(head.uri)?,
            };
            return Ok(match is_head {
                true => Action::DescribeLinks,
                false => Action::ShowLinks {
                    customer,
                    is_guarded: of_application.is_some(),
                    browser: browser(head.headers),
                },
            });
        };
        let now = self.0.platform.clock.now();
        let rejected = |failure, reason| {
            self.log_rejected_return(reason);
            failure
        };
        let state = self
            .0
            .signer
            .verify(state, now)
            .map_err(|error| match error {
                StateError::Forged => rejected(AuthorizeFailure::UnknownReturn, "unknown state"),
                StateError::Expired => rejected(AuthorizeFailure::Expired, "expired state"),
            })?;
        // A guard around the links only would let the owner of another account return unguarded.
        let is_checked = state.is_guarded || of_application.is_some();
        if is_checked && of_application != state.customer.as_ref() {
            return Err(rejected(
                AuthorizeFailure::OtherCustomer,
                "another customer",
            ));
        }
        let code = code_in_query(head.uri)?.ok_or(AuthorizeFailure::NotAuthorized)?;
        Ok(match is_head {
            true => Action::DescribeReturn,
            false => Action::Return { state, code },
        })
    }

    async fn perform(&self, action: Action) -> Result<PageResponse, Failed> {
        match action {
            Action::RejectMethod => Ok(response::method_not_allowed()),
            Action::DescribeLinks => Ok(response::links(String::new())),
            Action::ShowLinks {
                customer,
                is_guarded,
                browser,
            } => self.show_links(customer, is_guarded, browser).await,
            Action::DescribeReturn => Ok(response::result(String::new())),
            Action::Return { state, code } => self.complete_in_task(state, code).await,
        }
    }

    /// Returns the page with the links, with a new pre-auth code.
    async fn show_links(
        &self,
        customer: Option<Customer>,
        is_guarded: bool,
        browser: Browser,
    ) -> Result<PageResponse, Failed> {
        let platform = &self.0.platform;
        let pre_auth_code = self.fetch_pre_auth_code().await?;
        let hash = pre_auth_code_hash(pre_auth_code.code.expose());
        let state = AuthorizeState::new(platform.clock.now(), hash, customer).guarded(is_guarded);
        let redirect_uri = self.0.return_url.with_state(&self.0.signer.encode(&state));
        let link = AccountLink {
            component: platform.component.app_id(),
            pre_auth_code: pre_auth_code.code.expose(),
            redirect_uri: &redirect_uri,
            offered: &self.0.offered,
        };
        let refresh = pre_auth_code.expires_in.saturating_sub(RENEW_BEFORE_EXPIRY);
        let computer = Button {
            text: [
                "在电脑上扫码授权",
                "Authorize on a computer, with a QR code",
            ],
            url: &link.for_computer(&platform.settings.mp_url),
        };
        let phone = Button {
            text: ["在手机微信中授权", "Authorize in WeChat on a phone"],
            url: &link.for_phone(platform.component.open_url()),
        };
        let html = HtmlPage {
            icon: Icon::Forward,
            title: ["授权账号", "Authorize your account"],
            sentences: &[[
                "请由账号的管理员操作，并在微信的页面上确认。",
                "The administrator of the account does this, and confirms it on WeChat's page.",
            ]],
            buttons: &match browser {
                Browser::Wechat | Browser::Phone => [phone, computer],
                Browser::Other => [computer, phone],
            },
            refresh_secs: Some(refresh.max(MIN_REFRESH).as_secs()),
            ..HtmlPage::default()
        };
        Ok(response::links(html.html()))
    }

    /// Fetches a pre-auth code for one page, within the allowance.
    async fn fetch_pre_auth_code(&self) -> Result<PreAuthCode, Failed> {
        let (platform, allowance) = (&self.0.platform, &self.0.allowance);
        let now = platform.clock.now();
        if let Some(failed) = allowance.paused(now) {
            return Err(failed);
        }
        let fetched = async {
            // A page without a component token costs no call.
            platform.component_token().await?;
            match allowance.count_page(platform).await? {
                true => platform.pre_auth_code().await.map(Some),
                false => Ok(None),
            }
        };
        match fetched.await {
            Ok(Some(code)) => Ok(code),
            Ok(None) => {
                self.log_too_many_pages();
                Err(AuthorizeFailure::TooManyPages.into())
            }
            Err(error) => {
                allowance.note(&error, now);
                self.log_missing_pre_auth_code(&error);
                Err(Failed::from(&error))
            }
        }
    }

    /// Completes a return in a task, so that the hook also runs if the browser closes the connection.
    async fn complete_in_task(
        &self,
        state: AuthorizeState,
        code: Zeroizing<String>,
    ) -> Result<PageResponse, Failed> {
        let pages = self.clone();
        let completed = async move { pages.complete(state, &code).await };
        let task = self.0.platform.tasks.spawn(completed.in_current_span());
        // The task does not panic. It is cancelled if the runtime shuts down.
        let cancelled = |_| Err(AuthorizeFailure::WechatUnavailable.into());
        task.await.unwrap_or_else(cancelled)
    }

    /// Exchanges the code of a return, runs the application's hook, and returns the page with the
    /// result.
    async fn complete(&self, state: AuthorizeState, code: &str) -> Result<PageResponse, Failed> {
        let platform = &self.0.platform;
        let returned = platform.authorize_returned(code, Some(&state.pre_auth_code_hash));
        let account = match returned.await {
            Ok(account) => account,
            Err(error) => {
                self.log_failed_exchange(&error);
                return Err(Failed::from(&error));
            }
        };
        if let Some(hook) = &self.0.hook {
            let authorized = AuthorizedAccount::new(account.clone(), state.customer.clone());
            if let Err(reason) = hook.run(authorized.clone()).await {
                self.log_failed_hook(&authorized, &reason);
                return Err(AuthorizeFailure::HookFailed.into());
            }
        }
        Ok(match &self.0.next_page {
            Some(page) => response::redirect(&page.with_account(&account, state.customer.as_ref())),
            None => response::result(result_page(&account)),
        })
    }
}

/// Returns the page after an authorization.
fn result_page(account: &AppId) -> String {
    let html = HtmlPage {
        icon: Icon::Done,
        title: ["授权成功", "The account is authorized"],
        sentences: &[["您可以关闭此页面。", "You can close this page."]],
        detail: Some(account.as_str()),
        ..HtmlPage::default()
    };
    html.html()
}

/// Returns the customer in the query parameter `for`. An empty parameter counts as missing.
fn customer_in_query(uri: &Uri) -> Result<Option<Customer>, AuthorizeFailure> {
    let name = single_parameter(uri, "for")?;
    let customer = name.map(Customer::new).transpose();
    customer.map_err(|_| AuthorizeFailure::BadRequest)
}

/// Returns the code of a return.
fn code_in_query(uri: &Uri) -> Result<Option<Zeroizing<String>>, AuthorizeFailure> {
    let code = single_parameter(uri, "auth_code")?.map(Zeroizing::new);
    let is_plain = |code: &Zeroizing<String>| {
        code.len() <= MAX_CODE_BYTES && code.bytes().all(|byte| byte.is_ascii_graphic())
    };
    match code {
        Some(code) if !is_plain(&code) => Err(AuthorizeFailure::BadRequest),
        code => Ok(code),
    }
}

/// Returns the value of a query parameter, or `None` if it is missing or empty.
///
/// # Errors
/// [`AuthorizeFailure::BadRequest`]: the parameter occurs twice.
fn single_parameter(uri: &Uri, name: &str) -> Result<Option<String>, AuthorizeFailure> {
    let mut values = query_pairs(uri).filter(|(other, _)| other == name);
    match (values.next(), values.next()) {
        (Some(_), Some(_)) => Err(AuthorizeFailure::BadRequest),
        (value, _) => Ok(value
            .map(|(_, value)| value)
            .filter(|value| !value.is_empty())),
    }
}
