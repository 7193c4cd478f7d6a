//! The connection to Redis, from options and environment variables.

use std::time::Duration;

use tower_wechat::RedisStore;
use tower_wechat::admin::{self, ScanOptions};
use tower_wechat::redis::{Layout, RedisNames, RedisStoreBuilder, SealingKeys};

use crate::options::{CliError, Command, Options, TargetLayout, UsageError, non_empty};

/// Connects to the Redis that the options and environment variables name. If the command is about a
/// third-party platform or one of its accounts, each name gets `{appid}`, as in the services of the
/// platform.
pub(crate) async fn connect_store(
    options: &Options,
    scan: &ScanOptions,
) -> Result<RedisStore, CliError> {
    if non_empty(options.component.as_deref()).is_some() {
        return connect_with(options, RedisNames::with_appid).await;
    }
    let store = connect_with(options, |names| names).await?;
    match &options.command {
        Command::Migrate { .. } | Command::Reseal { .. }
            if admin::is_platform(&store, scan).await? =>
        {
            connect_with(options, RedisNames::with_appid).await
        }
        Command::Show { .. }
        | Command::List { .. }
        | Command::Sweep { .. }
        | Command::Migrate { .. }
        | Command::Reseal { .. }
        | Command::Accounts
        | Command::Import { .. } => Ok(store),
    }
}

/// Connects with the names of the settings, which `change_names` changes.
async fn connect_with(
    options: &Options,
    change_names: impl FnOnce(RedisNames) -> RedisNames,
) -> Result<RedisStore, CliError> {
    let url = non_empty(options.redis_url.as_deref()).ok_or_else(|| {
        UsageError::new("which Redis? Set REDIS_URL or --redis-url, such as redis://127.0.0.1/")
    })?;
    let mut layout = options.source_layout()?;
    if let Command::Migrate { to, .. } = &options.command {
        // The store of a migration reads the source layout, which is the layout that `--to` does
        // not name.
        layout = match to {
            TargetLayout::Hashes => Layout::Keys,
            TargetLayout::Keys => Layout::Hashes,
        };
    }
    let mut builder = connection(options, url)?.layout(layout);
    let mut names = RedisNames::default();
    if let Some(block) = non_empty(options.names.as_deref()) {
        names = serde_json::from_str(block).map_err(|error| {
            UsageError::new(format!(
                "REDIS_NAMES is not the JSON block of names: {error}"
            ))
        })?;
    }
    builder = builder.names(change_names(names));
    if let Some(keys) = read_variable("SEALING_KEY") {
        let mut keys = SealingKeys::from_base64(&keys)
            .map_err(|error| UsageError::new(format!("SEALING_KEY: {error}")))?;
        if let Some(mode) = read_variable("SEALING_MODE") {
            keys = keys.mode(
                mode.parse()
                    .map_err(|error| UsageError::new(format!("SEALING_MODE: {error}")))?,
            );
        }
        builder = builder.sealing(keys);
    } else if matches!(options.command, Command::Reseal { .. }) {
        let message = "which keys? Set SEALING_KEY, the new key first and the old ones after it";
        return Err(UsageError::new(message).into());
    }
    Ok(builder.connect().await?)
}

/// Connects to the Redis of another system, from which `import` copies.
pub(crate) async fn connect_source(options: &Options, url: &str) -> Result<RedisStore, CliError> {
    // No key of this crate is read there. Another prefix leaves the registry of sealing keys alone,
    // if services of this crate also use that Redis.
    let mut names = RedisNames::default();
    names.prefix = "tower-wechat-import:".to_owned();
    let builder = connection(options, url)?.layout(Layout::Keys).names(names);
    let connected = builder.connect().await;
    Ok(connected.map_err(|error| format!("--source-url: {error}"))?)
}

/// Returns a builder with the address, the certificates and the timeout of a connection.
fn connection(options: &Options, url: &str) -> Result<RedisStoreBuilder, CliError> {
    let mut builder = RedisStore::builder(url).command_timeout(Duration::from_secs(10));
    if let Some(authority) = read_file("REDIS_CA", options.redis_ca.as_deref())? {
        builder = builder.certificate_authority(authority);
    }
    let certificate = read_file("REDIS_CLIENT_CERT", options.redis_client_cert.as_deref())?;
    let key = read_file("REDIS_CLIENT_KEY", options.redis_client_key.as_deref())?;
    builder = match (certificate, key) {
        (Some(certificate), Some(key)) => builder.client_certificate(certificate, key),
        (None, None) => builder,
        _ => {
            let message = "set both of REDIS_CLIENT_CERT and REDIS_CLIENT_KEY, or neither";
            return Err(UsageError::new(message).into());
        }
    };
    if let Some(password) = read_variable("REDIS_SENTINEL_PASSWORD") {
        let user = read_variable("REDIS_SENTINEL_USER").unwrap_or_default();
        builder = builder.sentinel_credentials(user, password);
    }
    Ok(builder)
}

/// Returns the value of an environment variable, unless it is unset or empty.
fn read_variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Reads the file at `path`. Returns `None` if `path` is unset or empty. Errors contain the name of
/// the setting.
fn read_file(setting: &str, path: Option<&str>) -> Result<Option<Vec<u8>>, CliError> {
    match non_empty(path) {
        Some(path) => match std::fs::read(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) => Err(format!("{setting}={path}: {error}").into()),
        },
        None => Ok(None),
    }
}
