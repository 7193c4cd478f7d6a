//! The options and commands of the command line.

use std::fmt;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tower_wechat::admin::{ScanOptions, TokenState};
use tower_wechat::credential::AppId;
use tower_wechat::redis::{ExternalPlatform, Layout};

/// An error as a sentence for the operator.
pub(crate) type CliError = Box<dyn std::error::Error>;

/// A setting is missing or invalid. The program exits with 2, as for an option.
#[derive(Debug)]
pub(crate) struct UsageError(String);

impl UsageError {
    pub(crate) fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// Shows and maintains the WeChat tokens in Redis while services run. The output contains no
/// tokens; a fingerprint is the start of a token's SHA-256.
#[derive(Debug, Parser)]
#[command(
    version,
    propagate_version = true,
    after_help = "\
SEALING_KEY, SEALING_MODE, REDIS_SENTINEL_USER and REDIS_SENTINEL_PASSWORD are read from the
environment alone, where `ps` does not show them.
Exit codes: 0 done, 1 failed or something is left, 2 an option or a variable is wrong."
)]
pub(crate) struct Options {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// The URL of Redis: redis://[user:password@]host:port/db, redis+sentinel://h:p,h:p/group or
    /// redis+cluster://h:p,h:p; with TLS rediss://, rediss+sentinel://, rediss+cluster://
    #[arg(long, env = "REDIS_URL", hide_env_values = true, global = true)]
    pub(crate) redis_url: Option<String>,
    /// File of the CA certificate for Redis (PEM); otherwise the CAs of the system are used
    #[arg(long, env = "REDIS_CA", global = true)]
    pub(crate) redis_ca: Option<String>,
    /// File of the client certificate for Redis (PEM)
    #[arg(long, env = "REDIS_CLIENT_CERT", global = true)]
    pub(crate) redis_client_cert: Option<String>,
    /// File of the key of the client certificate (PEM)
    #[arg(long, env = "REDIS_CLIENT_KEY", global = true)]
    pub(crate) redis_client_key: Option<String>,
    /// The layout that the services read: hashes or keys
    #[arg(long, env = "REDIS_LAYOUT", global = true)]
    pub(crate) layout: Option<String>,
    /// The AppID of the account
    #[arg(long, env = "WECHAT_APPID", global = true)]
    pub(crate) app_id: Option<String>,
    /// The AppID of the third-party platform (component_appid); alone for the platform itself, with
    /// --app-id for one of its accounts
    #[arg(long, env = "PLATFORM_APPID", global = true)]
    pub(crate) component: Option<String>,
    /// The names in Redis that differ from the defaults, in the JSON format of the services
    #[arg(long, env = "REDIS_NAMES", global = true)]
    pub(crate) names: Option<String>,
    /// The margin that the services use for renewals, in seconds
    #[arg(long, env = "RENEW_MARGIN_SECS", default_value_t = 900, global = true)]
    pub(crate) margin_secs: u64,
    /// The pause after each step of about two hundred users, in milliseconds
    #[arg(long, default_value_t = 5, global = true)]
    pub(crate) pause_ms: u64,
    /// Print one JSON object on each line of stdout
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Shows the state of users' tokens
    Show {
        /// User ids
        #[arg(required = true)]
        users: Vec<String>,
    },
    /// Lists users, all of them or those in a state
    List {
        /// Only users in this state; may be given several times
        #[arg(long)]
        state: Vec<StateFilter>,
        /// Maximum number of users in the output
        #[arg(long)]
        limit: Option<u64>,
    },
    /// Removes expired tokens from the hash layout; in the key layout, Redis expires them
    Sweep {
        #[command(flatten)]
        dry: DryRunArgs,
    },
    /// Copies the records into the other layout, unless it holds newer ones
    Migrate {
        /// The layout to copy into
        #[arg(long)]
        to: TargetLayout,
        #[command(flatten)]
        dry: DryRunArgs,
    },
    /// Seals all values with the first key of SEALING_KEY (with SEALING_MODE=open: unseals them)
    Reseal {
        /// Keep the old keys in the registry of keys, if another account still uses them
        #[arg(long)]
        keep_marks: bool,
        #[command(flatten)]
        dry: DryRunArgs,
    },
    /// Shows a third-party platform and the states of its accounts
    Accounts,
    /// Copies the secrets of a third-party platform from the keys of another system, unless newer
    /// ones are stored
    Import {
        /// The system that has written the keys
        #[arg(long)]
        from: SourceSystem,
        /// The prefix of that system's keys [default: wx:open for wxjava, wechatpy for wechatpy]
        #[arg(long)]
        prefix: Option<String>,
        /// The URL of that system's Redis, unless it is the Redis of --redis-url
        #[arg(long, env = "SOURCE_REDIS_URL", hide_env_values = true)]
        source_url: Option<String>,
        #[command(flatten)]
        dry: DryRunArgs,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum SourceSystem {
    /// WxJava, with the keys of WxOpenInRedisConfigStorage
    Wxjava,
    /// wechatpy, with the keys of its RedisStorage
    Wechatpy,
}

impl SourceSystem {
    /// Returns the keys of the system, under its default prefix or the one of the command line.
    pub(crate) fn keys(self, prefix: Option<&str>) -> ExternalPlatform {
        let platform = match self {
            Self::Wxjava => ExternalPlatform::wx_java(),
            Self::Wechatpy => ExternalPlatform::wechatpy(),
        };
        match prefix {
            Some(prefix) => platform.prefix(prefix),
            None => platform,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct DryRunArgs {
    /// Report what would be done, and write nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum TargetLayout {
    Hashes,
    Keys,
}

impl fmt::Display for TargetLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hashes => "hashes",
            Self::Keys => "keys",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StateFilter {
    /// Usable, not due for renewal
    Fresh,
    /// Usable, due for renewal
    Stale,
    /// Expired; the user's next request renews it
    Expired,
    /// Expired and not renewable; the user has to log in
    Dead,
    /// Not readable
    Unreadable,
    /// Sealed with a key that SEALING_KEY does not have
    OtherKey,
}

impl StateFilter {
    /// Returns the filter that selects users in this state, if there is one.
    pub(crate) fn matching(state: TokenState) -> Option<Self> {
        match state {
            TokenState::Fresh => Some(Self::Fresh),
            TokenState::Stale => Some(Self::Stale),
            TokenState::Expired => Some(Self::Expired),
            TokenState::Dead => Some(Self::Dead),
            TokenState::Unreadable => Some(Self::Unreadable),
            TokenState::UnknownKey => Some(Self::OtherKey),
            // A list contains no user without a record, so no filter selects this state.
            TokenState::Absent => None,
        }
    }
}

impl Options {
    /// Returns the options of a task from the command line.
    pub(crate) fn scan_options(&self) -> Result<ScanOptions, CliError> {
        let component = non_empty(self.component.as_deref());
        let component = component.map(|app| ("PLATFORM_APPID", app));
        let account = non_empty(self.app_id.as_deref()).map(|app| ("WECHAT_APPID", app));
        let (name, app) = match &self.command {
            Command::Accounts | Command::Import { .. } => component.ok_or_else(|| UsageError::new(
                "which platform? Set PLATFORM_APPID or --component to its own AppID",
            ))?,
            Command::Migrate { .. } | Command::Reseal { .. } => {
                account.or(component).ok_or_else(|| UsageError::new(
                    "which account? Set WECHAT_APPID or --app-id to its AppID, or PLATFORM_APPID \
                     to that of the platform",
                ))?
            }
            Command::Show { .. } | Command::List { .. } | Command::Sweep { .. } => account.ok_or_else(|| {
                UsageError::new("which account? Set WECHAT_APPID or --app-id to its AppID")
            })?,
        };
        let app = AppId::new(app).map_err(|error| UsageError::new(format!("{name}: {error}")))?;
        Ok(ScanOptions {
            app,
            margin: Duration::from_secs(self.margin_secs),
            pause: Duration::from_millis(self.pause_ms),
            dry_run: self.command.is_dry_run(),
        })
    }

    /// Returns the layout that the services read: the first one of `REDIS_LAYOUT`.
    pub(crate) fn source_layout(&self) -> Result<Layout, CliError> {
        let named = non_empty(self.layout.as_deref()).unwrap_or("hashes");
        match named.split('+').next() {
            Some("hashes") => Ok(Layout::Hashes),
            Some("keys") => Ok(Layout::Keys),
            _ => Err(
                UsageError::new(format!("REDIS_LAYOUT={named} is neither hashes nor keys")).into(),
            ),
        }
    }
}

impl Command {
    pub(crate) fn is_dry_run(&self) -> bool {
        match self {
            Self::Show { .. } | Self::List { .. } | Self::Accounts => false,
            Self::Sweep { dry }
            | Self::Migrate { dry, .. }
            | Self::Reseal { dry, .. }
            | Self::Import { dry, .. } => dry.dry_run,
        }
    }
}

/// Returns the value of a setting, or `None` if the setting is unset or empty.
pub(crate) fn non_empty(value: Option<&str>) -> Option<&str> {
    value.filter(|value| !value.is_empty())
}
