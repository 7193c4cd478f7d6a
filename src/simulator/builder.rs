//! The builder of the simulator.

use std::{io, sync::Arc};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{
    app::SimulatedApp,
    app_index::AppIndex,
    handle::Simulator,
    http,
    settings::SimulatorSettings,
    state::{SharedState, SimulatedWechat},
};

/// A builder of [`Simulator`], from [`Simulator::builder`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// use tower_wechat::simulator::Simulator;
///
/// let sim = Simulator::builder()
///     .app("wx5a6b7c8d9e0f1a2b", "a secret")
///     .listen("127.0.0.1:0")
///     .settings(|settings| settings.auto_approve = false)
///     .start()
///     .await?;
/// assert_eq!(sim.app_id(), "wx5a6b7c8d9e0f1a2b");
/// # sim.stop().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct SimulatorBuilder {
    app_id: String,
    app_secret: String,
    listen: String,
    settings: SimulatorSettings,
}

impl Simulator {
    /// Starts a simulator on a free port of 127.0.0.1, in the current tokio runtime. The simulator
    /// has an account and one user.
    ///
    /// # Errors
    ///
    /// The server cannot listen, for example because no port is free.
    pub async fn start() -> io::Result<Self> {
        Self::builder().start().await
    }

    /// Returns a builder, which sets the account, the address and the settings before the start.
    pub fn builder() -> SimulatorBuilder {
        SimulatorBuilder::new()
    }
}

impl SimulatorBuilder {
    fn new() -> Self {
        Self {
            app_id: "wx0123456789abcdef".to_owned(),
            app_secret: "0123456789abcdef0123456789abcdef".to_owned(),
            listen: "127.0.0.1:0".to_owned(),
            settings: SimulatorSettings::default(),
        }
    }

    /// Sets the AppID and the AppSecret of the first account. Default: `wx0123456789abcdef` and
    /// `0123456789abcdef0123456789abcdef`.
    pub fn app(mut self, app_id: impl Into<String>, app_secret: impl Into<String>) -> Self {
        self.app_id = app_id.into();
        self.app_secret = app_secret.into();
        self
    }

    /// Sets the address to listen on, `HOST:PORT`. Default: `127.0.0.1:0`, a free port.
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.listen = address.into();
        self
    }

    /// Changes the settings with which the simulator starts, by a closure over the current
    /// settings.
    pub fn settings<R>(mut self, change: impl FnOnce(&mut SimulatorSettings) -> R) -> Self {
        change(&mut self.settings);
        self
    }

    /// Starts the server in the current tokio runtime.
    ///
    /// # Errors
    ///
    /// The address is invalid, or the server cannot listen on it.
    pub async fn start(self) -> io::Result<Simulator> {
        let listener = TcpListener::bind(&self.listen).await?;
        let address = listener.local_addr()?;
        let wechat = SimulatedWechat::new(self.app_id, self.app_secret.clone(), self.settings);
        let shared = Arc::new(SharedState::new(wechat));
        let finish = CancellationToken::new();
        let server = http::serve(listener, &shared, finish.clone());
        let url = format!("http://{address}");
        Ok(Simulator {
            first: SimulatedApp::new(&url, AppIndex::FIRST, &shared),
            app_secret: self.app_secret,
            shared,
            graceful_stop: finish,
            server: Some(server),
        })
    }
}
