#[path = "../../../examples/recipes/own_users.rs"]
mod recipe;

use tower_wechat::simulator::SimulatedUser;

use super::Recipe;
use crate::support::browser::Browser;

#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_the_row_is_the_user_id() {
    let database = recipe::Database::default();
    let site =
        Recipe::serve(async |users, login| recipe::app(users, login, database).unwrap()).await;
    let alice = Browser::new();
    assert_eq!(alice.open(&site.url).await.text, "account 1");
    site.simulator
        .add_user(SimulatedUser::new("oBob000000000000000000000000"));
    assert_eq!(Browser::new().open(&site.url).await.text, "account 2");
    // The session carries the id, also of a row that an earlier login has created.
    assert_eq!(alice.visit(&site.url).await.text, "account 1");
    assert_eq!(Browser::new().open(&site.url).await.text, "account 2");
    assert_eq!(site.simulator.calls_to("/sns/oauth2/access_token"), 3);
}
