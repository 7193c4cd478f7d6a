//! Tests an application with test users, and against a simulator of WeChat: logins, expired tokens and an
//! invalid refresh token.
//!
//! Run the tests below with `cargo test --example testing`, and copy them. `cargo run --example testing`
//! starts the application on <http://127.0.0.1:3000>.

use axum::{Router, routing::get};
use tower_wechat::simulator::Simulator;
use tower_wechat::{Login, MemoryStore, UserTokens, WechatLayer, WechatUser};

/// Returns the application. Tests call it with their own client and clock.
fn application(users: UserTokens, login: Login) -> Router {
    routes().layer(WechatLayer::new(users).login(login))
}

/// Returns the routes without their layer. Tests put a test user into the requests.
fn routes() -> Router {
    Router::new().route("/", get(greet))
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

// The module `tower_wechat::testing` exists only with debug assertions, as `cargo test` has them.
#[cfg(all(test, debug_assertions))]
mod tests {
    use std::time::Duration;

    use axum::Extension;
    use axum::http::StatusCode;
    use tower_wechat::CookieKeys;
    use tower_wechat::clock::Clock;
    use tower_wechat::simulator::{Fault, SimulatedUser};
    use tower_wechat::testing::{Browser, TestUser, anonymous};

    use super::*;

    const ORIGIN: &str = "http://localhost";
    const LOGIN: &str = "/sns/oauth2/access_token";
    const REFRESH: &str = "/sns/oauth2/refresh_token";

    /// A browser of the routes without their layer, with a user or without one.
    fn routes_with<T: Clone + Send + Sync + 'static>(user: T) -> Browser {
        Browser::new(ORIGIN, routes().layer(Extension(user)))
    }

    #[tokio::test]
    async fn a_user_is_greeted() {
        let browser = routes_with(TestUser::new("oLin").nickname("林晓雨").build());
        assert_eq!(browser.open("/").await.body(), "你好，林晓雨");
    }

    #[tokio::test]
    async fn a_stranger_is_rejected() {
        let response = routes_with(anonymous()).fetch("/").await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    }

    /// The whole application, with its login at the simulator.
    struct TestApp {
        browser: Browser,
        simulator: Simulator,
        clock: Clock,
    }

    impl TestApp {
        async fn new() -> Self {
            let simulator = Simulator::start().await.unwrap();
            simulator.add_user(SimulatedUser::new("oLin").nickname("林晓雨"));
            let clock = Clock::shifted();
            let users = UserTokens::builder(simulator.client().unwrap(), MemoryStore::new())
                .clock(clock.clone())
                .build();
            let login = Login::new(ORIGIN, CookieKeys::random().unwrap()).unwrap();
            Self {
                browser: Browser::new(ORIGIN, application(users, login)),
                simulator,
                clock,
            }
        }

        /// Opens the page and checks that it greets the user.
        async fn is_greeted(&self) {
            let page = self.browser.open("/").await;
            assert_eq!(page.body(), "你好，林晓雨");
        }

        /// Three hours pass in the application and at WeChat.
        fn three_hours_pass(&self) {
            let hours = Duration::from_secs(3 * 3_600);
            self.clock.advance(hours);
            self.simulator.advance(hours);
        }
    }

    #[tokio::test]
    async fn a_stranger_logs_in_once() {
        let test = TestApp::new().await;
        let script = test.browser.fetch("/").await;
        assert_eq!(script.status(), StatusCode::UNAUTHORIZED);
        test.is_greeted().await;
        test.is_greeted().await;
        assert_eq!(test.simulator.calls_to(LOGIN), 1);
        assert_eq!(test.simulator.calls_to(REFRESH), 0);
    }

    #[tokio::test]
    async fn an_expired_token_is_renewed_during_the_request() {
        let test = TestApp::new().await;
        test.is_greeted().await;
        test.three_hours_pass();
        test.is_greeted().await;
        assert_eq!(test.simulator.calls_to(LOGIN), 1);
        assert_eq!(test.simulator.calls_to(REFRESH), 1);
    }

    #[tokio::test]
    async fn an_invalid_refresh_token_leads_to_a_new_login() {
        let test = TestApp::new().await;
        test.is_greeted().await;
        test.three_hours_pass();
        test.simulator.inject(Fault::on(REFRESH).errcode(40030));
        test.is_greeted().await;
        assert_eq!(test.simulator.calls_to(LOGIN), 2);
    }
}
