//! Hooks at the end of a login: an async closure with captured state, a future that is not `Send`,
//! and a hook that is no future.
//~ async closure does not implement `Fn` because it captures state from its environment
//~ the trait `Send` is not implemented for `Rc<str>`
//~ `Result<String, tower_wechat::Error>` is not a future

use std::rc::Rc;

use tower_wechat::login::{LoginBuilder, LoginUser};
use tower_wechat::Error;

#[derive(Clone)]
pub struct Database;

impl Database {
    async fn find_or_create(&self, openid: &str) -> Result<String, Error> {
        Ok(openid.to_owned())
    }
}

pub fn captures(login: LoginBuilder, db: Database) -> LoginBuilder {
    login.on_login(async move |user: LoginUser| db.find_or_create(user.openid()).await)
}

pub fn is_not_send(login: LoginBuilder) -> LoginBuilder {
    login.on_login(async |user: LoginUser| {
        let openid: Rc<str> = user.openid().into();
        let id = Database.find_or_create(&openid).await;
        drop(openid);
        id
    })
}

pub fn is_no_future(login: LoginBuilder) -> LoginBuilder {
    login.on_login(|user: LoginUser| Ok::<_, Error>(user.openid().to_owned()))
}
