//! Functions of `Platform::accounts` with errors of the application, and functions that decline an
//! account. These compile.

use tower_wechat::platform::Platform;
use tower_wechat::{CookieKeys, Login};

pub fn every_account(platform: &Platform, keys: CookieKeys) {
    let _ = platform.accounts(move |account| {
        let url = format!("https://h5.example.com/{}", account.app_id());
        Ok(account.login(Login::new(url, keys.clone())?))
    });
    let _ = platform.accounts(Ok);
}

pub fn those_of_customers(platform: &Platform, customers: fn(&str) -> std::io::Result<bool>) {
    let _ = platform.accounts(move |account| {
        if !customers(account.app_id().as_str())? {
            return Ok(None);
        }
        Ok(Some(account))
    });
}

pub fn with_own_errors(platform: &Platform) {
    let _ = platform.accounts(|account| match account.app_id().as_str().len() {
        18 => Ok(account),
        _ => Err("no AppID".into()),
    });
}
