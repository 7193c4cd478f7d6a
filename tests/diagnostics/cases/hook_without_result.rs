//! A hook of a login that returns no `Result`.
//~ expected `Result<_, _>`, found `String`

use tower_wechat::login::{LoginBuilder, LoginUser};

pub fn infallible(login: LoginBuilder) -> LoginBuilder {
    login.on_login(async |user: LoginUser| user.openid().to_owned())
}
