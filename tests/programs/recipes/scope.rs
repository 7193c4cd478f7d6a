#[path = "../../../examples/recipes/scope.rs"]
mod recipe;

use tower_wechat::Scope;
use tower_wechat::simulator::SimulatedUser;

use super::Recipe;
use crate::support::browser::Browser;

#[tokio::test(flavor = "multi_thread")]
async fn only_the_card_asks_for_the_profile() {
    let site = Recipe::serve(async |users, login| {
        recipe::app(users, login.scope(Scope::Base).build().unwrap())
    })
    .await;
    let user = SimulatedUser::new("oAlice").nickname("Alice");
    site.simulator.add_user(user);
    let browser = Browser::new();
    let page = browser.open(&site.url).await;
    assert_eq!(page.text, "hello oAlice");
    let card = format!("{}/card", site.url);
    let script = browser.fetch(&card).await.is_error(401, "login_required");
    let login_url = script["login_url"].as_str().unwrap();
    assert!(login_url.ends_with("scope=snsapi_userinfo"), "{login_url}");
    assert_eq!(browser.open(&card).await.text, "Alice");
    // The user is asked once.
    browser.open(&card).await;
    assert_eq!(site.simulator.calls_to("/sns/oauth2/access_token"), 2);
}
