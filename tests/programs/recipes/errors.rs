#[path = "../../../examples/recipes/errors.rs"]
mod recipe;

use serde_json::json;
use tower_wechat::simulator::{Fault, SimulatedUser};

use super::Recipe;
use crate::support::browser::Browser;

#[tokio::test(flavor = "multi_thread")]
async fn all_rejections_have_the_applications_format() {
    let site = Recipe::serve(async |users, login| recipe::app(users, login.build().unwrap())).await;
    let user = SimulatedUser::new("oAlice").nickname("Alice");
    site.simulator.add_user(user);
    let browser = Browser::new();
    let url = |number: &str| format!("{}/orders/{number}", site.url);

    // The layer rejects a script without a user.
    let reply = browser.fetch(&url("7")).await;
    assert_eq!(reply.status, 401);
    let login_url = "/wechat/login?return_to=%2F";
    let expected = json!({
        "code": "login_required", "msg": "Sign in with WeChat first.", "login_url": login_url,
    });
    assert_eq!(reply.json(), expected);

    // The handler's call to WeChat fails: a script gets JSON, and a person a page.
    let userinfo = "/sns/userinfo";
    site.simulator.inject(Fault::on(userinfo).status(500));
    let page = browser.open(&url("7")).await;
    page.is_page(503, "微信暂时没有响应");
    let reply = browser.fetch(&url("7")).await;
    assert_eq!(
        (reply.status, &reply.json()["code"]),
        (503, &json!("wechat_unavailable"))
    );
    for reply in [&page, &reply] {
        assert!(reply.header("retry-after").is_some(), "{reply:?}");
        assert_eq!(reply.header("cache-control"), Some("no-store"));
    }
    site.simulator.clear_faults();
    assert_eq!(browser.open(&url("7")).await.text, "tea for Alice");

    // The handler's own error.
    let reply = browser.fetch(&url("8")).await;
    assert_eq!(reply.status, 404);
    let expected = json!({ "code": "not_found", "msg": "no such order", "login_url": null });
    assert_eq!(reply.json(), expected);
}
