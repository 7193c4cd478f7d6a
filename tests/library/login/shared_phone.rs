//! Two users of one phone: WeChat's browser keeps the cookies of the first one.

use tower_wechat::Scope;
use tower_wechat::simulator::SimulatedUser;

use super::harness::{ALICE, Harness};
use crate::support::browser::Browser;

const BOB: &str = "oBob000000000000000000000000";

#[tokio::test]
async fn the_login_path_switches_to_the_current_user() {
    let harness = Harness::new().await;
    let site = harness.site_with(|login| login.scope(Scope::Base)).await;
    let browser = Browser::new();
    let me = format!("{}/me", site.url);
    assert_eq!(browser.open(&me).await.json()["id"], ALICE);

    // Another user takes over the phone and signs in to WeChat. The session still belongs to the
    // first user.
    harness
        .sim
        .add_user(SimulatedUser::new(BOB).nickname("鲍勃"));
    assert_eq!(browser.open(&me).await.json()["id"], ALICE);
    let login = format!("{}/wechat/login?return_to=%2Fme", site.url);
    assert_eq!(browser.open(&login).await.json()["id"], BOB);
    assert_eq!(browser.fetch(&me).await.json()["id"], BOB);

    // After a logout, the next login is that of WeChat's current user.
    browser.post(&format!("{}/logout", site.url)).await;
    harness
        .sim
        .add_user(SimulatedUser::new(ALICE).nickname("爱丽丝"));
    assert_eq!(browser.open(&me).await.json()["id"], ALICE);
}
