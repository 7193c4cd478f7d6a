//! Tests of the page that `GET /api/jssdk?url=` and the token center's `GET /jssdk/config?url=`
//! sign.

use tower_wechat::jssdk;

use crate::support::demo_process::DemoProcess;
use crate::support::harness::variables;
use crate::support::http_client::{Answer, Asked};

const CENTER_TOKEN: &str = "a-long-random-secret";

/// Requests a signature from each of the two routes, with this query.
async fn ask_both(demo: &DemoProcess, query: &str) -> [Answer; 2] {
    let bearer = format!("Bearer {CENTER_TOKEN}");
    let center = format!("/center/jssdk/config?{query}");
    [
        demo.ask(Asked::get(&format!("/api/jssdk?{query}"))).await,
        demo.ask(Asked::get(&center).header("authorization", &bearer))
            .await,
    ]
}

async fn start() -> (DemoProcess, String) {
    let demo = DemoProcess::start(&variables(&[("CENTER_TOKEN", CENTER_TOKEN)])).await;
    let bearer = format!("Bearer {CENTER_TOKEN}");
    let ticket = demo
        .ask(Asked::get("/center/jsapi_ticket").header("authorization", &bearer))
        .await
        .field("ticket");
    (demo, ticket)
}

/// Encodes a URL as `encodeURIComponent` does, which keeps `A-Z a-z 0-9 - _ . ! ~ * ' ( )`.
fn encoded(url: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&byte);
    url.bytes()
        .map(|byte| match plain(byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_browsers_url_is_signed_unchanged() {
    let (demo, ticket) = start().await;
    let origin = &demo.url;
    for rest in [
        "",
        "/",
        "?params=value",
        "/?a=1&b=2",
        "/?from=singlemessage&isappinstalled=0",
        "/%E9%A1%B5?%E5%90%8D=%E5%80%BC",
        "/p?q=a+b%20c&next=https%3A%2F%2Fother.example%2F%3Fx%3D1",
        "/p?100%25",
        "/p?a=(b)*'c'!~&",
        "/#/route?a=1",
    ] {
        let page = format!("{origin}{rest}");
        let signed = page.split('#').next().unwrap_or_default();
        for beside in ["", "&_=1700000000"] {
            let query = format!("url={}{beside}", encoded(&page));
            for answer in ask_both(&demo, &query).await {
                assert_eq!(answer.status, 200, "{page}: {answer:?}");
                let (nonce, at) = (
                    answer.field("nonceStr"),
                    answer.json()["timestamp"].as_u64(),
                );
                let expected = jssdk::sign(&ticket, &nonce, at.unwrap(), signed);
                assert_eq!(answer.field("signature"), expected, "{page}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_or_decoded_url_is_rejected() {
    let (demo, _) = start().await;
    let origin = &demo.url;
    for query in [
        String::new(),
        "url=".to_owned(),
        format!("url={origin}/?a=1&b=2"),
        format!("url={origin}/?from=singlemessage&isappinstalled=0"),
        format!("url={origin}/?a=1&"),
        format!("url={origin}/?a=%E5%80%BC"),
        format!("url={origin}/%E9%A1%B5"),
        format!("url={origin}/?q=a%20b"),
        format!("url={}%EF%BF%BD", encoded(origin)),
        format!("url={}%FF", encoded(origin)),
        format!("url={}%", encoded(origin)),
        format!("url={0}&url={0}", encoded(origin)),
        format!("url={}", encoded(&encoded(origin))),
    ] {
        for answer in ask_both(&demo, &query).await {
            answer.is_rejected(400, "bad_request");
            assert!(
                answer.field("message").contains("encodeURIComponent"),
                "{query}: {answer:?}"
            );
        }
    }
}
