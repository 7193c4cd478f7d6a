//! The devices that tabs emulate: their user agents and screens.

use serde_json::{Value, json};

/// The device that a tab emulates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Screen {
    /// WeChat on an iPhone.
    Phone,
    /// WeChat on Windows, in a window of its browser.
    Desktop,
    /// Chrome on Windows, outside WeChat.
    Computer,
    /// Chrome on Android, outside WeChat.
    PhoneBrowser,
}

impl Screen {
    pub const fn agent(self) -> &'static str {
        match self {
            Self::Phone => {
                "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 MicroMessenger/8.0.42(0x18002a2d) NetType/WIFI Language/zh_CN"
            }
            Self::Desktop => {
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/107.0.0.0 Safari/537.36 NetType/WIFI MicroMessenger/7.0.20.1781(0x6700143B) WindowsWechat(0x63090a13) XWEB/8555"
            }
            Self::Computer => {
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36"
            }
            Self::PhoneBrowser => {
                "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Mobile Safari/537.36"
            }
        }
    }

    /// Returns parameters of the emulation: the screen's size in CSS pixels, its scale, and whether
    /// it is a phone.
    pub fn metrics(self) -> Value {
        match self {
            Self::Phone | Self::PhoneBrowser => {
                json!({ "width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": true })
            }
            Self::Desktop | Self::Computer => {
                json!({ "width": 1280, "height": 800, "deviceScaleFactor": 1, "mobile": false })
            }
        }
    }
}
