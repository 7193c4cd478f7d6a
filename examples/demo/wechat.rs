//! The account at WeChat from environment variables, or a simulator of WeChat.

use tower_wechat::WechatClient;
use tower_wechat::simulator::{SimulatedUser, Simulator};

use crate::variables::{BoxError, read_choice, read_variable};

/// The settings of the client of WeChat's API.
pub struct WechatSettings {
    /// AppID and AppSecret. `None` starts a simulator.
    pub account: Option<(String, String)>,
    api_url: Option<String>,
    pub open_url: Option<String>,
    proxy: Option<String>,
    /// `true` if the simulator asks users for consent before it logs them in.
    asks_consent: bool,
}

impl WechatSettings {
    /// Reads the variables of WeChat and of the simulator.
    pub fn from_env() -> Result<Self, BoxError> {
        let account = match (
            read_variable("WECHAT_APPID")?,
            read_variable("WECHAT_SECRET")?,
        ) {
            (Some(app_id), Some(secret)) => Some((app_id, secret)),
            (None, None) => None,
            _ => return Err("set both of WECHAT_APPID and WECHAT_SECRET, or neither".into()),
        };
        let consent = read_choice("SIMULATOR_CONSENT", &[("ask", true)], "not ask")?;
        Ok(Self {
            account,
            api_url: read_variable("WECHAT_API_URL")?,
            open_url: read_variable("WECHAT_OPEN_URL")?,
            proxy: read_proxy()?,
            asks_consent: consent.unwrap_or(false),
        })
    }

    /// Returns the client of WeChat, and the simulator that the client calls if no account is
    /// configured.
    pub async fn connect(&self) -> Result<(WechatClient, Option<Simulator>), BoxError> {
        let simulator = match self.account {
            Some(_) => None,
            None => Some(start_simulator(self.asks_consent).await?),
        };
        let (app_id, secret) = match (&self.account, &simulator) {
            (Some((app_id, secret)), _) => (app_id.as_str(), secret.as_str()),
            (None, Some(simulator)) => (simulator.app_id(), simulator.app_secret()),
            (None, None) => return Err("there is no account".into()),
        };
        let simulator_url = || {
            let simulator = simulator.as_ref()?;
            Some(simulator.url().to_owned())
        };
        let mut builder = WechatClient::builder(app_id, secret);
        if let Some(url) = self.api_url.clone().or_else(simulator_url) {
            builder = builder.api_url(url);
        }
        if let Some(url) = self.open_url.clone().or_else(simulator_url) {
            builder = builder.open_url(url);
        }
        match &self.proxy {
            // The simulator runs in this process, and needs no proxy.
            Some(_) if simulator.is_some() && self.api_url.is_none() => {
                tracing::warn!("WECHAT_PROXY is not used: WECHAT_APPID is not set");
            }
            Some(url) => builder = builder.proxy(url),
            None => {}
        }
        Ok((builder.build()?, simulator))
    }
}

/// Returns the URL of the forward proxy. Checks the URL by building a client with no other setting,
/// so that an error names `WECHAT_PROXY`.
fn read_proxy() -> Result<Option<String>, BoxError> {
    let url = read_variable("WECHAT_PROXY")?;
    if let Some(url) = &url {
        let client = WechatClient::builder("wx0", "none").api_url("http://127.0.0.1");
        client
            .proxy(url)
            .build()
            .map_err(|error| format!("WECHAT_PROXY: {error}"))?;
    }
    Ok(url)
}

/// Starts a simulator with three users. A browser logs in as the active user, which at first is
/// the user that is added last.
async fn start_simulator(asks_consent: bool) -> std::io::Result<Simulator> {
    let simulator = Simulator::start().await?;
    simulator.settings(|settings| settings.auto_approve = !asks_consent);
    let snapshot_user = SimulatedUser::random().nickname("快照用户").snapshot(true);
    for user in [
        snapshot_user,
        SimulatedUser::random().nickname("Ada Lovelace"),
        SimulatedUser::random()
            .nickname("林晓雨")
            .unionid("oUnion-linxiaoyu-demo"),
    ] {
        simulator.add_user(user);
    }
    Ok(simulator)
}
