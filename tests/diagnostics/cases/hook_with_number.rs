//! A hook of a login that returns a number as the user id.
//~ the trait bound `UserId: From<i64>` is not satisfied
//~ `UserId` implements `TryFrom<

use tower_wechat::login::{LoginBuilder, LoginUser};

pub fn numbered(login: LoginBuilder) -> LoginBuilder {
    login.on_login(async |_: LoginUser| Ok::<i64, std::io::Error>(1))
}
