//! Calls of any API that takes an access token.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::client::{WechatClient, token_request};
use super::errcode::Endpoint;
use super::transport::ApiRequest;
use crate::credential::AccessToken;
use crate::error::{Error, ErrorKind, RecommendedAction};

/// How much of serde's words on an unexpected reply an error shows, in characters.
const MAX_JSON_ERROR_CHARS: usize = 120;

impl WechatClient {
    /// Calls any API that takes `access_token=` by GET, and reads its reply as `T`.
    ///
    /// `path` is that of WeChat's documentation, such as `cgi-bin/user/info`; paths under `sns/`
    /// take the user's token, all others the account's, and errcodes are read accordingly.
    ///
    /// ```no_run
    /// # async fn run(wechat: &tower_wechat::WechatClient, token: &tower_wechat::AccessToken)
    /// # -> Result<(), tower_wechat::Error> {
    /// #[derive(serde::Deserialize)]
    /// struct Follower {
    ///     subscribe: u8,
    /// }
    ///
    /// let query = [("openid", "oUser"), ("lang", "zh_CN")];
    /// let follower: Follower = wechat.get_json("cgi-bin/user/info", token, &query).await?;
    /// # let _ = follower.subscribe;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As said on [`WechatClient`]; a reply that is no `T` is [`ErrorKind::WechatUnavailable`],
    /// and a path with other characters than letters, digits, `/`, `.`, `_` and `-` is
    /// [`ErrorKind::BadRequest`].
    pub async fn get_json<T: DeserializeOwned>(
        &self,
        path: &str,
        token: &AccessToken,
        query: &[(&str, &str)],
    ) -> Result<T, Error> {
        let path = check_path(path)?;
        let mut call = token_request(endpoint_of(path), path, token);
        call.query.extend_from_slice(query);
        self.call_json(&call).await
    }

    /// Calls any API that takes `access_token=` by POST with a JSON body, and reads its reply as
    /// `T`; `serde_json::Value` where the reply does not matter.
    ///
    /// Such a call may do something, so it moves on to another host only if the first could not
    /// be reached at all; where the answer was lost the error's reaction is
    /// [`RecommendedAction::PassThrough`].
    ///
    /// # Errors
    /// As [`get_json`](Self::get_json); a body that cannot be written as JSON is
    /// [`ErrorKind::BadRequest`].
    ///
    /// ```no_run
    /// # async fn run(wechat: &tower_wechat::WechatClient, token: &tower_wechat::AccessToken)
    /// # -> Result<(), tower_wechat::Error> {
    /// let menu = serde_json::json!({
    ///     "button": [{ "type": "view", "name": "首页", "url": "https://h5.example.com/" }]
    /// });
    /// let _: serde_json::Value = wechat.post_json("cgi-bin/menu/create", token, &menu).await?;
    /// # Ok(()) }
    /// ```
    pub async fn post_json<T: DeserializeOwned>(
        &self,
        path: &str,
        token: &AccessToken,
        body: &(impl Serialize + ?Sized),
    ) -> Result<T, Error> {
        let path = check_path(path)?;
        let body = serde_json::to_vec(body).map_err(|_| {
            let text = format!("{path}: the body cannot be written as JSON");
            Error::new(ErrorKind::BadRequest, text)
        })?;
        let mut call = token_request(endpoint_of(path), path, token);
        call.body = Some(body);
        call.retryable = false;
        self.call_json(&call).await
    }

    async fn call_json<T: DeserializeOwned>(&self, call: &ApiRequest<'_>) -> Result<T, Error> {
        let fields = self
            .inner
            .transport
            .send(call, |fields| Ok(fields.clone()))
            .await?;
        serde_json::from_value(Value::Object(fields)).map_err(|mismatch| {
            let why = redact_quoted(&mismatch.to_string());
            let why = call.redactor.redact(&why, MAX_JSON_ERROR_CHARS);
            let text = format!(
                "{}: the reply is not of the expected form: {why}",
                call.path
            );
            Error::new(ErrorKind::WechatUnavailable, text)
                .with_recommended_action(RecommendedAction::PassThrough)
        })
    }
}

fn endpoint_of(path: &str) -> Endpoint {
    if path.starts_with("sns/") {
        Endpoint::UserCall
    } else {
        Endpoint::AccountCall
    }
}

/// A path that stays a path in a URL and in a log.
fn check_path(path: &str) -> Result<&str, Error> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let plain =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'_' | b'-');
    if path.is_empty() || !path.bytes().all(plain) || path.split('/').any(|part| part == "..") {
        return Err(Error::new(
            ErrorKind::BadRequest,
            "the path of an API has letters, digits, '/', '.', '_' and '-' only, such as \
             cgi-bin/user/info",
        ));
    }
    Ok(path)
}

/// serde quotes what it found and did not expect, which may be a secret.
fn redact_quoted(text: &str) -> String {
    let mut parts = text.split('"');
    let mut out = parts.next().unwrap_or_default().to_owned();
    if parts.next().is_some() {
        out.push_str("***");
        out.push_str(parts.next_back().unwrap_or_default());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_with_other_characters_are_rejected() {
        assert_eq!(
            check_path("/cgi-bin/user/info").unwrap(),
            "cgi-bin/user/info"
        );
        for path in [
            "",
            "/",
            "a?b",
            "a#b",
            "../a",
            "a/../b",
            "http://x/",
            "a b",
            "a%2e",
        ] {
            assert!(check_path(path).is_err(), "{path}");
        }
    }

    #[test]
    fn json_errors_do_not_show_the_found_value() {
        let found = r#"invalid type: string "s3"cret", expected u8"#;
        assert_eq!(
            redact_quoted(found),
            "invalid type: string ***, expected u8"
        );
        assert_eq!(redact_quoted("missing field `a`"), "missing field `a`");
    }
}
