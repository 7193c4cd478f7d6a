use super::*;
use proptest::prelude::*;
use url::Url;

const PAGE: &str = "https://h5.example.com/wechat/callback?code=1&state=2";

fn public_url() -> PublicUrl {
    PublicUrl::parse("https://h5.example.com").unwrap()
}

/// The origins that the application lists.
fn listed() -> ReturnOrigins {
    let origins = ["https://www.example.com", "https://dev.example.com:8443"];
    ReturnOrigins::parse(origins, &public_url()).unwrap()
}

fn parse(page: &[u8]) -> Result<ReturnTo, ReturnToError> {
    ReturnTo::parse(page, &public_url(), &listed())
}

fn read(page: &str) -> Result<String, ReturnToError> {
    parse(page.as_bytes()).map(|page| page.as_str().to_owned())
}

/// Returns the URL that a browser requests after a redirect to this page.
fn follow(path: &ReturnTo) -> Url {
    Url::parse(PAGE).unwrap().join(path.as_str()).unwrap()
}

#[test]
fn rejects_paths_that_leave_the_origin() {
    for page in [
        "",
        "evil",
        "//evil.example",
        "///evil.example",
        "/\\evil.example",
        "\\/evil.example",
        "\\\\evil.example",
        "/\t/evil.example",
        "/\n/evil.example",
        "\t//evil.example",
        " //evil.example",
        " /a",
        "https:evil.example",
        "javascript:alert(1)",
        "https://h5.example.com@evil.example/",
        "https://h5.example.com//evil.example",
        "https://h5.example.com/\\evil.example",
        "https://h5.example.com\\evil.example",
        "https:h5.example.com/a",
        "/a\r\nSet-Cookie: x=y",
        "/\u{0}",
        "/\u{7f}",
        "/\u{85}",
        "//h5.example.com/",
        "?a",
        "#a",
        "@evil.example",
        ".evil.example",
        "/.//evil.example",
        "/..//evil.example",
        "/x/..//evil.example",
        "/x/%2e%2E//evil.example",
        "/x/.%2e/y",
        "/a/.",
        "/a/..?b",
        "/%2e#b",
        "/%2f/evil.example",
        "/%2Fevil.example",
        "/%5cevil.example",
        "/%5C/evil.example",
        "/x%2f..%2f..%2fy",
        "/x/..%5Cy",
    ] {
        assert_eq!(read(page), Err(ReturnToError::Unsafe), "{page:?}");
    }
}

#[test]
fn rejects_urls_that_only_resemble_listed_origins() {
    for page in [
        "https://www.example.com@evil.example/",
        "https://www.example.com:443@evil.example/",
        "https://user@www.example.com/",
        "https://www.example.com\\@evil.example/",
        "https://www.example.com\\evil.example",
        "https:\\\\www.example.com/",
        "https:/www.example.com/",
        "https:www.example.com/",
        "//www.example.com/",
        " https://www.example.com/",
        "\thttps://www.example.com/",
        "ht\ntps://www.example.com/",
        "https://www.exa\tmple.com/",
        "https://www.example.com/\t/a",
        "https://www.example.com/\r\nSet-Cookie: a=b",
        "https://www.example.com\u{3002}evil.example/",
        "https://www\u{ff0e}example\u{ff0e}com/",
        "https://www.example.com%2f@evil.example/",
        "https://www.example.com%2fa",
        "https://www.example.com//evil.example",
        "https://www.example.com/\\evil.example",
        "https://www.example.com/../a",
        "https://www.example.com/%2e%2e/a",
        "https://www.example.com/%2f/a",
        "https://www.example.com:/a",
        "https://www.example.com:0443/a",
        "https://dev.example.com:8443:443/a",
        "javascript:alert('https://www.example.com/')",
        "javascript://www.example.com/%0aalert(1)",
        "data:text/html,https://www.example.com/",
        "view-source:https://www.example.com/",
        "blob:https://www.example.com/a",
    ] {
        assert_eq!(read(page), Err(ReturnToError::Unsafe), "{page:?}");
    }
    for page in [
        "https://evil.example",
        "https://www.example.com.evil.example/",
        "https://www.example.com.",
        "https://evil.example/https://www.example.com/",
        "https://evil.example?https://www.example.com/",
        "https://evil.example#@www.example.com/",
        "https://www.example.com:444/",
        "https://www.example.com:4430/",
        "http://www.example.com/",
        "http://www.example.com:443/",
        "https://dev.example.com/",
        "https://dev.example.com:843/",
        "https://example.com/",
        "https://a.www.example.com/",
        "https://h5.example.com:8443/",
        "https://h5.example.com.evil.example/",
        "http://h5.example.com/",
        "HTTPS://EVIL.EXAMPLE/",
    ] {
        assert_eq!(read(page), Err(ReturnToError::UnlistedOrigin), "{page:?}");
    }
    let listed_only = "https://www.example.com/";
    let none = ReturnOrigins::default();
    let page = ReturnTo::parse(listed_only.as_bytes(), &public_url(), &none);
    assert_eq!(page, Err(ReturnToError::UnlistedOrigin));
}

#[test]
fn keeps_pages_of_listed_origins() {
    for (page, kept) in [
        ("https://www.example.com", "https://www.example.com/"),
        (
            "https://www.example.com?a#b",
            "https://www.example.com/?a#b",
        ),
        (
            "https://www.example.com#/cart",
            "https://www.example.com/#/cart",
        ),
        ("HTTPS://WWW.Example.com:443/A", "https://www.example.com/A"),
        (
            "https://www.example.com/cart?a=1;b=2#/step/2",
            "https://www.example.com/cart?a=1;b=2#/step/2",
        ),
        (
            "https://dev.example.com:8443/\u{8336}?q=a b",
            "https://dev.example.com:8443/%E8%8C%B6?q=a%20b",
        ),
        (
            "https://www.example.com/?next=https://evil.example/../",
            "https://www.example.com/?next=https://evil.example/../",
        ),
    ] {
        assert_eq!(read(page).as_deref(), Ok(kept), "{page}");
        let page = ReturnTo::from_stored(kept).unwrap();
        assert_eq!(follow(&page).as_str(), kept);
        assert!(page.is_absolute() && page.is_allowed(&listed()));
        assert!(!page.is_allowed(&ReturnOrigins::default()), "{kept}");
    }
    // The application's own origin is a path, also with the default port.
    assert_eq!(read("https://h5.example.com:443/a").as_deref(), Ok("/a"));
}

#[test]
fn stored_urls_are_safe() {
    for stored in [
        "https://www.example.com",
        "https://WWW.example.com/",
        "https://www.example.com:443/",
        "https://user@www.example.com/",
        "https://www.example.com//a",
        "https://www.example.com/../a",
        "//www.example.com/",
        "javascript:alert(1)",
    ] {
        assert_eq!(ReturnTo::from_stored(stored), None, "{stored}");
    }
}

#[test]
fn keeps_safe_pages_unchanged() {
    for page in [
        "/",
        "/a?b=c&d=%2F%2Fe",
        "/a#b",
        "/%0d%0aSet-Cookie:x",
        "/a//b",
        "/a%2Fb%5Cc",
        "/@evil.example",
        "/?next=https://evil.example",
        "/a:b;c,d?e=f;g,h",
        "/.well-known/x",
        "/a...b/.../..c",
        "/a?next=/../b",
        "/a?list[]=1&json={x|y}",
        "/s?gbk=%C4%E3%BA%C3&broken=%zz%",
    ] {
        assert_eq!(read(page).as_deref(), Ok(page));
        let page = ReturnTo::from_stored(page).unwrap();
        assert_eq!(follow(&page).origin(), Url::parse(PAGE).unwrap().origin());
    }
}

#[test]
fn encodes_like_browsers() {
    for (page, encoded) in [
        ("/a b", "/a%20b"),
        ("/a ", "/a%20"),
        (
            "/\u{4e2d}\u{6587}?q=\u{8336}",
            "/%E4%B8%AD%E6%96%87?q=%E8%8C%B6",
        ),
        ("/?q=\u{1f44d}", "/?q=%F0%9F%91%8D"),
        ("/?q=\"<x>\"", "/?q=%22%3Cx%3E%22"),
        ("/?q=a^b", "/?q=a%5Eb"),
        ("/a\u{202e}b", "/a%E2%80%AEb"),
        ("https://h5.example.com", "/"),
        ("https://h5.example.com/a?b#c", "/a?b#c"),
        ("https://h5.example.com?b", "/?b"),
        ("HTTPS://H5.EXAMPLE.COM:443/\u{8336}", "/%E8%8C%B6"),
    ] {
        assert_eq!(read(page).as_deref(), Ok(encoded));
    }
    // Bytes that are not UTF-8, here GBK, are percent-encoded unchanged.
    for (page, encoded) in [
        (&b"/s?q=\xc4\xe3"[..], "/s?q=%C4%E3"),
        (b"https://h5.example.com/s?q=\xc4\xe3", "/s?q=%C4%E3"),
        (
            b"https://www.example.com/s?q=\xc4\xe3",
            "https://www.example.com/s?q=%C4%E3",
        ),
    ] {
        assert_eq!(parse(page).unwrap().as_str(), encoded);
    }
}

#[test]
fn limits_pages_to_2048_bytes() {
    let longest = format!("/{}", "a".repeat(MAX_RETURN_TO_BYTES - 1));
    assert_eq!(read(&longest).as_deref(), Ok(longest.as_str()));
    assert_eq!(read(&format!("{longest}a")), Err(ReturnToError::TooLong));
    let origin = "https://www.example.com";
    let longest = format!(
        "{origin}/{}",
        "a".repeat(MAX_RETURN_TO_BYTES - 1 - origin.len())
    );
    assert_eq!(read(&longest).as_deref(), Ok(longest.as_str()));
    assert_eq!(read(&format!("{longest}a")), Err(ReturnToError::TooLong));
    let uri = format!("/page?q={}", "a".repeat(MAX_RETURN_TO_BYTES));
    let (page, reason) = ReturnTo::from_uri(&uri.parse().unwrap(), &public_url());
    assert_eq!(
        (page.as_str(), reason),
        ("/page", Some(ReturnToError::TooLong))
    );
}

#[test]
fn adds_the_prefix_once() {
    let public_url = PublicUrl::parse("https://a.b/app").unwrap();
    for (page, public) in [
        ("/", "/app/"),
        ("/me?a", "/app/me?a"),
        ("/app", "/app"),
        ("/app/me", "/app/me"),
        ("https://a.b/app/me", "/app/me"),
        ("https://a.b", "/app/"),
        ("https://a.b/", "/app/"),
        // The prefix is a path of the application only.
        ("https://www.example.com/me", "https://www.example.com/me"),
    ] {
        let page = ReturnTo::parse(page.as_bytes(), &public_url, &listed()).unwrap();
        assert_eq!(page.as_str(), public);
    }
    assert_eq!(ReturnTo::start_page(&public_url).as_str(), "/app/");
}

#[test]
fn does_not_add_the_prefix_to_a_url_of_another_application() {
    let public_url = PublicUrl::parse("https://a.b/wx1").unwrap();
    for url in [
        "https://a.b/wx2/?x",
        "https://a.b/?x",
        "https://a.b/wx12/me",
    ] {
        let page = ReturnTo::parse(url.as_bytes(), &public_url, &listed());
        assert_eq!(page.err(), Some(ReturnToError::OtherApplication), "{url}");
        let page = ReturnTo::from_referer(url.as_bytes(), &public_url, &listed());
        assert!(page.is_none(), "{url}");
    }
}

#[test]
fn accepts_only_referers_of_its_origin() {
    let of = |referer: &str| {
        ReturnTo::from_referer(referer.as_bytes(), &public_url(), &listed())
            .map(|path| path.0.into_string())
    };
    assert_eq!(of("https://h5.example.com/a?b#c").as_deref(), Some("/a?b"));
    assert_eq!(of("https://h5.example.com").as_deref(), Some("/"));
    assert_eq!(of("https://h5.example.com.evil.example/a"), None);
    assert_eq!(of("https://h5.example.com@evil.example/a"), None);
    assert_eq!(of("https://h5.example.com:8443/a"), None);
    assert_eq!(of("http://h5.example.com/a"), None);
    assert_eq!(of("https://h5.example.com//evil.example"), None);
    assert_eq!(of("/a"), None);
    let page = "https://www.example.com/a?b";
    assert_eq!(of(&format!("{page}#c")).as_deref(), Some(page));
    assert_eq!(of("https://www.example.com@evil.example/a"), None);
    assert_eq!(of("https://www.example.com:444/a"), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn accepted_pages_stay_on_their_origin(
        page in prop_oneof![
            "\\PC{0,30}",
            "[/\\\\]{0,3}[\t\n\r @:.?#%/\\\\a-zA-Z0-9]{0,20}",
            "/[ -~]{0,40}",
            "(/|/|\\.|%2e|%2E|%2f|%5C|x|\\?|;|\u{4e2d}| ){0,12}",
            "(https?:/{0,3}|HTTPS://)(h5|www|dev)\\.example\\.com[@:/.?#\\\\a-z0-9]{0,20}",
            "https://(www|WWW)[.\u{3002}\u{ff0e}]example[.]com(:443|:444|:8443|:|)[/?#@%\\\\\t\n\u{8336}a.2f]{0,12}",
            "[ \t\n]?https[:\t]//dev.example.com:[0-9]{1,5}[/?#@.a]{0,6}",
            any::<String>(),
        ],
        prefix in prop_oneof![Just(""), Just("/app")],
    ) {
        let public_url = PublicUrl::parse(&format!("https://h5.example.com{prefix}")).unwrap();
        if let Ok(page) = ReturnTo::parse(page.as_bytes(), &public_url, &listed()) {
            let url = follow(&page);
            let origin = url.origin().ascii_serialization();
            if page.is_absolute() {
                prop_assert!(listed().find(&origin).is_some(), "{}", url);
            } else {
                prop_assert_eq!(&origin, "https://h5.example.com");
                prop_assert!(url.path().starts_with(prefix), "{}", url);
            }
            prop_assert_eq!(url.username(), "");
            prop_assert!(!url.path().starts_with("//"), "{}", url);
            // The browser resolves no segment, so that it requests the page that was checked.
            let segments = |path: &str| path.split('/').count();
            let path = page.path().strip_prefix(&origin).unwrap_or(page.path());
            prop_assert_eq!(segments(url.path()), segments(path), "{}", url);
            prop_assert!(http::HeaderValue::from_str(page.as_str()).is_ok());
            prop_assert_eq!(ReturnTo::from_stored(page.as_str()), Some(page));
        }
    }

    /// After a login, the address bar of a browser shows the same page as before.
    #[test]
    fn browsers_return_to_the_same_page(path in "/[a-z0-9\u{4e00}-\u{4eff} \u{1f600}-\u{1f64f}\"'();,@&=+$!*~_-]{0,40}",
        query in "[a-z0-9\u{4e00}-\u{4eff} \"'();,@&=+$!*~_/?:{}|\\[\\]-]{0,40}") {
        for origin in ["https://www.example.com", "https://h5.example.com"] {
            let shown = Url::parse(&format!("{origin}{path}?{query}")).unwrap();
            prop_assert_eq!(follow(&parse(shown.as_str().as_bytes()).unwrap()), shown);
        }
        let shown = Url::parse(&format!("https://h5.example.com{path}?{query}")).unwrap();
        prop_assume!(!query.ends_with(' '));
        // A link may contain the page without encoding.
        let page = parse(format!("{path}?{query}").as_bytes()).unwrap();
        prop_assert_eq!(follow(&page), shown);
    }

    #[test]
    fn referers_stay_on_the_origin(host in "(h5|www)", rest in "\\PC{0,40}") {
        let referer = format!("https://{host}.example.com{rest}");
        let page = ReturnTo::from_referer(referer.as_bytes(), &public_url(), &listed());
        if let Some(page) = page {
            let origin = format!("https://{host}.example.com");
            prop_assert_eq!(follow(&page).origin().ascii_serialization(), origin);
        }
    }
}
