//! Hooks at the end of a login that borrow, or that give away what they capture. The compiler names
//! `move` and `clone`.
//~ use the `move` keyword
//~ consider cloning the value before moving it into the closure

use tower_wechat::login::{LoginBuilder, LoginUser};
use tower_wechat::Error;

#[derive(Clone)]
pub struct Database;

impl Database {
    async fn find_or_create(&self, openid: &str) -> Result<String, Error> {
        Ok(openid.to_owned())
    }
}

pub fn borrows(login: LoginBuilder, db: Database) -> LoginBuilder {
    login.on_login(|user: LoginUser| async { db.find_or_create(user.openid()).await })
}

pub fn moves_out(login: LoginBuilder, db: Database) -> LoginBuilder {
    login.on_login(move |user: LoginUser| async move { db.find_or_create(user.openid()).await })
}
