//! The demo of one account.

use axum::body::Body;
use axum::{Extension, Router};
use tower_wechat::identity::Identify;
use tower_wechat::layer::WechatAccount;
use tower_wechat::{AccountTokens, Store, Tickets, UserTokens, WechatLayer};

use crate::api::AppState;
use crate::parts::{Shared, TokensOfAccounts};
use crate::variables::BoxError;
use crate::wechat::Clients;
use crate::{account, routes};

/// Returns the routes and the tokens of the account.
pub fn build<S: Store + Clone>(
    shared: &Shared,
    clients: &Clients,
    store: &S,
) -> Result<(Router<AppState>, TokensOfAccounts), BoxError> {
    let [wechat] = &*clients.accounts else {
        return Err("there is more than one account".into());
    };
    let settings = &*shared.settings;
    let users = UserTokens::builder(wechat.clone(), store.clone());
    let users = settings.times.of_users(users).build();
    let accounts = AccountTokens::builder(wechat.clone(), store.clone());
    let accounts = settings.times.of_account(accounts).build();

    let public_url = shared.addresses.of_account(wechat.app_id());
    let login = shared.login(&public_url, settings.session_name.as_deref())?;
    let tickets = Tickets::new(&accounts, shared.page_hosts(&public_url))
        .map_err(|error| format!("PUBLIC_URL or RETURN_ORIGINS: {error}"))?;

    let layer = WechatLayer::new(users.clone()).account(tickets.clone());
    let user_routes = match shared.trusted_header()? {
        Some(header) => of_users(layer.identity(header).login(login)),
        None => of_users(layer.login(login)),
    };
    let account_routes = account::routes(settings.center_secrets.as_deref())?;
    // These routes need no user, so no layer of a user is around them.
    let account_routes = account_routes.layer(Extension(WechatAccount::from(tickets.clone())));
    Ok((
        user_routes.merge(account_routes),
        TokensOfAccounts::One { users, tickets },
    ))
}

/// Returns the routes of users.
fn of_users<I>(layer: WechatLayer<I>) -> Router<AppState>
where
    I: Identify + Send + Sync + 'static,
{
    // This service answers the paths of WeChat's verification files too. A callback on a path that a
    // proxy has changed gets an explanation. Other paths get a 404.
    let other_paths = layer.login_service::<Body>();
    routes::of_users(layer).fallback_service(other_paths)
}
