//! Tests of the pages on which the owner of an account authorizes the platform.

use std::time::Duration;

use reqwest::header::REFERER;

use super::{
    harness::{COMPONENT, Harnessed, SHOP},
    receiver::text_of,
};

const RETURN: &str = "https%3A%2F%2Fh5.example.com%2Fback%2Fstate%3Fa%3Db";

fn computer(pre_auth_code: &str, more: &str) -> String {
    format!(
        "/cgi-bin/componentloginpage?component_appid={COMPONENT}&pre_auth_code={pre_auth_code}\
         &redirect_uri={RETURN}&auth_type=1{more}"
    )
}

fn phone(path: &str, pre_auth_code: &str) -> String {
    format!(
        "{path}?action=bindcomponent&no_scan=1&component_appid={COMPONENT}\
         &pre_auth_code={pre_auth_code}&redirect_uri={RETURN}&auth_type=3&biz_appid={SHOP}"
    )
}

struct Page {
    location: Option<String>,
    text: String,
}

impl Page {
    fn param(&self, name: &str) -> String {
        let url = reqwest::Url::parse(self.location.as_deref().unwrap_or_else(|| {
            panic!("{}", self.text);
        }));
        let url = url.unwrap();
        let mut pairs = url.query_pairs();
        pairs
            .find(|(known, _)| known == name)
            .unwrap()
            .1
            .into_owned()
    }
}

impl Harnessed {
    /// Follows a link of the page `referer`, or posts a form of the page itself.
    async fn open(&self, path: &str, referer: Option<&str>, form: Option<&str>) -> Page {
        let url = format!("{}{path}", self.harness.sim.url());
        let client = &self.harness.client;
        let mut request = match form {
            Some(form) => client.post(url).body(form.to_owned()),
            None => client.get(url),
        };
        if let Some(referer) = referer {
            request = request.header(REFERER, referer);
        }
        let response = request.send().await.unwrap();
        let location = response.headers().get("location");
        let location = location.map(|url| url.to_str().unwrap().to_owned());
        Page {
            location,
            text: response.text().await.unwrap(),
        }
    }

    async fn follow(&self, path: &str) -> Page {
        let page = Some("https://h5.example.com/authorize");
        self.open(path, page, None).await
    }
}

#[tokio::test]
async fn each_page_returns_with_a_code() {
    let it = Harnessed::start().await;
    let token = it.component_token().await;
    let shop = it.harness.sim.app(SHOP).unwrap();
    it.platform.choose_account(&shop);
    let mut pushes = 1;
    for path in ["", "/wxaopen/safe/bindcomponent", "/safe/bindcomponent"] {
        let pre_auth_code = it.pre_auth_code(&token).await;
        let link = match path {
            "" => computer(&pre_auth_code, ""),
            path => phone(path, &pre_auth_code),
        };
        let page = it.follow(&link).await;
        assert!(
            page.location
                .as_ref()
                .unwrap()
                .starts_with("https://h5.example.com/back/state?a=b&auth_code=")
        );
        assert_eq!(page.param("expires_in"), "3600");
        let code = page.param("auth_code");
        // The event has come before the browser returns. It has the same code here.
        pushes += 1;
        let event = it.receiver.received().pop().unwrap();
        assert_eq!(it.receiver.received().len(), pushes);
        let (event, _) = event.open(super::harness::KEY);
        let info_type = if path.is_empty() {
            "authorized"
        } else {
            "updateauthorized"
        };
        assert_eq!(text_of(&event, "InfoType"), info_type);
        assert_eq!(text_of(&event, "AuthorizerAppid"), SHOP);
        assert_eq!(text_of(&event, "AuthorizationCode"), code);
        assert_eq!(text_of(&event, "PreAuthCode"), pre_auth_code);
        let reply = it.query_auth(&token, &code).await.json();
        assert_eq!(reply["authorization_info"]["authorizer_appid"], SHOP);
        // A pre_auth_code opens one page.
        let again = it.follow(&link).await;
        assert!(again.location.is_none() && again.text.contains("pre_auth_code"));
    }
}

#[tokio::test]
async fn a_page_needs_a_link_on_a_page() {
    let it = Harnessed::start().await;
    let token = it.component_token().await;
    let link = computer(&it.pre_auth_code(&token).await, "");
    for referer in [None, Some(""), Some("about:blank")] {
        let page = it.open(&link, referer, None).await;
        assert!(
            page.location.is_none() && page.text.contains("Referer"),
            "{}",
            page.text
        );
    }
    let _ = it.platform.clone().authorize_hosts(["other.example.com"]);
    let page = it.follow(&link).await;
    assert!(page.text.contains("redirect_uri"), "{}", page.text);
    let _ = it.platform.clone().authorize_hosts(["H5.example.com"]);
    let page = it
        .open(&link, Some("https://other.example.com/"), None)
        .await;
    assert!(page.location.is_none() && page.text.contains("Referer"));
    it.follow(&link).await.param("auth_code");
}

#[tokio::test]
async fn wrong_links_get_an_error() {
    let it = Harnessed::start().await;
    let token = it.component_token().await;
    let code = it.pre_auth_code(&token).await;
    let link = computer(&code, "");
    for (wrong, text) in [
        (link.replace(COMPONENT, SHOP), "component_appid"),
        (
            link.replace(&code, "preauthcode@@@made-up"),
            "pre_auth_code",
        ),
        (
            link.replace("https%3A%2F%2F", "ftp%3A%2F%2F"),
            "redirect_uri",
        ),
        (link.replace("auth_type=1", "auth_type=7"), "auth_type"),
        (
            link.replace("auth_type=1", "auth_type=2"),
            "no such account",
        ),
        (link.clone() + "&biz_appid=wx0", "no such account"),
        (
            phone("/safe/bindcomponent", &code).replace("no_scan=1", ""),
            "no_scan",
        ),
    ] {
        let page = it.follow(&wrong).await;
        assert!(
            page.location.is_none() && page.text.contains(text),
            "{wrong}: {}",
            page.text
        );
    }
    it.advance(1800);
    let page = it.follow(&link).await;
    assert!(page.location.is_none() && page.text.contains("pre_auth_code"));
}

#[tokio::test]
async fn the_owner_allows_or_denies() {
    let it = Harnessed::start().await;
    it.harness
        .sim
        .settings(|settings| settings.auto_approve = false);
    let token = it.component_token().await;
    let link = computer(&it.pre_auth_code(&token).await, "");
    let page = it.follow(&link).await;
    assert!(page.location.is_none() && page.text.contains("id=\"allow\""));
    assert!(
        page.text.contains(&format!("<option>{SHOP}</option>")),
        "{}",
        page.text
    );
    let page = it.open(&link, None, Some("answer=deny")).await;
    assert!(page.location.is_none() && page.text.contains("close this page"));
    assert!(!it.platform.is_authorized(SHOP));
    let form = format!("account={SHOP}&answer=allow");
    let page = it.open(&link, None, Some(&form)).await;
    page.param("auth_code");
    assert!(it.platform.is_authorized(SHOP));
}

#[tokio::test]
async fn an_event_is_late_or_lost() {
    let it = Harnessed::start().await;
    let token = it.component_token().await;
    it.platform.lose_events(true);
    let link = computer(&it.pre_auth_code(&token).await, "");
    it.follow(&link).await.param("auth_code");
    it.receiver.wait_for(1).await;
    it.platform.lose_events(false);
    it.platform.delay_events(Duration::from_millis(300));
    let link = computer(&it.pre_auth_code(&token).await, "");
    it.follow(&link).await.param("auth_code");
    it.receiver.wait_for(1).await;
    it.receiver.wait_for(2).await;
}
