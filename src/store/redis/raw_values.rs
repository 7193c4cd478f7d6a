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

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::super::freed_memory::{leaves_secret, secret};
    use super::*;

    #[test]
    fn values_that_nobody_takes_are_wiped() {
        let one = secret();
        let addresses = [one.as_ptr()];
        assert!(!leaves_secret(RawValues::One([Some(one)]), &addresses));
        let two = [secret(), secret()];
        let addresses = two.each_ref().map(|value| value.as_ptr());
        let two = RawValues::Two(two.map(Some));
        assert!(!leaves_secret(two, &addresses));
    }

    #[test]
    fn values_that_a_caller_takes_are_kept() {
        let values = RawValues::Two([Some(secret()), None]);
        assert_eq!(values.take(), [Some(secret()), None]);
    }
}
