//! The labels of the contenders, in English and Chinese.

use crate::contender::Contender;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Language {
    English,
    Chinese,
}

use Language::{Chinese, English};

impl Language {
    pub fn pick<'a>(self, english: &'a str, chinese: &'a str) -> &'a str {
        if self == English { english } else { chinese }
    }
}

/// Returns the label of a contender in tables and in the plot.
pub fn label(contender: Contender, language: Language) -> String {
    let sessions = || {
        let (sessions, store) = (
            version("tower-sessions"),
            version("tower-sessions-redis-store"),
        );
        match language {
            English => format!("tower-sessions {sessions}, Redis store {store}"),
            Chinese => format!("tower-sessions {sessions}，Redis store {store}"),
        }
    };
    let pool = |name| match language {
        English => format!("HGET through {name} {}, header", version(name)),
        Chinese => format!("经 {name} {} 的 HGET，请求头", version(name)),
    };
    let text = match contender {
        Contender::Bare => {
            return format!(
                "{} {}",
                language.pick("bare axum", "裸 axum"),
                version("axum")
            );
        }
        Contender::Bb8 => return pool("bb8-redis"),
        Contender::Deadpool => return pool("deadpool-redis"),
        Contender::Sessions => return sessions(),
        Contender::SignedSessions => {
            return sessions() + language.pick(", signed cookie", "，签名 cookie");
        }
        Contender::OwnCacheHeader => ("hand-written cache, header", "手写进程内缓存，请求头"),
        Contender::OwnCacheCookie => (
            "hand-written cache, HMAC cookie",
            "手写进程内缓存，HMAC cookie",
        ),
        Contender::CachedHeader => (
            "tower-wechat, cached, header",
            "tower-wechat，命中缓存，请求头",
        ),
        Contender::CachedCookie => (
            "tower-wechat, cached, signed cookie",
            "tower-wechat，命中缓存，签名 cookie",
        ),
        Contender::Naive => ("HGET per request, header", "每个请求一次 HGET，请求头"),
        Contender::UncachedKeys => (
            "tower-wechat, no cache, keys, header",
            "tower-wechat，不缓存，keys 布局，请求头",
        ),
        Contender::UncachedHashes => (
            "tower-wechat, no cache, hashes, header",
            "tower-wechat，不缓存，hashes 布局，请求头",
        ),
        Contender::UncachedKeysCookie => (
            "tower-wechat, no cache, keys, signed cookie",
            "tower-wechat，不缓存，keys 布局，签名 cookie",
        ),
    };
    language.pick(text.0, text.1).to_owned()
}

/// Returns the version of a dependency with which this program is built.
fn version(package: &str) -> &'static str {
    let name = format!("name = \"{package}\"\nversion = \"");
    let lock = include_str!("../Cargo.lock");
    let version = lock
        .split(&name)
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    version.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_contain_known_versions() {
        for contender in Contender::ALL {
            for language in [English, Chinese] {
                assert!(!label(contender, language).contains("  "), "{contender}");
            }
        }
        assert!(version("tower-sessions").starts_with("0.14."));
    }
}
