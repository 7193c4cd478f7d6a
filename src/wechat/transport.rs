//! The transport of calls to WeChat's API. A call tries the hosts in order, within bounds of time
//! and size, and its errors and logs contain no secret.
//!
//! A call sends at most one request to each host. Each attempt ends in one of these states:
//!
//! # Success, [`AttemptError::Errcode`]
//! WeChat replied. This is the result of the call, and no other host is tried.
//!
//! # [`AttemptError::NotSent`]
//! No byte of the request reached WeChat: the connection or the TLS handshake failed, or the proxy
//! demands other credentials. The next host is tried.
//!
//! # [`AttemptError::OutcomeUnknown`]
//! WeChat may have executed the request: the time ran out, the connection broke, or the reply is
//! invalid. The next host is tried only if the call is `retryable`, which means that WeChat may
//! receive the request twice. Otherwise the call ends with this error.

use std::sync::Arc;
use std::time::Duration;

use percent_encoding::utf8_percent_encode;
use reqwest::{StatusCode, header};
use tokio::time::Instant;
use tracing::{Instrument, field};

use super::errcode::Endpoint;
use super::error_context::ErrorContext;
use super::error_text::error_from_errcode;
use super::http::{BaseUrl, root_cause};
use super::redaction::{QUERY_VALUE_ESCAPES, Redactor};
use super::reply::{self, InvalidReply, ReplyFields};
use crate::clock::{Clock, deadline_in};
use crate::credential::AppId;
use crate::error::{Error, ErrorKind, RecommendedAction};
use crate::metrics;

/// Maximum size of a reply: 1 MiB. WeChat's replies have a few kilobytes.
const MAX_REPLY_BYTES: usize = 1024 * 1024;

/// Maximum length of an invalid reply in an error: 80 characters. The start of a page is enough to
/// recognize a proxy's reply, and the error stays one log line.
const MAX_SNIPPET_CHARS: usize = 80;

/// Maximum length of a Content-Encoding in an error: 40 characters. Real names are shorter.
const MAX_CONTENT_ENCODING_CHARS: usize = 40;

/// Maximum length of the cause of a broken connection in an error: 120 characters. The operating
/// system's and rustls' texts are usually shorter.
const MAX_CAUSE_CHARS: usize = 120;

/// The request of one call, the same for all hosts.
pub(super) struct ApiRequest<'a> {
    pub(super) endpoint: Endpoint,
    /// Path of the API below the base URL, without a slash at the start.
    pub(super) path: &'a str,
    pub(super) query: Vec<(&'a str, &'a str)>,
    /// The JSON body of a POST. A request without a body is a GET.
    pub(super) body: Option<Vec<u8>>,
    /// The account that the body names, in a call of a platform. `None` if the call concerns the
    /// account of the client.
    pub(super) account: Option<&'a AppId>,
    /// `true` if the request may be sent to another host although WeChat may have executed it.
    pub(super) retryable: bool,
    /// Removes the secrets of the request from error texts.
    pub(super) redactor: Redactor<'a>,
}

/// The failure of one attempt at one host. See the states in the module's documentation.
enum AttemptError {
    /// WeChat replied with an errcode.
    Errcode(Error),
    /// No byte of the request reached WeChat, for the reason in the text.
    NotSent(String),
    /// WeChat may have executed the request. The text says what failed.
    OutcomeUnknown(String),
}

pub(super) struct Transport {
    pub(super) http: reqwest::Client,
    pub(super) hosts: Arc<[BaseUrl]>,
    /// `host:port` of the proxy, for error texts, if the client uses a proxy.
    pub(super) proxy_address: Option<Arc<str>>,
    pub(super) app_id: AppId,
    /// The AppID of the platform in whose name the calls are made, if they are.
    pub(super) component: Option<AppId>,
    pub(super) timeout: Duration,
    pub(super) total_timeout: Duration,
    pub(super) clock: Clock,
}

impl Transport {
    /// Returns `true` if `other` sends the same account's calls to the same URLs, with the same proxy
    /// and timeouts.
    pub(super) fn has_same_settings(&self, other: &Self) -> bool {
        let urls = |transport: &Self| -> Vec<String> {
            transport
                .hosts
                .iter()
                .map(|host| host.as_str().to_owned())
                .collect()
        };
        self.app_id == other.app_id
            && self.component == other.component
            && urls(self) == urls(other)
            && self.proxy_address == other.proxy_address
            && (self.timeout, self.total_timeout) == (other.timeout, other.total_timeout)
    }

    /// Returns the transport of another account: the same settings, and the same HTTP client with
    /// its connections. `component` is the platform in whose name the calls are made, if they are.
    pub(super) fn for_account(&self, app_id: AppId, component: Option<AppId>) -> Self {
        Self {
            http: self.http.clone(),
            hosts: Arc::clone(&self.hosts),
            proxy_address: self.proxy_address.clone(),
            app_id,
            component,
            timeout: self.timeout,
            total_timeout: self.total_timeout,
            clock: self.clock.clone(),
        }
    }

    /// Sends the request to one host after the other, until an attempt ends the call or the total
    /// timeout has passed.
    pub(super) async fn send<T>(
        &self,
        call: &ApiRequest<'_>,
        read: impl Fn(&ReplyFields) -> Result<T, InvalidReply>,
    ) -> Result<T, Error> {
        #[cfg(all(feature = "testing", debug_assertions))]
        if self.hosts.is_empty() {
            let text = format!(
                "{}: the user is a TestUser, which does not call WeChat. Set its profile, or use \
                 the simulator",
                call.path
            );
            return Err(Error::new(ErrorKind::Configuration, text));
        }
        let deadline = deadline_in(self.total_timeout);
        let mut failures = Vec::new();
        let mut outcome_unknown = false;
        for host in &*self.hosts {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            match self
                .try_host(host, call, left.min(self.timeout), &read)
                .await
            {
                Ok(value) => return Ok(value),
                Err(AttemptError::Errcode(error)) => return Err(error),
                Err(AttemptError::NotSent(what)) => {
                    failures.push(format!("{} {what}", host.address()));
                }
                Err(AttemptError::OutcomeUnknown(what)) => {
                    failures.push(format!("{} {what}", host.address()));
                    outcome_unknown = true;
                    if !call.retryable {
                        break;
                    }
                }
            }
        }
        let action = match call.endpoint {
            _ if call.retryable || !outcome_unknown => RecommendedAction::Retry,
            // WeChat may already have accepted the code, and accepts a code only once.
            Endpoint::CodeExchange | Endpoint::ComponentCodeExchange => RecommendedAction::LogIn,
            Endpoint::AccountToken
            | Endpoint::UserRefresh
            | Endpoint::ComponentUserRefresh
            | Endpoint::ComponentToken => RecommendedAction::Retry,
            Endpoint::UserCall | Endpoint::AccountCall | Endpoint::ComponentCall => {
                RecommendedAction::PassThrough
            }
        };
        let text = format!("{}: {}", call.path, failures.join("; "));
        Err(Error::new(ErrorKind::WechatUnavailable, text).with_recommended_action(action))
    }

    /// Returns the platform whose credentials a call carries, or in whose name it is made.
    fn component_of(&self, endpoint: Endpoint) -> Option<&AppId> {
        match endpoint {
            // The client of the platform itself makes these calls.
            Endpoint::ComponentToken | Endpoint::ComponentCall => {
                self.component.as_ref().or(Some(&self.app_id))
            }
            Endpoint::CodeExchange
            | Endpoint::UserRefresh
            | Endpoint::UserCall
            | Endpoint::AccountToken
            | Endpoint::AccountCall
            | Endpoint::ComponentCodeExchange
            | Endpoint::ComponentUserRefresh => self.component.as_ref(),
        }
    }

    async fn try_host<T>(
        &self,
        host: &BaseUrl,
        call: &ApiRequest<'_>,
        limit: Duration,
        read: &impl Fn(&ReplyFields) -> Result<T, InvalidReply>,
    ) -> Result<T, AttemptError> {
        let started = Instant::now();
        let span = tracing::info_span!(
            target: "tower_wechat::api",
            "wechat.call",
            otel.kind = "client",
            endpoint = call.path,
            host = host.address(),
            status = field::Empty,
            errcode = field::Empty,
            result = field::Empty,
        );
        let exchange = self.fetch(host, call).instrument(span.clone());
        let reply = match tokio::time::timeout(limit, exchange).await {
            Ok(reply) => reply,
            Err(_) => Err(AttemptError::OutcomeUnknown(format!(
                "did not answer within {limit:.1?}"
            ))),
        };
        let (status, result, errcode) = match reply {
            Err(error) => (None, Err(error), None),
            Ok(reply) => {
                let status = reply.status.as_u16();
                let (result, errcode) = self.interpret(&reply, call, read);
                (Some(status), result, errcode)
            }
        };
        let outcome = match (&result, errcode) {
            (Ok(_), _) => "ok",
            (Err(_), Some(_)) => "errcode",
            (Err(_), None) => "failed",
        };
        metrics::record_api_call(call.path, outcome, started.elapsed());
        span.record("status", status);
        span.record("errcode", errcode);
        span.record("result", outcome);
        // The query is not logged, because it contains the secrets.
        tracing::debug!(
            target: "tower_wechat::api",
            endpoint = call.path,
            host = host.address(),
            duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            status,
            errcode,
            "asked WeChat"
        );
        result
    }

    /// Sends the request to one host and reads the reply. The caller limits the time.
    async fn fetch(&self, host: &BaseUrl, call: &ApiRequest<'_>) -> Result<RawReply, AttemptError> {
        let url = request_url(host, call);
        let request = match &call.body {
            None => self.http.get(url),
            Some(body) => self
                .http
                .post(url)
                .header(header::CONTENT_TYPE, "application/json")
                .body(body.clone()),
        };
        // The error contains only the innermost source of reqwest's error, because the outer
        // sources contain the URL with its secrets.
        let cause =
            |error: &reqwest::Error| call.redactor.redact(&root_cause(error), MAX_CAUSE_CHARS);
        let mut response = request.send().await.map_err(|error| {
            let error = error.without_url();
            // hyper sends a request only after the connection and its TLS handshake are complete.
            // A connection error therefore proves that nothing was sent.
            if error.is_connect() || error.is_builder() {
                let via = match &self.proxy_address {
                    Some(proxy) => format!(" through the proxy {proxy}"),
                    None => String::new(),
                };
                AttemptError::NotSent(format!("cannot be reached{via} ({})", cause(&error)))
            } else {
                AttemptError::OutcomeUnknown(format!("broke off ({})", cause(&error)))
            }
        })?;
        let status = response.status();
        // A proxy that rejects the credentials does not forward the request.
        if let Some(proxy) = &self.proxy_address
            && status == StatusCode::PROXY_AUTHENTICATION_REQUIRED
        {
            let why = "asks for another user and password (HTTP 407)";
            return Err(AttemptError::NotSent(format!(
                "cannot be reached: the proxy {proxy} {why}"
            )));
        }
        let encoding = response.headers().get(header::CONTENT_ENCODING);
        let encoding = encoding.map(|it| String::from_utf8_lossy(it.as_bytes()).into_owned());
        let declared_length =
            usize::try_from(response.content_length().unwrap_or(0)).unwrap_or(usize::MAX);
        let mut body = Vec::with_capacity(declared_length.min(8 * 1024));
        let mut too_large = declared_length > MAX_REPLY_BYTES;
        while !too_large {
            let chunk = response.chunk().await.map_err(|error| {
                let error = error.without_url();
                AttemptError::OutcomeUnknown(format!("broke off in its reply ({})", cause(&error)))
            })?;
            let Some(chunk) = chunk else { break };
            too_large = body.len() + chunk.len() > MAX_REPLY_BYTES;
            body.extend_from_slice(&chunk);
        }
        Ok(RawReply {
            status,
            encoding,
            body,
            too_large,
        })
    }

    /// Returns the result of a reply, and its errcode if the reply could be parsed. A success has
    /// the errcode 0.
    fn interpret<T>(
        &self,
        raw: &RawReply,
        call: &ApiRequest<'_>,
        read: &impl Fn(&ReplyFields) -> Result<T, InvalidReply>,
    ) -> (Result<T, AttemptError>, Option<i64>) {
        let bad = |why| AttemptError::OutcomeUnknown(raw.describe_invalid(why, &call.redactor));
        if raw.too_large {
            return (Err(bad(InvalidReply::TooLarge)), None);
        }
        let reply = match reply::parse(&raw.body) {
            Ok(reply) => reply,
            Err(why) => return (Err(bad(why)), None),
        };
        let errcode = Some(reply.errcode);
        if reply.errcode != 0 {
            let context = ErrorContext {
                endpoint: call.endpoint,
                path: call.path,
                app_id: call.account.unwrap_or(&self.app_id),
                component: self.component_of(call.endpoint),
                redactor: &call.redactor,
                now: self.clock.now(),
            };
            let error = error_from_errcode(reply.errcode, reply.errmsg(), &context);
            return (Err(AttemptError::Errcode(error)), errcode);
        }
        // A gateway's JSON, such as {"error": "bad gateway"}, has no errcode, so its errcode is
        // read as 0.
        if !raw.status.is_success() {
            return (Err(bad(InvalidReply::MissingErrcode)), errcode);
        }
        (read(&reply.fields).map_err(bad), errcode)
    }
}

/// A reply as received, before its body is parsed.
struct RawReply {
    status: StatusCode,
    /// The value of the header Content-Encoding, if the reply has that header.
    encoding: Option<String>,
    body: Vec<u8>,
    too_large: bool,
}

impl RawReply {
    /// Returns the content encoding of a compressed body, according to the header or else to the
    /// first bytes. Returns `None` for a plain body.
    fn unexpected_encoding(&self) -> Option<&str> {
        let header = self.encoding.as_deref().map(str::trim);
        let header = header
            .filter(|encoding| !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity"));
        header.or(match self.body.as_slice() {
            [0x1f, 0x8b, ..] => Some("gzip"),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some("zstd"),
            [0x78, 0x01 | 0x5e | 0x9c | 0xda, ..] => Some("deflate"),
            _ => None,
        })
    }

    fn describe_invalid(&self, why: InvalidReply, secrets: &Redactor<'_>) -> String {
        let status = self.status.as_u16();
        if let Some(encoding) = self.unexpected_encoding() {
            let encoding = secrets.redact(encoding, MAX_CONTENT_ENCODING_CHARS);
            return format!(
                "answered HTTP {status} in the Content-Encoding {encoding}, which was not asked \
                 for: see what is between this process and WeChat"
            );
        }
        let snippet = secrets.redact(&String::from_utf8_lossy(&self.body), MAX_SNIPPET_CHARS);
        if snippet.is_empty() {
            format!("answered HTTP {status} with {why}")
        } else {
            format!("answered HTTP {status} with {why}: {snippet}")
        }
    }
}

fn request_url(host: &BaseUrl, call: &ApiRequest<'_>) -> String {
    let mut url = format!("{}/{}", host.as_str(), call.path);
    for (place, (name, value)) in call.query.iter().enumerate() {
        url.push(if place == 0 { '?' } else { '&' });
        url.extend(utf8_percent_encode(name, QUERY_VALUE_ESCAPES));
        url.push('=');
        url.extend(utf8_percent_encode(value, QUERY_VALUE_ESCAPES));
    }
    url
}
