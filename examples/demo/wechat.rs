//! The clients of WeChat's API from environment variables, and a simulator of WeChat.

use tower_wechat::WechatClient;
use tower_wechat::simulator::{SimulatedUser, Simulator};

use crate::accounts::{AccountSettings, Credentials};
use crate::variables::{BoxError, read_choice, read_variable};

/// The settings of the clients of WeChat's API.
pub struct WechatSettings {
    api_url: Option<String>,
    pub open_url: Option<String>,
    proxy: Option<String>,
    /// `true` if the simulator asks users for consent before it logs them in.
    asks_consent: bool,
}

/// The clients of all accounts, which share their connections, and the simulator that they call.
pub struct Clients {
    /// The clients of the listed accounts.
    pub accounts: Vec<WechatClient>,
    /// The client of the platform.
    pub component: Option<WechatClient>,
    /// The client of the website app.
    pub website: Option<WechatClient>,
    /// The simulator of WeChat, which stops when it is dropped. `None` if a real account is
    /// configured.
    pub simulator: Option<Simulator>,
}

impl WechatSettings {
    /// Reads the variables of WeChat and of the simulator.
    pub fn from_env() -> Result<Self, BoxError> {
        let consent = read_choice("SIMULATOR_CONSENT", &[("ask", true)], "not ask")?;
        Ok(Self {
            api_url: read_variable("WECHAT_API_URL")?,
            open_url: read_variable("WECHAT_OPEN_URL")?,
            proxy: read_proxy()?,
            asks_consent: consent.unwrap_or(false),
        })
    }

    /// Returns the clients of the accounts. Starts the simulator that they call if no account is
    /// configured.
    pub async fn connect(&self, settings: &AccountSettings) -> Result<Clients, BoxError> {
        let simulator = match settings.simulated {
            true => Some(self.start_simulator(settings).await?),
            false => None,
        };
        let simulator_url = || Some(simulator.as_ref()?.url().to_owned());
        let platform = settings.platform.as_ref();
        let apps = platform.map(|platform| &platform.component);
        let apps: Vec<_> = apps.into_iter().chain(&settings.accounts).collect();
        let [first, others @ ..] = &*apps else {
            return Err("there is no account".into());
        };
        let mut builder = WechatClient::builder(first.app_id.as_str(), &*first.secret);
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
        let client = builder.build()?;
        let of = |app: &Credentials| client.for_account(app.app_id.as_str(), &*app.secret);
        let others = others.iter().copied().map(of);
        let others = others.collect::<Result<Vec<_>, _>>()?;
        let website = settings.website.as_ref().map(of).transpose()?;
        let (component, first) = match platform {
            Some(_) => (Some(client), None),
            None => (None, Some(client)),
        };
        Ok(Clients {
            accounts: first.into_iter().chain(others).collect(),
            component,
            website,
            simulator,
        })
    }

    /// Starts a simulator with these accounts and three users. A browser logs in as the active
    /// user, which at first is the user that is added last.
    async fn start_simulator(&self, settings: &AccountSettings) -> Result<Simulator, BoxError> {
        let [first, others @ ..] = &*settings.accounts else {
            return Err("there is no account".into());
        };
        let first = Simulator::builder().app(first.app_id.as_str(), &first.secret);
        let simulator = first.start().await?;
        for account in others {
            simulator.add_account(account.app_id.as_str(), &account.secret);
        }
        if let Some(website) = &settings.website {
            simulator.add_website(website.app_id.as_str(), &website.secret);
        }
        simulator.settings(|settings| settings.auto_approve = !self.asks_consent);
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
