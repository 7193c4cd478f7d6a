//! Who sends a request: a browser that opens a page, or a script of the page.

use http::header::ACCEPT;
use http::{HeaderMap, Method};

use crate::identity::RequestHead;

/// Whether a browser opens a page with this request, and can be sent to another one.
///
/// That is a `GET` or `HEAD` with `Sec-Fetch-Mode: navigate`; where a browser sends no `Sec-Fetch-*`
/// (older web views), one whose `Accept` names `text/html`. `*/*` alone names nothing. A script
/// that says so by `X-Requested-With: XMLHttpRequest` is none; other values of that header are
/// none of its business, since Android web views put the name of their app there.
pub(crate) fn is_navigation(head: &RequestHead<'_>) -> bool {
    (*head.method == Method::GET || *head.method == Method::HEAD) && opens_page(head)
}

/// Returns `true` if a browser sends a form with this request and shows whatever is answered: a
/// `POST` that is otherwise like a navigation.
pub(crate) fn is_form(head: &RequestHead<'_>) -> bool {
    *head.method == Method::POST && opens_page(head)
}

/// Headers by which libraries say that a script has sent the request, although it asks for HTML.
const SCRIPTS: [&str; 7] = [
    "hx-request",
    "turbo-frame",
    "x-inertia",
    "x-livewire",
    "x-pjax",
    "x-turbo-request-id",
    "x-up-version",
];

/// Returns `true` if what is answered becomes a page in the browser.
fn opens_page(head: &RequestHead<'_>) -> bool {
    if SCRIPTS.iter().any(|name| head.headers.contains_key(*name)) {
        return false;
    }
    let text = |name: &str| text(head.headers, name);
    if text("x-requested-with").is_some_and(|by| by.eq_ignore_ascii_case("XMLHttpRequest")) {
        return false;
    }
    if let Some(mode) = text("sec-fetch-mode") {
        return mode.eq_ignore_ascii_case("navigate");
    }
    let says_more = ["sec-fetch-dest", "sec-fetch-site", "sec-fetch-user"];
    if says_more
        .iter()
        .any(|name| head.headers.contains_key(*name))
    {
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

/// Whether the browser says that it is WeChat's own. A hint: anybody can say so. WeCom's browser,
/// which names WeChat too, cannot use an Official Account's web authorization.
pub(crate) fn is_wechat(headers: &HeaderMap) -> bool {
    let Some(agent) = text(headers, "user-agent") else {
        return false;
    };
    let agent = agent.to_ascii_lowercase();
    agent.contains("micromessenger") && !agent.contains("wxwork")
}

/// Where a browser was led here from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Site {
    /// Another site, by a link or a redirect.
    Other,
    /// A page of ours, or none.
    OursOrNone,
}

/// Returns where the browser says that it was led here from. `None` where it does not say.
pub(crate) fn came_from(headers: &HeaderMap) -> Option<Site> {
    let site = text(headers, "sec-fetch-site")?;
    let others = ["cross-site", "same-site"];
    let other = others.iter().any(|other| site.eq_ignore_ascii_case(other));
    Some(if other { Site::Other } else { Site::OursOrNone })
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
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
        is_navigation(&RequestHead::of(&request.body(()).unwrap()))
    }

    const HTML: (&str, &str) = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");

    #[test]
    fn pages_are_navigations() {
        assert!(navigates("GET", &[HTML]));
        assert!(navigates("HEAD", &[HTML]));
        assert!(navigates("GET", &[("accept", "TEXT/HTML;q=0.9")]));
        assert!(navigates("GET", &[("sec-fetch-mode", "navigate")]));
        // Android web views name their app.
        assert!(navigates(
            "GET",
            &[HTML, ("x-requested-with", "com.tencent.mm")]
        ));
    }

    #[test]
    fn everything_else_is_none() {
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
    fn forms_and_scripts_that_ask_for_html_are_sorted() {
        let form = |headers: &[(&str, &str)]| {
            let mut request = Request::builder().method("POST");
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            is_form(&RequestHead::of(&request.body(()).unwrap()))
        };
        assert!(form(&[HTML]) && form(&[("sec-fetch-mode", "navigate")]));
        assert!(!form(&[("accept", "*/*")]) && !form(&[HTML, ("sec-fetch-mode", "cors")]));
        for script in ["hx-request", "turbo-frame", "x-pjax", "x-inertia"] {
            assert!(!form(&[HTML, (script, "true")]));
            assert!(!navigates("GET", &[HTML, (script, "true")]));
        }
    }

    #[test]
    fn wechats_browser_is_told_from_wecoms() {
        let is = |agent: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("user-agent", http::HeaderValue::from_static(agent));
            is_wechat(&headers)
        };
        assert!(is(
            "Mozilla/5.0 (iPhone) Mobile/15E148 MicroMessenger/8.0.42(0x18002a2d)"
        ));
        assert!(!is("Mozilla/5.0 wxwork/4.1.10 MicroMessenger/7.0.1"));
        assert!(!is("Mozilla/5.0 Chrome/130.0 Safari/537.36"));
    }
}
