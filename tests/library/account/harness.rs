//! A simulator with a clock that tests advance, and the handles that tests create for it.

use std::time::Duration;

use tower_wechat::account::AccountTokensBuilder;
use tower_wechat::clock::Clock;
use tower_wechat::simulator::{Simulator, SimulatorSettings};
use tower_wechat::{AccountTokens, Error, MemoryStore, RedisStore, Store, Tickets, WechatClient};

use crate::support::until_midnight_in_beijing;

pub(crate) const STABLE: &str = "/cgi-bin/stable_token";
pub(crate) const PLAIN: &str = "/cgi-bin/token";
pub(crate) const TICKET: &str = "/cgi-bin/ticket/getticket";
pub(crate) const CALL: &str = "/cgi-bin/get_api_domain_ip";

pub(crate) fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(crate) struct Harness {
    pub(crate) sim: Simulator,
    pub(crate) clock: Clock,
}

impl Harness {
    pub(crate) async fn start() -> Self {
        let sim = Simulator::start().await.unwrap();
        Self {
            sim,
            clock: Clock::shifted(),
        }
    }

    pub(crate) fn settings(&self, change: impl FnOnce(&mut SimulatorSettings)) {
        self.sim.settings(change);
    }

    /// Advances the clocks of WeChat and of this process.
    pub(crate) fn advance(&self, span: Duration) {
        self.sim.advance(span);
        self.clock.advance(span);
    }

    /// Advances the clocks to the start of a day of WeChat's quotas.
    pub(crate) fn advance_to_midnight(&self) {
        self.advance(until_midnight_in_beijing(self.sim.now()));
    }

    pub(crate) fn wechat(&self) -> WechatClient {
        WechatClient::builder(self.sim.app_id(), self.sim.app_secret())
            .api_url(self.sim.url())
            .timeout(secs(2))
            .clock(self.clock.clone())
            .build()
            .unwrap()
    }

    pub(crate) fn builder(&self, store: impl Store) -> AccountTokensBuilder {
        AccountTokens::builder(self.wechat(), store).clock(self.clock.clone())
    }

    pub(crate) fn accounts(&self) -> AccountTokens {
        self.builder(self.memory()).build()
    }

    pub(crate) fn memory(&self) -> MemoryStore {
        MemoryStore::with_clock(self.clock.clone())
    }

    pub(crate) async fn redis(&self, url: &str) -> RedisStore {
        RedisStore::builder(url)
            .clock(self.clock.clone())
            .connect()
            .await
            .unwrap()
    }

    pub(crate) fn tickets(&self, accounts: &AccountTokens) -> Tickets {
        Tickets::new(accounts, ["h5.example.com"]).unwrap()
    }

    /// Calls an API of WeChat with the account's token. If WeChat rejects the token, the call is
    /// made again with a new one.
    pub(crate) async fn call(&self, accounts: &AccountTokens) -> Result<(), Error> {
        let wechat = self.wechat();
        let path = CALL.trim_start_matches('/');
        accounts
            .with_token(async |token| {
                let reply: Result<serde_json::Value, _> =
                    wechat.get_json(path, token.access_token(), &[]).await;
                reply.map(drop)
            })
            .await
    }

    pub(crate) fn alive(&self, token: &tower_wechat::AccountToken) -> bool {
        self.sim
            .is_account_token_valid(token.access_token().expose())
    }
}
