//! The raw values of one credential, which are wiped when nobody takes them.

use zeroize::Zeroize;

use super::codec::RawValue;

/// The raw values of a location: one, or two for a user's tokens in hashes. Values that nobody takes
/// are overwritten with zeros on drop, because they contain secrets.
pub(super) enum RawValues {
    One([RawValue; 1]),
    Two([RawValue; 2]),
}

impl RawValues {
    pub(super) fn as_slice(&self) -> &[RawValue] {
        match self {
            Self::One(values) => values,
            Self::Two(values) => values,
        }
    }

    fn as_mut_slice(&mut self) -> &mut [RawValue] {
        match self {
            Self::One(values) => values,
            Self::Two(values) => values,
        }
    }

    /// Takes the values, which the caller has to wipe.
    pub(super) fn take(mut self) -> Vec<RawValue> {
        self.as_mut_slice().iter_mut().map(Option::take).collect()
    }
}

impl Drop for RawValues {
    fn drop(&mut self) {
        for value in self.as_mut_slice().iter_mut().flatten() {
            value.as_mut_slice().zeroize();
        }
    }
}
