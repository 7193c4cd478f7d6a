//! The settings of the demo, from environment variables. The guide `src/guide/demo.md` lists them.

use std::time::Duration;

use axum::http::header::RETRY_AFTER;
use axum::http::{HeaderValue, Method};
use tower_http::cors::{AllowHeaders, CorsLayer};
use tower_wechat::account::AccountTokensBuilder;
use tower_wechat::redis::{RedisNames, SealingKeys};
use tower_wechat::user::UserTokensBuilder;
use tower_wechat::{RedisStore, Scope};

use crate::accounts::AccountSettings;
use crate::redis::{Layouts, build_redis, read_layouts, read_sealing_keys};
use crate::variables::{
    BoxError, as_browsers_write_it, read_choice, read_key, read_seconds, read_variable,
};
use crate::wechat::WechatSettings;

/// The settings of the demo, which environment variables set.
pub struct Settings {
    pub listen: String,
    pub public_url: Option<String>,
    pub redis_url: Option<String>,
    pub layouts: Layouts,
    pub sealing: Option<SealingKeys>,
    pub accounts: AccountSettings,
    pub wechat: WechatSettings,
    pub scope: Scope,
    pub cookie_key: Option<String>,
    pub session_name: Option<String>,
    pub trusted_header: Option<String>,
    /// Origins of front ends, in the form in which browsers write them.
    pub return_origins: Vec<String>,
    /// Names and contents of WeChat's verification files.
    pub verification: Vec<(String, String)>,
    pub times: TokenTimes,
    /// Bearer secrets of the token center, separated by commas.
    pub center_secrets: Option<String>,
}

/// The times of tokens.
#[derive(Clone, Copy)]
pub struct TokenTimes {
    renew_margin: Duration,
    cache_ttl: Duration,
}

impl TokenTimes {
    pub fn of_users(self, builder: UserTokensBuilder) -> UserTokensBuilder {
        builder
            .renew_margin(self.renew_margin)
            .cache_ttl(self.cache_ttl)
    }

    pub fn of_account(self, builder: AccountTokensBuilder) -> AccountTokensBuilder {
        builder.cache_ttl(self.cache_ttl)
    }
}

impl Settings {
    /// Reads all variables. The error names the variable and the remedy.
    pub fn from_env() -> Result<Self, BoxError> {
        let scopes = [
            ("snsapi_userinfo", Scope::UserInfo),
            ("snsapi_base", Scope::Base),
        ];
        let otherwise = "neither snsapi_userinfo nor snsapi_base";
        let public_url = read_variable("PUBLIC_URL")?;
        let trusted_header = read_variable("TRUSTED_USER_HEADER")?;
        Ok(Self {
            scope: read_choice("WECHAT_SCOPE", &scopes, otherwise)?.unwrap_or(Scope::UserInfo),
            listen: read_variable("LISTEN")?.unwrap_or_else(|| "127.0.0.1:3000".to_owned()),
            redis_url: read_variable("REDIS_URL")?,
            layouts: read_layouts()?,
            sealing: read_sealing_keys()?,
            accounts: AccountSettings::from_env(trusted_header.as_deref())?,
            wechat: WechatSettings::from_env()?,
            public_url: public_url
                .as_deref()
                .map(|url| as_browsers_write_it("PUBLIC_URL", url))
                .transpose()?,
            return_origins: parse_return_origins(read_variable("RETURN_ORIGINS")?.as_deref())?,
            cookie_key: read_key("COOKIE_KEY")?,
            session_name: read_variable("SESSION_NAME")?,
            trusted_header,
            verification: parse_verification_files(read_variable("VERIFICATION_FILE")?.as_deref())?,
            times: TokenTimes {
                renew_margin: read_seconds("RENEW_MARGIN_SECS", 900)?,
                cache_ttl: read_seconds("CACHE_TTL_SECS", 60)?,
            },
            center_secrets: read_variable("CENTER_TOKEN")?,
        })
    }

    /// Connects to Redis. Returns `None` if it is not configured.
    pub async fn connect_redis(&self) -> Result<Option<RedisStore>, BoxError> {
        let Some(url) = &self.redis_url else {
            return Ok(None);
        };
        let mut builder = build_redis(url)?.layout(self.layouts.read);
        if let Some(copy) = self.layouts.copy {
            builder = builder.dual_write(copy);
        }
        // The published names are those of one account.
        if self.accounts.has_several_apps() {
            builder = builder.names(RedisNames::default().with_appid());
        }
        if let Some(keys) = &self.sealing {
            builder = builder.sealing(keys.clone());
        }
        let store = builder.connect().await;
        Ok(Some(store.map_err(|error| format!("REDIS_URL: {error}"))?))
    }

    /// Returns the layer that lets scripts of the front ends read responses, with the user's
    /// cookies. Returns `None` without front ends.
    pub fn cors(&self) -> Result<Option<CorsLayer>, BoxError> {
        if self.return_origins.is_empty() {
            return Ok(None);
        }
        let origins = self.return_origins.iter();
        let origins: Vec<HeaderValue> = origins
            .map(|origin| origin.parse())
            .collect::<Result<_, _>>()?;
        let cors = CorsLayer::new()
            .allow_origin(origins)
            .allow_methods([Method::GET, Method::POST])
            .allow_headers(AllowHeaders::mirror_request())
            // Without this, scripts of another origin cannot read the time until their next attempt.
            .expose_headers([RETRY_AFTER])
            .allow_credentials(true);
        Ok(Some(cors))
    }
}

/// Parses the value `ORIGIN,ORIGIN` of `RETURN_ORIGINS`. `Login` checks the origins.
fn parse_return_origins(text: Option<&str>) -> Result<Vec<String>, BoxError> {
    let origins = text.into_iter().flat_map(|text| text.split(','));
    let origins = origins.map(|origin| as_browsers_write_it("RETURN_ORIGINS", origin.trim()));
    origins.collect()
}

/// Parses the value `NAME=CONTENT,NAME=CONTENT` of `VERIFICATION_FILE` into pairs of name and
/// content.
fn parse_verification_files(text: Option<&str>) -> Result<Vec<(String, String)>, BoxError> {
    let files = text.into_iter().flat_map(|text| text.split(','));
    let mut pairs: Vec<(String, String)> = Vec::new();
    for file in files {
        let Some((name, content)) = file.split_once('=') else {
            return Err(format!(
                "VERIFICATION_FILE: {file:?} is not NAME=CONTENT, such as MP_verify_Ab1c.txt=Ab1c"
            )
            .into());
        };
        let (name, content) = (name.trim(), content.trim());
        if pairs.iter().any(|(other, _)| other == name) {
            return Err(format!("VERIFICATION_FILE has the file {name} twice: keep one").into());
        }
        pairs.push((name.to_owned(), content.to_owned()));
    }
    Ok(pairs)
}
