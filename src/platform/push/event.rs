//! Events of the platform that this crate handles itself.

use std::time::Duration;

use zeroize::Zeroizing;

use super::message::{PlatformPush, parse_seconds};
use super::refusal::PushRefusal;
use crate::clock::Timestamp;
use crate::credential::{AppId, RefreshToken, is_valid_token};
use crate::platform::event::PlatformEvent;

/// Maximum time by which an event may have been created in the future: ten minutes. A later time is
/// an error of a clock. It would make all events until then look old.
pub(super) const MAX_AHEAD: Duration = Duration::from_secs(10 * 60);

/// Reads an event of the platform that this crate handles itself. Returns `None` for all other
/// pushes.
///
/// # Errors
/// The event is for another platform, or a field is missing, repeated or unusable.
pub(super) fn read_event(
    push: &PlatformPush,
    now: Timestamp,
) -> Result<Option<PlatformEvent>, PushRefusal> {
    let fields = push.fields();
    let Some(info_type) = fields.only("InfoType")? else {
        return Ok(None);
    };
    let receiver = fields.only("AppId")?;
    if receiver.is_some_and(|receiver| receiver != push.component().as_str()) {
        return Err(PushRefusal::ForeignEvent);
    }
    let latest = now.saturating_add(MAX_AHEAD);
    let created = push.created().unwrap_or(now).min(latest);
    Ok(Some(match info_type {
        "component_verify_ticket" => {
            let ticket = fields.only("ComponentVerifyTicket")?;
            let ticket = ticket.filter(|ticket| is_valid_token(ticket));
            PlatformEvent::VerifyTicket {
                ticket: RefreshToken::from(ticket.ok_or(PushRefusal::Event(
                    "a component_verify_ticket without a usable ComponentVerifyTicket",
                ))?),
                created,
            }
        }
        "authorized" | "updateauthorized" => {
            let code = fields.only("AuthorizationCode")?;
            let code = code.filter(|code| is_valid_token(code));
            let expiry = fields.only("AuthorizationCodeExpiredTime")?;
            let pre_auth_code = fields.only("PreAuthCode")?;
            PlatformEvent::Authorized {
                account: account(push)?,
                code: secret(code.ok_or(PushRefusal::Event(
                    "an authorization without a usable AuthorizationCode",
                ))?),
                code_expires: expiry.and_then(parse_seconds),
                pre_auth_code: pre_auth_code.map(secret),
                created,
            }
        }
        "unauthorized" => PlatformEvent::Unauthorized {
            account: account(push)?,
            created,
        },
        _ => return Ok(None),
    }))
}

/// Returns the account that an event names.
fn account(push: &PlatformPush) -> Result<AppId, PushRefusal> {
    let account = push.fields().only("AuthorizerAppid")?;
    let account = account.and_then(|account| AppId::new(account).ok());
    account.ok_or(PushRefusal::Event(
        "an authorization without a usable AuthorizerAppid",
    ))
}

fn secret(text: &str) -> Zeroizing<String> {
    Zeroizing::new(text.to_owned())
}
