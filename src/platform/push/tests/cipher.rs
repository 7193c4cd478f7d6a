//! Tests of the cipher with messages of all lengths, and with damaged plaintexts.

use aes::Aes256;
use cbc::cipher::array::Array;
use cbc::cipher::{BlockModeEncrypt, KeyIvInit};
use proptest::prelude::*;

use super::super::cipher::{CipherError, PushCipher, decode_ciphertext};
use super::vectors::{K1, vector};

const APP_ID: &str = "wxd0bfc95064b5bfc1";

fn k1() -> PushCipher {
    PushCipher::from_encoding_key(K1).unwrap()
}

/// Encrypts a plaintext as it is, with K1.
fn encrypt_raw(plaintext: &[u8]) -> Vec<u8> {
    let key = [
        0x69, 0xb7, 0x1d, 0x79, 0xf8, 0x21, 0x8a, 0x39, 0x25, 0x9a, 0x7a, 0x29, 0xaa, 0xbb, 0x2d,
        0xba, 0xfc, 0x31, 0xcb, 0x3d, 0x35, 0xdb, 0x7e, 0x39, 0xeb, 0xbf, 0x3d, 0x00, 0x10, 0x83,
        0x10, 0x51,
    ];
    let mut iv = [0; 16];
    iv.copy_from_slice(&key[..16]);
    let mut text = plaintext.to_vec();
    let (blocks, rest) = Array::slice_as_chunks_mut(&mut text);
    assert!(rest.is_empty());
    cbc::Encryptor::<Aes256>::new(&key.into(), &iv.into()).encrypt_blocks(blocks);
    text
}

/// Returns the plaintext of a message with a length field and a padding of the caller.
fn plaintext(length: u32, message: &[u8], app_id: &str, padding: &[u8]) -> Vec<u8> {
    let length = length.to_be_bytes();
    [
        b"0123456789abcdef",
        &length[..],
        message,
        app_id.as_bytes(),
        padding,
    ]
    .concat()
}

fn error(plaintext: &[u8]) -> CipherError {
    k1().decrypt(&encrypt_raw(plaintext), APP_ID).unwrap_err()
}

#[test]
fn a_plaintext_made_by_hand_opens() {
    let text = plaintext(6, b"hello!", APP_ID, &[20; 20]);
    assert_eq!(
        &**k1().decrypt(&encrypt_raw(&text), APP_ID).unwrap(),
        b"hello!"
    );
    // Even a padding of another block of 32 bytes is wrong.
    assert_eq!(
        error(&plaintext(6, b"hello!", APP_ID, &[52; 52])),
        CipherError::Undecryptable
    );
}

#[test]
fn every_byte_of_the_padding_is_checked() {
    for padding in 1_u8..=32 {
        let message = vec![b'x'; 32 + 26 - usize::from(padding)];
        let length = message.len() as u32;
        let right = vec![padding; usize::from(padding)];
        let text = plaintext(length, &message, APP_ID, &right);
        assert!(
            k1().decrypt(&encrypt_raw(&text), APP_ID).is_ok(),
            "{padding}"
        );
        for at in 0..right.len() {
            let mut wrong = right.clone();
            wrong[at] ^= 0x40;
            let text = plaintext(length, &message, APP_ID, &wrong);
            assert_eq!(error(&text), CipherError::Undecryptable, "{padding} {at}");
        }
    }
}

#[test]
fn paddings_outside_of_the_block_are_wrong() {
    for wrong in [0, 33, 64, 255] {
        let mut text = plaintext(6, b"hello!", APP_ID, &[20; 20]);
        *text.last_mut().unwrap() = wrong;
        assert_eq!(error(&text), CipherError::Undecryptable, "{wrong}");
    }
    // The padding covers the whole plaintext.
    assert_eq!(error(&[32; 32]), CipherError::Undecryptable);
}

#[test]
fn a_length_beyond_the_rest_is_wrong() {
    for length in [25, 26, 45, 0x7fff_ffff, u32::MAX] {
        let text = plaintext(length, b"hello!", APP_ID, &[20; 20]);
        assert_eq!(error(&text), CipherError::Undecryptable, "{length}");
    }
    // The message and the AppID are cut at another place.
    for length in [0, 5, 7, 24] {
        let text = plaintext(length, b"hello!", APP_ID, &[20; 20]);
        assert_eq!(error(&text), CipherError::Foreign, "{length}");
    }
    // There is no room for the length itself.
    let text = [&b"0123456789abcdef"[..], &[16; 16]].concat();
    assert_eq!(error(&text), CipherError::Undecryptable);
}

#[test]
fn an_empty_message_opens() {
    let encrypt = k1().encrypt([7; 16], b"", APP_ID);
    let ciphertext = decode_ciphertext(&encrypt).unwrap();
    assert!(k1().decrypt(&ciphertext, APP_ID).unwrap().is_empty());
}

#[test]
fn a_half_block_does_not_open() {
    let ciphertext = decode_ciphertext(vector("C3").encrypt).unwrap();
    for length in [1, 16, 31, 48, 80, 127] {
        let error = k1().decrypt(&ciphertext[..length], APP_ID).unwrap_err();
        assert_eq!(error, CipherError::Undecryptable, "{length}");
    }
}

proptest! {
    #[test]
    fn every_message_opens_again(
        message in proptest::collection::vec(any::<u8>(), 0..300),
        random: [u8; 16],
        app_id in "[a-zA-Z0-9_-]{1,40}",
        key in "[a-zA-Z0-9]{43}",
    ) {
        let cipher = PushCipher::from_encoding_key(&key).unwrap();
        let encrypt = cipher.encrypt(random, &message, &app_id);
        let ciphertext = decode_ciphertext(&encrypt).unwrap();
        prop_assert_eq!(ciphertext.len() % 32, 0);
        let opened = cipher.decrypt(&ciphertext, &app_id).unwrap();
        prop_assert_eq!(&**opened, &*message);
    }

    #[test]
    fn arbitrary_ciphertexts_never_panic(
        ciphertext in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let _ = k1().decrypt(&ciphertext, APP_ID);
        let length = ciphertext.len() / 32 * 32;
        let _ = k1().decrypt(&ciphertext[..length], APP_ID);
    }

    #[test]
    fn arbitrary_plaintexts_never_panic(
        mut text in proptest::collection::vec(any::<u8>(), 32..200),
        padding in 1_u8..=32,
    ) {
        text.truncate(text.len() / 32 * 32);
        let start = text.len() - usize::from(padding);
        text[start..].fill(padding);
        let _ = k1().decrypt(&encrypt_raw(&text), APP_ID);
    }
}
