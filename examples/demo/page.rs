//! The page that the login leads to, and what its buttons do.

use std::time::Duration;

use askama::Template;
use axum::Json;
use axum::extract;
use axum::http::header::CACHE_CONTROL;
use axum::response::{Html, IntoResponse, Response};
use serde::Serialize;
use tower_wechat::client::Language;
use tower_wechat::credential::Freshness;
use tower_wechat::{Error, ErrorKind, Scope, UserToken, WechatUser};

use crate::api::AppState;

/// A token's life at WeChat, for the clock on the page.
const TOKEN_LIFE: u64 = 7_200;

#[derive(Template)]
#[template(path = "page.html", config = "examples/demo/askama.toml")]
struct Page<'a> {
    user_id: &'a str,
    nickname: Option<&'a str>,
    avatar: Option<&'a str>,
    scope: Option<&'a str>,
    unionid: Option<&'a str>,
    snapshot: bool,
    /// Where to grant the nickname, if that is what is missing.
    grant_url: Option<String>,
    life: TokenLife,
    whole: u64,
    /// What stands in front of the demo's paths where a proxy puts it below one.
    base: String,
}

/// What the page shows of the user's token; never the token itself.
#[derive(Serialize)]
pub struct TokenLife {
    fingerprint: String,
    freshness: &'static str,
    expires_in_secs: u64,
    renew_in_secs: u64,
}

impl TokenLife {
    fn from_token(token: &UserToken, user: &WechatUser) -> Self {
        // The handle knows the clock; the lifetime says where its two points lie.
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

/// `GET /`
pub async fn show(
    user: WechatUser,
    extract::State(state): extract::State<AppState>,
) -> Result<Response, Error> {
    let profile = match user.profile().await {
        Ok(profile) => Some(profile),
        // The page does without a name, whatever kept WeChat from telling it.
        Err(error) => {
            tracing::info!(%error, "no profile for the page");
            None
        }
    };
    let filled = |text: &'_ &str| !text.is_empty();
    let lacks_scope = user.has_granted(Scope::UserInfo) == Some(false) && !user.is_snapshot();
    let page = Page {
        user_id: user.id(),
        nickname: profile
            .as_ref()
            .map(|profile| &*profile.nickname)
            .filter(filled),
        avatar: profile
            .as_ref()
            .map(|profile| &*profile.headimgurl)
            .filter(filled),
        scope: user.scope(),
        unionid: user.unionid(),
        snapshot: user.is_snapshot(),
        grant_url: lacks_scope.then(|| state.login.login_url("/", Some(Scope::UserInfo))),
        life: TokenLife::from_token(user.token(), &user),
        whole: TOKEN_LIFE,
        base: state
            .login
            .public_path("/")
            .trim_end_matches('/')
            .to_owned(),
    };
    let html = page.render().unwrap_or_else(|error| error.to_string());
    Ok(([(CACHE_CONTROL, "no-store")], Html(html)).into_response())
}

/// `GET /page/life`: what the page's clock runs by.
pub async fn token_life(user: WechatUser) -> Json<TokenLife> {
    Json(TokenLife::from_token(user.token(), &user))
}

#[derive(Serialize)]
pub struct RenewalReport {
    before: String,
    after: String,
}

/// `POST /page/renew`: renews the token ahead of time, as if a call had been refused.
pub async fn renew(
    user: WechatUser,
    extract::State(state): extract::State<AppState>,
) -> Result<Json<RenewalReport>, Error> {
    state.expire_at_wechat();
    let before = user.access_token().fingerprint();
    let after = user.report_invalid().await?.access_token().fingerprint();
    Ok(Json(RenewalReport { before, after }))
}

impl AppState {
    /// The simulator's clock runs ahead until all tokens have expired there, and only there. The
    /// real WeChat is left alone, and repeats a token that is alive when asked for a new one.
    fn expire_at_wechat(&self) {
        if let Some(simulator) = &self.simulator {
            simulator.advance(Duration::from_secs(TOKEN_LIFE));
        }
    }
}

/// `POST /page/refuse`: lets WeChat refuse the token, and calls it all the same. The call heals.
pub async fn call_with_expired_token(
    user: WechatUser,
    extract::State(state): extract::State<AppState>,
) -> Result<Json<RenewalReport>, Error> {
    state.expire_at_wechat();
    let before = user.access_token().fingerprint();
    let wechat = user.users().wechat();
    let called = user.with_token(|token: UserToken| async move {
        let openid = token.openid().unwrap_or(token.user_id());
        let call = wechat.user_info(token.access_token(), openid, Language::ZhCn);
        call.await.map(|_| token)
    });
    match called.await {
        Ok(token) => Ok(Json(RenewalReport {
            before,
            after: token.access_token().fingerprint(),
        })),
        // Without the scope there is nothing to call, but by now the token is a new one.
        Err(error) if error.kind() == ErrorKind::LoginRequired => {
            let after = user.current().await?.access_token().fingerprint();
            Ok(Json(RenewalReport { before, after }))
        }
        Err(error) => Err(error),
    }
}

impl Page<'_> {
    /// What stands in for an avatar.
    fn initial(&self) -> char {
        let name = self.nickname.unwrap_or("微");
        name.chars().next().unwrap_or('微')
    }

    fn is_fresh(&self) -> bool {
        self.life.freshness == Freshness::Fresh.as_str()
    }
}
