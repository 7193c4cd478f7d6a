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
//! | `GET`, `POST /_sim/platform` | adds, changes and steers a third-party platform; see below |
//!
//! # Third-party platform
//!
//! With the feature `platform` as well, [`Simulator::add_platform`] adds a third-party platform
//! (第三方平台). The simulator plays WeChat's side: the calls under `/cgi-bin/component` and
//! `/sns/oauth2/component`, the pages on which the owner of an account authorizes the platform, and
//! the pushes, encrypted and signed. A ticket goes out every ten minutes of the simulator's clock, and
//! after `api_start_push_ticket`. [`SimulatedPlatform::push`] sends one when a test says so.
//!
//! The same over HTTP is `POST /_sim/platform`, whose body has settings and at most one action.
//! `app_id` may be missing if the simulator has one platform. `GET` returns the platforms with their
//! accounts, the last pushes, and the messages that accounts have sent.
//!
//! | fields | effect |
//! |---|---|
//! | `app_id`, `secret` | adds the platform, or replaces its secret |
//! | `token`, `aes_key`, `push_url`, `message_url`, `authorize_hosts`, `redirect_hosts` | the settings of WeChat's console; an empty URL removes it |
//! | `next_account` | the account that the authorize pages choose |
//! | `lose_events`, `delay_events_secs`, `separate_codes` | authorizations send no event; send it later than the return; send another code than the return |
//! | `push_tickets` | `false` stops the pushes of tickets until `api_start_push_ticket` |
//! | `rotate_token`, `rotate_key` | pushes use the new one from now on |
//! | `authorize`: an AppID, `permissions`? | the account authorizes the platform, for the first time or again, with its event; `authorization_code` in the reply; an unknown account is added. With `exchanged: true` there is no event, as if an earlier process had exchanged the code |
//! | `revoke`: an AppID | the account withdraws its authorization, with its event |
//! | `push`: `"ticket"`, `same_value`? | pushes a new ticket, or the latest one again |
//! | `push`: `"authorized"` or `"unauthorized"`, `account` | pushes the event alone |
//! | `push`: `"text"` or `"event"`, `account`, `openid`?, `content`? or `event`? | pushes a user's message |
//! | `push`: `"release_test_text"` or `"release_test_api"`, `account`, `openid`? | pushes a message of WeChat's release test (全网发布检测), the second with a new authorization code |
//! | `push`: `"xml"`, `content` | pushes any text, encrypted |
//! | `push`: another InfoType, `fields`? | pushes an event with these fields: `[["name", "value"]]` |
//! | with each push: `repeat`, `delay_secs`, `age_secs`, `wrong_signature`, `former_keys`, `component` | as the methods of [`SimulatedPush`] say |
//!
//! The reply contains `pushes`: for each delivery `status`, `body`, `error`, and in `message` the
//! decrypted reply to a user.
//!
//! # Limits
//!
//! All apps share one set of settings; a fault can be limited to one app. The simulator does not check the host name of a page that uses the JS-SDK.
//! It pushes messages only to a third-party platform, and has no WeCom and no mini program.

mod account_tokens;
mod app;
mod app_index;
mod apps;
mod builder;
mod call_counts;
mod clock;
mod error_reply;
mod faults;
mod handle;
mod http;
mod issue_log;
#[cfg(feature = "platform")]
mod platform;
mod random;
mod settings;
mod state;
mod user_pair;
mod user_tokens;
mod users;
mod window_counter;

#[cfg(feature = "platform")]
pub use self::platform::{PushReply, SimulatedPlatform, SimulatedPush};
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
