//! Texts as cookie keys. A crate cannot add notes to an error about mismatched types; the error
//! names the type, and the error about `CookieKeys::new` names the function.
//~ expected `CookieKeys`, found `String`
//~ CookieKeys::from_base64

use tower_wechat::{CookieKeys, Error, Login};

pub fn with_text(key: String) -> Result<Login, Error> {
    Login::new("https://h5.example.com", key)
}

pub fn with_new(key: String) -> Result<Login, Error> {
    Login::new("https://h5.example.com", CookieKeys::new(&key))
}
