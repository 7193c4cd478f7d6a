//! Integers in base 36: digits and lower-case letters.

use std::fmt;

/// Formats a number in base 36.
pub(crate) struct Base36(pub(crate) i64);

impl fmt::Display for Base36 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The largest absolute value, 2^63, has thirteen digits in base 36.
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

/// Parses a number in base 36, as [`Base36`] formats it. Returns `None` for other text.
///
/// Takes bytes, because every request with a session cookie parses three numbers, and the check of
/// their UTF-8 would cost more than the rest.
pub(crate) fn parse_base36(text: &[u8]) -> Option<i64> {
    // A current timestamp has eight digits. `parse_short` reads up to twelve digits, whose value
    // cannot overflow.
    if let Some(number) = parse_short(text) {
        return Some(number);
    }
    i64::from_str_radix(std::str::from_utf8(text).ok()?, 36).ok()
}

#[inline]
fn parse_short(digits: &[u8]) -> Option<i64> {
    if digits.is_empty() || digits.len() > 12 {
        return None;
    }
    let mut number = 0;
    for digit in digits {
        let value = DIGIT_VALUES[usize::from(*digit)];
        if value == NOT_A_DIGIT {
            return None;
        }
        number = number * 36 + i64::from(value);
    }
    Some(number)
}

const NOT_A_DIGIT: u8 = 36;

/// The value of each byte as a digit in base 36, or [`NOT_A_DIGIT`].
const DIGIT_VALUES: [u8; 256] = {
    let mut values = [NOT_A_DIGIT; 256];
    let digits = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut at = 0;
    while at < digits.len() {
        values[digits[at] as usize] = at as u8;
        at += 1;
    }
    values
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_number_reads_back(number: i64) {
            prop_assert_eq!(parse_base36(Base36(number).to_string().as_bytes()), Some(number));
        }
    }

    #[test]
    fn extremes_read_back() {
        for number in [i64::MIN, -1, 0, 35, 36, i64::MAX] {
            assert_eq!(
                parse_base36(Base36(number).to_string().as_bytes()),
                Some(number)
            );
        }
        assert_eq!(Base36(1_700_000_000_000).to_string(), "loyw3v28");
    }
}
