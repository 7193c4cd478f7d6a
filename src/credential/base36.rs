//! Whole numbers in digits and small letters: the shortest text that all readers take as it is.

use std::fmt;

/// Shows a number in base 36.
pub(crate) struct Base36(pub(crate) i64);

impl fmt::Display for Base36 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Thirteen digits hold 2^63.
        let mut digits = [b'0'; 13];
        let mut rest = self.0.unsigned_abs();
        let mut first = digits.len();
        loop {
            first -= 1;
            let digit = char::from_digit((rest % 36) as u32, 36).unwrap_or('0');
            digits[first] = digit as u8;
            rest /= 36;
            if rest == 0 {
                break;
            }
        }
        if self.0 < 0 {
            f.write_str("-")?;
        }
        f.write_str(std::str::from_utf8(&digits[first..]).unwrap_or_default())
    }
}

/// Reads what [`Base36`] shows.
pub(crate) fn read_base36(text: &str) -> Option<i64> {
    i64::from_str_radix(text, 36).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_number_reads_back(number: i64) {
            prop_assert_eq!(read_base36(&Base36(number).to_string()), Some(number));
        }
    }

    #[test]
    fn the_ends_and_the_middle() {
        for number in [i64::MIN, -1, 0, 35, 36, i64::MAX] {
            assert_eq!(read_base36(&Base36(number).to_string()), Some(number));
        }
        assert_eq!(Base36(1_700_000_000_000).to_string(), "loyw3v28");
    }
}
