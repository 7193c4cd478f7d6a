//! Tests of the recipe `greeting`: a signed-in user without network, and a whole login.

use tower_wechat::simulator::{SimulatedUser, Simulator};
use tower_wechat::testing::{Browser, TestUser};
use tower_wechat::{CookieKeys, Login, MemoryStore, UserTokens};

use super::greeting::{app, home};

#[tokio::test]
async fn a_known_user_is_greeted() {
    let alice = TestUser::new("oAlice").build();
    assert_eq!(home(Some(alice)).await.0, "hello oAlice");
}

#[tokio::test]
async fn a_stranger_logs_in() {
    let simulator = Simulator::start().await.unwrap();
    simulator.add_user(SimulatedUser::new("oAlice"));
    let users = UserTokens::new(simulator.client().unwrap(), MemoryStore::new());
    let login = Login::new("http://localhost", CookieKeys::random().unwrap()).unwrap();
    let browser = Browser::new("http://localhost", app(users, login));
    assert!(browser.open("/").await.body().contains("hello stranger"));
    let page = browser.open("/wechat/login?return_to=/").await;
    assert_eq!(page.body(), "hello oAlice");
}
