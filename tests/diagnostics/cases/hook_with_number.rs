//! A hook of a login that returns the number of a row as the user id. This compiles.

use tower_wechat::login::{LoginBuilder, LoginUser};

pub fn numbered(login: LoginBuilder) -> LoginBuilder {
    login.on_login(async |_: LoginUser| Ok::<i64, std::io::Error>(1))
}
