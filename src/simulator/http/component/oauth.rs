//! The calls for users of an account on behalf of which a third-party platform calls
//! (`/sns/oauth2/component`).

use axum::{
    http::{Method, Uri},
    response::Response,
};

use crate::simulator::{
    app_index::AppIndex,
    error_reply::WechatErrorReply,
    http::{
        params::Params,
        route::{SharedSimulator, get},
        sns::{UserTokenReply, check_grant_type},
    },
    state::SimulatedWechat,
};

/// Returns the account and the platform of a call. The component token must be that of
/// `component_appid`, and the account must be authorized.
fn account_and_platform(
    wechat: &SimulatedWechat,
    params: &Params,
) -> Result<(AppIndex, AppIndex), WechatErrorReply> {
    let account = wechat.find_app(params.non_empty("appid"))?;
    let component = wechat.check_component_token(params.non_empty("component_access_token"))?;
    if wechat.find_platform(params.non_empty("component_appid"))? != component {
        return Err(WechatErrorReply::new(61014));
    }
    if wechat.platforms.is_authorized(component, account) {
        Ok((account, component))
    } else {
        Err(WechatErrorReply::new(61003))
    }
}

/// Handles `GET /sns/oauth2/component/access_token?appid=&code=&grant_type=authorization_code
/// &component_appid=&component_access_token=`.
pub(super) async fn access_token(shared: SharedSimulator, method: Method, uri: Uri) -> Response {
    get(&shared, &method, &uri, |wechat, params, now| {
        let (account, component) = account_and_platform(wechat, params)?;
        check_grant_type(params, "authorization_code")?;
        let code = params
            .non_empty("code")
            .ok_or(WechatErrorReply::new(41008))?;
        let pair = wechat.exchange_code(account, code, Some(component), now)?;
        Ok(UserTokenReply::from_code_exchange(
            account, pair, wechat, now,
        ))
    })
}

/// Handles `GET /sns/oauth2/component/refresh_token?appid=&grant_type=refresh_token
/// &component_appid=&component_access_token=&refresh_token=`.
pub(super) async fn refresh_token(shared: SharedSimulator, method: Method, uri: Uri) -> Response {
    get(&shared, &method, &uri, |wechat, params, now| {
        let (account, component) = account_and_platform(wechat, params)?;
        check_grant_type(params, "refresh_token")?;
        let refresh_token = params
            .non_empty("refresh_token")
            .ok_or(WechatErrorReply::new(41003))?;
        let pair = wechat.refresh_pair(account, refresh_token, Some(component), now)?;
        Ok(UserTokenReply::new(pair, now))
    })
}
