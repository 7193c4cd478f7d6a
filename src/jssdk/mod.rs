//! The JS-SDK signature for `wx.config`.
//!
//! A page that calls the JS-SDK hands `wx.config` a signature over its own URL, made with the
//! account's `jsapi_ticket` (WeChat's JS-SDK guide, appendix 1).
//! [`Tickets::js_config`](crate::Tickets::js_config) caches the ticket and signs:
//!
//! ```
//! use tower_wechat::{Error, JsConfig, Tickets};
//!
//! async fn sign(tickets: &Tickets) -> Result<JsConfig, Error> {
//!     // The value of `location.href` in the browser.
//!     tickets.js_config("https://h5.example.com/page?from=singlemessage#top").await
//! }
//! ```
//!
//! [`page_url`](fn@page_url) reads the page's URL from `?url=`, and rejects a URL that may be
//! incomplete or decoded wrongly because the page did not encode it. [`sign`] is the formula alone,
//! for a ticket from another source.

mod page_hosts;
mod page_url;

use serde::Serialize;
use sha1::{Digest, Sha1};

pub(crate) use self::page_hosts::AllowedHosts;
pub use self::page_url::page_url;
use crate::bytes::encode_hex;
use crate::clock::Timestamp;
use crate::credential::{AccessToken, AppId};

/// The characters of a nonce: digits and letters, although WeChat accepts any text.
const NONCE_ALPHABET: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const NONCE_LENGTH: usize = 16;

/// Returns the JS-SDK signature of a page, in lower-case hexadecimal.
///
/// `timestamp` is in seconds since the Unix epoch. `url` is the value of `location.href` in the
/// browser. The function removes the part from the first `#` on and changes nothing else. Do not
/// pass a parsed URL: URL types add a `/` after the host, which changes the signature.
///
/// ```
/// let signature = tower_wechat::jssdk::sign(
///     "sM4AOVdWfPE4DxkXGEs8VMCPGGVi4C3VM0P37wVUCFvkVAy_90u5h9nbSlYy3-Sl-HhTdfl2fzFy1AOcHKP7qg",
///     "Wm3WZYTPz0wzccnW",
///     1414587457,
///     "http://mp.weixin.qq.com?params=value",
/// );
/// assert_eq!(signature, "0f9de62fce790f9a083d5c99e95740ceb90c27ed");
/// ```
pub fn sign(ticket: &str, nonce: &str, timestamp: u64, url: &str) -> String {
    let page = url.split('#').next().unwrap_or_default();
    let mut hash = Sha1::new();
    hash.update(b"jsapi_ticket=");
    hash.update(ticket);
    hash.update(b"&noncestr=");
    hash.update(nonce);
    hash.update(b"&timestamp=");
    hash.update(timestamp.to_string());
    hash.update(b"&url=");
    hash.update(page);
    encode_hex(&hash.finalize())
}

/// The signed part of the argument of `wx.config`. The page adds `jsApiList` and `debug`.
///
/// Serializes to `appId`, `timestamp`, `nonceStr` and `signature`, the names that `wx.config`
/// takes. [`Tickets::js_config`](crate::Tickets::js_config) returns a `JsConfig`.
///
/// ```
/// use tower_wechat::JsConfig;
///
/// /// Returns the script of a page that this service renders.
/// fn script(config: &JsConfig) -> String {
///     let JsConfig { app_id, timestamp, nonce_str, signature, .. } = config;
///     format!(
///         "wx.config({{ appId: '{app_id}', timestamp: {timestamp}, nonceStr: '{nonce_str}', \
///          signature: '{signature}', jsApiList: ['scanQRCode'] }})"
///     )
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct JsConfig {
    /// The account's AppID.
    pub app_id: String,
    /// The time of the signature, in seconds since the Unix epoch.
    pub timestamp: u64,
    /// The random text that is part of the signed text.
    pub nonce_str: String,
    /// The signature of the page, as [`sign`] returns it.
    pub signature: String,
}

impl JsConfig {
    pub(crate) fn for_page(app: &AppId, ticket: &AccessToken, now: Timestamp, url: &str) -> Self {
        let timestamp = u64::try_from(now.as_millis() / 1_000).unwrap_or(0);
        let nonce_str = random_nonce();
        Self {
            app_id: app.as_str().to_owned(),
            timestamp,
            signature: sign(ticket.expose(), &nonce_str, timestamp, url),
            nonce_str,
        }
    }
}

/// Returns a random nonce, which makes two signatures of one page different. The nonce does not
/// need to be secret.
fn random_nonce() -> String {
    let letter = || char::from(NONCE_ALPHABET[fastrand::usize(..NONCE_ALPHABET.len())]);
    (0..NONCE_LENGTH).map(|_| letter()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TICKET: &str =
        "sM4AOVdWfPE4DxkXGEs8VMCPGGVi4C3VM0P37wVUCFvkVAy_90u5h9nbSlYy3-Sl-HhTdfl2fzFy1AOcHKP7qg";
    const NONCE: &str = "Wm3WZYTPz0wzccnW";
    const AT: u64 = 1_414_587_457;

    fn sign_example(url: &str) -> String {
        sign(TICKET, NONCE, AT, url)
    }

    /// Test vectors: the current and the older one of WeChat's guide, and one from the tests of
    /// JeffreySu/WeiXinMPSDK.
    #[test]
    fn published_signatures_match() {
        assert_eq!(
            sign_example("http://mp.weixin.qq.com?params=value"),
            "0f9de62fce790f9a083d5c99e95740ceb90c27ed"
        );
        assert_eq!(
            sign_example("http://mp.weixin.qq.com"),
            "f4d90daf4b3bca3078ab155816175ba34c443a7b"
        );
        let other = sign(
            "kgt8ON7yVITDhtdwci0qefK1QvDlwsAPwMnZOO_J0MxaUpuHtIU_IltC7zs3kfNOYTHEqeIEvEXZHbS3xXNx3g",
            "B7EE6F5F9AA5CD17CA1AEA43CE848496",
            1_474_350_784,
            "https://www.baidu.com",
        );
        assert_eq!(other, "3b1b4171bcfa0f0661be9c5474002d3eb25a3368");
    }

    #[test]
    fn an_added_slash_changes_the_signature() {
        let with_slash = sign_example("http://mp.weixin.qq.com/?params=value");
        assert_eq!(with_slash, "f50191877b62b116ef830363a3a613ed652a2d5d");
        assert_ne!(
            with_slash,
            sign_example("http://mp.weixin.qq.com?params=value")
        );
    }

    #[test]
    fn the_fragment_is_not_signed() {
        let cut = sign_example("http://mp.weixin.qq.com?params=value#frag");
        assert_eq!(cut, "0f9de62fce790f9a083d5c99e95740ceb90c27ed");
        // `cut` must differ from the signature of the URL with its fragment.
        assert_ne!(cut, "b739d84cd9d554c46eddcefc9204e9f2196ecafd");
    }

    #[test]
    fn config_serializes_to_wx_config_names() {
        let app = AppId::new("wx0123456789abcdef").unwrap();
        let now = Timestamp::from_millis(1_414_587_457_999);
        let config = JsConfig::for_page(&app, &TICKET.into(), now, "https://h5.example.com/");
        let json = serde_json::to_value(&config).unwrap();
        let mut names: Vec<_> = json.as_object().unwrap().keys().collect();
        names.sort();
        assert_eq!(names, ["appId", "nonceStr", "signature", "timestamp"]);
        assert_eq!(json["timestamp"], 1_414_587_457);
        assert_eq!(
            config.signature,
            sign(TICKET, &config.nonce_str, AT, "https://h5.example.com/")
        );
        assert_eq!(config.nonce_str.len(), NONCE_LENGTH);
    }

    proptest! {
        #[test]
        fn the_signature_hashes_the_documented_text(
            ticket in ".{0,60}", nonce in ".{0,20}", at: u64, page in "[^#]{0,80}", fragment in ".{0,20}",
        ) {
            let text = format!("jsapi_ticket={ticket}&noncestr={nonce}&timestamp={at}&url={page}");
            let whole: String = Sha1::digest(text).iter().map(|byte| format!("{byte:02x}")).collect();
            prop_assert_eq!(&sign(&ticket, &nonce, at, &page), &whole);
            prop_assert_eq!(sign(&ticket, &nonce, at, &format!("{page}#{fragment}")), whole);
        }

        #[test]
        fn every_byte_of_the_url_is_signed(page in "[^#]{1,40}", other in "[^#]{1,40}") {
            prop_assert_eq!(sign_example(&page) == sign_example(&other), page == other);
        }
    }
}
