#[path = "../../../examples/recipes/nested.rs"]
mod recipe;

use super::Recipe;
use crate::support::browser::Browser;

#[tokio::test(flavor = "multi_thread")]
async fn only_the_api_needs_a_user() {
    let site = Recipe::serve(async |users, login| recipe::app(users, login.build().unwrap())).await;
    let browser = Browser::new();
    let page = browser.visit(&site.url).await;
    assert_eq!(page.text, "welcome");
    assert!(browser.cookie_names().is_empty());
    let version = format!("{}/api/version", site.url);
    assert_eq!(browser.fetch(&version).await.text, "1");
    assert!(browser.cookie_names().is_empty());
    // A page of an API, and a script's request, each lead to a login at the root and back.
    let me = format!("{}/api/me", site.url);
    let script = Browser::new();
    let rejection = script.fetch(&me).await.is_error(401, "login_required");
    let login_url = rejection["login_url"].as_str().unwrap();
    assert!(login_url.contains("/wechat/login?"), "{login_url}");
    let page = browser.open(&me).await;
    assert!(page.text.starts_with("hello o"), "{}", page.text);
    assert_eq!(page.url.path(), "/api/me");
    assert_eq!(browser.fetch(&me).await.text, page.text);
    // Paths that no router has are not the layer's.
    for path in ["other", "api/other", "api"] {
        let url = format!("{}/{path}", site.url);
        assert_eq!(Browser::new().visit(&url).await.status, 404, "{path}");
    }
    assert_eq!(site.simulator.calls_to("/sns/oauth2/access_token"), 1);
}
