#[path = "../../../examples/recipes/two_accounts.rs"]
mod recipe;

use tower_wechat::simulator::{SimulatedUser, Simulator};
use tower_wechat::{CookieKeys, MemoryStore, UserTokens};

use crate::support::browser::Browser;

const SHOP: &str = "wx0000000000000001";
const CLUB: &str = "wx0000000000000002";

/// Serves the recipe, with a simulator for each account. Returns the simulators, and the URLs of the
/// start pages of the shop and of the club.
async fn serve() -> (Vec<Simulator>, [String; 2]) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let origin = format!("http://{}", listener.local_addr().unwrap());
    let mut simulators = Vec::new();
    for (app, openid) in [(SHOP, "oShopper"), (CLUB, "oMember")] {
        let simulator = Simulator::builder().app(app, "secret").start().await;
        let simulator = simulator.unwrap();
        simulator.add_user(SimulatedUser::new(openid));
        simulators.push(simulator);
    }
    let users =
        |simulator: &Simulator| UserTokens::new(simulator.client().unwrap(), MemoryStore::new());
    let (shop, club) = (users(&simulators[0]), users(&simulators[1]));
    let keys = CookieKeys::random().unwrap();
    let app = recipe::app(&origin, &keys, shop, club).unwrap();
    tokio::spawn(async { axum::serve(listener, app).await });
    (
        simulators,
        ["shop", "club"].map(|path| format!("{origin}/{path}/")),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn one_browser_stays_signed_in_to_both_accounts() {
    let greetings = [
        format!("hello oShopper of {SHOP}"),
        format!("hello oMember of {CLUB}"),
    ];
    for order in [[0, 1], [1, 0]] {
        let (simulators, urls) = serve().await;
        let browser = Browser::new();
        for account in order {
            let page = browser.open(&urls[account]).await;
            assert_eq!(page.text, greetings[account]);
        }
        for _ in 0..2 {
            for account in order {
                assert_eq!(browser.fetch(&urls[account]).await.text, greetings[account]);
            }
        }
        for simulator in &simulators {
            assert_eq!(simulator.calls_to("/sns/oauth2/access_token"), 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tabs_of_both_accounts_log_in_at_once() {
    let (_simulators, [shop, club]) = serve().await;
    let browser = Browser::new();
    // Both logins begin before one of them ends.
    let (to_shop, to_club) = (browser.visit(&shop).await, browser.visit(&club).await);
    for (sent, openid) in [(to_shop, "oShopper"), (to_club, "oMember")] {
        let authorize = sent.header("location").unwrap().to_owned();
        let page = browser.open(&authorize).await;
        assert!(page.text.contains(openid), "{}", page.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_one_account_is_none_of_the_other() {
    let (_simulators, [shop, club]) = serve().await;
    let browser = Browser::new();
    browser.open(&shop).await;
    browser.fetch(&club).await.is_error(401, "login_required");
    // Neither under the name of the other account's session cookie.
    let session = browser.cookie(&format!("wechat_session_{SHOP}")).unwrap();
    browser.set_cookie(&format!("wechat_session_{CLUB}"), "/", &session);
    browser.fetch(&club).await.is_error(401, "login_required");
}
