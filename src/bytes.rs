//! Hexadecimal texts and big-endian numbers.

/// Returns the bytes in lower-case hexadecimal.
pub(crate) fn encode_hex<'a>(bytes: impl IntoIterator<Item = &'a u8>) -> String {
    let digit = |number: u8| char::from(b"0123456789abcdef"[usize::from(number)]);
    let digits = |byte: &u8| [byte >> 4, byte & 0xf].map(digit);
    bytes.into_iter().flat_map(digits).collect()
}

/// Reads a big-endian number of at most eight bytes.
pub(crate) fn parse_big_endian(bytes: &[u8]) -> u64 {
    let append = |number, byte: &u8| (number << 8) | u64::from(*byte);
    bytes.iter().fold(0, append)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn hexadecimal_and_big_endian_agree(number: u64) {
            let bytes = number.to_be_bytes();
            prop_assert_eq!(encode_hex(&bytes), format!("{number:016x}"));
            prop_assert_eq!(parse_big_endian(&bytes), number);
        }
    }
}
