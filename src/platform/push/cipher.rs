//! The cipher of WeChat's pushes: AES-256 in CBC mode, with padding to 32 bytes and the receiver's
//! AppID at the end of the plaintext.
//!
//! The plaintext is 16 random bytes, the length of the message as four bytes in big-endian order, the
//! message, the AppID, and 1 to 32 bytes of padding. Each byte of the padding is its length. Most
//! libraries for PKCS#7 expect at most 16 bytes of padding, so this file checks the padding itself.

use aes::Aes256;
use base64::alphabet;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, Engine as _, GeneralPurpose, GeneralPurposeConfig};
use cbc::cipher::array::Array;
use cbc::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};
use zeroize::Zeroizing;

use crate::bytes::parse_big_endian;

/// Length of an EncodingAESKey: 43 characters, which are 32 bytes in base64 without the final `=`.
pub(crate) const ENCODING_KEY_CHARACTERS: usize = 43;

/// Number of random bytes in front of each message: 16.
pub(crate) const RANDOM_BYTES: usize = 16;

/// Number of bytes that hold the length of a message: four.
const LENGTH_BYTES: usize = 4;

/// Block to which WeChat pads a plaintext: 32 bytes, twice the block of AES.
const PADDED_BLOCK_BYTES: usize = 32;

/// The decoder of an EncodingAESKey. Its last character carries two bits more than the 32 bytes of
/// the key. WeChat leaves these bits to chance, so three of four keys would be rejected by a decoder
/// that requires zeros.
const ENCODING_KEY_DECODER: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

/// One key of a platform's pushes (消息加解密Key). Its memory is overwritten on drop.
#[derive(Clone)]
pub(crate) struct PushCipher(Zeroizing<[u8; 32]>);

/// The reason why a ciphertext contains no message for this platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CipherError {
    /// The ciphertext is not base64, or the padding or the length of the message is wrong. The
    /// sender used another key, or the text was cut.
    Undecryptable,
    /// The message is for another AppID.
    Foreign,
}

impl PushCipher {
    /// Decodes an EncodingAESKey. Returns `None` if the text is not 43 characters of base64.
    pub(crate) fn from_encoding_key(text: &str) -> Option<Self> {
        if text.len() != ENCODING_KEY_CHARACTERS {
            return None;
        }
        let mut key = Zeroizing::new([0; 32]);
        let decoded = ENCODING_KEY_DECODER.decode_slice_unchecked(text, &mut *key);
        (decoded == Ok(key.len())).then_some(Self(key))
    }

    /// Returns the message of a decoded ciphertext, if the message is for `app_id`.
    ///
    /// # Errors
    /// Returns why the ciphertext contains no message for `app_id`.
    pub(crate) fn decrypt(
        &self,
        ciphertext: &[u8],
        app_id: &str,
    ) -> Result<Zeroizing<Vec<u8>>, CipherError> {
        if ciphertext.is_empty() || !ciphertext.len().is_multiple_of(PADDED_BLOCK_BYTES) {
            return Err(CipherError::Undecryptable);
        }
        let mut plaintext = Zeroizing::new(ciphertext.to_vec());
        let (blocks, _) = Array::slice_as_chunks_mut(&mut plaintext);
        cbc::Decryptor::<Aes256>::new(&self.key(), &self.iv()).decrypt_blocks(blocks);
        let message = message_range(&plaintext, app_id)?;
        plaintext.truncate(message.end);
        plaintext.drain(..message.start);
        Ok(plaintext)
    }

    /// Encrypts a message for the receiver with this AppID, and returns the ciphertext in base64.
    pub(crate) fn encrypt(
        &self,
        random: [u8; RANDOM_BYTES],
        message: &[u8],
        app_id: &str,
    ) -> String {
        let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
        let unpadded = RANDOM_BYTES + LENGTH_BYTES + message.len() + app_id.len();
        let padding = PADDED_BLOCK_BYTES - unpadded % PADDED_BLOCK_BYTES;
        let mut text = Zeroizing::new(Vec::with_capacity(unpadded + padding));
        text.extend_from_slice(&random);
        text.extend_from_slice(&length.to_be_bytes());
        text.extend_from_slice(message);
        text.extend_from_slice(app_id.as_bytes());
        // The padding is 32 at most, so the conversion is exact.
        text.resize(unpadded + padding, padding as u8);
        let (blocks, _) = Array::slice_as_chunks_mut(&mut text);
        cbc::Encryptor::<Aes256>::new(&self.key(), &self.iv()).encrypt_blocks(blocks);
        STANDARD.encode(&*text)
    }

    fn key(&self) -> Zeroizing<aes::cipher::Key<Aes256>> {
        Zeroizing::new((*self.0).into())
    }

    /// Returns the initialization vector: WeChat takes the first 16 bytes of the key.
    fn iv(&self) -> Zeroizing<aes::Block> {
        let mut iv = Zeroizing::new(aes::Block::default());
        let length = iv.len();
        iv.copy_from_slice(&self.0[..length]);
        iv
    }
}

/// Decodes the text of an `Encrypt` element.
///
/// # Errors
/// The text is not base64 with padding.
pub(crate) fn decode_ciphertext(text: &str) -> Result<Vec<u8>, CipherError> {
    STANDARD
        .decode(text)
        .map_err(|_| CipherError::Undecryptable)
}

/// Returns where the message stands in a plaintext, after a check of everything around it.
fn message_range(plaintext: &[u8], app_id: &str) -> Result<std::ops::Range<usize>, CipherError> {
    let unpadded = strip_padding(plaintext).ok_or(CipherError::Undecryptable)?;
    let (_, rest) = unpadded
        .split_at_checked(RANDOM_BYTES)
        .ok_or(CipherError::Undecryptable)?;
    let (length, rest) = rest
        .split_at_checked(LENGTH_BYTES)
        .ok_or(CipherError::Undecryptable)?;
    let length = usize::try_from(parse_big_endian(length)).unwrap_or(usize::MAX);
    let (_, receiver) = rest
        .split_at_checked(length)
        .ok_or(CipherError::Undecryptable)?;
    if receiver != app_id.as_bytes() {
        return Err(CipherError::Foreign);
    }
    let start = RANDOM_BYTES + LENGTH_BYTES;
    Ok(start..start + length)
}

/// Returns the plaintext without its padding, or `None` if any byte of the padding is wrong.
fn strip_padding(plaintext: &[u8]) -> Option<&[u8]> {
    let length = usize::from(*plaintext.last()?);
    if !(1..=PADDED_BLOCK_BYTES).contains(&length) {
        return None;
    }
    let (text, padding) = plaintext.split_at_checked(plaintext.len().checked_sub(length)?)?;
    padding
        .iter()
        .all(|byte| usize::from(*byte) == length)
        .then_some(text)
}
