//! Replies of WeChat, or of whatever answers in its place.

use super::fixtures::{NOW, keys};
use crate::credential::{UserId, is_token};
use crate::wechat::errcode::Endpoint::{
    AccountCall, AccountToken, CodeExchange, UserCall, UserRefresh,
};
use crate::wechat::errcode::{self, Refused};
use crate::wechat::redaction::Secrets;
use crate::wechat::{AccountGrant, TicketGrant, UserGrant, UserInfo, reply};

/// Reads a reply as every kind of answer. No error text holds a secret or a control character, and
/// no answer holds an invalid token or user id.
pub fn wechat_reply(data: &[u8]) {
    let Ok(reply) = reply::read(data) else {
        return;
    };
    let (app_id, _) = keys();
    let secrets = Secrets::new(["s3cret-0f-the-c4ll"]);
    for endpoint in [
        CodeExchange,
        UserRefresh,
        UserCall,
        AccountToken,
        AccountCall,
    ] {
        let refused = Refused {
            endpoint,
            path: "sns/oauth2/access_token",
            app_id,
            secrets: &secrets,
            now: NOW,
        };
        let text = errcode::error(reply.errcode, reply.errmsg(), &refused).to_string();
        assert!(!text.contains("s3cret-0f-the-c4ll"), "{text}");
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }
    if let Ok(grant) = UserGrant::exchanged(&reply.fields) {
        let openid = grant.openid.unwrap_or_default();
        assert!(UserId::check(&openid).is_ok());
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
