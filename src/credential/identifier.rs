//! Identifiers, which are not secret: the account's [`AppId`] and the user's [`UserId`].

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use crate::error::{Error, ErrorKind};

/// Maximum number of bytes of an AppID or a user id: 256. WeChat's AppIDs have 18 bytes and its
/// openids 28; applications may choose longer user ids.
const MAX_IDENTIFIER_BYTES: usize = 256;

/// The reason why a text is not an identifier.
///
/// ```
/// use tower_wechat::credential::InvalidIdentifier;
/// use tower_wechat::UserId;
///
/// let error = UserId::new("alice\nbob").unwrap_err();
/// assert_eq!(error, InvalidIdentifier::ControlCharacter);
/// assert_eq!(error.to_string(), "the identifier holds a control character");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidIdentifier {
    /// The text is empty.
    #[error("the identifier is empty")]
    Empty,
    /// The text is longer than 256 bytes.
    #[error("the identifier is longer than 256 bytes")]
    TooLong,
    /// The text holds a control character.
    #[error("the identifier holds a control character")]
    ControlCharacter,
    /// The text is not UTF-8.
    #[error("the identifier is not UTF-8")]
    NotUtf8,
    /// The request carries more than one identifier.
    #[error("there is more than one identifier")]
    Ambiguous,
    /// The text of an AppID has a character that is not an ASCII letter, an ASCII digit, `-` or
    /// `_`.
    #[error("an app id has only ASCII letters, digits, '-' and '_'")]
    InvalidAppId,
}

impl From<InvalidIdentifier> for Error {
    fn from(invalid: InvalidIdentifier) -> Self {
        Self::new(
            ErrorKind::BadRequest,
            format!("the request contains an invalid id: {invalid}"),
        )
    }
}

/// The AppID of an account (公众号), `wx` and 16 hexadecimal digits in production.
///
/// ```
/// use tower_wechat::credential::AppId;
///
/// assert_eq!(AppId::new("wx0123456789abcdef").unwrap().as_str(), "wx0123456789abcdef");
/// assert!(AppId::new("wx 1").is_err());
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AppId(Arc<str>);

impl AppId {
    /// Creates an AppID from a text, after a check of the text.
    ///
    /// # Errors
    /// The text is empty, longer than 256 bytes, or has a character that is not an ASCII letter, an
    /// ASCII digit, `-` or `_`.
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidIdentifier> {
        let text = text.as_ref();
        if text.is_empty() {
            return Err(InvalidIdentifier::Empty);
        }
        if text.len() > MAX_IDENTIFIER_BYTES {
            return Err(InvalidIdentifier::TooLong);
        }
        if !text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        {
            return Err(InvalidIdentifier::InvalidAppId);
        }
        Ok(Self(text.into()))
    }

    /// Returns an AppID that no account has, for code that needs an AppID and has no account.
    pub(crate) fn of_no_account() -> Self {
        Self("none".into())
    }

    /// Returns the name of a website app in the states and cookies of the account beside which it
    /// stands: both AppIDs.
    pub(crate) fn of_website_beside(website: &Self, account: &Self) -> Self {
        Self(format!("{}_{}", website.as_str(), account.as_str()).into())
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Lets maps with AppIDs as keys be searched by a text. The hash and the equality are those of the
/// text.
impl Borrow<str> for AppId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// The name of a user in the store: the openid, or another id that the application chose.
///
/// A user id has 1 to 256 bytes of UTF-8 without control characters. It is never normalized. Cheap
/// to clone.
///
/// ```
/// use tower_wechat::UserId;
///
/// assert_eq!(UserId::new("张三 #1").unwrap().as_str(), "张三 #1");
/// assert_eq!(UserId::from(42_i64).as_str(), "42");
/// assert!(UserId::new("").is_err());
/// // Only to check a text:
/// assert!(UserId::check("a\nb").is_err());
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(Arc<str>);

impl UserId {
    /// Creates a user id from a text, after a check of the text.
    ///
    /// # Errors
    /// The text is empty, longer than 256 bytes, or holds a control character.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidIdentifier> {
        let text = text.into();
        Self::check(&text)?;
        Ok(Self(text.into()))
    }

    /// Creates a user id from a text that has been checked before.
    pub(crate) fn from_checked(text: &str) -> Self {
        debug_assert!(Self::check(text).is_ok(), "{text:?} is no user id");
        Self(text.into())
    }

    /// Checks whether a text can be a user id, without creating a [`UserId`].
    ///
    /// # Errors
    /// The text is empty, longer than 256 bytes, or holds a control character.
    pub fn check(text: &str) -> Result<(), InvalidIdentifier> {
        if text.is_empty() {
            return Err(InvalidIdentifier::Empty);
        }
        if text.len() > MAX_IDENTIFIER_BYTES {
            return Err(InvalidIdentifier::TooLong);
        }
        // Most ids are openids, which are visible ASCII. The compiler can vectorize this fold,
        // because it has no early exit.
        let visible = |byte: &u8| (b' '..=b'~').contains(byte);
        let plain = text
            .bytes()
            .fold(true, |plain, byte| plain & visible(&byte));
        if !plain && text.chars().any(char::is_control) {
            return Err(InvalidIdentifier::ControlCharacter);
        }
        Ok(())
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

macro_rules! user_id_from_text {
    ($($text:ty),*) => {$(
        impl TryFrom<$text> for UserId {
            type Error = InvalidIdentifier;

            fn try_from(text: $text) -> Result<Self, Self::Error> {
                Self::new(text)
            }
        }
    )*};
}

user_id_from_text!(String, &str, Box<str>);

impl TryFrom<Arc<str>> for UserId {
    type Error = InvalidIdentifier;

    fn try_from(text: Arc<str>) -> Result<Self, Self::Error> {
        Self::new(&*text)
    }
}

macro_rules! user_id_from_number {
    ($($number:ty),*) => {$(
        /// The digits of a number, such as that of a row in the application's database.
        impl From<$number> for UserId {
            fn from(number: $number) -> Self {
                Self(number.to_string().into())
            }
        }
    )*};
}

user_id_from_number!(i32, i64, u32, u64);

macro_rules! shown_as_text {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:?})"), self.as_str())
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidIdentifier;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::new(text)
            }
        }
    )*};
}

shown_as_text!(AppId, UserId);
