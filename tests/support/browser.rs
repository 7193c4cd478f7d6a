//! A simple browser for tests: it keeps cookies by name and path, and follows redirects only on
//! request.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, Method};
use serde_json::Value;
use url::Url;

/// User agent of WeChat on Android.
pub const WECHAT: &str = "Mozilla/5.0 (Linux; Android 13) AppleWebKit/537.36 Chrome/111.0 Mobile Safari/537.36 MicroMessenger/8.0.42.2460(0x28002A35) WeChat/arm64 Weixin NetType/WIFI Language/zh_CN";

/// Name of the session cookie over plain http, for the AppID that the simulator has by default.
pub const SESSION: &str = "wechat_session_wx0123456789abcdef";

const HTML: (&str, &str) = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");

pub struct Browser {
    client: Client,
    /// Values by name and path. A cookie is sent to every host and port, because the sites of a
    /// test differ only in their port.
    cookies: Mutex<BTreeMap<(String, String), String>>,
    headers: Vec<(&'static str, String)>,
    splits_cookies: bool,
}

#[derive(Debug, Clone)]
pub struct Reply {
    pub url: Url,
    pub status: u16,
    pub headers: http::HeaderMap,
    pub text: String,
}

impl Browser {
    pub fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .no_proxy()
            .redirect(Policy::none())
            .timeout(Duration::from_secs(20))
            .user_agent(WECHAT)
            .build()
            .unwrap();
        Self {
            client,
            cookies: Mutex::default(),
            headers: Vec::new(),
            splits_cookies: false,
        }
    }

    /// Returns another browser with the same cookies and without the added headers.
    pub fn copy(&self) -> Self {
        Self {
            client: self.client.clone(),
            cookies: Mutex::new(self.cookies.lock().unwrap().clone()),
            headers: Vec::new(),
            splits_cookies: false,
        }
    }

    pub fn with_header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// Sends one `Cookie` header for each cookie, as HTTP/2 allows.
    pub fn with_split_cookies(mut self) -> Self {
        self.splits_cookies = true;
        self
    }

    pub fn cookie(&self, name: &str) -> Option<String> {
        let cookies = self.cookies.lock().unwrap();
        cookies
            .iter()
            .find(|((known, _), _)| known == name)
            .map(|(_, value)| value.clone())
    }

    pub fn cookie_names(&self) -> Vec<String> {
        self.cookies
            .lock()
            .unwrap()
            .keys()
            .map(|(name, _)| name.clone())
            .collect()
    }

    pub fn set_cookie(&self, name: &str, path: &str, value: &str) {
        let key = (name.to_owned(), path.to_owned());
        self.cookies.lock().unwrap().insert(key, value.to_owned());
    }

    pub fn drop_cookies(&self, which: impl Fn(&str) -> bool) {
        self.cookies
            .lock()
            .unwrap()
            .retain(|(name, _), _| !which(name));
    }

    /// Sends a request as a page load, which accepts HTML.
    pub async fn visit(&self, url: &str) -> Reply {
        self.send(Method::GET, url, &[HTML]).await.unwrap()
    }

    /// Sends a request as the script of a page, which accepts JSON.
    pub async fn fetch(&self, url: &str) -> Reply {
        self.send(Method::GET, url, &[("accept", "application/json")])
            .await
            .unwrap()
    }

    pub async fn post(&self, url: &str) -> Reply {
        self.send(Method::POST, url, &[]).await.unwrap()
    }

    /// Loads a page and follows redirects to the end. Returns the last response.
    pub async fn open(&self, url: &str) -> Reply {
        let mut reply = self.visit(url).await;
        for _ in 0..12 {
            match reply.location() {
                Some(next) => reply = self.visit(next.as_str()).await,
                None => return reply,
            }
        }
        panic!("redirects without end, last to {}", reply.url);
    }

    /// Loads a page and follows redirects up to a callback. Returns the callback's URL without a
    /// request to it.
    pub async fn callback_of(&self, url: &str) -> String {
        let mut reply = self.visit(url).await;
        for _ in 0..12 {
            let next = reply
                .location()
                .unwrap_or_else(|| panic!("no redirect: {reply:?}"));
            if next.path() == "/wechat/callback" {
                return next.into();
            }
            reply = self.visit(next.as_str()).await;
        }
        panic!("redirects without end");
    }

    pub async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&str, &str)],
    ) -> reqwest::Result<Reply> {
        let url = Url::parse(url).unwrap();
        let mut request = self.client.request(method, url.clone());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let sent: Vec<String> = self
            .cookies
            .lock()
            .unwrap()
            .iter()
            .filter(|((_, path), _)| path == "/" || url.path().starts_with(path.as_str()))
            .map(|((name, _), value)| format!("{name}={value}"))
            .collect();
        if self.splits_cookies {
            for cookie in sent {
                request = request.header("cookie", cookie);
            }
        } else if !sent.is_empty() {
            request = request.header("cookie", sent.join("; "));
        }
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        for cookie in headers.get_all("set-cookie") {
            self.keep(cookie.to_str().unwrap());
        }
        Ok(Reply {
            url,
            status,
            headers,
            text: response.text().await?,
        })
    }

    fn keep(&self, cookie: &str) {
        let mut parts = cookie.split("; ");
        let (name, value) = parts.next().unwrap().split_once('=').unwrap();
        let parts: Vec<_> = parts.collect();
        let path = parts
            .iter()
            .find_map(|part| part.strip_prefix("Path="))
            .unwrap();
        let age = parts.iter().find_map(|part| part.strip_prefix("Max-Age="));
        let key = (name.to_owned(), path.to_owned());
        let mut cookies = self.cookies.lock().unwrap();
        // `Max-Age=0` deletes a cookie. Other ages are ignored.
        if age == Some("0") {
            cookies.remove(&key);
        } else {
            cookies.insert(key, value.to_owned());
        }
    }
}

impl Reply {
    pub fn location(&self) -> Option<Url> {
        let location = self.header("location")?;
        Some(self.url.join(location).unwrap())
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn cookies(&self) -> Vec<&str> {
        self.headers
            .get_all("set-cookie")
            .iter()
            .map(|value| value.to_str().unwrap())
            .collect()
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Checks that the response is a rejection in JSON with this status and code. Returns the JSON.
    #[track_caller]
    pub fn is_error(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        let json = self.json();
        assert_eq!(json["error"], code, "{json}");
        assert!(json["message"].is_string());
        json
    }

    /// Checks that the response is a page of this crate with this status, in Chinese and English,
    /// and contains this text.
    #[track_caller]
    pub fn is_page(&self, status: u16, chinese: &str) {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(
            self.header("content-type"),
            Some("text/html; charset=utf-8")
        );
        assert_eq!(self.header("cache-control"), Some("no-store"));
        assert!(self.text.contains(chinese), "{}", self.text);
        assert!(self.text.contains("lang=\"en\""));
    }
}
