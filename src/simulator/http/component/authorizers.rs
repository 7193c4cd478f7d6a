//! The calls of a third-party platform for its accounts.

use axum::{
    body::Bytes,
    extract::ConnectInfo,
    http::{Method, Uri},
    response::Response,
};
use serde::Serialize;

use super::{text, with_token};
use crate::simulator::{
    app_index::AppIndex,
    apps::AppKind,
    error_reply::WechatErrorReply,
    http::{listener::Peer, route::SharedSimulator},
    platform::AuthorizerGrant,
    random,
    state::SimulatedWechat,
};

/// Maximum number of accounts in a reply of `api_get_authorizer_list`: 500, as its documentation says.
const MAX_LISTED: i64 = 500;

#[derive(Serialize)]
struct Permission {
    funcscope_category: PermissionId,
}

#[derive(Serialize)]
struct PermissionId {
    id: u32,
}

fn permissions(ids: &[u32]) -> Vec<Permission> {
    let permission = |id: &u32| Permission {
        funcscope_category: PermissionId { id: *id },
    };
    ids.iter().map(permission).collect()
}

#[derive(Serialize)]
struct AuthorizationReply<T> {
    authorization_info: T,
}

/// The reply of `api_query_auth`. An account without permissions has no tokens.
#[derive(Serialize)]
struct AuthorizationInfo {
    authorizer_appid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    authorizer_access_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_in: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    authorizer_refresh_token: Option<String>,
    func_info: Vec<Permission>,
}

impl AuthorizationInfo {
    fn new(wechat: &SimulatedWechat, grant: AuthorizerGrant) -> Self {
        let has_rights = !grant.permissions.is_empty();
        Self {
            authorizer_appid: wechat.apps[grant.account].app_id.clone(),
            authorizer_access_token: has_rights.then_some(grant.access_token),
            expires_in: has_rights.then_some(grant.expires_in.as_secs()),
            authorizer_refresh_token: has_rights.then_some(grant.refresh_token),
            func_info: permissions(&grant.permissions),
        }
    }
}

/// Handles `POST api_query_auth?component_access_token=`, which exchanges an authorization code.
pub(super) async fn query_auth(
    shared: SharedSimulator,
    ConnectInfo(peer): ConnectInfo<Peer>,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> Response {
    let call = (&method, &uri, &*body);
    with_token(&shared, &peer, call, |wechat, component, request| {
        let code = text(&request.authorization_code);
        let code = code.ok_or(WechatErrorReply::new(61009))?;
        let grant = wechat.query_auth(component, code)?;
        Ok(AuthorizationReply {
            authorization_info: AuthorizationInfo::new(wechat, grant),
        })
    })
}

#[derive(Serialize)]
struct AuthorizerToken {
    authorizer_access_token: String,
    expires_in: u64,
    authorizer_refresh_token: String,
}

/// Handles `POST api_authorizer_token?component_access_token=`, which renews an account's token.
pub(super) async fn token(
    shared: SharedSimulator,
    ConnectInfo(peer): ConnectInfo<Peer>,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> Response {
    let call = (&method, &uri, &*body);
    with_token(&shared, &peer, call, |wechat, component, request| {
        let account = wechat.find_app(text(&request.authorizer_appid))?;
        let refresh_token = text(&request.authorizer_refresh_token).unwrap_or_default();
        let grant = wechat.refresh_authorizer(component, account, refresh_token)?;
        Ok(AuthorizerToken {
            authorizer_access_token: grant.access_token,
            expires_in: grant.expires_in.as_secs(),
            authorizer_refresh_token: grant.refresh_token,
        })
    })
}

#[derive(Serialize)]
struct AuthorizerList {
    total_count: usize,
    list: Vec<ListedAuthorizer>,
}

#[derive(Serialize)]
struct ListedAuthorizer {
    authorizer_appid: String,
    refresh_token: String,
    auth_time: u64,
}

/// Handles `POST api_get_authorizer_list?component_access_token=`. The refresh token of an account
/// whose code was never exchanged is empty.
pub(super) async fn list(
    shared: SharedSimulator,
    ConnectInfo(peer): ConnectInfo<Peer>,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> Response {
    let call = (&method, &uri, &*body);
    with_token(&shared, &peer, call, |wechat, component, request| {
        let count = request.count.unwrap_or(0);
        if !(1..=MAX_LISTED).contains(&count) {
            return Err(WechatErrorReply::new(40170));
        }
        let [offset, count] =
            [request.offset.unwrap_or(0), count].map(|it| usize::try_from(it).unwrap_or(0));
        let all = wechat.platforms.get(component);
        let all: Vec<_> = all
            .iter()
            .flat_map(|platform| platform.authorizers())
            .filter(|authorizer| authorizer.is_authorized)
            .collect();
        let page = all.iter().skip(offset).take(count);
        Ok(AuthorizerList {
            total_count: all.len(),
            list: page
                .map(|authorizer| ListedAuthorizer {
                    authorizer_appid: wechat.apps[authorizer.account].app_id.clone(),
                    refresh_token: if authorizer.is_exchanged {
                        authorizer.refresh_token.clone()
                    } else {
                        String::new()
                    },
                    auth_time: authorizer.authorized_at.as_secs(),
                })
                .collect(),
        })
    })
}

#[derive(Serialize)]
struct InfoReply {
    authorizer_info: AuthorizerInfo,
    authorization_info: InfoOfAuthorization,
}

#[derive(Serialize)]
struct TypeId {
    id: i8,
}

#[derive(Serialize)]
struct AuthorizerInfo {
    nick_name: String,
    head_img: String,
    service_type_info: TypeId,
    verify_type_info: TypeId,
    user_name: String,
    alias: &'static str,
    principal_name: &'static str,
    qrcode_url: String,
    account_status: u8,
}

#[derive(Serialize)]
struct InfoOfAuthorization {
    authorizer_appid: String,
    authorizer_refresh_token: String,
    func_info: Vec<Permission>,
}

/// Handles `POST api_get_authorizer_info?component_access_token=`, which describes an account: here
/// always a verified service account (服务号).
pub(super) async fn info(
    shared: SharedSimulator,
    ConnectInfo(peer): ConnectInfo<Peer>,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> Response {
    let call = (&method, &uri, &*body);
    with_token(&shared, &peer, call, |wechat, component, request| {
        let account = account_of(wechat, text(&request.authorizer_appid))?;
        let platform = wechat.platforms.get(component);
        let authorizer = platform
            .and_then(|platform| platform.authorizer(account))
            .filter(|authorizer| authorizer.is_authorized)
            .ok_or(WechatErrorReply::new(61003))?;
        let app_id = wechat.apps[account].app_id.clone();
        Ok(InfoReply {
            authorizer_info: AuthorizerInfo {
                nick_name: format!("公众号 {app_id}"),
                head_img: format!("https://wx.qlogo.cn/mmopen/{app_id}/0"),
                service_type_info: TypeId { id: 2 },
                verify_type_info: TypeId { id: 0 },
                user_name: random::original_id(&app_id),
                alias: "",
                principal_name: "模拟公司",
                qrcode_url: format!("https://mmbiz.qpic.cn/mmbiz_jpg/{app_id}/0"),
                account_status: 1,
            },
            authorization_info: InfoOfAuthorization {
                authorizer_appid: app_id,
                authorizer_refresh_token: authorizer.refresh_token.clone(),
                func_info: permissions(&authorizer.permissions),
            },
        })
    })
}

fn account_of(
    wechat: &SimulatedWechat,
    app_id: Option<&str>,
) -> Result<AppIndex, WechatErrorReply> {
    let app = wechat.find_app(app_id)?;
    match wechat.apps[app].kind {
        AppKind::Account => Ok(app),
        AppKind::Website | AppKind::Platform => Err(WechatErrorReply::new(61003)),
    }
}
