//! Tests of the promises for two accounts that share everything but their AppID: the store, the
//! users' ids, and where possible the texts of the tokens. The AppIDs differ only in letter case.

use std::time::Duration;

use tower_wechat::account::TokenMode;
use tower_wechat::client::UserTokenResponse;
use tower_wechat::redis::{RedisNames, RedisStoreBuilder};
use tower_wechat::simulator::{Fault, SimulatedApp};
use tower_wechat::{AccountTokens, Error, ErrorKind, RedisStore, Store, Tickets, UserTokens};

use crate::harness::{Backend, Harness, REFRESH, grant, id, many, names, text};
use crate::support::eventually;

const FIRST: &str = "wx0123456789abcdef";
const SECOND: &str = "WX0123456789ABCDEF";

/// Lifetime of cache entries, so long that only an invalidation can end it.
const HOUR: Duration = Duration::from_secs(3_600);

/// Maximum time for a change to arrive, 10 s. An idle machine needs milliseconds.
const SOON: Duration = Duration::from_secs(10);

/// Runs each function as a test on each store that several accounts can share.
macro_rules! for_each_layout {
    ($($name:ident),* $(,)?) => {
        crate::for_each_store!(@ memory, Memory, $($name),*);
        crate::for_each_store!(@ redis_hashes, Hashes, $($name),*);
        crate::for_each_store!(@ redis_keys, Keys, $($name),*);
        crate::for_each_store!(@ redis_sealed_hashes_and_keys, SealedHashesAndKeys, $($name),*);
        crate::for_each_store!(@ cluster_hashes, ClusterHashes, $($name),*);
    };
}

for_each_layout!(
    each_account_renews_its_own_pair_once,
    a_lease_of_one_account_blocks_no_other,
    a_login_is_kept_during_a_renewal_of_another_account,
    changes_of_one_account_do_not_touch_another,
    a_logout_everywhere_ends_one_account,
    a_logout_everywhere_stops_the_renewal_of_one_account,
    a_lost_pair_needs_a_login_in_one_account,
    a_missing_user_is_missing_in_one_account,
    an_account_that_wechat_refuses_stops_no_other,
    a_slow_account_delays_no_other,
    stale_tokens_are_served_for_each_account,
    a_report_renews_the_token_of_one_account,
    own_tokens_and_quotas_are_separate,
    every_name_in_redis_contains_the_appid,
);

/// The two accounts of a test, each with a user `oA`.
struct TwoAccounts {
    harness: Harness,
    apps: [SimulatedApp; 2],
}

/// A process that serves both accounts with one store.
struct Process {
    users: [UserTokens; 2],
    tokens: [AccountTokens; 2],
}

impl TwoAccounts {
    fn of(harness: Harness) -> Self {
        let secret = harness.simulator.app_secret().to_owned();
        let other = match harness.simulator.app_id() {
            FIRST => SECOND.to_owned(),
            own => own.to_uppercase(),
        };
        harness.simulator.add_account(other.as_str(), secret);
        let app = |app_id: &str| harness.simulator.app(app_id).unwrap();
        let apps = [app(harness.simulator.app_id()), app(&other)];
        Self { harness, apps }
    }

    async fn process(&self) -> Process {
        match self.harness.memory() {
            Some(store) => self.process_in(&store),
            None => self.process_in(&self.redis_store_at(&self.harness.redis_url()).await),
        }
    }

    async fn redis_store_at(&self, url: &str) -> RedisStore {
        let change = |builder: RedisStoreBuilder| match self.harness.backend() {
            Backend::ClusterHashes => builder.names(names().with_appid()),
            _ => builder.names(RedisNames::default().with_appid()),
        };
        self.harness.redis_store_at(url, change).await
    }

    fn process_in(&self, store: &(impl Store + Clone)) -> Process {
        let clock = &self.harness.clock;
        let users = self.apps.each_ref().map(|app| {
            let builder = UserTokens::builder(app.client().unwrap(), store.clone());
            builder.cache_ttl(HOUR).clock(clock.clone()).build()
        });
        let tokens = self.apps.each_ref().map(|app| {
            let builder = AccountTokens::builder(app.client().unwrap(), store.clone());
            let builder = builder.mode(TokenMode::Plain);
            builder.clock(clock.clone()).build()
        });
        Process { users, tokens }
    }

    /// Logs the user `oA` of both accounts in at WeChat, and advances the clocks.
    async fn log_in(&self, process: &Process, advance: Duration) {
        for (app, users) in self.apps.iter().zip(&process.users) {
            let pair = app.sign_in("oA", "snsapi_userinfo");
            users.store(&id("oA"), &grant(&pair)).await.unwrap();
        }
        self.harness.advance(advance);
    }

    /// Logs the users in, and advances the clocks past the expiry of their access tokens.
    async fn expired(&self, process: &Process) {
        self.log_in(process, Duration::from_secs(7_300)).await;
    }

    fn refuse(&self, account: usize, fault: Fault) {
        let fault = fault.app(self.apps[account].app_id());
        self.harness.simulator.inject(fault);
    }

    fn refreshes(&self) -> [u64; 2] {
        self.apps.each_ref().map(|app| app.calls_to(REFRESH))
    }

    fn live_token(&self, account: usize) -> String {
        let pair = self.apps[account].current_pair("oA");
        pair.expect("WeChat knows the user").access_token
    }

    /// Returns the token that a new process serves from the store.
    async fn stored_token(&self, account: usize) -> Result<String, Error> {
        get(&self.process().await.users[account]).await
    }
}

async fn get(users: &UserTokens) -> Result<String, Error> {
    users.get(&id("oA")).await.map(|token| text(&token))
}

/// Stores a token without a refresh token, as a login does.
async fn store(users: &UserTokens, token: &str) {
    let response = UserTokenResponse::new(token).expires_in(7_200);
    users.store(&id("oA"), &response).await.unwrap();
}

#[track_caller]
fn needs_login(outcome: Result<String, Error>) {
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::LoginRequired);
}

fn spawn_get(users: &UserTokens) -> tokio::task::JoinHandle<Result<String, Error>> {
    let users = users.clone();
    tokio::spawn(async move { get(&users).await })
}

async fn each_account_renews_its_own_pair_once(harness: Harness) {
    let accounts = TwoAccounts::of(harness);
    let processes = [accounts.process().await, accounts.process().await];
    accounts.expired(&processes[0]).await;
    let [ours, theirs] = &processes;
    let of = |account: usize| [ours.users[account].clone(), theirs.users[account].clone()];
    let (first, second) = (of(0), of(1));
    let (first, second) = tokio::join!(many(&first, "oA", 100), many(&second, "oA", 100));
    for (account, outcomes) in [first, second].into_iter().enumerate() {
        for outcome in outcomes {
            assert_eq!(outcome.unwrap(), accounts.live_token(account));
        }
        let stored = accounts.stored_token(account).await.unwrap();
        assert_eq!(stored, accounts.live_token(account));
    }
    assert_ne!(accounts.live_token(0), accounts.live_token(1));
    assert_eq!(accounts.refreshes(), [1, 1]);
}

async fn a_lease_of_one_account_blocks_no_other(harness: Harness) {
    let accounts = TwoAccounts::of(harness);
    let (ours, theirs) = (accounts.process().await, accounts.process().await);
    accounts.expired(&ours).await;
    accounts.refuse(0, Fault::on(REFRESH).hang());
    let waiting = spawn_get(&ours.users[0]);
    eventually("a process has the lease", SOON, async || {
        accounts.refreshes()[0] == 1
    })
    .await;
    let served = get(&theirs.users[1]).await.unwrap();
    assert!(!waiting.is_finished());
    assert_eq!(served, accounts.live_token(1));
    assert_eq!(accounts.refreshes()[1], 1);
}

async fn a_login_is_kept_during_a_renewal_of_another_account(harness: Harness) {
    let accounts = TwoAccounts::of(harness);
    let (ours, theirs) = (accounts.process().await, accounts.process().await);
    accounts.expired(&ours).await;
    accounts.refuse(0, Fault::on(REFRESH).delay(Duration::from_millis(500)));
    let renewal = spawn_get(&ours.users[0]);
    eventually("WeChat is asked", SOON, async || {
        accounts.refreshes()[0] == 1
    })
    .await;
    store(&theirs.users[1], "of-the-login").await;
    assert_eq!(renewal.await.unwrap().unwrap(), accounts.live_token(0));
    let stored = accounts.stored_token(0).await.unwrap();
    assert_eq!(stored, accounts.live_token(0));
    assert_eq!(accounts.stored_token(1).await.unwrap(), "of-the-login");
    assert_eq!(accounts.refreshes(), [1, 0]);
}

async fn changes_of_one_account_do_not_touch_another(harness: Harness) {
    let accounts = TwoAccounts::of(harness);
    let (ours, theirs) = (accounts.process().await, accounts.process().await);
    for users in &theirs.users {
        store(users, "same").await;
    }
    let cached = |account: usize| {
        let token = ours.users[account].cached(&id("oA"));
        token.map(|token| text(&token))
    };
    for account in [0, 1] {
        eventually("the token is in memory", SOON, async || {
            let served = get(&ours.users[account]).await;
            served.is_ok_and(|token| token == "same") && cached(account).is_some()
        })
        .await;
    }
    // A new subscription may invalidate what was cached before.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(get(&ours.users[1]).await.unwrap(), "same");
    for round in 0..10 {
        let token = format!("token-{round}");
        store(&theirs.users[0], &token).await;
        eventually("the change arrives", SOON, async || {
            get(&ours.users[0])
                .await
                .is_ok_and(|served| served == token)
        })
        .await;
        assert_eq!(cached(1).as_deref(), Some("same"));
    }
    theirs.users[0].revoke(&id("oA")).await.unwrap();
    eventually("the logout arrives", SOON, async || {
        get(&ours.users[0]).await.is_err()
    })
    .await;
    assert_eq!(cached(1).as_deref(), Some("same"));
}

async fn a_logout_everywhere_ends_one_account(harness: Harness) {
    let accounts = TwoAccounts::of(harness);
    let (ours, theirs) = (accounts.process().await, accounts.process().await);
    for (ended, kept) in [(0, 1), (1, 0)] {
        for users in &ours.users {
            store(users, "same").await;
        }
        theirs.users[ended].revoke(&id("oA")).await.unwrap();
        needs_login(accounts.stored_token(ended).await);
        assert_eq!(accounts.stored_token(kept).await.unwrap(), "same");
        assert_eq!(get(&ours.users[kept]).await.unwrap(), "same");
        assert_eq!(get(&theirs.users[kept]).await.unwrap(), "same");
    }
}

async fn a_logout_everywhere_stops_the_renewal_of_one_account(harness: Harness) {
    let accounts = TwoAccounts::of(harness);
    let (ours, theirs) = (accounts.process().await, accounts.process().await);
    accounts.expired(&ours).await;
    let slow = Fault::on(REFRESH).delay(Duration::from_millis(500));
    accounts.harness.simulator.inject(slow);
    let renewals = ours.users.each_ref().map(spawn_get);
    eventually("WeChat is asked", SOON, async || {
        accounts.refreshes() == [1, 1]
    })
    .await;
    theirs.users[0].revoke(&id("oA")).await.unwrap();
    let [stopped, kept] = renewals;
    needs_login(stopped.await.unwrap());
    assert_eq!(kept.await.unwrap().unwrap(), accounts.live_token(1));
    needs_login(accounts.stored_token(0).await);
    let stored = accounts.stored_token(1).await.unwrap();
    assert_eq!(stored, accounts.live_token(1));
    assert_eq!(accounts.refreshes(), [1, 1]);
}

async fn a_lost_pair_needs_a_login_in_one_account(harness: Harness) {
    let accounts = TwoAccounts::of(harness);
    let (ours, theirs) = (accounts.process().await, accounts.process().await);
    accounts.expired(&ours).await;
    accounts.refuse(0, Fault::on(REFRESH).errcode(42002));
    needs_login(get(&ours.users[0]).await);
    needs_login(get(&theirs.users[0]).await);
    for process in [&ours, &theirs] {
        let served = get(&process.users[1]).await.unwrap();
        assert_eq!(served, accounts.live_token(1));
    }
    assert_eq!(accounts.refreshes(), [1, 1]);
}

async fn a_missing_user_is_missing_in_one_account(harness: Harness) {
    let accounts = TwoAccounts::of(harness);
    let (ours, theirs) = (accounts.process().await, accounts.process().await);
    for users in ours.users.iter().chain(&theirs.users) {
        needs_login(get(users).await);
    }
    store(&ours.users[1], "token").await;
    eventually("the login arrives", SOON, async || {
        get(&theirs.users[1])
            .await
            .is_ok_and(|token| token == "token")
    })
    .await;
    for users in [&ours.users[0], &theirs.users[0]] {
        needs_login(get(users).await);
    }
    needs_login(accounts.stored_token(0).await);
}

async fn an_account_that_wechat_refuses_stops_no_other(harness: Harness) {
    let accounts = TwoAccounts::of(harness);
    let process = accounts.process().await;
    // The IP address is not in the account's list, so no call of the account can succeed.
    accounts.expired(&process).await;
    accounts.refuse(0, Fault::on("*").errcode(40164));
    for _ in 0..20 {
        let error = get(&process.users[0]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WechatConfig);
        let error = process.tokens[0].get().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WechatConfig);
    }
    let served = get(&process.users[1]).await.unwrap();
    assert_eq!(served, accounts.live_token(1));
    process.tokens[1].get().await.unwrap();
    assert_eq!(accounts.refreshes(), [1, 1]);
}

async fn a_slow_account_delays_no_other(harness: Harness) {
    let accounts = TwoAccounts::of(harness);
    let process = accounts.process().await;
    accounts.expired(&process).await;
    accounts.refuse(0, Fault::on(REFRESH).hang());
    let waiting: Vec<_> = (0..300).map(|_| spawn_get(&process.users[0])).collect();
    eventually("WeChat is asked", SOON, async || {
        accounts.refreshes()[0] == 1
    })
    .await;
    let served = get(&process.users[1]).await.unwrap();
    assert_eq!(served, accounts.live_token(1));
    for waiting in waiting {
        assert!(!waiting.is_finished(), "the other account was served first");
        waiting.abort();
    }
}

async fn stale_tokens_are_served_for_each_account(harness: Harness) {
    let accounts = TwoAccounts::of(harness);
    let process = accounts.process().await;
    accounts.log_in(&process, Duration::from_secs(6_400)).await;
    let old = [accounts.live_token(0), accounts.live_token(1)];
    accounts.refuse(0, Fault::on(REFRESH).errcode(-1));
    assert_eq!(get(&process.users[0]).await.unwrap(), old[0]);
    assert_eq!(get(&process.users[1]).await.unwrap(), old[1]);
    // Refreshes of tokens that have not expired keep the access token, with a new lifetime.
    let lifetime = async |account: usize| {
        let token = process.users[account].get(&id("oA")).await.unwrap();
        token.lifetime().freshness(accounts.harness.clock.now())
    };
    eventually("the other account's token is renewed", SOON, async || {
        lifetime(1).await == tower_wechat::credential::Freshness::Fresh
    })
    .await;
    let stale = lifetime(0).await;
    assert_eq!(stale, tower_wechat::credential::Freshness::Stale);
    assert_eq!(get(&process.users[0]).await.unwrap(), old[0]);
}

async fn a_report_renews_the_token_of_one_account(harness: Harness) {
    let accounts = TwoAccounts::of(harness);
    let (ours, theirs) = (accounts.process().await, accounts.process().await);
    for (app, users) in accounts.apps.iter().zip(&ours.users) {
        let mut wrong = grant(&app.sign_in("oA", "snsapi_userinfo"));
        wrong.access_token = "83_refused".into();
        users.store(&id("oA"), &wrong).await.unwrap();
    }
    for process in [&ours, &theirs] {
        let refused = "83_refused".into();
        let reported = process.users[0].report_invalid(&id("oA"), &refused).await;
        assert_eq!(text(&reported.unwrap()), accounts.live_token(0));
        assert_eq!(get(&process.users[1]).await.unwrap(), "83_refused");
    }
    assert_eq!(accounts.refreshes(), [1, 0]);
}

async fn own_tokens_and_quotas_are_separate(harness: Harness) {
    let accounts = TwoAccounts::of(harness);
    let (ours, theirs) = (accounts.process().await, accounts.process().await);
    let own = async |process: &Process, account: usize| {
        let token = process.tokens[account].get().await.unwrap();
        token.access_token().clone()
    };
    let tokens = [own(&ours, 0).await, own(&ours, 1).await];
    for (account, token) in tokens.iter().enumerate() {
        assert_eq!(&own(&theirs, account).await, token);
        let latest = accounts.apps[account].account_token();
        assert_eq!(latest.as_deref(), Some(token.expose()));
    }
    assert_ne!(tokens[0], tokens[1]);
    let tickets = [0, 1].map(|account| {
        let tickets = Tickets::new(&ours.tokens[account], ["h5.example.com"]);
        tickets.unwrap()
    });
    let [first, second] = [tickets[0].get().await, tickets[1].get().await];
    assert_ne!(first.unwrap().ticket(), second.unwrap().ticket());

    // A report replaces the token of the first account. All processes together may not replace it
    // again for a while.
    let next = ours.tokens[0].report_invalid(&tokens[0]).await.unwrap();
    eventually("the new token arrives", SOON, async || {
        &own(&theirs, 0).await == next.access_token()
    })
    .await;
    for process in [&ours, &theirs] {
        let outcome = process.tokens[0].report_invalid(next.access_token()).await;
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WechatUnavailable);
        assert!(error.retry_after().is_some(), "{error}");
    }
    let next = theirs.tokens[1].report_invalid(&tokens[1]).await.unwrap();
    assert_ne!(next.access_token(), &tokens[1]);
    assert_eq!(&own(&theirs, 1).await, next.access_token());
}

/// Names in Redis that belong to the store as a whole, as patterns of keys.
const SHARED_NAMES: [&str; 3] = ["~wechat:ping", "~wechat:sealing", "~wechat:lease:probe"];

/// Redis permits this test only keys and channels whose names contain one of the AppIDs, and logs
/// every refusal.
async fn every_name_in_redis_contains_the_appid(harness: Harness) {
    let accounts = TwoAccounts::of(harness);
    let Some(server) = &accounts.harness.redis else {
        return;
    };
    let mut rules = redis::cmd("ACL");
    rules.arg("SETUSER").arg(&["app", "on", ">word", "+@all"]);
    for app_id in [FIRST, SECOND] {
        rules
            .arg(format!("~*{app_id}*"))
            .arg(format!("&*{app_id}*"));
    }
    let () = rules
        .arg(&SHARED_NAMES)
        .query(&mut server.connection())
        .unwrap();
    let url = server.url().replace("redis://", "redis://app:word@");
    let (ours, theirs) = (
        accounts.process_in(&accounts.redis_store_at(&url).await),
        accounts.process_in(&accounts.redis_store_at(&url).await),
    );
    accounts.expired(&ours).await;
    for process in [&ours, &theirs] {
        for (users, tokens) in process.users.iter().zip(&process.tokens) {
            get(users).await.unwrap();
            let token = tokens.get().await.unwrap();
            let _ = tokens.report_invalid(token.access_token()).await;
            let tickets = Tickets::new(tokens, ["h5.example.com"]).unwrap();
            tickets.get().await.unwrap();
            users.health().await.unwrap();
        }
    }
    for users in &theirs.users {
        users.revoke(&id("oA")).await.unwrap();
    }
    let mut ask = redis::cmd("ACL");
    let refusals: Vec<redis::Value> = ask.arg("LOG").query(&mut server.connection()).unwrap();
    assert!(refusals.is_empty(), "{refusals:#?}");
}
