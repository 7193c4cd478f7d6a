//! Between stored values, which may be sealed, and their plain texts.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::java_names::CURE;
use super::log_limit::Lines;
use crate::credential::Unreadable;
use crate::credential::sealed_form::{self, Binding, SealId};
#[cfg(feature = "sealing")]
use crate::credential::{SealingKeys, Unopened};
use crate::error::{Error, ErrorKind};
use crate::store::{Slot, Witness};

/// How often a wrong ring that goes on is told again.
const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// How often a serializer that goes on is told again.
const BETWEEN_SERIALIZER_LINES: Duration = Duration::from_secs(60);

/// What this process can open and seal; nothing at all without keys.
#[derive(Debug, Clone, Default)]
pub(super) struct Seal {
    #[cfg(feature = "sealing")]
    keys: Option<SealingKeys>,
    lines: Arc<Lines>,
}

/// The plain text of a value.
pub(super) enum Opened<'a> {
    Plain(&'a [u8]),
    #[cfg(feature = "sealing")]
    Sealed(Zeroizing<Vec<u8>>),
}

impl Deref for Opened<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Plain(text) => text,
            #[cfg(feature = "sealing")]
            Self::Sealed(text) => text,
        }
    }
}

impl Seal {
    #[cfg(feature = "sealing")]
    pub(super) fn with(keys: SealingKeys) -> Self {
        Self {
            keys: Some(keys),
            ..Self::default()
        }
    }

    pub(super) fn is_sealed(value: &[u8]) -> bool {
        sealed_form::split(value).is_some()
    }

    /// The ids of the keys, for people.
    pub(super) fn ids(&self) -> Vec<String> {
        #[cfg(feature = "sealing")]
        if let Some(keys) = &self.keys {
            return keys.ids().collect();
        }
        Vec::new()
    }

    pub(super) fn has(&self, id: SealId) -> bool {
        #[cfg(feature = "sealing")]
        if let Some(keys) = &self.keys {
            return keys.has(id);
        }
        let _ = id;
        false
    }

    /// The key that values are sealed with, where they are.
    pub(super) fn sealing_id(&self) -> Option<SealId> {
        #[cfg(feature = "sealing")]
        if let Some(keys) = &self.keys {
            return keys.sealing_id();
        }
        None
    }

    /// The plain text of what lies in a cell.
    pub(super) fn open<'a>(
        &self,
        value: &'a [u8],
        at: &Binding<'_>,
    ) -> Result<Opened<'a>, Unreadable> {
        #[cfg(feature = "sealing")]
        if let Some(keys) = &self.keys {
            return match sealed_form::split(value) {
                None if keys.refuses_plain() => Err(Unreadable::Plain),
                None => Ok(Opened::Plain(value)),
                Some((id, body)) => match keys.open(id, body, at) {
                    Ok(text) => Ok(Opened::Sealed(text)),
                    Err(Unopened::OtherKey) => Err(Unreadable::OtherKey),
                    Err(Unopened::Broken) => Err(Unreadable::BrokenSeal),
                },
            };
        }
        let _ = at;
        match Self::is_sealed(value) {
            true => Err(Unreadable::OtherKey),
            false => Ok(Opened::Plain(value)),
        }
    }

    /// The same, of plain values too where they are refused.
    #[cfg(feature = "cli")]
    pub(super) fn open_any<'a>(
        &self,
        value: &'a [u8],
        at: &Binding<'_>,
    ) -> Result<Opened<'a>, Unreadable> {
        match Self::is_sealed(value) {
            true => self.open(value, at),
            false => Ok(Opened::Plain(value)),
        }
    }

    /// What is to be written for a text: itself, or sealed.
    pub(super) fn seal(
        &self,
        text: Zeroizing<String>,
        at: &Binding<'_>,
    ) -> Result<Zeroizing<String>, Error> {
        #[cfg(feature = "sealing")]
        if let Some(keys) = self
            .keys
            .as_ref()
            .filter(|keys| keys.sealing_id().is_some())
        {
            return keys.seal(&text, at).map(Zeroizing::new);
        }
        let _ = at;
        Ok(text)
    }

    /// The key of a value that none of ours opens.
    fn other_key(&self, value: &[u8]) -> Option<SealId> {
        let (id, _) = sealed_form::split(value)?;
        (!self.has(id)).then_some(id)
    }

    /// Whether a value is sealed, and none of our keys is the one.
    pub(super) fn is_others(&self, value: &[u8]) -> bool {
        self.other_key(value).is_some()
    }

    /// Refuses to renew over what another process can read and this one cannot. A login is not
    /// asked: it beats everything before it.
    pub(super) fn may_replace(&self, slot: &Slot, expected: &Witness) -> Result<(), Error> {
        let mut stored = expected.0.iter().flatten();
        let Some(id) = stored.find_map(|value| self.other_key(value)) else {
            return Ok(());
        };
        let kind = slot.name.kind.as_str();
        Err(Error::new(
            ErrorKind::Configuration,
            format!(
                "the stored {kind} is sealed with key {id}, which this process does not have, and \
                 is left as it is: add that key to the sealing keys"
            ),
        ))
    }

    /// One loud line every few seconds, however many values are read.
    pub(super) fn tell_other_key(&self, key: &str, value: &[u8]) {
        let Some(id) = self.other_key(value) else {
            return;
        };
        if self.lines.other_key.allows_one_in(BETWEEN_LINES) {
            tracing::error!(
                target: "tower_wechat::store",
                key,
                sealed_with = %id,
                keys = ?self.ids(),
                "a stored value is sealed with a key that this process does not have; it counts as \
                 missing here and is left as it is: add that key to the sealing keys"
            );
        }
    }

    /// One loud line in a while for a service that writes all of its values so.
    pub(super) fn tell_serializer(&self, key: &str, slot: &Slot, why: Unreadable) {
        let lines = &self.lines.serializer;
        if lines.allows_one_in(BETWEEN_SERIALIZER_LINES) {
            tracing::error!(
                target: "tower_wechat::store",
                app = %slot.name.app,
                kind = slot.name.kind.as_str(),
                key,
                "a value in {key} counts as missing, as does every other that is written like it: \
                 {why}; {CURE}"
            );
        }
    }

    /// Whether a search for names of another serializer is due.
    pub(super) fn may_search_names(&self, span: Duration) -> bool {
        self.lines.names.allows_one_in(span)
    }
}
