//! Tests of callbacks that a proxy sends to an unknown path, or to one where a login begins.

use crate::support::browser::Browser;
use crate::support::harness::{Harness, Layout};

#[tokio::test(flavor = "multi_thread")]
async fn a_callback_at_an_unknown_path_ends_on_a_page() {
    let harness = Harness::new(Layout::Hashes).await;
    let demo = harness.demo().await;
    let begun = Browser::new().visit(&format!("{}/", demo.url)).await;
    let authorize = begun.location().expect("WeChat's page");
    let state = authorize.query_pairs().find(|(name, _)| name == "state");
    let state = state.expect("a state").1;

    for path in [
        "callback",
        "h5/wechat/callback",
        "nowhere/at/all",
        "wechat/login",
    ] {
        let callback = format!("{}/{path}?code=C0de&state={state}", demo.url);
        let answer = Browser::new().visit(&callback).await;
        assert_eq!(answer.status, 400, "{path}: {answer:?}");
        assert!(answer.location().is_none(), "{path}: {answer:?}");
    }
    let lines = demo.log().matches("not the callback").count();
    assert_eq!(lines, 1, "one line for many: {}", demo.log());

    let foreign = format!("{}/nowhere/at/all?code=C0de&state=abc", demo.url);
    assert_eq!(Browser::new().visit(&foreign).await.status, 404);
}
