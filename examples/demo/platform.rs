//! The third-party platform (第三方平台) of the demo: its settings from environment variables, its
//! routes, and its part of WeChat's release test (全网发布检测).

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde_json::{Value, json};
use tokio_util::task::TaskTracker;
use tower_wechat::credential::AppId;
use tower_wechat::platform::{Platform, PlatformPush, PushKeys};
use tower_wechat::{Error, Store, WechatClient};

use crate::accounts::Credentials;
use crate::api::AppState;
use crate::parts::Shared;
use crate::variables::{BoxError, read_variable};

/// The settings of the platform.
pub struct PlatformSettings {
    pub component: Credentials,
    keys: PushKeys,
}

impl PlatformSettings {
    /// Reads the four variables. Returns `None` if none of them is set.
    pub fn from_env() -> Result<Option<Self>, BoxError> {
        let app_id = read_variable("PLATFORM_APPID")?;
        let secret = read_variable("PLATFORM_SECRET")?;
        let tokens = read_variable("PLATFORM_TOKEN")?;
        let keys = read_variable("PLATFORM_AES_KEY")?;
        let set = [
            ("PLATFORM_APPID", &app_id),
            ("PLATFORM_SECRET", &secret),
            ("PLATFORM_TOKEN", &tokens),
            ("PLATFORM_AES_KEY", &keys),
        ];
        let set = set.into_iter().find(|(_, value)| value.is_some());
        let Some(set) = set.map(|(name, _)| name) else {
            return Ok(None);
        };
        let required = |value: Option<String>, name: &str, meaning: &str| {
            value.ok_or_else(|| {
                format!("{set} is set without {name}: set {name} to {meaning}, as open.weixin.qq.com shows it")
            })
        };
        let app_id = required(app_id, "PLATFORM_APPID", "the AppID of the platform")?;
        let secret = required(secret, "PLATFORM_SECRET", "the AppSecret of the platform")?;
        let tokens = required(tokens, "PLATFORM_TOKEN", "the 消息校验Token")?;
        let keys = required(keys, "PLATFORM_AES_KEY", "the 消息加解密Key")?;
        let app_id = AppId::new(app_id).map_err(|error| format!("PLATFORM_APPID: {error}"))?;
        let list = |text: &str| -> Vec<String> {
            text.split(',').map(|part| part.trim().to_owned()).collect()
        };
        // An error names the variable whose value is wrong, which is why the keys are checked alone.
        PushKeys::new(["other".to_owned()], list(&keys))
            .map_err(|error| format!("PLATFORM_AES_KEY: {error}"))?;
        let keys = PushKeys::new(list(&tokens), list(&keys))
            .map_err(|error| format!("PLATFORM_TOKEN: {error}"))?;
        let component = Credentials { app_id, secret };
        Ok(Some(Self { component, keys }))
    }

    /// Builds the platform with the client of its AppID.
    pub fn build<S: Store + Clone>(
        &self,
        component: &WechatClient,
        store: &S,
        open_url: Option<&str>,
    ) -> Result<Platform, BoxError> {
        let mut builder = Platform::builder(component.clone(), store.clone());
        // A replacement of open.weixin.qq.com also serves the pages of mp.weixin.qq.com.
        if let Some(url) = open_url {
            builder = builder.mp_url(url);
        }
        Ok(builder.push_keys(self.keys.clone()).build()?)
    }
}

/// The platform, and the messages that it is sending.
#[derive(Clone)]
pub struct DemoPlatform {
    pub platform: Platform,
    sending: TaskTracker,
    release_codes: Arc<Mutex<CodeAllowance>>,
}

/// Number of codes of the release test that this process exchanges within a minute. Any user of an
/// account can send such texts, and each costs a call of WeChat.
const RELEASE_CODES_A_MINUTE: u32 = 10;

/// The codes of the release test that were exchanged since the start of a minute.
struct CodeAllowance {
    since: Instant,
    codes: u32,
}

impl CodeAllowance {
    /// Counts a code. Returns `false` if this minute had too many.
    fn count(&mut self, now: Instant) -> bool {
        if now.duration_since(self.since) >= Duration::from_secs(60) {
            (self.since, self.codes) = (now, 0);
        }
        self.codes = self.codes.saturating_add(1);
        self.codes <= RELEASE_CODES_A_MINUTE
    }
}

impl DemoPlatform {
    pub fn new(platform: Platform) -> Self {
        Self {
            platform,
            sending: TaskTracker::new(),
            release_codes: Arc::new(Mutex::new(CodeAllowance {
                since: Instant::now(),
                codes: 0,
            })),
        }
    }

    /// Waits for messages, exchanges and renewals in progress.
    pub async fn shutdown(&self, timeout: Duration) {
        self.sending.close();
        let _ = tokio::time::timeout(timeout, self.sending.wait()).await;
        self.platform.shutdown(timeout).await;
    }

    /// Returns the routes of the platform, which stand above those of the accounts.
    pub fn routes(&self, shared: &Shared) -> Result<Router<AppState>, BoxError> {
        let return_url = format!("{}/wechat/platform/authorized", shared.addresses.public_url);
        let pages = self
            .platform
            .authorize_pages(return_url, &shared.keys)
            .map_err(|error| format!("PUBLIC_URL: {error}"))?;
        Ok(Router::new()
            .route(
                "/wechat/platform/push",
                post(receive).layer(self.platform.push_layer()),
            )
            // In a real application, a guard lets only its signed-in customers open these pages.
            .route_service("/wechat/platform/authorize", pages.clone())
            .route_service("/wechat/platform/authorized", pages.clone())
            .route_service("/wechat/platform/authorized/{state}", pages)
            .route("/api/accounts", get(accounts))
            .route_layer(Extension(self.clone())))
    }
}

/// `GET /api/accounts`: returns the AppIDs of the authorized accounts.
async fn accounts(Extension(demo): Extension<DemoPlatform>) -> Result<Json<Value>, Error> {
    let accounts = demo.platform.app_ids().await?;
    let accounts: Vec<_> = accounts.iter().map(AppId::as_str).collect();
    Ok(Json(json!({ "accounts": accounts })))
}

/// `POST /wechat/platform/push`: answers the messages that are not the library's. An empty text is no
/// reply. The layer encrypts a reply.
async fn receive(Extension(demo): Extension<DemoPlatform>, push: PlatformPush) -> String {
    let (Some("text"), Some(content)) = (push.msg_type(), push.text("Content")) else {
        return String::new();
    };
    let user = push.text("FromUserName").unwrap_or_default();
    if content == "TESTCOMPONENT_MSG_TYPE_TEXT" {
        let account = push.text("ToUserName").unwrap_or_default();
        return reply(&push, user, account, &format!("{content}_callback"));
    }
    if let Some(code) = content.strip_prefix("QUERY_AUTH_CODE:") {
        let mut codes = demo.release_codes.lock().expect("counting does not panic");
        if !codes.count(Instant::now()) {
            return String::new();
        }
        drop(codes);
        // WeChat waits for five seconds only, so the exchange runs behind the answer.
        let (code, user) = (code.to_owned(), user.to_owned());
        demo.sending.spawn({
            let platform = demo.platform.clone();
            async move {
                if let Err(error) = answer_release_test(&platform, &code, &user).await {
                    tracing::warn!(%error, "could not answer the release test of WeChat");
                }
            }
        });
    }
    String::new()
}

/// Returns the XML of a text message to a user.
fn reply(push: &PlatformPush, user: &str, account: &str, text: &str) -> String {
    let seconds = push
        .created()
        .map_or(0, |created| created.as_millis() / 1_000);
    format!(
        "<xml><ToUserName><![CDATA[{user}]]></ToUserName>\
         <FromUserName><![CDATA[{account}]]></FromUserName>\
         <CreateTime>{seconds}</CreateTime><MsgType><![CDATA[text]]></MsgType>\
         <Content><![CDATA[{text}]]></Content></xml>"
    )
}

/// Exchanges the code of WeChat's release test, and sends its user a message in the name of the account.
async fn answer_release_test(platform: &Platform, code: &str, user: &str) -> Result<(), Error> {
    let account = platform.authorize(code).await?;
    let wechat = platform.client(&account);
    let message = json!({
        "touser": user, "msgtype": "text", "text": { "content": format!("{code}_from_api") },
    });
    let path = "cgi-bin/message/custom/send";
    let _: Value = platform
        .account_tokens(&account)
        .with_token(async |token| wechat.post_json(path, token.access_token(), &message).await)
        .await?;
    Ok(())
}
