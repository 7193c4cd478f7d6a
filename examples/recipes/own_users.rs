//! Users of the application's own database: at the end of a login, a hook finds or creates the row,
//! and its key becomes the user id.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::{Router, routing::get};
use tower_wechat::login::{LoginBuilder, LoginUser};
use tower_wechat::{Error, UserTokens, WechatLayer, WechatUser};

/// The application's database. In a real application this is, for example, a pool of sqlx.
#[derive(Clone, Default)]
pub(crate) struct Database(Arc<Mutex<HashMap<String, i64>>>);

impl Database {
    async fn find_or_create(&self, key: &str) -> Result<i64, &'static str> {
        let mut rows = self.0.lock().map_err(|_| "the database is away")?;
        let next = rows.len() as i64 + 1;
        Ok(*rows.entry(key.to_owned()).or_insert(next))
    }
}

pub(crate) fn app(users: UserTokens, login: LoginBuilder, db: Database) -> Result<Router, Error> {
    let find_or_create = move |user: LoginUser| {
        let db = db.clone();
        async move { db.find_or_create(user.openid()).await }
    };
    let layer = WechatLayer::new(users).login(login.on_login(find_or_create).build()?);
    Ok(Router::new().route("/", get(account)).layer(layer))
}

async fn account(user: WechatUser) -> String {
    format!("account {}", user.id())
}
