//! A headless Chromium with WeChat's user agent, controlled over its DevTools pipe.
//!
//! The protocol is JSON with a NUL after each message. The browser reads commands from descriptor 3
//! and writes replies and events to descriptor 4.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::{Mutex as AsyncMutex, oneshot};

use crate::screen::Screen;

/// Maximum time for a step, 30 s, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

pub struct Chromium {
    link: Arc<Link>,
    profile: PathBuf,
    _child: Child,
}

struct Link {
    input: AsyncMutex<ChildStdin>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    last: u64,
    waiting: HashMap<u64, oneshot::Sender<Value>>,
    /// All URLs that each tab has requested, in order, with those of redirects. The key is the
    /// tab's session id.
    asked: HashMap<String, Vec<String>>,
}

/// One tab.
pub struct Tab {
    link: Arc<Link>,
    session: String,
}

impl Chromium {
    pub fn start() -> Self {
        Self::start_on(Screen::Phone)
    }

    /// Starts a browser whose user agent is that of a device, in frames of other sites too.
    pub fn start_on(screen: Screen) -> Self {
        let profile = std::env::temp_dir().join(format!(
            "tower-wechat-chromium-{}-{:x}",
            std::process::id(),
            fastrand::u64(..)
        ));
        std::fs::create_dir_all(&profile).unwrap();
        let program = ["chromium", "chromium-browser", "google-chrome"]
            .into_iter()
            .find(|name| is_installed(name))
            .expect(
                "these tests need a browser: `apt-get install chromium fonts-noto-cjk` brings it",
            );
        let flags = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            // Hosts below `example.test` lead to this machine, and self-signed certificates of
            // tests are accepted.
            "--host-resolver-rules=MAP *.example.test 127.0.0.1",
            "--ignore-certificate-errors",
            "--remote-debugging-pipe",
        ];
        let mut child = Command::new("sh")
            .args([
                "-c",
                "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1",
                program,
            ])
            .args(flags)
            .arg(format!("--user-agent={}", screen.agent()))
            .arg(format!("--user-data-dir={}", profile.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let link = Arc::new(Link {
            input: AsyncMutex::new(input),
            state: Mutex::default(),
        });
        let reader = Arc::clone(&link);
        tokio::spawn(async move {
            let mut output = BufReader::new(output);
            let mut message = Vec::new();
            while output
                .read_until(0, &mut message)
                .await
                .is_ok_and(|read| read > 0)
            {
                message.pop();
                if let Ok(message) = serde_json::from_slice(&message) {
                    reader.heard(message);
                }
                message.clear();
            }
        });
        Self {
            link,
            profile,
            _child: child,
        }
    }

    /// Opens a tab that emulates WeChat on a phone.
    pub async fn tab(&self) -> Tab {
        self.tab_on(Screen::Phone).await
    }

    /// Opens a tab that emulates WeChat on this device.
    pub async fn tab_on(&self, screen: Screen) -> Tab {
        let target = self
            .link
            .ask(None, "Target.createTarget", json!({ "url": "about:blank" }))
            .await;
        let attached = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = self.link.ask(None, "Target.attachToTarget", attached).await;
        let tab = Tab {
            link: Arc::clone(&self.link),
            session: attached["sessionId"].as_str().unwrap().to_owned(),
        };
        for domain in ["Page.enable", "Network.enable", "Runtime.enable"] {
            tab.ask(domain, json!({})).await;
        }
        let agent = json!({ "userAgent": screen.agent() });
        tab.ask("Network.setUserAgentOverride", agent).await;
        tab.ask("Emulation.setDeviceMetricsOverride", screen.metrics())
            .await;
        tab
    }
}

impl Chromium {
    /// Waits for a frame that shows a page of another site at a URL with `part`, in any tab. Returns
    /// the frame as a tab.
    pub async fn frame(&self, part: &str) -> Tab {
        let give_up = tokio::time::Instant::now() + PATIENCE;
        let target = loop {
            let targets = self.link.ask(None, "Target.getTargets", json!({})).await;
            let targets = targets["targetInfos"].as_array().unwrap();
            let found = targets.iter().find(|target| {
                target["type"] == "iframe" && target["url"].as_str().unwrap().contains(part)
            });
            if let Some(found) = found {
                break found["targetId"].clone();
            }
            assert!(
                tokio::time::Instant::now() < give_up,
                "{part} in no frame: {targets:?}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let attached = json!({ "targetId": target, "flatten": true });
        let attached = self.link.ask(None, "Target.attachToTarget", attached).await;
        let tab = Tab {
            link: Arc::clone(&self.link),
            session: attached["sessionId"].as_str().unwrap().to_owned(),
        };
        tab.ask("Runtime.enable", json!({})).await;
        tab
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _ = self._child.start_kill();
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}

fn is_installed(name: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|folder| folder.join(name).is_file())
}

impl Link {
    async fn ask(&self, session: Option<&str>, method: &str, params: Value) -> Value {
        let answer = self.try_ask(session, method, params).await;
        answer.unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// Returns the result of a command, or the error that the browser answers.
    async fn try_ask(
        &self,
        session: Option<&str>,
        method: &str,
        params: Value,
    ) -> Result<Value, Value> {
        let (sender, answer) = oneshot::channel();
        let id = {
            let mut state = self.state.lock().unwrap();
            state.last += 1;
            let id = state.last;
            state.waiting.insert(id, sender);
            id
        };
        let mut message = json!({ "id": id, "method": method, "params": params });
        if let Some(session) = session {
            message["sessionId"] = session.into();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.input.lock().await.write_all(&bytes).await.unwrap();
        let answer = tokio::time::timeout(PATIENCE, answer).await;
        let answer = answer
            .unwrap_or_else(|_| panic!("{method}: no answer"))
            .unwrap();
        match &answer["error"] {
            Value::Null => Ok(answer["result"].clone()),
            error => Err(error.clone()),
        }
    }

    fn heard(&self, message: Value) {
        let mut state = self.state.lock().unwrap();
        if let Some(id) = message["id"].as_u64() {
            if let Some(waiting) = state.waiting.remove(&id) {
                let _ = waiting.send(message);
            }
        } else if message["method"] == "Network.requestWillBeSent"
            && let (Some(session), Some(url)) = (
                message["sessionId"].as_str(),
                message["params"]["request"]["url"].as_str(),
            )
        {
            state
                .asked
                .entry(session.to_owned())
                .or_default()
                .push(url.to_owned());
        }
    }
}

impl Tab {
    async fn ask(&self, method: &str, params: Value) -> Value {
        self.link.ask(Some(&self.session), method, params).await
    }

    pub async fn open(&self, url: &str) {
        self.ask("Page.navigate", json!({ "url": url })).await;
    }

    /// Runs a JavaScript expression in the tab and returns its value, or null if the tab leaves its page
    /// meanwhile.
    pub async fn value(&self, expression: &str) -> Value {
        let params =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let method = "Runtime.evaluate";
        match self.link.try_ask(Some(&self.session), method, params).await {
            Ok(answer) => answer["result"]["value"].clone(),
            Err(error) if error.to_string().contains("navigated or closed") => Value::Null,
            Err(error) => panic!("{method}: {error}"),
        }
    }

    pub async fn text(&self) -> String {
        let text = self
            .value("document.body ? document.body.innerText : ''")
            .await;
        text.as_str().unwrap_or_default().to_owned()
    }

    pub async fn url(&self) -> String {
        self.value("location.href")
            .await
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Waits until a JavaScript expression is true. The tab may load other pages meanwhile.
    pub async fn until(&self, expression: &str) {
        let give_up = tokio::time::Instant::now() + PATIENCE;
        while self.value(expression).await != true {
            if tokio::time::Instant::now() > give_up {
                panic!(
                    "never true: {expression}\nat {}\n{}",
                    self.url().await,
                    self.text().await
                );
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the page is loaded and shows a text.
    pub async fn shows(&self, text: &str) {
        let text = Value::from(text);
        self.until(&format!(
            "document.readyState === 'complete' && document.body.innerText.includes({text})"
        ))
        .await;
    }

    /// Waits until the element exists and is enabled, and clicks on its centre.
    pub async fn press(&self, selector: &str) {
        let quoted = Value::from(selector);
        self.until(&format!(
            "!!document.querySelector({quoted}) && !document.querySelector({quoted}).disabled"
        ))
        .await;
        let place = format!(
            "(() => {{ const e = document.querySelector({quoted}); e.scrollIntoView({{block: 'center'}}); \
             const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; }})()"
        );
        let place = self.value(&place).await;
        for kind in ["mousePressed", "mouseReleased"] {
            let params = json!({
                "type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1,
            });
            self.ask("Input.dispatchMouseEvent", params).await;
        }
    }

    /// Presses a key: `Tab` or `Enter`.
    pub async fn key(&self, name: &str) {
        let (code, text) = match name {
            "Tab" => (9, ""),
            "Enter" => (13, "\r"),
            other => panic!("no key {other:?}"),
        };
        for kind in [
            if text.is_empty() {
                "rawKeyDown"
            } else {
                "keyDown"
            },
            "keyUp",
        ] {
            let params = json!({
                "type": kind, "key": name, "code": name, "windowsVirtualKeyCode": code,
                "text": if kind == "keyDown" { text } else { "" },
            });
            self.ask("Input.dispatchKeyEvent", params).await;
        }
    }

    /// Returns the names and values of the cookies that the browser would send to a URL, with
    /// HttpOnly ones.
    pub async fn cookies(&self, url: &str) -> Vec<(String, String)> {
        let params = json!({ "urls": [url] });
        let found = self.ask("Network.getCookies", params).await;
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let cookies = found["cookies"].as_array().unwrap().iter();
        cookies
            .map(|cookie| (text(&cookie["name"]), text(&cookie["value"])))
            .collect()
    }

    pub async fn back(&self) {
        let history = self.ask("Page.getNavigationHistory", json!({})).await;
        let at = history["currentIndex"].as_u64().unwrap() as usize;
        let entry = history["entries"][at - 1]["id"].clone();
        self.ask("Page.navigateToHistoryEntry", json!({ "entryId": entry }))
            .await;
    }

    pub async fn reload(&self) {
        self.ask("Page.reload", json!({})).await;
    }

    /// Returns the last URL that the tab has requested and that contains `part`. Redirects count
    /// too.
    pub fn last_asked(&self, part: &str) -> String {
        let state = self.link.state.lock().unwrap();
        let asked = state.asked.get(&self.session).cloned().unwrap_or_default();
        let found = asked.iter().rev().find(|url| url.contains(part));
        found
            .unwrap_or_else(|| panic!("{part} in none of {asked:?}"))
            .clone()
    }

    pub async fn dark(&self, dark: bool) {
        let value = if dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": value }]);
        self.ask(
            "Emulation.setEmulatedMedia",
            json!({ "features": features }),
        )
        .await;
    }

    /// Saves a picture of the whole page in the build's temporary folder, and returns its path.
    pub async fn picture(&self, name: &str) -> PathBuf {
        let params = json!({ "format": "png", "captureBeyondViewport": true });
        let data = self.ask("Page.captureScreenshot", params).await;
        let bytes =
            base64::engine::general_purpose::STANDARD.decode(data["data"].as_str().unwrap());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.png"));
        std::fs::write(&path, bytes.unwrap()).unwrap();
        path
    }
}
