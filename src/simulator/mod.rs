//! A simulated WeChat for tests of an application: no AppID, no internet, no phone.
//!
//! The simulator is an HTTP server with the calls and pages that this crate uses, and some more:
//! `user/info`, template messages, `clear_quota`, `get_api_domain_ip`. It follows WeChat's real
//! rules. A code works once and expires after five minutes. A new sign-in invalidates the user's
//! former tokens. A refresh before the expiry keeps the access token. Errors come with HTTP 200.
//!
//! A test can move the clock, set lifetimes, inject faults and count calls. One origin serves the
//! paths of `api.weixin.qq.com`, `open.weixin.qq.com` and `res.wx.qq.com`, for one account or for
//! several accounts and website apps ([`SimulatedApp`]).
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! use std::time::Duration;
//! use tower_wechat::simulator::{Fault, SimulatedUser, Simulator};
//!
//! let sim = Simulator::start().await?;
//! sim.add_user(SimulatedUser::new("oAlice").nickname("Alice"));
//! let pair = sim.sign_in("oAlice", "snsapi_userinfo");
//!
//! // Point the application at `sim.url()`, then inject failures:
//! sim.advance(Duration::from_secs(7200));
//! sim.inject(Fault::on("/sns/oauth2/refresh_token").errcode(-1).times(1));
//!
//! // Count its calls.
//! assert_eq!(sim.calls_to("/sns/oauth2/refresh_token"), 0);
//! assert_eq!(sim.current_pair("oAlice"), Some(pair));
//! sim.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Website login
//!
//! [`Simulator::add_website`] adds a website app (网站应用). Its login page is
//! `/connect/qrconnect`, which stands for the scan of a QR code: a tester chooses who scans, and
//! allows or denies. With [`SimulatorSettings::auto_approve`], the page returns at once.
//!
//! A page of the application can show this page in a frame, by the script
//! `/connect/zh_CN/htmledition/js/wxLogin.js`. This script is a small twin of WeChat's script, with
//! the same parameters. After the scan, a script in the frame navigates the top window, or with
//! `self_redirect: true` the frame. A client without scripts follows the link with the id
//! `continue`.
//!
//! # Control over HTTP
//!
//! Tests in other languages start `cargo run --example simulator` and use these routes. The server
//! reads bodies as JSON and ignores the content type. An unknown field or an invalid value gets 400
//! with a sentence in `error`.
//!
//! | route | body, reply |
//! |---|---|
//! | `GET`, `POST /_sim/apps` | `app_id`, `secret`, and optionally `kind` (`"account"` or `"website"`), `returns_unionid`, `redirect_hosts`: adds or replaces an account or website app |
//! | `GET`, `DELETE /_sim/calls` | `{"/sns/oauth2/refresh_token": 3, …}`, with `?app_id=` those of one app; `DELETE` resets the numbers |
//! | `POST /_sim/faults` | `path` (or `"*"`), optionally `app_id`, and any of `delay_ms`, `errcode`, `status`, `body`, `body_base64`, `reset`, `hang`, `lose_reply`, `times`; see [`Fault`] |
//! | `GET`, `DELETE /_sim/faults` | the current faults; `DELETE` removes them |
//! | `GET`, `POST /_sim/clock` | `{"advance_secs": 60}` → `{"now_secs": …, "advanced_secs": 60}` |
//! | `GET`, `POST /_sim/settings` | the fields of [`SimulatorSettings`], durations in seconds: `user_token_secs`, `refresh_token_secs`, `code_secs`, `account_token_secs`, `account_token_overlap_secs`, `ticket_secs`, and the others by their names |
//! | `GET`, `POST /_sim/users` | `openid`, `nickname`, `unionid`, `snapshot`, `subscribed`, all optional: adds the user, who is logged in to WeChat at the next request to an authorize page; `GET` with `?app_id=` returns the openids in that app |
//! | `POST /_sim/sign_in` | `{"openid", "scope"?, "app_id"?}` → the reply of a code exchange |
//! | `POST /_sim/password_change` | `{"openid"}`: calls with the user's tokens get 42007 from then on |
//!
//! # Limits
//!
//! All apps share one set of settings; a fault can be limited to one app. The simulator does not check the host name of a page that uses the JS-SDK.
//! It pushes no messages, and has no third-party platform, no WeCom and no mini program.

mod account_tokens;
mod app;
mod apps;
mod builder;
mod call_counts;
mod clock;
mod error_reply;
mod faults;
mod handle;
mod http;
mod issue_log;
mod random;
mod settings;
mod state;
mod user_pair;
mod user_tokens;
mod users;
mod window_counter;

pub use self::{
    app::SimulatedApp,
    builder::SimulatorBuilder,
    faults::Fault,
    handle::Simulator,
    issue_log::{IssuedCredential, IssuedKind},
    settings::SimulatorSettings,
    user_pair::UserPair,
    users::SimulatedUser,
};
