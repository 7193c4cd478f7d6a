//! An HTTP client for tests: requests with any bytes in headers, and responses with their duration.

use std::time::{Duration, Instant};

use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

/// Timeout of a request, 30 s, so that a test does not hang. Other tests check that the demo
/// responds within 5 s.
const GIVE_UP: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub struct HttpClient {
    base: String,
    client: reqwest::Client,
}

/// A request that has not been sent.
pub struct Asked {
    method: Method,
    path: String,
    headers: HeaderMap,
}

/// A response with its duration.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
    pub took: Duration,
}

impl HttpClient {
    /// Returns the server's address in the form `http://ADDR`.
    pub fn base(&self) -> &str {
        &self.base
    }

    pub fn new(base: &str) -> Self {
        // reqwest is built without a cryptography provider, and needs one even for http://.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(GIVE_UP)
            .build()
            .unwrap();
        Self {
            base: base.to_owned(),
            client,
        }
    }

    pub async fn ask(&self, asked: Asked) -> Answer {
        self.try_ask(asked).await.expect("a response")
    }

    /// Sends `GET /api/me` as this user.
    pub async fn me(&self, user: &str) -> Answer {
        self.ask(Asked::get("/api/me").header(super::demo_process::USER_HEADER, user))
            .await
    }

    /// Sends a request. Returns an error if there is no response.
    pub async fn try_ask(&self, asked: Asked) -> Result<Answer, reqwest::Error> {
        let started = Instant::now();
        let request = self
            .client
            .request(asked.method, format!("{}{}", self.base, asked.path));
        let response = request.headers(asked.headers).send().await?;
        Ok(Answer {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            text: response.text().await?,
            took: started.elapsed(),
        })
    }
}

impl Asked {
    pub fn get(path: &str) -> Self {
        Self {
            method: Method::GET,
            path: path.to_owned(),
            headers: HeaderMap::new(),
        }
    }

    pub fn post(path: &str) -> Self {
        Self {
            method: Method::POST,
            ..Self::get(path)
        }
    }

    pub fn options(path: &str) -> Self {
        Self {
            method: Method::OPTIONS,
            ..Self::get(path)
        }
    }

    /// Adds a header, also if the request already has one of this name.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        self.headers
            .append(name, HeaderValue::from_bytes(value.as_ref()).unwrap());
        self
    }
}

impl Answer {
    /// Returns the body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// Returns a text field of the JSON body, or an empty text if it is missing.
    pub fn field(&self, name: &str) -> String {
        self.json()[name].as_str().unwrap_or_default().to_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// Checks that the response is a rejection by the layer with this status and code.
    #[track_caller]
    pub fn is_rejected(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.field("error"), code, "{self:?}");
        assert!(!self.field("message").is_empty(), "{self:?}");
        assert_eq!(self.header("content-type"), "application/json", "{self:?}");
        if status == 503 {
            let wait: u64 = self
                .header("retry-after")
                .parse()
                .expect("Retry-After in seconds");
            assert!(wait >= 1, "{self:?}");
        }
    }

    /// Checks that `/api/me` has served the user with this access token.
    #[track_caller]
    pub fn has_token(&self, access_token: &str) {
        assert_eq!(self.status, 200, "{self:?}");
        assert_eq!(
            self.field("token_fingerprint"),
            fingerprint(access_token),
            "{self:?}"
        );
    }
}

/// Returns the fingerprint of a token as `/api/me` shows it: the first 16 hex digits of its
/// SHA-256.
pub fn fingerprint(access_token: &str) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(access_token)
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}
