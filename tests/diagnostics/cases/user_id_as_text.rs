//! A text as a user's id. A crate cannot add notes to an error about mismatched types; the error
//! names the type.
//~ expected `&UserId`, found `&str`

use tower_wechat::{Error, UserToken, UserTokens};

pub async fn token(users: UserTokens) -> Result<UserToken, Error> {
    users.get("oAlice").await
}
