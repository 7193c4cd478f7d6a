//! The Redis store and its sealing keys, from environment variables.

use tower_wechat::RedisStore;
use tower_wechat::redis::{Layout, RedisStoreBuilder, SealingKeys};

use crate::variables::{BoxError, read_choice, read_key, read_named_file, read_variable};

/// The layout that is read, and the layout that receives copies of all writes during a migration.
#[derive(Clone, Copy)]
pub struct Layouts {
    pub read: Layout,
    pub copy: Option<Layout>,
}

/// Returns the builder of the store, with the certificates and the Sentinels' credentials that
/// environment variables name.
pub fn build_redis(url: &str) -> Result<RedisStoreBuilder, BoxError> {
    let mut redis = RedisStore::builder(url);
    if let Some(authority) = read_named_file("REDIS_CA")? {
        redis = redis.certificate_authority(authority);
    }
    redis = match (
        read_named_file("REDIS_CLIENT_CERT")?,
        read_named_file("REDIS_CLIENT_KEY")?,
    ) {
        (Some(certificate), Some(key)) => redis.client_certificate(certificate, key),
        (None, None) => redis,
        _ => return Err("set both of REDIS_CLIENT_CERT and REDIS_CLIENT_KEY, or neither".into()),
    };
    redis = match (
        read_variable("REDIS_SENTINEL_USER")?,
        read_variable("REDIS_SENTINEL_PASSWORD")?,
    ) {
        (user, Some(password)) => redis.sentinel_credentials(user.unwrap_or_default(), password),
        (None, None) => redis,
        (Some(_), None) => {
            return Err("REDIS_SENTINEL_USER is set without REDIS_SENTINEL_PASSWORD".into());
        }
    };
    Ok(redis)
}

/// Returns the layouts that `REDIS_LAYOUT` names. Default: hashes, without copies in the other
/// layout.
pub fn read_layouts() -> Result<Layouts, BoxError> {
    let layouts = |read, copy| Layouts { read, copy };
    let choices = [
        ("hashes", layouts(Layout::Hashes, None)),
        ("keys", layouts(Layout::Keys, None)),
        ("hashes+keys", layouts(Layout::Hashes, Some(Layout::Keys))),
        ("keys+hashes", layouts(Layout::Keys, Some(Layout::Hashes))),
    ];
    let otherwise = "neither hashes nor keys (nor both, with a +)";
    let chosen = read_choice("REDIS_LAYOUT", &choices, otherwise)?;
    Ok(chosen.unwrap_or(layouts(Layout::Hashes, None)))
}

/// Returns the keys that encrypt values in Redis, with the mode of `SEALING_MODE`. Returns `None`
/// if `SEALING_KEY` is not set.
pub fn read_sealing_keys() -> Result<Option<SealingKeys>, BoxError> {
    let keys = match read_key("SEALING_KEY")? {
        Some(keys) => {
            Some(SealingKeys::from_base64(&keys).map_err(|error| format!("SEALING_KEY: {error}"))?)
        }
        None => None,
    };
    match (keys, read_variable("SEALING_MODE")?) {
        (Some(keys), Some(mode)) => {
            let mode = mode
                .parse()
                .map_err(|error| format!("SEALING_MODE: {error}"))?;
            Ok(Some(keys.mode(mode)))
        }
        (None, Some(_)) => Err("SEALING_MODE is set without SEALING_KEY".into()),
        (keys, None) => Ok(keys),
    }
}
