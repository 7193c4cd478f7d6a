//! The text form of messages on a channel: invalidations and heartbeats.

#[cfg(feature = "platform")]
use crate::store::PlatformChange;
#[cfg(feature = "platform")]
use crate::store::platform::PlatformChangeKind;
use crate::store::{CredentialKey, CredentialKind, LeaseOwner, RecordVersion};

/// Maximum length of a message: 1,024 bytes. Longer messages are not from this crate and are
/// ignored.
const MAX_MESSAGE_LEN: usize = 1_024;

/// A message on the invalidation channel of an account.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Message<'a> {
    Invalidation {
        kind: CredentialKind,
        version: Option<RecordVersion>,
        id: &'a str,
    },
    /// A process of a third-party platform has written a durable secret or the entry of an account.
    #[cfg(feature = "platform")]
    PlatformChange {
        kind: PlatformChangeKind,
        id: &'a str,
    },
    Heartbeat {
        instance: &'a str,
        number: u64,
    },
}

/// The first word of heartbeats. Other processes parse it, so it must not change.
const HEARTBEAT_WORD: &str = "proof";

impl<'a> Message<'a> {
    /// Parses a message. Returns `None` if the payload does not have the form of a message of this
    /// crate.
    pub(super) fn parse(payload: &'a [u8]) -> Option<Self> {
        if payload.len() > MAX_MESSAGE_LEN {
            return None;
        }
        let (kind, rest) = std::str::from_utf8(payload).ok()?.split_once(' ')?;
        let (second, third) = rest.split_once(' ')?;
        if kind == HEARTBEAT_WORD {
            return Some(Self::Heartbeat {
                instance: second,
                number: third.parse().ok()?,
            });
        }
        #[cfg(feature = "platform")]
        if let Some(kind) = PlatformChangeKind::ALL
            .into_iter()
            .find(|known| known.as_str() == kind)
        {
            return Some(Self::PlatformChange { kind, id: third });
        }
        Some(Self::Invalidation {
            kind: CredentialKind::ALL
                .into_iter()
                .find(|known| known.as_str() == kind)?,
            version: match second {
                "-" => None,
                version => Some(version.parse().ok()?),
            },
            id: third,
        })
    }
}

/// Returns the text of a heartbeat: the name of the listener that sends it, and its number.
pub(super) fn heartbeat_message(instance: &LeaseOwner, number: u64) -> String {
    format!("{HEARTBEAT_WORD} {} {number}", instance.as_str())
}

/// Returns the text of the message about a write of a credential. A deletion has the version
/// `None`, which the text shows as `-`.
pub(in crate::store::redis) fn invalidation_message(
    key: &CredentialKey,
    version: Option<RecordVersion>,
) -> String {
    let version = version.map_or_else(|| "-".into(), |version| version.to_string());
    format!("{} {version} {}", key.kind.as_str(), key.id)
}

/// Returns the text of the message about a change at a platform. It names no version, because no
/// process caches what has changed.
#[cfg(feature = "platform")]
pub(in crate::store::redis) fn platform_change_message(change: &PlatformChange) -> String {
    let (kind, id) = change.kind_and_id();
    format!("{} - {id}", kind.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::AppId;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_invalidation_message_parses_back(at in 0..CredentialKind::ALL.len(), version: Option<u64>, id in "\\PC{0,64}") {
            let kind = CredentialKind::ALL[at];
            let version = version.map(|version| format!("{version:016x}").parse::<RecordVersion>().unwrap());
            let key = CredentialKey { app: AppId::new("wx1").unwrap(), kind, id: id.as_str().into() };
            let text = invalidation_message(&key, version);
            prop_assert_eq!(Message::parse(text.as_bytes()), Some(Message::Invalidation { kind, version, id: &id }));
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes: Vec<u8>) {
            let _ = Message::parse(&bytes);
        }

        #[test]
        fn no_message_like_text_makes_the_parser_panic(
            text in "(user|snapshot_user|access_token|proof|x)? ?(-|[0-9a-f+-]{0,20}|\\PC{0,8}) ?\\PC{0,16}",
        ) {
            let _ = Message::parse(text.as_bytes());
        }
    }

    #[test]
    fn malformed_messages_are_ignored() {
        fn parse(text: &str) -> Option<Message<'_>> {
            Message::parse(text.as_bytes())
        }
        assert!(parse("user 00000000000000ff oA").is_some());
        assert!(parse("user - two words").is_some());
        for text in [
            "",
            "user",
            "user oA",
            "user ff oA",
            "user 00000000000000fg oA",
            "user +0000000000000ff oA",
            "users - oA",
            "proof x -1",
            "proof x",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(
            parse(&format!("user - {}", "a".repeat(MAX_MESSAGE_LEN))),
            None
        );
        let owner = LeaseOwner::unique();
        let (instance, number) = (owner.as_str(), 7);
        assert_eq!(
            parse(&heartbeat_message(&owner, 7)),
            Some(Message::Heartbeat { instance, number })
        );
    }
}
