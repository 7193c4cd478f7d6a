//! Tests of the keys that an application sets.

use super::super::keys::PushKeys;
use super::vectors::{K1, KEY_OF_ZEROS};
use crate::ErrorKind;

fn error(tokens: &[&str], keys: &[&str]) -> String {
    let error = PushKeys::new(tokens, keys).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    error.to_string()
}

#[test]
fn surplus_bits_of_a_key_are_accepted() {
    let (start, _) = K1.split_at(42);
    for last in ["E", "F", "G", "H"] {
        let key = format!("{start}{last}");
        assert!(PushKeys::new(["token"], [key]).is_ok(), "{last}");
    }
}

#[test]
fn a_wrong_key_is_refused_in_one_sentence() {
    let (short, long) = (&K1[..42], format!("{K1}H"));
    let padded = format!("{K1}=");
    let umlaut = format!("{}ä", &K1[..42]);
    for (key, problem) in [
        (short, "has 42 characters, and an EncodingAESKey has 43"),
        (&long, "has 44 characters, and an EncodingAESKey has 43"),
        (&padded, "has 44 characters"),
        ("", "has 0 characters"),
        (
            &K1.replace('f', " "),
            "contains characters that no EncodingAESKey has",
        ),
        (&K1.replace('G', "="), "contains characters"),
        (&umlaut, "contains characters"),
    ] {
        let text = error(&["token"], &[KEY_OF_ZEROS, key]);
        assert!(text.starts_with(&format!("push key 2 {problem}")), "{text}");
        assert!(text.contains("without blanks and without `=`"), "{text}");
        assert!(key.is_empty() || !text.contains(key), "{text}");
    }
}

#[test]
fn a_wrong_token_is_refused_in_one_sentence() {
    for (token, problem) in [
        ("", "is empty"),
        ("token\n", "contains a character that no token has"),
        ("to ken", "contains a character that no token has"),
        ("tökèn", "contains a character that no token has"),
        ("a", "has 1 characters, and WeChat takes 3 to 32"),
        ("ab", "has 2 characters"),
        (&"x".repeat(33), "has 33 characters"),
        (K1, "looks like a 消息加解密Key"),
    ] {
        let text = error(&[token], &[K1]);
        assert!(
            text.starts_with(&format!("push token 1 {problem}")),
            "{text}"
        );
        assert!(token.len() < 3 || !text.contains(token), "{text}");
    }
    for token in ["abc", "component_token", &"7".repeat(32)] {
        assert!(PushKeys::new([token], [K1]).is_ok(), "{token}");
    }
}

#[test]
fn swapped_tokens_and_keys_are_named() {
    for (tokens, keys) in [([K1], ["token"]), (["token"], ["other"])] {
        let text = error(&tokens, &keys);
        assert!(text.contains("perhaps swapped"), "{text}");
        assert!(!text.contains(K1), "{text}");
    }
}

#[test]
fn empty_lists_are_refused() {
    for (tokens, keys) in [(&[][..], &[K1][..]), (&["token"], &[]), (&[], &[])] {
        let text = error(tokens, keys);
        assert!(text.contains("at least one token"), "{text}");
    }
}

#[test]
fn debug_shows_no_secret() {
    let keys = PushKeys::new(["component_token", "other"], [K1]).unwrap();
    assert_eq!(format!("{keys:?}"), "PushKeys(2 tokens, 1 key)");
}
