//! Closures that are no registries: an error that is not `Send`, a future that is not `Send`, and an
//! async closure with captured state. The notes name each remedy.
//~ is not a registry of accounts
//~ the error is `Box<dyn std::error::Error + Send + Sync>` or converts into it
//~ the future must be `Send`
//~ clone what it captures before `async move`
//~ implement `AccountRegistry` for a type

use std::rc::Rc;

use tower_wechat::credential::AppId;
use tower_wechat::layer::AccountsBuilder;
use tower_wechat::{Account, Error};

#[derive(Clone)]
pub struct Database;

impl Database {
    async fn account(&self, _: &str) -> Result<Option<Account>, Error> {
        Ok(None)
    }
}

pub fn error_is_not_send(builder: AccountsBuilder) -> AccountsBuilder {
    builder.registry(|_: AppId| async move { Ok::<_, Box<dyn std::error::Error>>(None) })
}

pub fn future_is_not_send(builder: AccountsBuilder) -> AccountsBuilder {
    builder.registry(|app_id: AppId| async move {
        let name: Rc<str> = app_id.as_str().into();
        let found = Database.account(&name).await;
        drop(name);
        found
    })
}

pub fn captures(builder: AccountsBuilder, db: Database) -> AccountsBuilder {
    builder.registry(async move |app_id: AppId| db.account(app_id.as_str()).await)
}
