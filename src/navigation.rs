//! Whether a request is a page load, a form, or a script's request, as far as its headers show.

use http::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method};

use crate::identity::RequestHead;

/// Returns `true` if a browser opens a page with this request, so that a redirect leads the browser
/// to another page.
///
/// A page load is a `GET` or `HEAD` that passes these checks, in this order:
///
/// 1. It has no header by which a script library marks its requests, and no
///    `X-Requested-With: XMLHttpRequest`. Other values of that header are allowed, because Android web
///    views put the name of their app there.
/// 2. If it has `Sec-Fetch-Mode`, the value is `navigate`. That decides.
/// 3. Without `Sec-Fetch-Mode` (older web views), it has no other `Sec-Fetch-*` header, a form can
///    have sent its body, and its `Accept` contains `text/html`. `*/*` alone is not enough.
pub(crate) fn is_navigation(head: &RequestHead<'_>) -> bool {
    (*head.method == Method::GET || *head.method == Method::HEAD) && expects_page(head)
}

/// Returns `true` if a browser sends a form with this request and shows the response as a page: a
/// `POST` that passes the checks of [`is_navigation`].
pub(crate) fn is_form_submission(head: &RequestHead<'_>) -> bool {
    *head.method == Method::POST && expects_page(head)
}

/// Headers of script libraries that request HTML.
const SCRIPT_HEADERS: [&str; 7] = [
    "hx-request",
    "turbo-frame",
    "x-inertia",
    "x-livewire",
    "x-pjax",
    "x-turbo-request-id",
    "x-up-version",
];

/// Headers with which browsers describe a request, apart from `Sec-Fetch-Mode`.
const OTHER_FETCH_METADATA: [&str; 3] = ["sec-fetch-dest", "sec-fetch-site", "sec-fetch-user"];

/// Content types of forms. Scripts send these and others.
const FORM_CONTENT_TYPES: [&str; 3] = [
    "application/x-www-form-urlencoded",
    "multipart/form-data",
    "text/plain",
];

/// Returns the headers of a request that [`is_navigation`] reads, apart from `Sec-Fetch-Mode`, `Accept`
/// and `X-Requested-With`.
pub(crate) fn script_headers(
    headers: &HeaderMap,
) -> impl Iterator<Item = (HeaderName, HeaderValue)> + '_ {
    let body = [CONTENT_TYPE, CONTENT_LENGTH, TRANSFER_ENCODING];
    let names = SCRIPT_HEADERS.into_iter().chain(OTHER_FETCH_METADATA);
    let names = names.map(HeaderName::from_static).chain(body);
    names.flat_map(|name| {
        let values = headers.get_all(&name).iter().cloned();
        values.map(move |value| (name.clone(), value))
    })
}

/// Returns `true` if the browser shows the response as a page.
fn expects_page(head: &RequestHead<'_>) -> bool {
    if SCRIPT_HEADERS
        .iter()
        .any(|name| head.headers.contains_key(*name))
    {
        return false;
    }
    let text = |name: &str| header_text(head.headers, name);
    if text("x-requested-with").is_some_and(|by| by.eq_ignore_ascii_case("XMLHttpRequest")) {
        return false;
    }
    if let Some(mode) = text("sec-fetch-mode") {
        // Scripts cannot set this header. It also decides for an application that opens a page in its
        // web view with a body that no form sends.
        return mode.eq_ignore_ascii_case("navigate");
    }
    let has_fetch_metadata = OTHER_FETCH_METADATA
        .iter()
        .any(|name| head.headers.contains_key(*name));
    if has_fetch_metadata || !could_be_form_body(head.headers) {
        return false;
    }
    let accepts = head.headers.get_all(ACCEPT).iter();
    accepts
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|one| {
            let kind = one.split(';').next().unwrap_or_default().trim();
            kind.eq_ignore_ascii_case("text/html")
        })
}

/// Returns `true` if a form can have sent a body with these headers: the body has a form's content
/// type, or there is no body. A page load after a form may still have the form's content type.
fn could_be_form_body(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter().peekable();
    if types.peek().is_none() {
        let length = header_text(headers, CONTENT_LENGTH.as_str());
        let is_empty = length.is_none_or(|length| length.trim() == "0");
        return is_empty && !headers.contains_key(TRANSFER_ENCODING);
    }
    types.all(|value| {
        let kind = value.to_str().unwrap_or_default().split(';').next();
        let kind = kind.unwrap_or_default().trim();
        FORM_CONTENT_TYPES
            .iter()
            .any(|form| kind.eq_ignore_ascii_case(form))
    })
}

/// Returns `true` if the `User-Agent` is that of WeChat's browser. This is a hint only, because any
/// client can send it. WeCom's browser, which contains WeChat's name too, cannot use the web
/// authorization of an Official Account.
pub(crate) fn is_wechat_browser(headers: &HeaderMap) -> bool {
    let Some(agent) = header_text(headers, "user-agent") else {
        return false;
    };
    let agent = agent.to_ascii_lowercase();
    agent.contains("micromessenger") && !agent.contains("wxwork")
}

/// The origin of the page from which a browser was sent to this request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Initiator {
    /// Another origin, by a link or a redirect.
    OtherOrigin,
    /// A page of this origin, or no page.
    SameOriginOrNone,
}

/// Returns the initiator of a request by its `Sec-Fetch-Site`, or `None` without that header.
pub(crate) fn initiator(headers: &HeaderMap) -> Option<Initiator> {
    let site = header_text(headers, "sec-fetch-site")?;
    let others = ["cross-site", "same-site"];
    let other = others.iter().any(|other| site.eq_ignore_ascii_case(other));
    Some(if other {
        Initiator::OtherOrigin
    } else {
        Initiator::SameOriginOrNone
    })
}

fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn navigates(method: &str, headers: &[(&str, &str)]) -> bool {
        let mut request = Request::builder().method(method);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        is_navigation(&RequestHead::from_request(&request.body(()).unwrap()))
    }

    const HTML: (&str, &str) = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");

    #[test]
    fn page_loads_are_navigations() {
        assert!(navigates("GET", &[HTML]));
        assert!(navigates("HEAD", &[HTML]));
        assert!(navigates("GET", &[("accept", "TEXT/HTML;q=0.9")]));
        assert!(navigates("GET", &[("sec-fetch-mode", "navigate")]));
        // Android web views send the name of their app.
        assert!(navigates(
            "GET",
            &[HTML, ("x-requested-with", "com.tencent.mm")]
        ));
    }

    #[test]
    fn other_requests_are_not_navigations() {
        assert!(!navigates("GET", &[]));
        assert!(!navigates("GET", &[("accept", "*/*")]));
        assert!(!navigates("GET", &[("accept", "application/json")]));
        assert!(!navigates("GET", &[("accept", "text/html-sandboxed")]));
        assert!(!navigates("POST", &[HTML]));
        assert!(!navigates("POST", &[("sec-fetch-mode", "navigate")]));
        assert!(!navigates(
            "GET",
            &[HTML, ("x-requested-with", "XMLHttpRequest")]
        ));
        assert!(!navigates("GET", &[HTML, ("sec-fetch-mode", "cors")]));
        assert!(!navigates("GET", &[HTML, ("sec-fetch-dest", "empty")]));
    }

    #[test]
    fn distinguishes_forms_from_scripts() {
        let form = |headers: &[(&str, &str)]| {
            let mut request = Request::builder().method("POST");
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            is_form_submission(&RequestHead::from_request(&request.body(()).unwrap()))
        };
        assert!(form(&[HTML]) && form(&[("sec-fetch-mode", "navigate")]));
        assert!(!form(&[("accept", "*/*")]) && !form(&[HTML, ("sec-fetch-mode", "cors")]));
        for script in ["hx-request", "turbo-frame", "x-pjax", "x-inertia"] {
            assert!(!form(&[HTML, (script, "true")]));
            assert!(!navigates("GET", &[HTML, (script, "true")]));
        }
    }

    /// Bodies of fetch, XMLHttpRequest and server programs, without other headers.
    #[test]
    fn other_body_types_belong_to_scripts() {
        let asks = |method: &str, headers: &[(&str, &str)]| {
            let mut request = Request::builder().method(method);
            for (name, value) in [&[HTML], headers].concat() {
                request = request.header(name, value);
            }
            let request = request.body(()).unwrap();
            let head = RequestHead::from_request(&request);
            is_form_submission(&head) || is_navigation(&head)
        };
        for form in [
            &[("content-type", "application/x-www-form-urlencoded")][..],
            &[(
                "content-type",
                "Application/X-WWW-Form-Urlencoded ; charset=UTF-8",
            )],
            &[("content-type", "multipart/form-data; boundary=x")],
            &[("content-type", "text/plain"), ("content-length", "7")],
            &[("content-length", "0")],
            &[],
            &[
                ("content-type", "application/json"),
                ("sec-fetch-mode", "navigate"),
            ],
        ] {
            assert!(asks("POST", form) && asks("GET", form), "{form:?}");
        }
        for script in [
            &[("content-type", "application/json")][..],
            &[("content-type", "application/json;charset=utf-8")],
            &[("content-type", "application/vnd.api+json")],
            &[("content-type", "application/x-www-form-urlencoded-not")],
            &[("content-type", "text/xml")],
            &[("content-type", "application/octet-stream")],
            &[("content-type", "")],
            &[
                ("content-type", "text/plain"),
                ("content-type", "application/json"),
            ],
            &[("content-length", "7")],
            &[("transfer-encoding", "chunked")],
        ] {
            assert!(!asks("POST", script) && !asks("GET", script), "{script:?}");
        }
    }

    #[test]
    fn distinguishes_wechats_browser_from_wecoms() {
        let is = |agent: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("user-agent", http::HeaderValue::from_static(agent));
            is_wechat_browser(&headers)
        };
        assert!(is(
            "Mozilla/5.0 (iPhone) Mobile/15E148 MicroMessenger/8.0.42(0x18002a2d)"
        ));
        assert!(!is("Mozilla/5.0 wxwork/4.1.10 MicroMessenger/7.0.1"));
        assert!(!is("Mozilla/5.0 Chrome/130.0 Safari/537.36"));
    }
}
