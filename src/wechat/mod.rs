//! The HTTP client of WeChat's API.
//!
//! One call is one question to WeChat: back-off, leases and stores are the business of others.
//! What comes back is read with patience, since WeChat's replies are not always the JSON that the
//! documentation promises, and what goes wrong is told without a secret: they ride in the query
//! strings of this API.

mod any_api;
mod builder;
mod client;
mod errcode;
mod grant;
mod proxy;
mod redaction;
mod reply;
#[cfg(test)]
mod tests;
mod transport;
mod user_info;

pub use builder::WechatClientBuilder;
pub(crate) use builder::{base_url, http_client, root_cause};
pub use client::WechatClient;
pub(crate) use errcode::pausing_renewals;
pub use grant::{AccountGrant, TicketGrant, UserGrant};
pub use user_info::{Language, UserInfo};

/// What must hold of every reply, whatever it is.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz_reply(body: &[u8]) {
    use crate::credential::is_token;
    let Ok(reply) = reply::read(body) else {
        return;
    };
    let (app_id, _) = crate::fuzzing::keys();
    let secrets = redaction::Secrets::new(["s3cret-0f-the-c4ll"]);
    use errcode::Endpoint::{AccountCall, AccountToken, CodeExchange, UserCall, UserRefresh};
    for endpoint in [
        CodeExchange,
        UserRefresh,
        UserCall,
        AccountToken,
        AccountCall,
    ] {
        let refused = errcode::Refused {
            endpoint,
            path: "sns/oauth2/access_token",
            app_id,
            secrets: &secrets,
            now: crate::fuzzing::NOW,
        };
        let text = errcode::error(reply.errcode, reply.errmsg(), &refused).to_string();
        assert!(!text.contains("s3cret-0f-the-c4ll"), "{text}");
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }
    if let Ok(grant) = UserGrant::exchanged(&reply.fields) {
        let openid = grant.openid.unwrap_or_default();
        assert!(crate::credential::UserId::check(&openid).is_ok());
        assert!(is_token(grant.access_token.expose()));
        assert!(
            grant
                .refresh_token
                .is_none_or(|token| is_token(token.expose()))
        );
    }
    if let Ok(grant) = AccountGrant::granted(&reply.fields) {
        assert!(is_token(grant.access_token.expose()));
    }
    if let Ok(grant) = TicketGrant::granted(&reply.fields) {
        assert!(is_token(grant.ticket.expose()));
    }
    let _ = UserInfo::of("oUser", &reply.fields);
}
