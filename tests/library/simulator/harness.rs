//! A simulator, and an HTTP client that follows no redirects.

// A failed `unwrap` in these helpers fails the test that calls them.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use reqwest::{Client, Method, Response, redirect::Policy};
use serde_json::Value;
use tower_wechat::simulator::Simulator;

use crate::support::until_midnight_in_beijing;

/// A simulator and an HTTP client.
pub(crate) struct Harness {
    pub(crate) sim: Simulator,
    pub(crate) client: Client,
}

/// A response whose body has been read.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) location: Option<String>,
    pub(crate) text: String,
}

impl Harness {
    pub(crate) async fn start() -> Self {
        Self::with(Simulator::start().await.unwrap())
    }

    /// Advances the clock to the start of a day of WeChat's quotas.
    pub(crate) fn advance_to_midnight(&self) {
        self.sim.advance(until_midnight_in_beijing(self.sim.now()));
    }

    pub(crate) fn with(sim: Simulator) -> Self {
        // reqwest needs a cryptography provider, even for plain HTTP.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .timeout(Duration::from_secs(10))
            .build()
            .unwrap();
        Self { sim, client }
    }

    pub(crate) async fn try_send(
        &self,
        method: Method,
        path_and_query: &str,
        body: Option<&str>,
    ) -> reqwest::Result<Reply> {
        let url = format!("{}{path_and_query}", self.sim.url());
        let mut request = self.client.request(method, url);
        if let Some(body) = body {
            request = request.body(body.to_owned());
        }
        Reply::read(request.send().await?).await
    }

    pub(crate) async fn get(&self, path_and_query: &str) -> Reply {
        self.try_send(Method::GET, path_and_query, None)
            .await
            .unwrap()
    }

    pub(crate) async fn post(&self, path_and_query: &str, body: &str) -> Reply {
        self.try_send(Method::POST, path_and_query, Some(body))
            .await
            .unwrap()
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.try_send(Method::DELETE, path, None).await.unwrap()
    }

    /// Calls `sns/oauth2/access_token` with the right appid and secret.
    pub(crate) async fn exchange(&self, code: &str) -> Reply {
        let (id, secret) = (self.sim.app_id(), self.sim.app_secret());
        self.get(&format!(
            "/sns/oauth2/access_token?appid={id}&secret={secret}&code={code}&grant_type=authorization_code"
        ))
        .await
    }

    pub(crate) async fn refresh(&self, refresh_token: &str) -> Reply {
        let id = self.sim.app_id();
        self.get(&format!(
            "/sns/oauth2/refresh_token?appid={id}&grant_type=refresh_token&refresh_token={refresh_token}"
        ))
        .await
    }

    pub(crate) async fn userinfo(&self, access_token: &str, openid: &str) -> Reply {
        self.get(&format!(
            "/sns/userinfo?access_token={access_token}&openid={openid}"
        ))
        .await
    }
}

impl Reply {
    async fn read(response: Response) -> reqwest::Result<Self> {
        let header = |name: &str| {
            response
                .headers()
                .get(name)
                .map(|value| value.to_str().unwrap().to_owned())
        };
        Ok(Self {
            status: response.status().as_u16(),
            content_type: header("content-type").unwrap_or_default(),
            location: header("location"),
            text: response.text().await?,
        })
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// Returns a text field of the JSON body. Panics if it is missing.
    pub(crate) fn field(&self, name: &str) -> String {
        let json = self.json();
        json[name]
            .as_str()
            .unwrap_or_else(|| panic!("no `{name}` in {json}"))
            .to_owned()
    }

    /// Asserts that the response is WeChat's error: HTTP 200, this errcode, and this text with a
    /// rid.
    #[track_caller]
    pub(crate) fn refused(&self, errcode: i64, text: &str) {
        let json = self.json();
        assert_eq!(self.status, 200, "{json}");
        assert_eq!(json["errcode"], errcode, "{json}");
        let errmsg = json["errmsg"].as_str().unwrap();
        let (before, rid) = errmsg.split_once(" rid: ").unwrap();
        assert_eq!(before, text);
        assert_eq!(rid.len(), 26);
    }

    /// Returns the decoded value of a parameter in `Location`.
    pub(crate) fn callback(&self, name: &str) -> Option<String> {
        let location = self
            .location
            .as_deref()
            .unwrap_or_else(|| panic!("{}", self.text));
        let url = reqwest::Url::parse(location).unwrap();
        url.query_pairs()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.into_owned())
    }
}
