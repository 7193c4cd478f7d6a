//! The `state` of a login, and the cookie that binds it to one browser.
//!
//! The state itself is 56 hexadecimal digits: a number, the time, and a MAC of both, so that no
//! store is needed to know a state of ours. The cookie bears the state's number in its name, so
//! that several tabs can log in at once, and says where the login leads; who has the state but not
//! the cookie is another browser. After the login it also says how that ended, which makes it the
//! browser's memory for reloads, for the back button and against loops.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use subtle::ConstantTimeEq;

use super::Scope;
use super::return_to::ReturnTo;
use crate::clock::Timestamp;
use crate::credential::AppId;
use crate::identity::{CookieKeys, KeyedMac, cookies};

/// What the names of the cookies begin with; the state's number follows.
const COOKIE_PREFIX: &str = "wechat_login_";

/// How many of them are looked at; a browser has as many as it opened tabs in ten minutes.
const COOKIES_READ: usize = 32;

/// No cookie of ours is longer.
const LONGEST_COOKIE: usize = 1_600;

/// Half of an HMAC-SHA256 is beyond guessing, and keeps the state within 64 characters.
const TAG_BYTES: usize = 16;
const STATE_BYTES: usize = 8 + 4 + TAG_BYTES;

/// A state that claims to be issued later than this from now was not issued by a sane clock.
const CLOCK_DIFFERENCE: u64 = 5 * 60;

/// Why a state does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadState {
    /// We never issued it.
    Forged,
    /// We did, too long ago.
    Expired(Issued),
}

/// How long duplicates of a callback get the answer of the first, in seconds.
const DUPLICATES_FOR: u64 = 600;

/// A state that we issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Issued {
    pub(crate) number: u64,
    /// Seconds since the epoch.
    at: u64,
}

/// How far a login has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Progress {
    /// The user is at WeChat's page.
    Open,
    /// The code with this mark has signed the user in, at this second.
    SignedIn { at: u64, code: Box<str> },
    /// It was begun anew by itself, at this second.
    Restarted { at: u64 },
}

/// One login of one browser: what its cookie says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) issued: Issued,
    pub(crate) scope: Scope,
    pub(crate) return_to: ReturnTo,
    pub(crate) progress: Progress,
}

/// Issues states and their cookies, and tells ours from others.
#[derive(Clone)]
pub(crate) struct States {
    states: Vec<KeyedMac>,
    cookies: Vec<KeyedMac>,
    lifetime: Duration,
}

impl States {
    pub(crate) fn new(app: &AppId, keys: &CookieKeys, lifetime: Duration) -> Self {
        Self {
            states: keys.for_purpose(&["tower-wechat login state 1", app.as_str()]),
            cookies: keys.for_purpose(&["tower-wechat login cookie 1", app.as_str()]),
            lifetime,
        }
    }

    /// A new login. `None`: the system has no randomness to give.
    pub(crate) fn begin(
        &self,
        scope: Scope,
        return_to: ReturnTo,
        now: Timestamp,
    ) -> Option<Attempt> {
        let mut number = [0; 8];
        getrandom::fill(&mut number).ok()?;
        let issued = Issued {
            number: u64::from_be_bytes(number),
            at: seconds(now),
        };
        Some(Attempt {
            issued,
            scope,
            return_to,
            progress: Progress::Open,
        })
    }

    /// The value of the parameter `state`.
    pub(crate) fn text(&self, issued: Issued) -> String {
        let message = issued.bytes();
        let tag = tag(&self.states, &message);
        message
            .iter()
            .chain(&tag)
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// Reads the parameter `state`.
    pub(crate) fn read(&self, text: &str, now: Timestamp) -> Result<Issued, BadState> {
        let bytes = unhex(text).ok_or(BadState::Forged)?;
        let (message, tag) = bytes.split_at(12);
        if !is_tagged(&self.states, message, tag) {
            return Err(BadState::Forged);
        }
        let (number, at) = message.split_at(8);
        let big_endian = |bytes: &[u8]| {
            bytes
                .iter()
                .fold(0, |all, byte| (all << 8) | u64::from(*byte))
        };
        let issued = Issued {
            number: big_endian(number),
            at: big_endian(at),
        };
        if self.is_current(issued, now) {
            Ok(issued)
        } else {
            Err(BadState::Expired(issued))
        }
    }

    fn is_current(&self, issued: Issued, now: Timestamp) -> bool {
        let now = seconds(now);
        now < issued.at.saturating_add(self.lifetime.as_secs())
            && issued.at <= now.saturating_add(CLOCK_DIFFERENCE)
    }

    /// `NAME=VALUE` and the seconds that the cookie has to live.
    pub(crate) fn cookie(&self, attempt: &Attempt, now: Timestamp) -> (String, u64) {
        let Attempt {
            issued,
            scope,
            return_to,
            progress,
        } = attempt;
        let scope = match scope {
            Scope::Base => 'b',
            Scope::UserInfo => 'u',
        };
        let progress = match progress {
            Progress::Open => "o".to_owned(),
            Progress::SignedIn { at, code } => format!("i{at}-{code}"),
            Progress::Restarted { at } => format!("r{at}"),
        };
        let path = URL_SAFE_NO_PAD.encode(return_to.as_str());
        let message = format!("{}.{scope}{progress}.{path}", issued.at);
        let tag = tag(
            &self.cookies,
            format!("{}={message}", issued.name()).as_bytes(),
        );
        let text = format!(
            "{}={message}.{}",
            issued.name(),
            URL_SAFE_NO_PAD.encode(tag)
        );
        (text, self.ends(attempt).saturating_sub(seconds(now)))
    }

    /// The logins that this browser has under way or behind it, as far as its cookies are ours.
    pub(crate) fn attempts(&self, headers: &HeaderMap, now: Timestamp) -> Vec<Attempt> {
        cookies::starting_with(headers, COOKIE_PREFIX)
            .filter(|cookie| cookie.len() <= LONGEST_COOKIE)
            .take(COOKIES_READ)
            .filter_map(|cookie| self.attempt(cookie))
            .filter(|attempt| seconds(now) < self.ends(attempt))
            .collect()
    }

    /// Until when a login is known of, in seconds since the epoch. One that has succeeded answers
    /// its duplicates for ten minutes from then, however long its user stayed at WeChat.
    fn ends(&self, attempt: &Attempt) -> u64 {
        let ends = attempt.issued.at.saturating_add(self.lifetime.as_secs());
        match attempt.progress {
            Progress::SignedIn { at, .. } => ends.max(at.saturating_add(DUPLICATES_FOR)),
            _ => ends,
        }
    }

    /// The login of a state that is past its time, where it has succeeded within its time and still
    /// answers duplicates.
    pub(crate) fn succeeded(
        &self,
        headers: &HeaderMap,
        issued: Issued,
        now: Timestamp,
    ) -> Option<Attempt> {
        let attempt = self.attempt_of(headers, issued)?;
        let succeeded = matches!(attempt.progress, Progress::SignedIn { .. });
        (succeeded && seconds(now) < self.ends(&attempt)).then_some(attempt)
    }

    /// This one login, however many others the browser has cookies of.
    pub(crate) fn attempt_of(&self, headers: &HeaderMap, issued: Issued) -> Option<Attempt> {
        let name = issued.name();
        let digits = name.strip_prefix(COOKIE_PREFIX)?;
        cookies::starting_with(headers, &name)
            .filter(|value| value.len() <= LONGEST_COOKIE)
            .take(4)
            .filter_map(|value| self.attempt(&format!("{digits}{value}")))
            .find(|attempt| attempt.issued == issued)
    }

    fn attempt(&self, cookie: &str) -> Option<Attempt> {
        let (digits, value) = cookie.split_once('=')?;
        let number = u64::from_str_radix(digits, 16).ok()?;
        // One number has one spelling: what was tagged is what came.
        if digits != format!("{number:016x}") {
            return None;
        }
        let (message, tag) = value.rsplit_once('.')?;
        let tag = URL_SAFE_NO_PAD.decode(tag).ok()?;
        let signed = format!("{COOKIE_PREFIX}{number:016x}={message}");
        if !is_tagged(&self.cookies, signed.as_bytes(), &tag) {
            return None;
        }
        let mut parts = message.split('.');
        let (at, progress, path) = (parts.next()?, parts.next()?, parts.next()?);
        let (scope, progress) = progress.split_at_checked(1)?;
        let path = String::from_utf8(URL_SAFE_NO_PAD.decode(path).ok()?).ok()?;
        Some(Attempt {
            issued: Issued {
                number,
                at: at.parse().ok()?,
            },
            scope: match scope {
                "b" => Scope::Base,
                _ => Scope::UserInfo,
            },
            return_to: ReturnTo::new(&path)?,
            progress: Progress::read(progress)?,
        })
    }
}

impl Progress {
    fn read(text: &str) -> Option<Self> {
        let (kind, rest) = text.split_at_checked(1)?;
        Some(match kind {
            "o" => Self::Open,
            "i" => {
                let (at, code) = rest.split_once('-')?;
                Self::SignedIn {
                    at: at.parse().ok()?,
                    code: code.into(),
                }
            }
            "r" => Self::Restarted {
                at: rest.parse().ok()?,
            },
            _ => return None,
        })
    }
}

impl Issued {
    fn bytes(self) -> [u8; 12] {
        let mut bytes = [0; 12];
        bytes[..8].copy_from_slice(&self.number.to_be_bytes());
        // Seconds fit into 32 bits until 2106.
        bytes[8..].copy_from_slice(&(self.at as u32).to_be_bytes());
        bytes
    }

    /// What orders logins by age.
    pub(crate) fn age_key(self) -> u64 {
        self.at
    }

    /// The name of the cookie.
    pub(crate) fn name(self) -> String {
        format!("{COOKIE_PREFIX}{:016x}", self.number)
    }
}

impl fmt::Debug for States {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("States")
            .field("lifetime", &self.lifetime)
            .finish_non_exhaustive()
    }
}

/// Seconds since the epoch.
pub(crate) fn seconds(now: Timestamp) -> u64 {
    u64::try_from(now.as_millis()).unwrap_or(0) / 1_000
}

fn tag(macs: &[KeyedMac], message: &[u8]) -> [u8; TAG_BYTES] {
    let mut tag = [0; TAG_BYTES];
    if let Some(mac) = macs.first() {
        tag.copy_from_slice(&mac.sign(message)[..TAG_BYTES]);
    }
    tag
}

fn is_tagged(macs: &[KeyedMac], message: &[u8], tag: &[u8]) -> bool {
    macs.iter()
        .any(|mac| mac.sign(message)[..TAG_BYTES].ct_eq(tag).into())
}

fn unhex(text: &str) -> Option<[u8; STATE_BYTES]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * STATE_BYTES {
        return None;
    }
    let mut bytes = [0; STATE_BYTES];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        // Lower case only: one state has one spelling.
        let digit = |digit: u8| match digit {
            b'0'..=b'9' => Some(digit - b'0'),
            b'a'..=b'f' => Some(digit - b'a' + 10),
            _ => None,
        };
        *byte = (digit(pair[0])? << 4) | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use http::header::COOKIE;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
    const LIFE: Duration = Duration::from_secs(600);

    fn states(app: &str, key: u8) -> States {
        let key = base64::engine::general_purpose::STANDARD.encode([key; 64]);
        let keys = CookieKeys::from_base64(&key).unwrap();
        States::new(&AppId::new(app).unwrap(), &keys, LIFE)
    }

    fn begun(states: &States, path: &str) -> Attempt {
        let path = ReturnTo::new(path).unwrap();
        states.begin(Scope::Base, path, NOW).unwrap()
    }

    fn sent(cookies: &[String]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, HeaderValue::try_from(cookies.join("; ")).unwrap());
        headers
    }

    #[test]
    fn a_state_is_ours_until_it_expires() {
        let ours = states("wx1", 1);
        let attempt = begun(&ours, "/");
        let text = ours.text(attempt.issued);
        assert!((16..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric()));
        assert_eq!(ours.read(&text, NOW), Ok(attempt.issued));
        let last = NOW.after(LIFE - Duration::from_secs(1));
        assert_eq!(ours.read(&text, last), Ok(attempt.issued));
        let late = ours.read(&text, NOW.after(LIFE));
        assert!(matches!(late, Err(BadState::Expired(_))));
        let future = NOW.before(Duration::from_secs(301));
        assert!(matches!(
            ours.read(&text, future),
            Err(BadState::Expired(_))
        ));
        assert_eq!(states("wx2", 1).read(&text, NOW), Err(BadState::Forged));
        assert_eq!(states("wx1", 2).read(&text, NOW), Err(BadState::Forged));
    }

    #[test]
    fn the_cookies_of_several_tabs_read_back() {
        let ours = states("wx1", 1);
        let mut tabs = [
            begun(&ours, "/a?b=c;d,\"e\"#f"),
            begun(&ours, "/b"),
            begun(&ours, "/c"),
        ];
        tabs[1].progress = Progress::SignedIn {
            at: 7,
            code: "0aff".into(),
        };
        tabs[2].progress = Progress::Restarted { at: 1_700_000_000 };
        let cookies: Vec<_> = tabs.iter().map(|tab| ours.cookie(tab, NOW)).collect();
        assert!(cookies.iter().all(|(_, life)| *life == 600));
        let cookies: Vec<_> = cookies.into_iter().map(|(text, _)| text).collect();
        assert_eq!(ours.attempts(&sent(&cookies), NOW), tabs);
        assert_eq!(ours.attempts(&sent(&cookies), NOW.after(LIFE)), []);
        assert_eq!(states("wx1", 2).attempts(&sent(&cookies), NOW), []);
        assert_eq!(states("wx2", 1).attempts(&sent(&cookies), NOW), []);
    }

    #[test]
    fn one_logins_cookie_is_not_anothers() {
        let ours = states("wx1", 1);
        let (a, b) = (begun(&ours, "/a"), begun(&ours, "/b"));
        let (text, _) = ours.cookie(&a, NOW);
        let renamed = text.replace(&a.issued.name(), &b.issued.name());
        assert_eq!(ours.attempts(&sent(&[renamed]), NOW), []);
    }

    proptest! {
        #[test]
        fn no_changed_state_passes(at in 0usize..56, with in "[0-9a-zA-F]") {
            let ours = states("wx1", 1);
            let text = ours.text(begun(&ours, "/").issued);
            let changed = format!("{}{with}{}", &text[..at], &text[at + 1..]);
            prop_assert!(changed == text || ours.read(&changed, NOW) == Err(BadState::Forged));
            prop_assert_eq!(ours.read(&text[..at], NOW), Err(BadState::Forged));
            prop_assert_eq!(ours.read(&format!("{text}{with}"), NOW), Err(BadState::Forged));
        }

        #[test]
        fn no_changed_cookie_passes(at in 0usize..200, with in "[A-Za-z0-9._=-]") {
            let ours = states("wx1", 1);
            let attempt = begun(&ours, "/page?a=b");
            let (text, _) = ours.cookie(&attempt, NOW);
            let at = at % text.len();
            let changed = format!("{}{with}{}", &text[..at], &text[at + 1..]);
            // The last digit of base64 has bits to spare, which no decoder but a lenient one takes.
            prop_assert!(changed == text || ours.attempts(&sent(&[changed]), NOW).is_empty());
            prop_assert!(ours.attempts(&sent(&[text[..at].to_owned()]), NOW).is_empty());
        }

        #[test]
        fn no_other_text_passes(text in "\\PC{0,80}", cookie in "[ -~&&[^;]]{0,200}") {
            let ours = states("wx1", 1);
            prop_assert_eq!(ours.read(&text, NOW), Err(BadState::Forged));
            let cookie = format!("{COOKIE_PREFIX}{cookie}");
            prop_assert_eq!(ours.attempts(&sent(&[cookie]), NOW), []);
        }
    }
}
