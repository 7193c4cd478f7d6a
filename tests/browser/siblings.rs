//! Tests of a sibling host that sets cookies for the whole domain, under https and http.

use tower_wechat::simulator::SimulatedUser;

use crate::chromium::{Chromium, Tab};
use crate::demo::Demo;
use crate::nginx::Nginx;

const VICTIM: &str = "oVictim0000000000000000000000";
const ATTACKER: &str = "oAttacker00000000000000000000";

/// Returns a free port.
fn port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// The demo at h5.example.test, and the host evil.example.test, whose page `/plant` sets a cookie
/// for the domain.
struct Site {
    demo: Demo,
    https: bool,
    port: u16,
    folder: std::path::PathBuf,
    _nginx: Nginx,
}

impl Site {
    async fn start(https: bool) -> Self {
        let (port, plain) = (port(), port());
        let scheme = if https { "https" } else { "http" };
        let public = format!("{scheme}://h5.example.test:{port}");
        let demo = Demo::with(&[("PUBLIC_URL", &public)]).await;
        demo.sim.settings(|settings| settings.auto_approve = true);
        let folder = std::env::temp_dir().join(format!("tower-wechat-siblings-{port}"));
        std::fs::create_dir_all(&folder).unwrap();
        let key = rcgen::generate_simple_self_signed(["*.example.test".to_owned()]).unwrap();
        std::fs::write(folder.join("cert.pem"), key.cert.pem()).unwrap();
        std::fs::write(folder.join("key.pem"), key.signing_key.serialize_pem()).unwrap();
        let here = folder.display();
        let listen = match https {
            true => format!(
                "listen 127.0.0.1:{port} ssl; ssl_certificate {here}/cert.pem; \
                 ssl_certificate_key {here}/key.pem;"
            ),
            false => format!("listen 127.0.0.1:{port};"),
        };
        let secure = if https { "; Secure" } else { "" };
        let server = format!(
            "{listen}\n\
             location = /plant {{ add_header Set-Cookie \"$arg_cookie; Domain=example.test; Path=/{secure}\"; \
             default_type text/html; return 200 planted; }}\n\
             location / {{ proxy_set_header Host $http_host; proxy_pass {}; }}",
            demo.url
        );
        let nginx = Nginx::start(&format!("127.0.0.1:{plain}"), &server);
        Self {
            demo,
            https,
            port,
            folder,
            _nginx: nginx,
        }
    }

    fn url(&self, host: &str, path: &str) -> String {
        let scheme = if self.https { "https" } else { "http" };
        format!("{scheme}://{host}.example.test:{}{path}", self.port)
    }

    /// Sets the user who logs in next at WeChat.
    fn user(&self, openid: &str) {
        self.demo.sim.add_user(SimulatedUser::new(openid));
    }

    async fn sign_in(&self, tab: &Tab, openid: &str) {
        self.user(openid);
        tab.open(&self.url("h5", "/")).await;
        tab.until("!!document.querySelector('#renew')").await;
        assert_eq!(self.who(tab).await, openid);
    }

    /// Returns the id of the user who is logged in to the demo in this tab, or the code of the
    /// demo's error.
    async fn who(&self, tab: &Tab) -> String {
        tab.open(&self.url("h5", "/healthz")).await;
        tab.until("document.readyState === 'complete' && location.pathname === '/healthz'")
            .await;
        let me =
            "fetch('/api/me').then(answer => answer.json()).then(me => me.user_id ?? me.error)";
        tab.value(me).await.as_str().unwrap_or_default().to_owned()
    }

    async fn plant(&self, tab: &Tab, cookie: &str) {
        let path = format!("/plant?cookie={cookie}");
        tab.open(&self.url("evil", &path)).await;
        tab.shows("planted").await;
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Starts a login of the attacker. Returns its cookies, and a callback with the attacker's code.
async fn attackers_login(site: &Site, tab: &Tab) -> (Vec<(String, String)>, String) {
    site.demo
        .sim
        .settings(|settings| settings.auto_approve = false);
    let before = tab.cookies(&site.url("h5", "/")).await;
    tab.open(&site.url("h5", "/wechat/login?return_to=%2F"))
        .await;
    tab.shows("申请使用").await;
    let to = url::Url::parse(&tab.last_asked("/connect/oauth2/authorize")).unwrap();
    let state = to
        .query_pairs()
        .find(|(name, _)| name == "state")
        .unwrap()
        .1;
    let code = site.demo.sim.authorize(ATTACKER, "snsapi_userinfo");
    let callback = format!("/wechat/callback?code={code}&state={state}");
    let cookies = tab.cookies(&site.url("h5", "/wechat/callback")).await;
    let new = cookies
        .into_iter()
        .filter(|cookie| !before.contains(cookie));
    site.demo
        .sim
        .settings(|settings| settings.auto_approve = true);
    (new.collect(), site.url("h5", &callback))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sibling_host_sets_no_session_under_https() {
    let site = Site::start(true).await;
    let (attackers, victims) = (Chromium::start(), Chromium::start());
    let (attacker, victim) = (attackers.tab().await, victims.tab().await);
    site.sign_in(&attacker, ATTACKER).await;
    let session = attacker.cookies(&site.url("h5", "/")).await;
    let named = |(name, _): &&(String, String)| name == "__Host-wechat_session_wx0123456789abcdef";
    let (_, session) = session.iter().find(named).unwrap();
    let (login, callback) = attackers_login(&site, &attacker).await;
    assert!(!login.is_empty());

    // The victim's browser has no session, and does not accept the attacker's.
    for name in [
        "wechat_session_wx0123456789abcdef",
        "__Host-wechat_session_wx0123456789abcdef",
    ] {
        site.plant(&victim, &format!("{name}={session}")).await;
    }
    assert_eq!(site.who(&victim).await, "login_required");
    for (name, value) in &login {
        let bare = name.trim_start_matches("__Host-");
        for name in [name, bare] {
            site.plant(&victim, &format!("{name}={value}")).await;
        }
    }
    victim.open(&callback).await;
    victim
        .until("document.querySelector('main') !== null")
        .await;
    assert_eq!(site.who(&victim).await, "login_required");

    // The victim is logged in, and stays logged in despite the attacker's cookies.
    site.sign_in(&victim, VICTIM).await;
    for number in 0..6 {
        site.plant(
            &victim,
            &format!("wechat_session_wx0123456789abcdef={session}{number}"),
        )
        .await;
    }
    assert_eq!(site.who(&victim).await, VICTIM);
    victim.open(&callback).await;
    victim
        .until("document.querySelector('main') !== null")
        .await;
    assert_eq!(site.who(&victim).await, VICTIM);
}

/// Over HTTP the sibling host can log a user out, because browsers accept its cookies. The sibling
/// host cannot log the user in as the attacker.
#[tokio::test(flavor = "multi_thread")]
async fn a_sibling_host_takes_over_no_session_under_http() {
    let site = Site::start(false).await;
    let (attackers, victims) = (Chromium::start(), Chromium::start());
    let (attacker, victim) = (attackers.tab().await, victims.tab().await);
    site.sign_in(&attacker, ATTACKER).await;
    let session = attacker.cookies(&site.url("h5", "/")).await;
    let named = |(name, _): &&(String, String)| name == "wechat_session_wx0123456789abcdef";
    let (_, session) = session.iter().find(named).unwrap();
    site.sign_in(&victim, VICTIM).await;
    site.plant(&victim, "wechat_session_wx0123456789abcdef=junk")
        .await;
    assert_eq!(site.who(&victim).await, VICTIM);
    site.plant(
        &victim,
        &format!("wechat_session_wx0123456789abcdef={session}"),
    )
    .await;
    assert_eq!(site.who(&victim).await, "login_required");
}
