//! A nightly job over many users: skips those who have to log in again, and stops at an outage.

use anyhow::{Context, Result};
use futures_util::{StreamExt, TryStreamExt, stream};
use tower_wechat::ErrorKind::{LoginRequired, StoreUnavailable, WechatUnavailable};
use tower_wechat::{Error, UserId, UserToken, UserTokens, client::Language};

/// The nickname of a user, or the id of a user who has to log in again.
type Outcome = Result<String, UserId>;

/// Calls WeChat for all users, 16 at a time. An outage, or a mistake in the settings, ends the job.
pub(crate) async fn run(users: &UserTokens, ids: Vec<UserId>) -> Result<Vec<Outcome>> {
    let calls = stream::iter(ids).map(async |id| match nickname(users, &id).await {
        Ok(name) => Ok(Ok(name)),
        Err(error) => match error.downcast_ref().map(Error::kind) {
            Some(LoginRequired) => Ok(Err(id)),
            Some(StoreUnavailable | WechatUnavailable) => Err(error.context("run it again later")),
            _ => Err(error.context("fix this before the next run")),
        },
    });
    calls.buffer_unordered(16).try_collect().await
}

/// Returns a user's nickname. If WeChat rejects the token, `with_token` renews it and retries once.
async fn nickname(users: &UserTokens, id: &UserId) -> Result<String> {
    let call = async |token: UserToken| {
        let wechat = users.wechat();
        let profile = wechat.user_info(token.access_token(), id.as_str(), Language::En);
        Ok(profile.await.context("the profile")?.nickname)
    };
    users.with_token(id, call).await
}
