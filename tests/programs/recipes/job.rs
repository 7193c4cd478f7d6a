#[path = "../../../examples/recipes/job.rs"]
mod recipe;

use std::collections::BTreeSet;

use tower_wechat::client::UserTokenResponse;
use tower_wechat::simulator::{Fault, Simulator};
use tower_wechat::{Error, ErrorKind, MemoryStore, UserId, UserTokens};

const PROFILE: &str = "/sns/userinfo";
const REFRESH: &str = "/sns/oauth2/refresh_token";

/// 200 users who have logged in.
struct Users {
    simulator: Simulator,
    tokens: UserTokens,
    ids: Vec<UserId>,
}

impl Users {
    async fn logged_in() -> Self {
        let simulator = Simulator::start().await.unwrap();
        let tokens = UserTokens::new(simulator.client().unwrap(), MemoryStore::new());
        let ids: Vec<_> = (0..200)
            .map(|n| UserId::new(format!("oUser{n}")).unwrap())
            .collect();
        for id in &ids {
            let pair = simulator.sign_in(id.as_str(), "snsapi_userinfo");
            let response = UserTokenResponse::new(pair.access_token)
                .expires_in(7_200)
                .refresh_token(pair.refresh_token);
            tokens.store(id, &response).await.unwrap();
        }
        Self {
            simulator,
            tokens,
            ids,
        }
    }

    async fn run(&self) -> anyhow::Result<Vec<Result<String, UserId>>> {
        recipe::run(&self.tokens, self.ids.clone()).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_job_skips_users_who_have_to_log_in_again() {
    let users = Users::logged_in().await;
    // Five users have closed their account here, and one has changed the password at WeChat.
    for id in &users.ids[10..15] {
        users.tokens.revoke(id).await.unwrap();
    }
    users.simulator.change_password("oUser100");
    // WeChat rejects the token of one call, and accepts the next.
    users
        .simulator
        .inject(Fault::on(PROFILE).errcode(40001).times(1));

    let outcomes = users.run().await.unwrap();
    let names = outcomes.iter().flatten();
    assert_eq!(names.filter(|name| *name == "微信用户").count(), 194);
    let logged_out: BTreeSet<_> = outcomes
        .iter()
        .filter_map(|one| one.as_ref().err())
        .collect();
    let expected = users.ids[10..15].iter().chain([&users.ids[100]]);
    assert_eq!(logged_out, expected.collect());
    // 195 users have tokens, and one call was made twice.
    assert_eq!(users.simulator.calls_to(PROFILE), 196);
    assert_eq!(users.simulator.calls_to(REFRESH), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_job_stops_at_an_outage() {
    let users = Users::logged_in().await;
    users.simulator.inject(Fault::on(PROFILE).errcode(-1));
    let error = users.run().await.unwrap_err();
    assert_eq!(error.to_string(), "run it again later");
    let cause = error.downcast_ref::<Error>().unwrap();
    assert_eq!(cause.kind(), ErrorKind::WechatUnavailable);
    // The calls that were under way end, and no others start.
    assert!(
        users.simulator.calls_to(PROFILE) <= 32,
        "{:?}",
        users.simulator.calls()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_job_reports_a_mistake_of_the_operator() {
    let users = Users::logged_in().await;
    // The IP address of this machine is missing in the account's whitelist.
    users.simulator.inject(Fault::on(PROFILE).errcode(40164));
    let error = users.run().await.unwrap_err();
    assert_eq!(error.to_string(), "fix this before the next run");
    assert!(
        users.simulator.calls_to(PROFILE) <= 32,
        "{:?}",
        users.simulator.calls()
    );
}
