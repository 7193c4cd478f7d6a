//! The environment variables of a server's process.

use tower_wechat::redis::Layout;

/// The environment variable with the URL of Redis.
pub const REDIS_URL: &str = "LOAD_REDIS_URL";

/// The environment variable with the layout that the cached servers of this crate read. `keys`
/// means [`Layout::Keys`], and without the variable the servers read [`Layout::Hashes`].
pub const LAYOUT: &str = "LOAD_LAYOUT";

pub fn redis_url() -> String {
    std::env::var(REDIS_URL).expect("the URL of Redis")
}

/// Returns the layout that the variable [`LAYOUT`] names, or [`Layout::Hashes`] by default.
pub fn layout() -> Layout {
    match std::env::var(LAYOUT).as_deref() {
        Ok("keys") => Layout::Keys,
        _ => Layout::Hashes,
    }
}
