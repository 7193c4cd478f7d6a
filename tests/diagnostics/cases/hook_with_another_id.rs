//! A hook of a login that returns a type that is no user id.
//~ the trait bound `UserId: From<Uuid>` is not satisfied
//~ `UserId` implements `From<i64>`

use tower_wechat::login::{LoginBuilder, LoginUser};

/// The type of an id in another crate.
pub struct Uuid(pub u128);

pub fn by_uuid(login: LoginBuilder) -> LoginBuilder {
    login.on_login(async |_: LoginUser| Ok::<Uuid, std::io::Error>(Uuid(1)))
}
