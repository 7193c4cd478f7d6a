//! Recognition of page loads, forms, scripts' requests and browsers by their headers.

use http::header::{
    ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, TRANSFER_ENCODING, USER_AGENT,
};
use http::{HeaderMap, HeaderValue, Method};

use crate::identity::RequestHead;

/// Returns `true` if a browser opens a page with this request, so that a redirect leads the browser
/// to another page.
///
/// A page load is a `GET` or `HEAD` that passes these checks, in this order:
///
/// 1. It has no header by which a script library marks its requests, and its `X-Requested-With` is
///    not `XMLHttpRequest`. Other values of that header are allowed, because Android web views put
///    the name of their app there.
/// 2. If it has `Sec-Fetch-Mode`, the value is `navigate`. The third check is then omitted.
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

/// Headers by which script libraries mark their requests. These libraries request HTML, as page
/// loads do.
const SCRIPT_HEADERS: [&str; 7] = [
    "hx-request",
    "turbo-frame",
    "x-inertia",
    "x-livewire",
    "x-pjax",
    "x-turbo-request-id",
    "x-up-version",
];

const COMMON_HEADERS_COUNT: usize = 4;

/// Headers that browsers send with most requests. These headers are enough to recognize nearly all
/// requests.
const COMMON_HEADERS: [HeaderName; COMMON_HEADERS_COUNT] = [
    ACCEPT,
    HeaderName::from_static("sec-fetch-mode"),
    HeaderName::from_static("sec-fetch-site"),
    HeaderName::from_static("x-requested-with"),
];

/// Headers with which browsers describe a request, apart from `Sec-Fetch-Mode`.
const OTHER_FETCH_METADATA: [&str; 3] = ["sec-fetch-dest", "sec-fetch-site", "sec-fetch-user"];

/// Content types that a form can send. Scripts send these types and others.
const FORM_CONTENT_TYPES: [&str; 3] = [
    "application/x-www-form-urlencoded",
    "multipart/form-data",
    "text/plain",
];

/// A copy of the headers by which this module recognizes a request.
///
/// For the requests of browsers, [`is_navigation`] and [`is_form_submission`] return the same for a
/// head with this copy as for the original head. The copy omits script libraries' headers beside
/// `Sec-Fetch-Mode: navigate`, a combination that no browser sends.
pub(crate) struct NavigationHeaders {
    /// The first value of each header in [`COMMON_HEADERS`], in the order of that list.
    common: [Option<HeaderValue>; COMMON_HEADERS_COUNT],
    /// The values of `Accept` after the first, and the recognized headers outside of
    /// [`COMMON_HEADERS`]. Empty for nearly every request, so that the copy allocates nothing.
    more: Vec<(HeaderName, HeaderValue)>,
}

impl NavigationHeaders {
    pub(crate) fn copy_from(headers: &HeaderMap) -> Self {
        let common = COMMON_HEADERS.map(|name| headers.get(name).cloned());
        let [accept, mode, ..] = &common;
        let all = |name: HeaderName| {
            let values = headers.get_all(&name).iter().cloned();
            values.map(move |value| (name.clone(), value))
        };
        let mut more = Vec::new();
        if accept.is_some() {
            more.extend(all(ACCEPT).skip(1));
        }
        // The headers outside of `COMMON_HEADERS` matter only for older browsers. A request with
        // `Sec-Fetch-Mode` is recognized by that header. A request with neither `Sec-Fetch-Mode`
        // nor `Accept` is no page load.
        if mode.is_none() && accept.is_some() {
            let body = [CONTENT_TYPE, CONTENT_LENGTH, TRANSFER_ENCODING];
            let names = SCRIPT_HEADERS.into_iter().chain(OTHER_FETCH_METADATA);
            let names = names.map(HeaderName::from_static).chain(body);
            let uncommon = names.filter(|name| !COMMON_HEADERS.contains(name));
            more.extend(uncommon.flat_map(all));
        }
        Self { common, more }
    }

    pub(crate) fn append_to(&self, headers: &mut HeaderMap) {
        for (name, value) in COMMON_HEADERS.into_iter().zip(&self.common) {
            if let Some(value) = value {
                headers.append(name, value.clone());
            }
        }
        for (name, value) in &self.more {
            headers.append(name, value.clone());
        }
    }
}

/// Returns `true` if the headers pass the checks of [`is_navigation`], so that the browser shows
/// the response as a page.
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
        // Scripts cannot set `Sec-Fetch-Mode`. The body is not checked, because an application may
        // open a page in its web view with a body that no form sends.
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

/// The kind of browser that sent a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Browser {
    /// WeChat's browser on any device, computers included.
    Wechat,
    /// Another browser on a phone. A QR code that it shows cannot be scanned with the same phone.
    Phone,
    /// Any other browser, or a client without a `User-Agent`: browsers of computers and tablets,
    /// and WeCom's browser on any device.
    Other,
}

/// Parts of the `User-Agent` of phones, in lower case.
///
/// Nearly all phones send `Mobile`, also in the browsers of Alipay, DingTalk and QQ. Android tablets
/// do not send it.
const PHONE_TOKENS: [&str; 5] = ["mobile", "iphone", "ipod", "phone;", "opera mini"];

/// Parts of the `User-Agent` of tablets, in lower case. Tablets may send `Mobile` too.
const TABLET_TOKENS: [&str; 2] = ["ipad", "tablet"];

/// Returns the browser that sent a request, by its `User-Agent`. The result is a hint only, because
/// any client can send any `User-Agent`.
///
/// WeCom's browser has WeChat's name in its `User-Agent`, but cannot use the web authorization of
/// an Official Account. Tablets count as [`Browser::Other`], because an iPad sends the
/// `User-Agent` of a Mac by default. Their users can scan a QR code with their phone.
pub(crate) fn browser(headers: &HeaderMap) -> Browser {
    let Some(agent) = headers.get(USER_AGENT) else {
        return Browser::Other;
    };
    // Some apps put the name of the phone there, in other characters than ASCII.
    let agent = agent.as_bytes().to_ascii_lowercase();
    let has = |token: &str| memchr::memmem::find(&agent, token.as_bytes()).is_some();
    if has("wxwork") {
        return Browser::Other;
    }
    if has("micromessenger") {
        return Browser::Wechat;
    }
    match TABLET_TOKENS.into_iter().any(has) {
        false if PHONE_TOKENS.into_iter().any(has) => Browser::Phone,
        true | false => Browser::Other,
    }
}

/// Returns `true` if the script of a page sent a request, by the header `Sec-Fetch-Mode`.
pub(crate) fn is_script_request(headers: &HeaderMap) -> bool {
    header_text(headers, "sec-fetch-mode")
        .is_some_and(|mode| !mode.eq_ignore_ascii_case("navigate"))
}

/// Returns `true` if a browser loads the response in an `iframe` of a page.
pub(crate) fn is_in_frame(headers: &HeaderMap) -> bool {
    header_text(headers, "sec-fetch-dest").is_some_and(|dest| dest.eq_ignore_ascii_case("iframe"))
}

/// Returns `true` if a page of another site caused the request of a browser. Browsers then send no
/// `SameSite=Lax` cookies, unless the request opens a page in a window.
pub(crate) fn is_cross_site(headers: &HeaderMap) -> bool {
    header_text(headers, "sec-fetch-site")
        .is_some_and(|site| site.eq_ignore_ascii_case("cross-site"))
}

/// The origin of the page whose link, form or redirect caused a request of a browser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Initiator {
    /// A page of another origin, which may have the same site.
    OtherOrigin,
    /// A page of this origin, or no page, as for an address that the user typed.
    SameOriginOrNone,
}

/// Returns the initiator of a request by its header `Sec-Fetch-Site`, or `None` without that
/// header.
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

/// Returns the first value of a header. Returns `None` if the header is missing or contains
/// characters other than visible ASCII.
pub(crate) fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
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
        let request = request.body(()).unwrap();
        let head = RequestHead::from_request(&request);
        assert_eq!(
            is_navigation(&head),
            with_copied_headers(&head, is_navigation)
        );
        is_navigation(&head)
    }

    /// Calls `recognize` with a head whose headers are replaced by their copy in
    /// [`NavigationHeaders`].
    fn with_copied_headers(
        head: &RequestHead<'_>,
        recognize: fn(&RequestHead<'_>) -> bool,
    ) -> bool {
        let mut headers = HeaderMap::new();
        NavigationHeaders::copy_from(head.headers).append_to(&mut headers);
        recognize(&RequestHead {
            headers: &headers,
            ..*head
        })
    }

    const HTML: (&str, &str) = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");

    #[test]
    fn page_loads_are_navigations() {
        assert!(navigates("GET", &[HTML]));
        assert!(navigates("HEAD", &[HTML]));
        assert!(navigates("GET", &[("accept", "TEXT/HTML;q=0.9")]));
        assert!(navigates("GET", &[("sec-fetch-mode", "navigate")]));
        // Android web views send the name of their app in `X-Requested-With`.
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
            let request = request.body(()).unwrap();
            let head = RequestHead::from_request(&request);
            let is_form = is_form_submission(&head);
            assert_eq!(is_form, with_copied_headers(&head, is_form_submission));
            is_form
        };
        assert!(form(&[HTML]) && form(&[("sec-fetch-mode", "navigate")]));
        assert!(!form(&[("accept", "*/*")]) && !form(&[HTML, ("sec-fetch-mode", "cors")]));
        for script in ["hx-request", "turbo-frame", "x-pjax", "x-inertia"] {
            assert!(!form(&[HTML, (script, "true")]));
            assert!(!navigates("GET", &[HTML, (script, "true")]));
        }
    }

    /// Bodies with a content type that no form sends, as fetch, XMLHttpRequest and server programs
    /// send them.
    #[test]
    fn other_body_types_belong_to_scripts() {
        let expects_page = |method: &str, headers: &[(&str, &str)]| {
            let mut request = Request::builder().method(method);
            for (name, value) in [&[HTML], headers].concat() {
                request = request.header(name, value);
            }
            let request = request.body(()).unwrap();
            let head = RequestHead::from_request(&request);
            let expects_page =
                |head: &RequestHead<'_>| is_form_submission(head) || is_navigation(head);
            assert_eq!(
                expects_page(&head),
                with_copied_headers(&head, expects_page)
            );
            expects_page(&head)
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
            assert!(
                expects_page("POST", form) && expects_page("GET", form),
                "{form:?}"
            );
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
            assert!(
                !expects_page("POST", script) && !expects_page("GET", script),
                "{script:?}"
            );
        }
    }

    #[test]
    fn recognises_browsers_by_their_user_agent() {
        let wechat = [
            // iOS, an iPad included
            "Mozilla/5.0 (iPhone; CPU iPhone OS 16_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 MicroMessenger/8.0.42(0x18002a2d) NetType/WIFI Language/zh_CN",
            "Mozilla/5.0 (iPad; CPU OS 16_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 MicroMessenger/8.0.42(0x18002a2d) NetType/WIFI Language/zh_CN",
            // Android, with the old engine and the new one
            "Mozilla/5.0 (Linux; Android 13; V2166BA Build/TP1A; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/111.0.5563.116 Mobile Safari/537.36 XWEB/1110017 MMWEBSDK/20230805 MMWEBID/525 MicroMessenger/8.0.42.2460(0x28002A35) WeChat/arm64 Weixin NetType/WIFI Language/zh_CN ABI/arm64",
            "Mozilla/5.0 (Linux; Android 7.1.1; MI 6) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 MQQBrowser/6.2 TBS/043807 Mobile Safari/537.36 MicroMessenger/6.6.1.1220(0x26060135) NetType/4G Language/zh_CN Process/tools",
            // HarmonyOS NEXT
            "Mozilla/5.0 (Phone; OpenHarmony 5.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/114.0.0.0 Safari/537.36 ArkWeb/4.1.6.1 Mobile MicroMessenger/8.0.10.41(0xf3100a29) Weixin NetType/WIFI",
            // Windows, macOS and Linux
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/132.0.0.0 Safari/537.36 NetType/WIFI MicroMessenger/7.0.20.1781(0x6700143B) WindowsWechat(0x63090a13) UnifiedPCWindowsWechat(0xf2541022) XWEB/16467 Flue",
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) NetType/WIFI MicroMessenger/6.8.0(0x16080000) MacWechat/3.8.6(0x13080610) Safari/605.1.15 NetType/WIFI",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/132.0.0.0 Safari/537.36 NetType/WIFI MicroMessenger/7.0.20.1781(0x6700143B) UnifiedPCLinuxWechat(0xf2540611) XWEB/14315 Flue",
            // a mini program's web view, and WeChat's developer tools
            "Mozilla/5.0 (iPhone; CPU iPhone OS 15_0 like Mac OS X) Mobile/15E148 MicroMessenger/8.0.40(0x1800282a) NetType/WIFI Language/zh_CN MiniProgramEnv/ios",
            "Mozilla/5.0 (iPhone; CPU iPhone OS 15_0 like Mac OS X) Mobile/15E148 wechatdevtools/1.06.2307260 MicroMessenger/8.0.5 Language/zh_CN webview/",
        ];
        let phone = [
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.0 Mobile/15E148 Safari/604.1",
            "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Mobile Safari/537.36",
            "Mozilla/5.0 (Android 14; Mobile; rv:132.0) Gecko/132.0 Firefox/132.0",
            "Mozilla/5.0 (Phone; OpenHarmony 5.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/114.0.0.0 Safari/537.36 ArkWeb/4.1.6.1",
            // the browsers of Alipay, DingTalk, QQ and Weibo
            "Mozilla/5.0 (iPhone; CPU iPhone OS 16_3 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/20D47 Ariver/1.1.0 AliApp(AP/10.3.30.6000) Nebula WK RVKType(0) AlipayDefined(nt:WIFI,ws:390|780|3.0) AlipayClient/10.3.30.6000 Language/zh-Hans",
            "Mozilla/5.0 (Linux; U; Android 12; zh-CN; M2102J2SC) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/100.0.4896.58 UWS/5.12.3.0 Mobile Safari/537.36 AliApp(DingTalk/7.0.40) com.alibaba.android.rimet/29488317 Channel/227200 language/zh-CN",
            "Mozilla/5.0 (Linux; U; Android 13; zh-cn; PGT-AN00) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/109.0.5414.86 MQQBrowser/14.6 Mobile Safari/537.36 COVC/046915",
            "Opera/9.80 (Android; Opera Mini/36.2.2254/119.132; U; id) Presto/2.12.423 Version/12.16",
        ];
        let other = [
            // desktop browsers
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36",
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36 Edg/130.0.0.0",
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:132.0) Gecko/20100101 Firefox/132.0",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36",
            "Mozilla/5.0 (PC; OpenHarmony 5.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/114.0.0.0 Safari/537.36 ArkWeb/4.1.6.1",
            // Safari on a Mac, and on an iPad that asks for the pages of computers
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.0 Safari/605.1.15",
            // DingTalk on Windows
            "Mozilla/5.0 (Windows NT 10.0; WOW64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/91.0.4472.124 Safari/537.36 dingtalk-win/1.0.0 nw(0.14.7) DingTalk(7.0.40-Release) Mojo/1.0.0 Native AppType(release)",
            // tablets
            "Mozilla/5.0 (iPad; CPU OS 16_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/16.6 Mobile/15E148 Safari/604.1",
            "Mozilla/5.0 (Linux; Android 12; HarmonyOS; DBY-W09) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/99.0.4844.88 HuaweiBrowser/13.0.3.301 Safari/537.36",
            "Mozilla/5.0 (Android 13; Tablet; rv:132.0) Gecko/132.0 Firefox/132.0",
            "Mozilla/5.0 (Tablet; OpenHarmony 5.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/114.0.0.0 Safari/537.36 ArkWeb/4.1.6.1 Mobile",
            // WeCom on a phone and on Windows
            "Mozilla/5.0 (iPhone; CPU iPhone OS 16_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 wxwork/4.1.10 MicroMessenger/7.0.1 Language/zh ColorScheme/Light",
            "Mozilla/5.0 (Windows NT 10.0; WOW64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/91.0.4472.77 Safari/537.36 wxwork/4.1.10 (MicroMessenger/6.2) WindowsWechat MailPlugin_Electron WeMail embeddisk",
            "curl/8.5.0",
            "",
        ];
        let by_browser = [
            (Browser::Wechat, &wechat[..]),
            (Browser::Phone, &phone),
            (Browser::Other, &other),
        ];
        for (expected, agents) in by_browser {
            for agent in agents {
                let mut headers = HeaderMap::new();
                headers.insert(USER_AGENT, HeaderValue::from_static(agent));
                assert_eq!(browser(&headers), expected, "{agent}");
            }
        }
        assert_eq!(browser(&HeaderMap::new()), Browser::Other);
        let mut headers = HeaderMap::new();
        let agent = "Mozilla/5.0 (Linux; Android 13; 红米) Mobile MicroMessenger/8.0.42".as_bytes();
        headers.insert(USER_AGENT, HeaderValue::from_bytes(agent).unwrap());
        assert_eq!(browser(&headers), Browser::Wechat);
    }
}
