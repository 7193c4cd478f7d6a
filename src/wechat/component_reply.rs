//! The replies to a platform's calls, and their parsers. They accept numbers as strings, and tokens that are
//! missing or empty where WeChat omits them.

use std::time::Duration;

use serde_json::Value;

use super::reply::{self, InvalidReply, ReplyFields};
use super::token_response::{AccountTokenResponse, parse_expires_in};
use crate::clock::Timestamp;
use crate::credential::{AccessToken, AppId, RefreshToken};

/// The code with which the administrator of an account opens the page of the authorization.
#[derive(Debug, Clone)]
pub(crate) struct PreAuthCode {
    /// The code, which is as secret as a refresh token and shares its type.
    pub(crate) code: RefreshToken,
    /// The lifetime of the code: at most 30 minutes, and ten minutes if the reply names none.
    pub(crate) expires_in: Duration,
}

/// The response of `api_query_auth`: what an account has granted the platform.
#[derive(Debug, Clone)]
pub(crate) struct AuthorizerGrant {
    pub(crate) app_id: AppId,
    /// The access token. `None` if the account has no API permissions.
    pub(crate) access_token: Option<AccessToken>,
    /// The lifetime of the access token in seconds, as in the reply and unchecked.
    pub(crate) expires_in: Option<i64>,
    /// The refresh token. `None` if the account has no API permissions.
    pub(crate) refresh_token: Option<RefreshToken>,
    /// The ids of the granted permission sets (权限集).
    pub(crate) permissions: Vec<u32>,
}

/// The response of `api_authorizer_token`: the next access token of an account.
#[derive(Debug, Clone)]
pub(crate) struct AuthorizerToken {
    pub(crate) access_token: AccessToken,
    /// The lifetime in seconds, as in the reply and unchecked.
    pub(crate) expires_in: Option<i64>,
    /// The refresh token from now on. `None` if the reply has none or an empty one: the refresh
    /// token of the call then stays valid.
    pub(crate) refresh_token: Option<RefreshToken>,
}

/// One page of `api_get_authorizer_list`.
#[derive(Debug, Clone)]
pub(crate) struct AuthorizerPage {
    /// The number of all accounts that have authorized the platform.
    pub(crate) total: u64,
    /// The number of entries in this page, by which the offset of the next page grows. The number
    /// includes entries without a valid AppID, which are not in `accounts`.
    pub(crate) entries: u32,
    pub(crate) accounts: Vec<ListedAuthorizer>,
}

/// An account in the list of those that have authorized the platform.
#[derive(Debug, Clone)]
pub(crate) struct ListedAuthorizer {
    pub(crate) app_id: AppId,
    /// The refresh token. `None` if the platform never exchanged the account's authorization code.
    pub(crate) refresh_token: Option<RefreshToken>,
    /// The time of the last authorization.
    pub(crate) auth_time: Option<Timestamp>,
}

/// Maximum lifetime of a `pre_auth_code`: 30 minutes, as WeChat's documentation says in its text.
const MAX_PRE_AUTH_CODE_LIFETIME: Duration = Duration::from_secs(1_800);

/// Lifetime of a `pre_auth_code` whose reply names none: ten minutes, as in the documentation's
/// sample.
const DEFAULT_PRE_AUTH_CODE_LIFETIME: Duration = Duration::from_secs(600);

/// Parses the reply of `api_component_token`.
pub(super) fn component_token(fields: &ReplyFields) -> Result<AccountTokenResponse, InvalidReply> {
    Ok(AccountTokenResponse {
        access_token: reply::required_token(fields, "component_access_token")?,
        expires_in: parse_expires_in(fields),
    })
}

/// Parses the reply of `api_create_preauthcode`.
pub(super) fn pre_auth_code(fields: &ReplyFields) -> Result<PreAuthCode, InvalidReply> {
    let code = reply::optional_token(fields, "pre_auth_code")?;
    let code = code.ok_or(InvalidReply::MissingField("pre_auth_code"))?;
    let expires_in = parse_expires_in(fields)
        .and_then(|seconds| u64::try_from(seconds).ok())
        .filter(|seconds| *seconds > 0)
        .map_or(DEFAULT_PRE_AUTH_CODE_LIFETIME, Duration::from_secs);
    Ok(PreAuthCode {
        code: RefreshToken::from(code),
        expires_in: expires_in.min(MAX_PRE_AUTH_CODE_LIFETIME),
    })
}

/// Parses the reply of `api_query_auth`.
pub(super) fn grant(fields: &ReplyFields) -> Result<AuthorizerGrant, InvalidReply> {
    let Some(Value::Object(info)) = fields.get("authorization_info") else {
        return Err(InvalidReply::MissingField("authorization_info"));
    };
    let app_id = app_id(info).ok_or(InvalidReply::MissingField("authorizer_appid"))?;
    let access_token = reply::optional_token(info, "authorizer_access_token")?;
    Ok(AuthorizerGrant {
        app_id,
        access_token: access_token.map(Into::into),
        expires_in: parse_expires_in(info),
        refresh_token: refresh_token(info, "authorizer_refresh_token")?,
        permissions: permissions(info),
    })
}

/// Parses the reply of `api_authorizer_token`.
pub(super) fn authorizer_token(fields: &ReplyFields) -> Result<AuthorizerToken, InvalidReply> {
    Ok(AuthorizerToken {
        access_token: reply::required_token(fields, "authorizer_access_token")?,
        expires_in: parse_expires_in(fields),
        // The token of the call stays valid if WeChat returns none that can be used.
        refresh_token: refresh_token(fields, "authorizer_refresh_token").unwrap_or_default(),
    })
}

/// Parses the reply of `api_get_authorizer_list`. Entries without a valid AppID are skipped. The
/// reply of a platform without accounts may lack the list.
pub(super) fn page(fields: &ReplyFields) -> Result<AuthorizerPage, InvalidReply> {
    let total = fields.get("total_count").and_then(reply::parse_integer);
    let total = total.ok_or(InvalidReply::MissingField("total_count"))?;
    let list = match fields.get("list") {
        None | Some(Value::Null) => &[][..],
        Some(Value::Array(list)) => list.as_slice(),
        Some(_) => return Err(InvalidReply::MissingField("list")),
    };
    let mut accounts = Vec::with_capacity(list.len());
    for entry in list.iter().filter_map(Value::as_object) {
        let Some(app_id) = app_id(entry) else {
            continue;
        };
        accounts.push(ListedAuthorizer {
            app_id,
            // A malformed token must not hide the other accounts.
            refresh_token: refresh_token(entry, "refresh_token").unwrap_or(None),
            auth_time: auth_time(entry),
        });
    }
    Ok(AuthorizerPage {
        total: u64::try_from(total).unwrap_or(0),
        entries: u32::try_from(list.len()).unwrap_or(u32::MAX),
        accounts,
    })
}

fn app_id(fields: &ReplyFields) -> Option<AppId> {
    let text = reply::non_empty_text(fields, "authorizer_appid")?;
    AppId::new(text).ok()
}

/// Returns a refresh token, or `None` if the field is missing or empty.
fn refresh_token(
    fields: &ReplyFields,
    name: &'static str,
) -> Result<Option<RefreshToken>, InvalidReply> {
    Ok(reply::optional_token(fields, name)?.map(RefreshToken::from))
}

/// Returns the ids of the permission sets, without those that are no numbers.
fn permissions(info: &ReplyFields) -> Vec<u32> {
    let sets = info.get("func_info").and_then(Value::as_array);
    let sets = sets.map(Vec::as_slice).unwrap_or_default();
    sets.iter()
        .filter_map(|set| set.get("funcscope_category")?.get("id"))
        .filter_map(|id| u32::try_from(reply::parse_integer(id)?).ok())
        .collect()
}

/// Returns the time of the last authorization, which WeChat sends in seconds. An implausible number
/// counts as missing.
fn auth_time(entry: &ReplyFields) -> Option<Timestamp> {
    let seconds = entry.get("auth_time").and_then(reply::parse_integer)?;
    let time = Timestamp::from_millis(seconds.checked_mul(1_000)?);
    (seconds > 0 && time.is_plausible()).then_some(time)
}
