//! The page of a logged-in user, and the routes that the buttons of this page call.

use std::time::Duration;

use askama::Template;
use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::response::{Html, IntoResponse, Response};
use axum::{Extension, Json};
use serde::Serialize;
use tower_wechat::client::Language;
use tower_wechat::credential::Freshness;
use tower_wechat::layer::WechatAccount;
use tower_wechat::{Error, ErrorKind, Scope, UserToken, WechatUser};

use crate::addresses::AccountLink;
use crate::api::AppState;

/// Lifetime of a new access token: 7,200 seconds, as at WeChat. The clock on the page shows it, and
/// the simulator's clock is advanced by it.
const TOKEN_LIFE: u64 = 7_200;

#[derive(Template)]
#[template(path = "page.html", config = "examples/demo/askama.toml")]
struct Page<'a> {
    /// The AppID of the account.
    account: &'a str,
    /// The AppID of the website app, if the user has logged in with it.
    website: Option<&'a str>,
    /// Links to the pages of the other accounts.
    other_accounts: Vec<AccountLink>,
    user_id: &'a str,
    openid: Option<&'a str>,
    nickname: Option<&'a str>,
    avatar: Option<&'a str>,
    scope: Option<&'a str>,
    unionid: Option<&'a str>,
    snapshot: bool,
    /// The URL that asks the user for the scope of the profile. `None` if the user has granted that
    /// scope.
    grant_url: Option<String>,
    life: TokenLife,
    /// Lifetime of a new access token in seconds, which is a full turn of the clock on the page.
    whole: u64,
    /// Path below which browsers see the account's pages, without a slash at the end.
    base: String,
}

/// The state of the user's token, without the token itself.
#[derive(Serialize)]
pub struct TokenLife {
    fingerprint: String,
    freshness: &'static str,
    expires_in_secs: u64,
    renew_in_secs: u64,
}

impl TokenLife {
    fn from_token(token: &UserToken, user: &WechatUser) -> Self {
        // `WechatUser` computes the time until the expiry with the layer's clock. The token's times
        // of renewal and expiry give the margin between them, for which no clock is needed.
        let expires_in = user.expires_in();
        let margin = Duration::from_millis(
            (token.lifetime().expires_at().as_millis() - token.lifetime().renew_at().as_millis())
                .unsigned_abs(),
        );
        Self {
            fingerprint: token.access_token().fingerprint(),
            freshness: user.freshness().as_str(),
            expires_in_secs: expires_in.as_secs(),
            renew_in_secs: expires_in.saturating_sub(margin).as_secs(),
        }
    }
}

/// `GET /`: renders the page of the logged-in user.
pub async fn show(
    user: WechatUser,
    Extension(account): Extension<WechatAccount>,
    State(state): State<AppState>,
) -> Result<Response, Error> {
    let profile = match user.profile().await {
        Ok(profile) => Some(profile),
        // Without a profile, the page shows a placeholder for the name and the avatar.
        Err(error) => {
            tracing::info!(%error, "no profile for the page");
            None
        }
    };
    let is_set = |text: &'_ &str| !text.is_empty();
    let lacks_scope = user.has_granted(Scope::UserInfo) == Some(false) && !user.is_snapshot();
    let account = account.app_id();
    let base = state.addresses.base(account);
    let page = Page {
        account: account.as_str(),
        website: (user.app_id() != account).then(|| user.app_id().as_str()),
        other_accounts: state.addresses.other_accounts(account),
        user_id: user.id(),
        openid: user.openid(),
        nickname: profile
            .as_ref()
            .map(|profile| &*profile.nickname)
            .filter(is_set),
        avatar: profile
            .as_ref()
            .map(|profile| &*profile.headimgurl)
            .filter(is_set),
        scope: user.scope(),
        unionid: user.unionid(),
        snapshot: user.is_snapshot(),
        grant_url: lacks_scope.then(|| {
            let scope = Scope::UserInfo.as_str();
            format!("{base}/wechat/login?return_to={base}/&scope={scope}")
        }),
        life: TokenLife::from_token(user.token(), &user),
        whole: TOKEN_LIFE,
        base,
    };
    let html = page.render().unwrap_or_else(|error| error.to_string());
    Ok(([(CACHE_CONTROL, "no-store")], Html(html)).into_response())
}

/// `GET /page/life`: returns the state of the token, for the clock on the page.
pub async fn token_life(user: WechatUser) -> Json<TokenLife> {
    Json(TokenLife::from_token(user.token(), &user))
}

/// The fingerprints of the token before and after a renewal.
#[derive(Serialize)]
pub struct RenewalReport {
    before: String,
    after: String,
}

/// `POST /page/renew`: renews the token early, as after a call that WeChat rejected.
pub async fn renew(
    user: WechatUser,
    State(state): State<AppState>,
) -> Result<Json<RenewalReport>, Error> {
    state.expire_at_wechat();
    let before = user.access_token().fingerprint();
    let after = user.report_invalid().await?.access_token().fingerprint();
    Ok(Json(RenewalReport { before, after }))
}

impl AppState {
    /// Advances the simulator's clock until all of its tokens have expired. Does nothing without the
    /// simulator: the real WeChat then returns the same token if it has not expired.
    fn expire_at_wechat(&self) {
        if let Some(simulator) = &self.simulator {
            simulator.advance(Duration::from_secs(TOKEN_LIFE));
        }
    }
}

/// `POST /page/refuse`: calls WeChat with an expired token. `with_token` renews the token and repeats
/// the call.
pub async fn call_with_expired_token(
    user: WechatUser,
    State(state): State<AppState>,
) -> Result<Json<RenewalReport>, Error> {
    state.expire_at_wechat();
    let before = user.access_token().fingerprint();
    let wechat = user.users().wechat();
    let called = user.with_token(|token: UserToken| async move {
        let openid = token.openid().unwrap_or(token.user_id().as_str());
        let call = wechat.user_info(token.access_token(), openid, Language::ZhCn);
        call.await.map(|_| token)
    });
    match called.await {
        Ok(token) => Ok(Json(RenewalReport {
            before,
            after: token.access_token().fingerprint(),
        })),
        // The user has not granted the scope of the call. The token has been renewed nevertheless.
        Err(error) if error.kind() == ErrorKind::LoginRequired => {
            let after = user.current().await?.access_token().fingerprint();
            Ok(Json(RenewalReport { before, after }))
        }
        Err(error) => Err(error),
    }
}

impl Page<'_> {
    /// Returns the first character of the nickname, which replaces a missing avatar.
    fn initial(&self) -> char {
        let name = self.nickname.unwrap_or("微");
        name.chars().next().unwrap_or('微')
    }

    fn is_fresh(&self) -> bool {
        self.life.freshness == Freshness::Fresh.as_str()
    }
}
