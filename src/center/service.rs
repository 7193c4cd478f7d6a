//! The routes.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Uri};
use http_body::Body;
use http_body_util::{BodyExt, Full, Limited};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use tower_service::Service;

use super::answer::{self, Answer};
use super::{Inner, TokenCenter};
use crate::credential::AccessToken;

/// The longest body that is read: WeChat advises to keep 512 characters for a token.
const MAX_BODY_BYTES: usize = 8 * 1024;

/// How long a body may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

impl<B> Service<Request<B>> for TokenCenter
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    type Response = http::Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let inner = &self.0;
        // Before the route, the body or anything else: who does not prove itself learns nothing
        // and costs nothing.
        if !inner
            .bearers
            .admit(request.headers(), inner.accounts.clock().now())
        {
            return Box::pin(std::future::ready(Ok(answer::unauthorized())));
        }
        let inner = inner.clone();
        Box::pin(async move { Ok(inner.route(request).await) })
    }
}

impl Inner {
    async fn route<B>(&self, request: Request<B>) -> Answer
    where
        B: Body + Send,
        B::Data: Send,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let (parts, body) = request.into_parts();
        let is = |method: Method| parts.method == method;
        match (parts.uri.path(), &self.tickets) {
            ("/access_token", _) if is(Method::GET) => self.access_token().await,
            ("/access_token/invalid", _) if is(Method::POST) => self.invalid(body).await,
            ("/jsapi_ticket", Some(tickets)) if is(Method::GET) => match tickets.get().await {
                Ok(ticket) => answer::ticket(&ticket),
                Err(error) => answer::error(&error),
            },
            ("/jssdk/config", Some(tickets)) if is(Method::GET) => match page(&parts.uri) {
                Ok(page) => match tickets.js_config(&page).await {
                    Ok(config) => answer::granted(&config),
                    Err(error) => answer::error(&error),
                },
                Err(why) => answer::bad_request(why),
            },
            ("/access_token", _) | ("/jsapi_ticket" | "/jssdk/config", Some(_)) => {
                answer::method_not_allowed("GET")
            }
            ("/access_token/invalid", _) => answer::method_not_allowed("POST"),
            _ => answer::not_found(),
        }
    }

    async fn access_token(&self) -> Answer {
        match self.accounts.get().await {
            Ok(token) => answer::token(&token),
            Err(error) => answer::error(&error),
        }
    }

    /// Compares and renews (R6).
    async fn invalid<B>(&self, body: B) -> Answer
    where
        B: Body + Send,
        B::Data: Send,
        B::Error: Into<Box<dyn StdError + Send + Sync>>,
    {
        let refused = match read(body).await {
            Ok(refused) => refused,
            Err(why) => return answer::bad_request(why),
        };
        match self.accounts.report_refused(&refused).await {
            Ok(token) => answer::token(&token),
            Err(error) => answer::error(&error),
        }
    }
}

#[derive(Deserialize)]
struct Report {
    access_token: String,
}

async fn read<B>(body: B) -> Result<AccessToken, &'static str>
where
    B: Body + Send,
    B::Data: Send,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    let body = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY_BYTES).collect());
    let body = match body.await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => return Err("the body is longer than 8 KiB, or broke off"),
        Err(_) => return Err("the body did not come within 5 seconds"),
    };
    let report: Report = serde_json::from_slice(&body)
        .map_err(|_| "the body must be {\"access_token\": the one that WeChat refused}")?;
    if report.access_token.is_empty() {
        return Err("the refused access_token is empty");
    }
    Ok(report.access_token.into())
}

/// The page of `?url=`, percent-decoded. A `+` stays one: no URL holds a blank, and a client that
/// forgot to encode its plus means just that.
fn page(uri: &Uri) -> Result<String, &'static str> {
    let url = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .find_map(|pair| pair.strip_prefix("url="))
        .ok_or("the query must hold url=, the page's location.href, percent-encoded")?;
    percent_decode_str(url)
        .decode_utf8()
        .map(String::from)
        .map_err(|_| "the url is not UTF-8 once it is percent-decoded")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<String, &'static str> {
        page(&format!("/jssdk/config?{query}").parse().unwrap())
    }

    #[test]
    fn the_page_is_decoded_once_and_otherwise_left_alone() {
        let encoded = "a=1&url=https%3A%2F%2Fh5.example.com%3Fa%3D1%252B%26b%3D%2B%23x&b=2";
        assert_eq!(
            read(encoded).unwrap(),
            "https://h5.example.com?a=1%2B&b=+#x"
        );
        assert_eq!(
            read("url=https://h5.example.com/a+b").unwrap(),
            "https://h5.example.com/a+b"
        );
        assert!(read("").is_err() && read("URL=x").is_err() && read("url=%FF").is_err());
    }
}
