//! Login cookies of other accounts in one browser: which of them a reply removes.
//!
//! Under https, all accounts of a host share the path `/`, so a browser sends the login cookies of
//! all accounts in each request. The website app beside an account counts as another account. A
//! reply that writes login cookies removes cookies of other accounts until all login cookies fit
//! into [`MAX_TOTAL_BYTES`] and [`MAX_COOKIES`].
//!
//! This account does not have the keys of the others, so the choice relies on content without a
//! verified MAC. A wrong choice costs a user of another account one page, which offers another
//! login.

use std::cmp::Reverse;

use http::HeaderMap;

use super::attempt::{AttemptStatus, LOOP_WINDOW_SECONDS, truncate_id};
use super::{MAX_COOKIES_READ, format};
use crate::identity::cookies;

/// Size below which all login cookies of a browser stay together: 4 KiB. With it, the session
/// cookies have room in the 8 KiB that nginx accepts for one header by default.
pub(super) const MAX_TOTAL_BYTES: usize = 4_096;

/// Maximum number of login cookies of a browser: 16. With few cookies, a reply makes room for a
/// long page with few removals.
pub(super) const MAX_COOKIES: usize = 16;

/// Maximum number of cookies that one reply removes: ten.
const MAX_REMOVALS: usize = 10;

/// Maximum length of all `Set-Cookie` headers of one reply, in bytes. The `Location` header and
/// this length fit into the 4 KiB that nginx accepts for a reply's headers by default.
const MAX_REPLY_BYTES: usize = 3_200;

/// Length of the header that removes a cookie, in bytes, with a few to spare.
const REMOVAL_BYTES: usize = 104;

/// Length of the attributes and the name of a `Set-Cookie` header, in bytes.
const ATTRIBUTE_BYTES: usize = 90;

/// Length of an account's tag in a cookie's name, in hexadecimal digits.
const TAG_DIGITS: usize = 8;

/// The order in which other accounts lose their cookies.
///
/// Without its slot, a login leads to the start page if the history contains it. A history is also
/// shorter than most slots, so slots are removed before histories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// A slot whose logins have ended or expired, or a cookie that no account has written.
    EndedSlot,
    /// A history without an open login, of which no login ended within the last minute.
    EndedHistory,
    /// A slot with an open login.
    OpenSlot,
    /// A history with an open login, or with a login that counts towards a loop.
    OpenHistory,
}

/// A login cookie of another account.
#[derive(Debug, Clone)]
pub(super) struct OtherCookie {
    /// The cookie's name after the start that all accounts share.
    suffix: String,
    /// Number of bytes that the cookie uses in the request.
    bytes: usize,
    rank: Rank,
    /// The time of the cookie's newest login, in seconds since the Unix epoch.
    newest: u64,
}

/// Returns the login cookies of other accounts in a request. `start` is the start of the names that
/// all accounts share. Open logins are those of the last `lifetime` seconds.
pub(super) fn read(
    headers: &HeaderMap,
    start: &str,
    own_tag: &str,
    now: u64,
    lifetime: u64,
) -> Vec<OtherCookie> {
    let cookies: Vec<(&str, &str)> = cookies::text_after_prefix(headers, start)
        .filter_map(|cookie| cookie.split_once('='))
        .filter(|(suffix, _)| is_login_suffix(suffix) && !suffix.starts_with(own_tag))
        .take(MAX_COOKIES_READ)
        .collect();
    // The ids of logins that have ended, each with its account's tag.
    let ended: Vec<(&str, u64)> = cookies
        .iter()
        .filter_map(|(suffix, value)| Some((suffix.strip_suffix('t')?, value)))
        .flat_map(|(tag, value)| {
            let entries = format::read_history_unverified(value).unwrap_or_default();
            let ended = entries
                .into_iter()
                .filter(|entry| entry.status != AttemptStatus::Open);
            ended.map(move |entry| (tag, entry.login_id))
        })
        .collect();
    let is_within = |at: u64, seconds: u64| now < at.saturating_add(seconds);
    let rank = |suffix: &str, value: &str| {
        if suffix.ends_with('t') {
            let entries = format::read_history_unverified(value)?;
            let is_open = entries.iter().any(|entry| {
                let counts_for = match entry.status {
                    AttemptStatus::Open => lifetime,
                    AttemptStatus::SignedIn { .. } | AttemptStatus::Retried { .. } => {
                        LOOP_WINDOW_SECONDS
                    }
                };
                is_within(entry.at, counts_for)
            });
            let newest = entries.iter().map(|entry| entry.at).max()?;
            let rank = if is_open {
                Rank::OpenHistory
            } else {
                Rank::EndedHistory
            };
            return Some((rank, newest));
        }
        let tag = &suffix[..TAG_DIGITS];
        let states = format::read_slot_unverified(value);
        let is_open = states.iter().any(|state| {
            is_within(state.issued_at, lifetime)
                && !ended.contains(&(tag, truncate_id(state.login_id)))
        });
        let newest = states.iter().map(|state| state.issued_at).max()?;
        let rank = if is_open {
            Rank::OpenSlot
        } else {
            Rank::EndedSlot
        };
        Some((rank, newest))
    };
    let other = |(suffix, value): &(&str, &str)| {
        let (rank, newest) = rank(suffix, value).unwrap_or((Rank::EndedSlot, 0));
        OtherCookie {
            suffix: (*suffix).to_owned(),
            bytes: cookie_bytes(start.len() + suffix.len() + 1 + value.len()),
            rank,
            newest,
        }
    };
    cookies.iter().map(other).collect()
}

/// Returns the suffixes of the cookies that a reply removes, so that all login cookies fit.
///
/// `own_bytes` has the size of each login cookie of this account that the browser has after the
/// reply. `written` has the length of each cookie that the reply writes.
pub(super) fn choose_removals<'a>(
    others: &'a [OtherCookie],
    own_bytes: &[usize],
    written: &[usize],
) -> Vec<&'a str> {
    let written: usize = written.iter().map(|length| length + ATTRIBUTE_BYTES).sum();
    let most = (MAX_REPLY_BYTES.saturating_sub(written) / REMOVAL_BYTES).min(MAX_REMOVALS);
    let needed = |order: &[&OtherCookie]| {
        let mut count = own_bytes.len() + order.len();
        let mut bytes: usize = own_bytes.iter().sum();
        bytes += order.iter().map(|other| other.bytes).sum::<usize>();
        let mut needed = 0;
        for other in order {
            if count <= MAX_COOKIES && bytes < MAX_TOTAL_BYTES {
                break;
            }
            count -= 1;
            bytes -= other.bytes;
            needed += 1;
        }
        needed
    };
    let mut order: Vec<&OtherCookie> = others.iter().collect();
    order.sort_by_key(|other| (other.rank, other.newest, Reverse(other.bytes)));
    if needed(&order) > most {
        // The longest cookies make room with the fewest headers.
        order.sort_by_key(|other| Reverse(other.bytes));
    }
    let count = needed(&order).min(most);
    order[..count]
        .iter()
        .map(|other| other.suffix.as_str())
        .collect()
}

/// Returns the number of bytes that a cookie of this length uses in a request: also the separator
/// from the next one.
pub(super) fn cookie_bytes(length: usize) -> usize {
    length + "; ".len()
}

/// Returns `true` if a name's suffix is that of a login cookie: a tag, and a slot or the history.
fn is_login_suffix(suffix: &str) -> bool {
    let (tag, kind) = suffix.split_at_checked(TAG_DIGITS).unwrap_or_default();
    let is_hex = |digit: u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    tag.bytes().all(is_hex) && matches!(kind.as_bytes(), [b'0'..=b'9' | b't'])
}
