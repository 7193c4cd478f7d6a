//! The demo of several accounts behind one layer: listed ones, or those of a platform.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::Uri;
use axum::response::Redirect;
use axum::routing::get;
use axum::{Extension, Router};
use tower_wechat::credential::AppId;
use tower_wechat::layer::WechatAccount;
use tower_wechat::{
    Account, AccountSelector, Accounts, Login, Policy, RequestHead, Store, UserId, WechatLayer,
};

use crate::accounts::AccountBy;
use crate::api::AppState;
use crate::parts::{LoginError, Shared, TokensOfAccounts};
use crate::platform::DemoPlatform;
use crate::settings::Settings;
use crate::variables::BoxError;
use crate::wechat::Clients;
use crate::{account, routes};

/// Returns the routes and the tokens of all accounts.
pub fn build<S: Store + Clone>(
    shared: &Arc<Shared>,
    clients: &Clients,
    store: &S,
    by: &AccountBy,
    platform: Option<&DemoPlatform>,
) -> Result<(Router<AppState>, TokensOfAccounts), BoxError> {
    let settings = &*shared.settings;
    let prefix = &*shared.addresses.prefix;
    let mut accounts = Accounts::builder(store.clone()).selector(match by {
        AccountBy::Path if prefix.is_empty() => AccountSelector::path(),
        AccountBy::Path => AccountSelector::path_below(prefix)?,
        AccountBy::Host(hosts) => AccountSelector::host(hosts.clone())?,
        AccountBy::Header(name) => {
            AccountSelector::header(name).map_err(|error| format!("ACCOUNT_BY: {error}"))?
        }
    });
    for wechat in &clients.accounts {
        accounts = accounts.account(describe(shared, Account::new(wechat.clone()))?);
    }
    if let Some(DemoPlatform { platform, .. }) = platform {
        // The settings of all accounts are alike, so that those of one AppID are checked at start-up.
        let _ = login(shared, platform.app_id())?;
        let shared = Arc::clone(shared);
        accounts =
            accounts.registry(platform.accounts(move |account| {
                Ok(describe(&shared, account).map_err(|login| login.error)?)
            }));
    }
    let accounts = accounts.build().map_err(|error| match by {
        AccountBy::Host(_) => format!("ACCOUNT_BY: {error}"),
        AccountBy::Path | AccountBy::Header(_) => error.to_string(),
    })?;
    let layer = WechatLayer::for_accounts(accounts.clone());

    // These routes need an account and no user.
    let nobody = |_: &RequestHead<'_>| -> Option<UserId> { None };
    let open = layer.clone().identity(nobody).policy(Policy::Optional);
    let other_paths = open.login_service::<Body>();
    let account_routes = account::routes(settings.center_secrets.as_deref())?;
    let account_routes = account_routes.layer(open.clone());
    let user_routes = match shared.trusted_header()? {
        Some(header) => routes::of_users(layer.identity(header)),
        None => routes::of_users(layer),
    };
    let routes = user_routes.merge(account_routes);
    let routes = match by {
        AccountBy::Path => Router::new()
            .route("/{account}", get(add_slash).layer(open))
            .nest("/{account}/", routes),
        AccountBy::Host(_) | AccountBy::Header(_) => routes,
    };
    let routes = routes.merge(verification_files(settings));
    let routes = match platform {
        Some(platform) => routes.merge(platform.routes(shared)?),
        None => routes,
    };
    Ok((
        routes.fallback_service(other_paths),
        TokensOfAccounts::Several(accounts),
    ))
}

/// Adds the login, the page hosts and the times of the demo to an account.
fn describe(shared: &Shared, account: Account) -> Result<Account, LoginError> {
    let times = shared.settings.times;
    let login = login(shared, account.app_id())?;
    let page_hosts = shared.page_hosts(&shared.addresses.of_account(account.app_id()));
    Ok(account
        .login(login)
        .page_hosts(page_hosts)
        .user_tokens(move |users| times.of_users(users))
        .account_tokens(move |tokens| times.of_account(tokens)))
}

/// Returns the login of an account.
fn login(shared: &Shared, app_id: &AppId) -> Result<Login, LoginError> {
    let public_url = shared.addresses.of_account(app_id);
    // The names differ, because one browser may have sessions of all accounts.
    let session_name = shared.settings.session_name.as_ref();
    let session_name = session_name.map(|name| format!("{name}_{}", app_id.as_str()));
    shared.login(&public_url, session_name.as_deref())
}

/// Returns the routes of WeChat's verification files. WeChat fetches them from the root of a domain,
/// where a path or a header names no account.
fn verification_files(settings: &Settings) -> Router<AppState> {
    let files = settings.verification.iter().cloned();
    files.fold(Router::new(), |routes, (name, content)| {
        routes.route(&format!("/{name}"), get(async move || content))
    })
}

/// Redirects `/APPID` to the page `/APPID/`, with the query.
async fn add_slash(
    Extension(account): Extension<WechatAccount>,
    State(state): State<AppState>,
    uri: Uri,
) -> Redirect {
    let page = state.addresses.base(account.app_id());
    match uri.query() {
        Some(query) => Redirect::permanent(&format!("{page}/?{query}")),
        None => Redirect::permanent(&format!("{page}/")),
    }
}
