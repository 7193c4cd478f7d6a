//! Fuzzing of the session cookie, which identifies a user.

use http::header::COOKIE;

use super::fixtures::{alter, fixed_keys, header_map, identified_user, other_app_id};
use crate::credential::UserId;
use crate::identity::SessionCookie;

/// Checks that every session cookie that this crate has not signed is rejected.
pub fn session(data: &[u8]) {
    let (app, keys) = fixed_keys();
    let other = other_app_id();
    let session = SessionCookie::new(&other, keys);
    let name = format!("__Host-wechat_session_{}=", other.as_str());
    let forged = [name.as_bytes(), data].concat();
    assert_eq!(identified_user(&session, header_map(COOKIE, &forged)), None);
    assert_eq!(identified_user(&session, header_map(COOKIE, data)), None);
    let session = SessionCookie::new(app, keys);
    let Ok(user) = UserId::new("oUser-0000") else {
        return;
    };
    let issued = session.issue(&user);
    let ours = issued.to_str().ok().and_then(|all| all.split(';').next());
    let ours = ours.unwrap_or_default();
    assert!(identified_user(&session, header_map(COOKIE, ours.as_bytes())).is_some());
    if let Some(altered) = alter(ours, data)
        // A semicolon or a blank after the cookie does not change its value.
        && !altered.starts_with(ours.as_bytes())
    {
        assert_eq!(
            identified_user(&session, header_map(COOKIE, &altered)),
            None
        );
    }
}
