//! The cipher and the signature of pushes.
//!
//! This code shares nothing with the cipher of the library, so that a mistake in one of the two shows
//! in tests.

use aes::{
    Aes256, Block,
    cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit},
};
use base64::{
    Engine as _,
    engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD},
};
use sha1::{Digest, Sha1};

const BLOCK: usize = 16;
/// The number of bytes to a multiple of which WeChat pads, which is not the block size of AES.
const PADDING: usize = 32;
/// The length of the random bytes and of the length field before the message.
const HEAD: usize = 16 + 4;

/// A decoder that ignores the two surplus bits of a key's 43rd character.
const KEY_DECODER: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

fn aes_key(encoding_aes_key: &str) -> Option<[u8; 32]> {
    let is_valid = encoding_aes_key.len() == 43
        && encoding_aes_key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric());
    let bytes = KEY_DECODER.decode(format!("{encoding_aes_key}="));
    bytes.ok().filter(|_| is_valid)?.try_into().ok()
}

/// Checks an EncodingAESKey (消息加解密Key).
///
/// # Errors
/// Returns a sentence that says what the key must be.
pub(in crate::simulator) fn check_aes_key(encoding_aes_key: &str) -> Result<(), String> {
    match aes_key(encoding_aes_key) {
        Some(_) => Ok(()),
        None => Err("the key of pushes must have 43 letters and digits".to_owned()),
    }
}

/// Encrypts a message for the app with this AppID. Returns `None` if the key is invalid.
pub(super) fn encrypt(encoding_aes_key: &str, message: &str, app_id: &str) -> Option<String> {
    let mut random = [0; 16];
    fastrand::fill(&mut random);
    encrypt_with(encoding_aes_key, random, message, app_id)
}

fn encrypt_with(
    encoding_aes_key: &str,
    random: [u8; 16],
    message: &str,
    app_id: &str,
) -> Option<String> {
    let key = aes_key(encoding_aes_key)?;
    let cipher = Aes256::new(&key.into());
    let mut bytes = random.to_vec();
    bytes.extend(u32::try_from(message.len()).ok()?.to_be_bytes());
    bytes.extend(message.as_bytes());
    bytes.extend(app_id.as_bytes());
    let padding = PADDING - bytes.len() % PADDING;
    bytes.resize(bytes.len() + padding, u8::try_from(padding).ok()?);
    let mut previous = <[u8; BLOCK]>::try_from(key.get(..BLOCK)?).ok()?;
    for chunk in bytes.chunks_exact_mut(BLOCK) {
        let mut block = Block::default();
        for (byte, (plain, before)) in block.iter_mut().zip(chunk.iter().zip(previous)) {
            *byte = plain ^ before;
        }
        cipher.encrypt_block(&mut block);
        chunk.copy_from_slice(&block);
        previous = block.into();
    }
    Some(STANDARD.encode(bytes))
}

/// Decrypts a message for the app with this AppID. Returns `None` if the message is not one.
pub(super) fn decrypt(encoding_aes_key: &str, encrypted: &str, app_id: &str) -> Option<String> {
    let key = aes_key(encoding_aes_key)?;
    let cipher = Aes256::new(&key.into());
    let mut bytes = STANDARD.decode(encrypted).ok()?;
    if bytes.is_empty() || !bytes.len().is_multiple_of(BLOCK) {
        return None;
    }
    let mut previous = <[u8; BLOCK]>::try_from(key.get(..BLOCK)?).ok()?;
    for chunk in bytes.chunks_exact_mut(BLOCK) {
        let ciphertext = <[u8; BLOCK]>::try_from(&*chunk).ok()?;
        let mut block = Block::from(ciphertext);
        cipher.decrypt_block(&mut block);
        for (byte, (decrypted, before)) in chunk.iter_mut().zip(block.iter().zip(previous)) {
            *byte = decrypted ^ before;
        }
        previous = ciphertext;
    }
    let padding = usize::from(*bytes.last()?);
    let end = bytes.len().checked_sub(padding)?;
    let is_padded = (1..=PADDING).contains(&padding)
        && bytes[end..]
            .iter()
            .all(|byte| usize::from(*byte) == padding);
    let content = bytes.get(HEAD..end).filter(|_| is_padded)?;
    let length = u32::from_be_bytes(bytes.get(16..HEAD)?.try_into().ok()?);
    let (message, tail) = content.split_at_checked(usize::try_from(length).ok()?)?;
    let message = String::from_utf8(message.to_vec()).ok()?;
    (tail == app_id.as_bytes()).then_some(message)
}

/// Returns the SHA-1 of the sorted parts in hexadecimal: `msg_signature` of the token, the timestamp, the
/// nonce and the encrypted message, or `signature` of the first three.
pub(super) fn signature(parts: &mut [&str]) -> String {
    parts.sort_unstable();
    let digest = Sha1::digest(parts.concat());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Token, key, timestamp, nonce, AppID, random bytes, start of the message, encrypted message, signature.
    type Sample = [&'static str; 9];

    /// Samples of WeChat's own pages and code, and one whose padding is a full block.
    const SAMPLES: &[Sample] = &[
        [
            "spamtest",
            "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG",
            "1409735669",
            "1320562132",
            "wx2c2769f8efd9abc2",
            "89465c840c5f116f",
            "<xml><ToUserName><![CDATA[gh_10f6c3c3ac5a]]></ToUserName>\n",
            "hyzAe4OzmOMbd6TvGdIOO6uBmdJoD0Fk53REIHvxYtJlE2B655HuD0m8KUePWB3+LrPXo87wzQ1QLvbeUgmBM4x6F8PGHQHFVAFmOD2LdJF9FrXpbUAh0B5GIItb52sn896wVsMSHGuPE328HnRGBcrS7C41IzDWyWNlZkyyXwon8T332jisa+h6tEDYsVticbSnyU8dKOIbgU6ux5VTjg3yt+WGzjlpKn6NPhRjpA912xMezR4kw6KWwMrCVKSVCZciVGCgavjIQ6X8tCOp3yZbGpy0VxpAe+77TszTfRd5RJSVO/HTnifJpXgCSUdUue1v6h0EIBYYI1BD1DlD+C0CR8e6OewpusjZ4uBl9FyJvnhvQl+q5rv1ixrcpCumEPo5MJSgM9ehVsNPfUM669WuMyVWQLCzpu9GhglF2PE=",
            "5d197aaffba7e9b25a30732f161a50dee96bd5fa",
        ],
        [
            "AAAAA",
            "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "1713424427",
            "415670741",
            "wx134c8103faa5a59e",
            "999951349e8ee746",
            "<xml><demo_resp>[CDATA[good luck]]</demo_resp></xml>",
            "hE8R6mGXHkJJjU72KxzKUd1GEkKJaEZq7vRL8XgK3o+00k8JGq6+pZJUIlTSyhsX+bxIBQ72g3GyvDdIZcr6+3HAZbSvPT9t/o11MI7d6WELwqrGd7jMnV0zv3Zc9Nq7",
            "03e0812039325c2712ef5f0f980fd14c70d6e307",
        ],
        [
            "component_token",
            "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG",
            "1",
            "2",
            "wxd0bfc95064b5bfc1",
            "0123456789abcdef",
            "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "Q3stYC6hdFzMh9T8HCvyDIKMpJ2YB/WJNYEsiBRSdP7uuAg59ygU0GcjEbNixcLfuHJQGfnGB/sQWDCwRYJJMDGHdyNXwaSNbiwQT1k8/tsc9RvDhhj2qiY4hQdgvouEJA2YGqpeqVIj1jUt4YEdavt8RSyy9P5mWU+PoQMrsr0=",
            "911b8390f178f9cd4cd10029fd68b6bd7c3e5a40",
        ],
        [
            "component_token",
            "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG",
            "1",
            "2",
            "wxd0bfc95064b5bfc1",
            "0123456789abcdef",
            "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
            "Q3stYC6hdFzMh9T8HCvyDKJ9PPx1UyQtBg+yy3B5U4sE+IOv25vS0ipx5+vmVivVjVfULPVs9WBBXNLmgJRmrjKWu/b3zt49/mHwKfDeT7j+7T46/yp3OVHNCTz8re+j",
            "acf4062d7eab7cf42372c7e4d8a50c2aa542ac12",
        ],
    ];

    #[test]
    fn samples_are_decrypted_encrypted_and_signed() {
        for [
            token,
            key,
            timestamp,
            nonce,
            app_id,
            random,
            start,
            encrypted,
            signed,
        ] in SAMPLES
        {
            let message = decrypt(key, encrypted, app_id).unwrap();
            assert!(message.starts_with(start), "{message}");
            let random = random.as_bytes().try_into().unwrap();
            let again = encrypt_with(key, random, &message, app_id);
            assert_eq!(again.as_deref(), Some(*encrypted));
            let mut parts = [*token, timestamp, nonce, encrypted];
            assert_eq!(signature(&mut parts), *signed);
        }
    }

    #[test]
    fn a_message_for_another_app_or_of_another_key_is_refused() {
        let key = SAMPLES[0][1];
        let encrypted = encrypt(key, "a message", "wx1").unwrap();
        assert_eq!(
            decrypt(key, &encrypted, "wx1").as_deref(),
            Some("a message")
        );
        assert_eq!(decrypt(key, &encrypted, "wx2"), None);
        assert_eq!(decrypt(SAMPLES[1][1], &encrypted, "wx1"), None);
        assert_eq!(encrypt("too short", "a message", "wx1"), None);
        assert!(check_aes_key(key).is_ok() && check_aes_key("too short").is_err());
    }
}
