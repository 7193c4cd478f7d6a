//! The profile of a user, from `sns/userinfo`.

use serde::Serialize;
use serde_json::Value;

use super::reply::{self, InvalidReply, ReplyFields};

/// The language in which WeChat writes the names of places in a profile.
///
/// ```
/// use tower_wechat::client::Language;
///
/// assert_eq!(Language::default().as_str(), "zh_CN");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Language {
    /// Simplified Chinese, `zh_CN`.
    #[default]
    ZhCn,
    /// Traditional Chinese, `zh_TW`.
    ZhTw,
    /// English, `en`.
    En,
}

impl Language {
    /// Returns WeChat's code of this language, for the parameter `lang` of a request.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ZhCn => "zh_CN",
            Self::ZhTw => "zh_TW",
            Self::En => "en",
        }
    }
}

/// The profile of a user, from `sns/userinfo`.
///
/// A profile serializes with WeChat's field names. All fields but the openid may be empty. Since
/// October 2021 WeChat returns neither sex nor region. A snapshot user (快照页) is virtual, and so is
/// the profile.
///
/// ```
/// fn greeting(user: &tower_wechat::client::UserInfo) -> String {
///     format!("hello {}", user.nickname)
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[non_exhaustive]
pub struct UserInfo {
    /// The user's id under this account.
    pub openid: String,
    /// The user's nickname, which may contain any character, including control characters.
    pub nickname: String,
    /// The user's sex: 1 for male, 2 for female, 0 for unknown. Always 0 since October 2021.
    pub sex: u8,
    /// The user's province, which is empty: WeChat has returned no province since October 2021.
    pub province: String,
    /// The user's city, which is empty: WeChat has returned no city since October 2021.
    pub city: String,
    /// The user's country, which is empty: WeChat has returned no country since October 2021.
    pub country: String,
    /// The URL of the avatar, or an empty text for a user without an avatar. Its last path segment
    /// is the size in pixels: 46, 64, 96, 132, or 0 for 640. The URL becomes invalid when the user
    /// changes the avatar.
    pub headimgurl: String,
    /// The names of the user's privileges, such as `chinaunicom` for a customer of that carrier.
    pub privilege: Vec<String>,
    /// The user's id across all apps of one Open Platform account, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unionid: Option<String>,
}

impl UserInfo {
    /// Creates a profile from the fields of a reply. Returns an error if the reply has no valid
    /// openid, or an openid other than the requested `openid`.
    pub(crate) fn from_reply(openid: &str, fields: &ReplyFields) -> Result<Self, InvalidReply> {
        let found = reply::valid_openid(fields).ok_or(InvalidReply::MissingField("openid"))?;
        if found != openid {
            return Err(InvalidReply::WrongOpenid);
        }
        let text = |name| {
            reply::non_empty_text(fields, name)
                .unwrap_or_default()
                .to_owned()
        };
        let sex = fields
            .get("sex")
            .and_then(reply::parse_integer)
            .unwrap_or(0);
        let privilege = fields.get("privilege").and_then(Value::as_array);
        Ok(Self {
            openid: found.to_owned(),
            nickname: text("nickname"),
            sex: u8::try_from(sex).unwrap_or(0),
            province: text("province"),
            city: text("city"),
            country: text("country"),
            headimgurl: text("headimgurl"),
            privilege: privilege
                .into_iter()
                .flatten()
                .filter_map(|one| one.as_str().map(str::to_owned))
                .collect(),
            unionid: reply::non_empty_text(fields, "unionid").map(str::to_owned),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(value: &Value) -> Result<UserInfo, InvalidReply> {
        UserInfo::from_reply("o", value.as_object().unwrap())
    }

    #[test]
    fn a_profile_keeps_wechats_field_names() {
        let reply = json!({
            "openid": "o", "nickname": "张三", "sex": "2", "province": "", "city": "",
            "country": "", "headimgurl": "https://x/0", "privilege": ["a", 1], "unionid": "u",
            "language": "zh_CN",
        });
        let written = serde_json::to_value(read(&reply).unwrap()).unwrap();
        assert_eq!(
            written,
            json!({
                "openid": "o", "nickname": "张三", "sex": 2, "province": "", "city": "",
                "country": "", "headimgurl": "https://x/0", "privilege": ["a"], "unionid": "u",
            })
        );
    }

    #[test]
    fn only_the_requested_openid_is_required() {
        let sparse = read(&json!({ "openid": "o", "sex": null, "privilege": "" })).unwrap();
        assert_eq!((sparse.sex, sparse.nickname.as_str()), (0, ""));
        assert_eq!(read(&json!({})), Err(InvalidReply::MissingField("openid")));
        assert_eq!(
            read(&json!({ "openid": "p" })),
            Err(InvalidReply::WrongOpenid)
        );
    }
}
