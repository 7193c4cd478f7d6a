//! Fuzzing of replies, which come from WeChat or from a gateway in between.

use super::fixtures::{NOW, fixed_keys};
use crate::credential::{UserId, is_valid_token};
use crate::wechat::errcode::Endpoint;
use crate::wechat::error_context::ErrorContext;
use crate::wechat::error_text::error_from_errcode;
use crate::wechat::redaction::Redactor;
use crate::wechat::{
    AccountTokenResponse, JsapiTicketResponse, UserInfo, UserTokenResponse, reply,
};

/// Reads a reply as every kind of response. Checks that no error text contains a secret or a
/// control character, and that no response contains an invalid token or user id.
pub fn wechat_reply(data: &[u8]) {
    let Ok(reply) = reply::parse(data) else {
        return;
    };
    let (app_id, _) = fixed_keys();
    let secrets = Redactor::new(["s3cret-0f-the-c4ll"]);
    for endpoint in Endpoint::ALL {
        let context = ErrorContext {
            endpoint,
            path: "sns/oauth2/access_token",
            app_id,
            component: Some(app_id),
            redactor: &secrets,
            now: NOW,
        };
        let text = error_from_errcode(reply.errcode, reply.errmsg(), &context).to_string();
        assert!(!text.contains("s3cret-0f-the-c4ll"), "{text}");
        assert!(!text.chars().any(char::is_control), "{text:?}");
    }
    if let Ok(response) = UserTokenResponse::from_code_exchange(&reply.fields) {
        let openid = response.openid.unwrap_or_default();
        assert!(UserId::check(&openid).is_ok());
        assert!(is_valid_token(response.access_token.expose()));
        assert!(
            response
                .refresh_token
                .is_none_or(|token| is_valid_token(token.expose()))
        );
    }
    if let Ok(response) = AccountTokenResponse::from_reply(&reply.fields) {
        assert!(is_valid_token(response.access_token.expose()));
    }
    if let Ok(response) = JsapiTicketResponse::from_reply(&reply.fields) {
        assert!(is_valid_token(response.ticket.expose()));
    }
    let _ = UserInfo::from_reply("oUser", &reply.fields);
}
