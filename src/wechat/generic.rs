//! Calls of any API with an access token: `get_json` and `post_json`.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::client::{WechatClient, token_request};
use super::errcode::Endpoint;
use super::transport::ApiRequest;
use crate::credential::AccessToken;
use crate::error::{Error, ErrorKind, RecommendedAction};

/// Maximum length of serde's error text in an error: 120 characters, so that the error stays one
/// log line.
const MAX_JSON_ERROR_CHARS: usize = 120;

impl WechatClient {
    /// Calls an API by GET with `access_token=` in the query, and parses the reply as `T`.
    ///
    /// `path` is the path of the API in WeChat's documentation, such as `cgi-bin/user/info`. A path
    /// under `sns/` takes a user's token, a path under `cgi-bin/component/` the token of a
    /// third-party platform (as `component_access_token=`), and any other path the account's token.
    /// The meaning of an errcode depends on the kind of token.
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
    /// The errors listed at [`WechatClient`]. A reply that cannot be parsed as `T` is
    /// [`ErrorKind::WechatUnavailable`]. A path that is empty, contains `..`, or has characters
    /// other than letters, digits, `/`, `.`, `_` and `-` is [`ErrorKind::BadRequest`].
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

    /// Calls an API by POST with `access_token=` in the query and a JSON body, and parses the reply
    /// as `T`. Use `serde_json::Value` to accept any reply.
    ///
    /// A POST may have an effect, so the call tries the next host only if the request was certainly
    /// not sent. If the reply was lost, the error has the action
    /// [`RecommendedAction::PassThrough`].
    ///
    /// # Errors
    /// The errors of [`get_json`](Self::get_json). A body that cannot be serialized is
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
        let fields = self.send(call, |fields| Ok(fields.clone())).await?;
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
    } else if path.starts_with("cgi-bin/component/") {
        Endpoint::ComponentCall
    } else {
        Endpoint::AccountCall
    }
}

/// Checks that a path has no `..`, and no characters that would end the path in a URL or change a
/// log line. Returns the path without a slash at its start.
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

/// Replaces the text between the first and the last quote of a serde error by `***`. That text is
/// the unexpected value, which may be a secret.
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
