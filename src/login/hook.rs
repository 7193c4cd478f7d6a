//! The hook of an application, which chooses the user id at the end of a login.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::credential::{AccessToken, AppId, UserId};
use crate::error::Error;
use crate::guarded_call::{error_chain, run_guarded};
use crate::store::BoxFuture;
use crate::wechat::{Language, UserInfo, UserTokenResponse, WechatClient};

/// The user of a login that is about to succeed, for the hook of
/// [`LoginBuilder::on_login`](super::LoginBuilder::on_login). Cheap to clone.
///
/// The hook finds or creates the user in the application's database:
///
/// ```
/// use tower_wechat::Error;
/// use tower_wechat::login::LoginUser;
///
/// async fn user_id(user: LoginUser) -> Result<String, Error> {
///     // Only with the scope `snsapi_userinfo`:
///     let profile = user.profile().await?;
///     println!("{} logs in with {:?}", profile.nickname, user.scope());
///     // The unionid is the same in all apps of one Open Platform account.
///     Ok(user.unionid().unwrap_or(user.openid()).to_owned())
/// }
/// ```
#[derive(Clone)]
pub struct LoginUser(Arc<Inner>);

struct Inner {
    openid: UserId,
    unionid: Option<String>,
    scope: Option<String>,
    token: AccessToken,
    wechat: WechatClient,
}

impl LoginUser {
    pub(super) fn new(openid: UserId, response: &UserTokenResponse, wechat: &WechatClient) -> Self {
        Self(Arc::new(Inner {
            openid,
            unionid: response.unionid.clone(),
            scope: response.scope.clone(),
            token: response.access_token.clone(),
            wechat: wechat.clone(),
        }))
    }

    /// Returns the AppID whose user this is: the account's, or that of the login's
    /// [website](super::LoginBuilder::website).
    pub fn app_id(&self) -> &AppId {
        self.0.wechat.app_id()
    }

    /// Returns the user's openid, which identifies the user within the [`app_id`](Self::app_id).
    pub fn openid(&self) -> &str {
        self.0.openid.as_str()
    }

    /// Returns the user's unionid, or `None` if WeChat sent none. Only accounts that are bound to a
    /// WeChat Open Platform account (开放平台) have unionids.
    pub fn unionid(&self) -> Option<&str> {
        self.0.unionid.as_deref()
    }

    /// Returns the scopes that the user has granted, separated by commas.
    pub fn scope(&self) -> Option<&str> {
        self.0.scope.as_deref()
    }

    /// Requests the user's nickname, avatar and the other fields of `sns/userinfo`, with the token
    /// of this login. Each call sends one request to WeChat.
    ///
    /// # Errors
    /// The errors of [`WechatClient::user_info`]. If the user has not granted the scope
    /// `snsapi_userinfo`, the error is [`ErrorKind::LoginRequired`](crate::ErrorKind::LoginRequired)
    /// (48001).
    pub async fn profile(&self) -> Result<UserInfo, Error> {
        let Inner { token, wechat, .. } = &*self.0;
        wechat.user_info(token, self.openid(), Language::ZhCn).await
    }
}

impl fmt::Debug for LoginUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoginUser")
            .field("app_id", self.app_id())
            .field("openid", &self.openid())
            .field("unionid", &self.unionid())
            .field("scope", &self.scope())
            .finish_non_exhaustive()
    }
}

/// The reason why a hook has chosen no user id.
#[derive(Debug)]
pub(super) enum HookError {
    /// The hook returned an error, timed out or panicked. A later run may succeed.
    Failed(String),
    /// The hook returned a value that is not a user id.
    InvalidUserId(String),
}

type HookFn = dyn Fn(LoginUser) -> BoxFuture<'static, Result<UserId, HookError>> + Send + Sync;

/// The hook of an application, without its types.
#[derive(Clone)]
pub(super) struct LoginHook(Arc<HookFn>);

impl LoginHook {
    pub(super) fn new<F, Fut, Id, E>(hook: F) -> Self
    where
        F: Fn(LoginUser) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Id, E>> + Send + 'static,
        Id: TryInto<UserId>,
        Id::Error: fmt::Display,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        Self(Arc::new(move |user| {
            let chosen = hook(user);
            Box::pin(async move {
                let id = chosen
                    .await
                    .map_err(|error| HookError::Failed(error_chain(&*error.into())))?;
                let invalid = |error: Id::Error| HookError::InvalidUserId(error.to_string());
                id.try_into().map_err(invalid)
            })
        }))
    }

    /// Runs the hook for `timeout` at most, and returns the user id that the hook has chosen. A hook
    /// that panics has failed.
    pub(super) async fn run(
        &self,
        user: LoginUser,
        timeout: Duration,
    ) -> Result<UserId, HookError> {
        let hook = Arc::clone(&self.0);
        let run = async move { hook(user).await };
        match run_guarded("hook", timeout, run).await {
            Ok(chosen) => chosen,
            Err(reason) => Err(HookError::Failed(reason)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Timeout of hooks that end. A panic with a backtrace takes long in a debug build.
    const LONG: Duration = Duration::from_secs(20);
    /// Timeout of hooks that do not end in time.
    const SHORT: Duration = Duration::from_millis(50);

    fn user() -> LoginUser {
        let response = UserTokenResponse::new("secret-token").unionid("uA");
        let wechat = WechatClient::new("wx1", "secret").unwrap();
        LoginUser::new(UserId::new("oA").unwrap(), &response, &wechat)
    }

    async fn error_of<F, Fut>(timeout: Duration, hook: F) -> String
    where
        F: Fn(LoginUser) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<String, Error>> + Send + 'static,
    {
        match LoginHook::new(hook).run(user(), timeout).await {
            Err(HookError::Failed(text)) => text,
            Err(HookError::InvalidUserId(text)) => format!("invalid: {text}"),
            Ok(id) => panic!("{id}"),
        }
    }

    #[tokio::test]
    async fn ids_of_several_types_are_accepted() {
        let id = UserId::new("row 1").unwrap();
        for hook in [
            LoginHook::new(async |_| Ok::<_, Error>("row 1")),
            LoginHook::new(async |_| Ok::<_, Error>("row 1".to_owned())),
            LoginHook::new(async |_| Ok::<_, Error>(Box::<str>::from("row 1"))),
            LoginHook::new(async |_| Ok::<_, Error>(Arc::<str>::from("row 1"))),
            LoginHook::new(async |_| Ok::<_, &str>(UserId::new("row 1").unwrap())),
        ] {
            assert_eq!(hook.run(user(), LONG).await.unwrap(), id);
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn errors_panics_and_hangs_are_told_apart() {
        assert_eq!(
            error_of(LONG, async |_| Ok(String::new())).await,
            "invalid: the identifier is empty"
        );
        let panicked = error_of(LONG, async |_| panic!("out of {}", "rows")).await;
        assert_eq!(panicked, "the hook panicked: out of rows");
        fn panics(_: LoginUser) -> std::future::Ready<Result<String, Error>> {
            panic!("before its future")
        }
        let panicked = error_of(LONG, panics).await;
        assert_eq!(panicked, "the hook panicked: before its future");
        let hung = error_of(SHORT, async |_| std::future::pending().await).await;
        assert_eq!(hung, "the hook did not end within 50ms");
        // A hook that blocks its thread delays neither the timeout nor the login.
        let blocked = error_of(SHORT, async |_| {
            std::thread::sleep(SHORT * 4);
            Ok("late".to_owned())
        });
        assert_eq!(blocked.await, "the hook did not end within 50ms");
    }

    #[test]
    fn debug_output_hides_the_token() {
        let shown = format!("{:?}", user());
        assert!(shown.contains("oA") && !shown.contains("secret"), "{shown}");
    }
}
