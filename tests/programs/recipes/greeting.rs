#[path = "../../../examples/recipes/greeting.rs"]
pub(super) mod recipe;

use super::Recipe;
use crate::support::browser::Browser;

#[tokio::test(flavor = "multi_thread")]
async fn known_users_are_greeted_and_strangers_get_a_link() {
    let site = Recipe::serve(async |users, login| recipe::app(users, login.build().unwrap())).await;
    let browser = Browser::new();
    let page = browser.visit(&site.url).await;
    assert!(page.text.starts_with("hello stranger"), "{}", page.text);
    let link = format!("{}/wechat/login?return_to=/", site.url);
    let page = browser.open(&link).await;
    assert!(page.text.starts_with("hello o"), "{}", page.text);
    // The user stays known, without another login.
    assert_eq!(browser.visit(&site.url).await.text, page.text);
    assert_eq!(site.simulator.calls_to("/sns/oauth2/access_token"), 1);
}
