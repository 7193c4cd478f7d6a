//! Tests an application against a simulator of WeChat: logins, expired tokens and a revoked refresh token.
//!
//! Run the tests below with `cargo test --example testing`, and copy them. `cargo run --example testing`
//! starts the application on <http://127.0.0.1:3000>.

use axum::{Router, routing::get};
use tower_wechat::simulator::Simulator;
use tower_wechat::{Login, MemoryStore, UserTokens, WechatLayer, WechatUser};

/// Returns the application. Tests call it with their own client and clock.
fn application(users: UserTokens, login: Login) -> Router {
    Router::new()
        .route("/", get(greet))
        .layer(WechatLayer::new(users).login(login))
}

async fn greet(user: WechatUser) -> Result<String, tower_wechat::Error> {
    Ok(format!("你好，{}", user.profile().await?.nickname))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let listen = std::env::var("LISTEN").unwrap_or("127.0.0.1:3000".to_owned());
    let listener = tokio::net::TcpListener::bind(listen).await?;
    let origin = format!("http://{}", listener.local_addr()?);
    let simulator = Simulator::start().await?;
    let users = UserTokens::new(simulator.client()?, MemoryStore::new());
    let login = Login::new(&origin, tower_wechat::CookieKeys::random()?)?;
    println!("listening on {origin}");
    Ok(axum::serve(listener, application(users, login)).await?)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::body::{Body, to_bytes};
    use axum::http::{Request, StatusCode, header};
    use tower::ServiceExt;
    use tower_wechat::client::UserTokenResponse;
    use tower_wechat::clock::Clock;
    use tower_wechat::simulator::{Fault, SimulatedUser};
    use tower_wechat::{CookieKeys, SessionCookie, UserId};

    use super::*;

    const REFRESH: &str = "/sns/oauth2/refresh_token";

    /// The application with a signed-in user, the simulator and the clock.
    struct TestApp {
        app: Router,
        simulator: Simulator,
        clock: Clock,
        cookie: String,
    }

    impl TestApp {
        async fn new() -> Self {
            let simulator = Simulator::start().await.unwrap();
            let clock = Clock::shifted();
            let users = UserTokens::builder(simulator.client().unwrap(), MemoryStore::new())
                .clock(clock.clone())
                .build();
            let keys = CookieKeys::random().unwrap();

            simulator.add_user(SimulatedUser::new("oLin").nickname("林晓雨"));
            let pair = simulator.sign_in("oLin", "snsapi_userinfo");
            let response = UserTokenResponse::new(pair.access_token)
                .expires_in(7_200)
                .refresh_token(pair.refresh_token)
                .openid("oLin");
            let user = UserId::new("oLin").unwrap();
            users.store(&user, &response).await.unwrap();

            // Issues the session cookie that a login would set in the user's browser.
            let session = SessionCookie::builder(users.app_id(), &keys).secure(false);
            let session = session.build().unwrap();
            let cookie = session.issue(&user).to_str().unwrap().to_owned();
            let login = Login::new("http://localhost:3000", keys).unwrap();
            Self {
                app: application(users, login),
                simulator,
                clock,
                cookie: cookie.split(';').next().unwrap().to_owned(),
            }
        }

        async fn open(&self, cookie: &str) -> (StatusCode, String) {
            let request = Request::get("/")
                .header(header::ACCEPT, "text/html")
                .header(header::COOKIE, cookie)
                .body(Body::empty())
                .unwrap();
            let response = self.app.clone().oneshot(request).await.unwrap();
            let status = response.status();
            let location = response.headers().get(header::LOCATION).cloned();
            let body = to_bytes(response.into_body(), 65_536).await.unwrap();
            match location {
                Some(location) => (status, location.to_str().unwrap().to_owned()),
                None => (status, String::from_utf8(body.to_vec()).unwrap()),
            }
        }
    }

    #[tokio::test]
    async fn a_logged_in_user_is_greeted() {
        let test = TestApp::new().await;
        let response = test.open(&test.cookie).await;
        assert_eq!(response, (StatusCode::OK, "你好，林晓雨".to_owned()));
        assert_eq!(test.simulator.calls_to(REFRESH), 0);
    }

    #[tokio::test]
    async fn an_anonymous_user_is_redirected_to_wechat() {
        let test = TestApp::new().await;
        let (status, location) = test.open("").await;
        assert_eq!(status, StatusCode::FOUND);
        assert!(location.starts_with(test.simulator.url()), "{location}");
    }

    #[tokio::test]
    async fn an_expired_token_is_renewed_during_the_request() {
        let test = TestApp::new().await;
        // Three hours pass in the application and at WeChat.
        let hours = Duration::from_secs(3 * 3_600);
        test.clock.advance(hours);
        test.simulator.advance(hours);
        assert_eq!(test.open(&test.cookie).await.0, StatusCode::OK);
        assert_eq!(test.simulator.calls_to(REFRESH), 1);
    }

    #[tokio::test]
    async fn an_invalid_refresh_token_leads_to_a_new_login() {
        let test = TestApp::new().await;
        let hours = Duration::from_secs(3 * 3_600);
        test.clock.advance(hours);
        test.simulator.advance(hours);
        test.simulator.inject(Fault::on(REFRESH).errcode(40030));
        assert_eq!(test.open(&test.cookie).await.0, StatusCode::FOUND);
    }
}
