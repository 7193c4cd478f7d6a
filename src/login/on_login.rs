//! The setter of a login's hook.

use std::error::Error as StdError;
use std::fmt;

use super::builder::LoginBuilder;
use super::hook::{LoginHook, LoginUser};
use crate::credential::UserId;

impl LoginBuilder {
    /// Sets a hook that runs at the end of each login and chooses the user id, instead of the openid.
    /// Default: no hook.
    ///
    /// The hook finds or creates the user in the application's own database, and returns the id of
    /// the row: a number, a `String`, a `&'static str` or a [`UserId`](crate::UserId). The session
    /// cookie and the store carry this id as a text, and handlers get it from
    /// [`WechatUser::id`](crate::WechatUser::id) without a query.
    /// [`WechatUser::openid`](crate::WechatUser::openid) is still the openid.
    ///
    /// ```
    /// use tower_wechat::login::LoginUser;
    /// use tower_wechat::{CookieKeys, Error, Login};
    ///
    /// # #[derive(Clone)] struct Database;
    /// # impl Database {
    /// #     async fn find_or_create(&self, openid: &str, name: &str) -> Result<i64, std::fmt::Error> {
    /// #         Ok((openid.len() + name.len()) as i64)
    /// #     }
    /// # }
    /// # fn build(db: Database) -> Result<Login, Error> {
    /// let login = Login::builder("https://h5.example.com", CookieKeys::random()?)
    ///     .on_login(move |user: LoginUser| {
    ///         let db = db.clone();
    ///         async move {
    ///             let nickname = user.profile().await?.nickname;
    ///             let row = db.find_or_create(user.openid(), &nickname).await?;
    ///             Ok::<_, axum::BoxError>(row) // errors of any types
    ///         }
    ///     })
    ///     .build()?;
    /// # Ok(login) }
    /// ```
    ///
    /// The hook runs after WeChat has answered and before anything is stored, once for each code
    /// among all processes. It may take as long as
    /// [`exchange_timeout`](Self::exchange_timeout); its future is dropped then. If it fails, panics
    /// or times out, the browser gets a page with 503. A reload runs the hook again, from two seconds
    /// to ten minutes after the failure. The hook should therefore be idempotent. If it returns a
    /// text that is no user id, the browser gets a page with 500. Scripts get the codes
    /// `store_unavailable` and `configuration`.
    ///
    /// The virtual users of snapshot pages (快照页) do not reach the hook. Their id is their openid.
    /// If the hook returns one id for two openids, the store keeps the tokens of the later login.
    /// Sessions that began before the application had a hook keep their id until they end.
    ///
    /// `build` fails if [`bind_to_identity`](Self::bind_to_identity) is set too, because both choose
    /// the user id.
    pub fn on_login<F, Fut, Id, E>(self, hook: F) -> Self
    where
        F: Fn(LoginUser) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Id, E>> + Send + 'static,
        Id: TryInto<UserId>,
        Id::Error: fmt::Display,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        self.set(|settings| settings.hook = Some(LoginHook::new(hook)))
    }
}
