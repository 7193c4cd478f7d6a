//! Published and computed pushes, each with the values from which it was made.

use zeroize::Zeroizing;

use super::super::cipher::{CipherError, PushCipher, decode_ciphertext};
use super::super::signature::PushToken;

/// A push with all values from which it was made.
pub(super) struct Vector {
    pub(super) name: &'static str,
    pub(super) token: &'static str,
    pub(super) key: &'static str,
    pub(super) timestamp: &'static str,
    pub(super) nonce: &'static str,
    pub(super) encrypt: &'static str,
    pub(super) msg_signature: &'static str,
    /// The signature that does not cover the message.
    pub(super) short_signature: &'static str,
    pub(super) random: &'static [u8; 16],
    pub(super) message: &'static str,
    pub(super) app_id: &'static str,
    /// Number of bytes of padding.
    padding: usize,
}

/// The key of most vectors. The two surplus bits of its last character are not zero.
pub(super) const K1: &str = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG";

/// The key of WeChat's documentation.
pub(super) const KEY_OF_ZEROS: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Pushes of WeChat's documentation and samples, of other libraries' tests, and computed ones with
/// paddings of 1, 17 and 32 bytes.
pub(super) const VECTORS: &[Vector] = &[
    Vector {
        name: "E1",
        token: "AAAAA",
        key: KEY_OF_ZEROS,
        timestamp: "1715943329",
        nonce: "1590219412",
        encrypt: "D7yzvUNAL930rd28wf21s4hvXhz0L6Uit/p2Di6C5DHyYGpEgdBRnKjBec34JwoQXicwaZC7fOVihW80F4VtsdvE//1vr7oAbqjDv8KenVp+ajKYpJnyQ4zMRhIC+a31fCVOMC03FfzV/QuC94kBP55a+Za3sJgvAn+ZbsNqZI5DkyuzkhQN8OBqCzFhizGmy0xpM0MEA4agpvE+RuNO1rhHTtuJB5yltw1FiYzecSXJ+y/D2r81VkRn2eYjh2ltsoyfbDR7Is6ookXIFxTfyeNyeHxMeT4KN5WpCDmSbTcUYrbBUlkGLJ9n/rU8YOywma6G7aTb7KZKOqCxgfoUlYEZPk4FUL/TK7ShriFDMVCLyjQJ15Ob++agDWtcxhfUfe6HIoIpRW8mKNBQiY/Jd1svvuskA1wLef1RTtzKfMpagSCX/laZINmdnX4zrF6kIaR9P4xQrWXbsTFHTYe0Mg==",
        msg_signature: "6c12a4205838198b8fa631b3220723bb07f1015c",
        short_signature: "cc0c594499c1634947d5b502f158ee518947db27",
        random: b"1205899eaf019bbd",
        message: "<xml><ToUserName><![CDATA[gh_97417a04a28d]]></ToUserName>\n<FromUserName><![CDATA[o9AgO5Kd5ggOC-bXrbNODIiE3bGY]]></FromUserName>\n<CreateTime>1715943329</CreateTime>\n<MsgType><![CDATA[event]]></MsgType>\n<Event><![CDATA[debug_demo]]></Event>\n<debug_str><![CDATA[hello world]]></debug_str>\n</xml>",
        app_id: "wx134c8103faa5a59e",
        padding: 22,
    },
    Vector {
        name: "E2",
        token: "AAAAA",
        key: KEY_OF_ZEROS,
        timestamp: "1713424427",
        nonce: "415670741",
        encrypt: "hE8R6mGXHkJJjU72KxzKUd1GEkKJaEZq7vRL8XgK3o+00k8JGq6+pZJUIlTSyhsX+bxIBQ72g3GyvDdIZcr6+3HAZbSvPT9t/o11MI7d6WELwqrGd7jMnV0zv3Zc9Nq7",
        msg_signature: "03e0812039325c2712ef5f0f980fd14c70d6e307",
        short_signature: "6df89b40cad327396e5723c63d090e85770e556d",
        random: b"999951349e8ee746",
        message: "<xml><demo_resp>[CDATA[good luck]]</demo_resp></xml>",
        app_id: "wx134c8103faa5a59e",
        padding: 6,
    },
    Vector {
        name: "D",
        token: "spamtest",
        key: K1,
        timestamp: "1410349438",
        nonce: "298025754",
        encrypt: "mfBCs65c67CeJw22u4VT2TD73q5H06+ocrAIxswCaeZ/d/Lw0msSZFHY0teqgSYiI1zR2gD2DKrB3TIrmX/liNSDrGqS8jSI/WPeKB5VPr7Ezr7gomZAyGCwJSgT1TRFWPfONGJMxuj2nk4faTuspAuVIFQ6SHwZuJBZC7mcJp7Cgr9cUhATQWDbOPaE7ukZBTV2YqyzH+UI2AK+J1S47cE79k1RX8t0hcTz/O0hlK8DGXKnvYv88qKQcI7z4iaajqHfRVZKBNyOODabs+It+ZfM3dWTeFcPgDbGtIEnpt/EDtuuA/zMvtkaKdHdswPnVZQ+xdwbYr3ldGvfT8HlEYEgkgKaThxTFobVlwzu2ZkXCjicbP3xdr15Iq48ObgzPpqYuZ3IEoyggZDKClquk0u0orMck4GTF/XyE8yGzc4=",
        msg_signature: "003fee52ecc56afb46c00b5c7721be87860ce785",
        short_signature: "c7dfe6303616ae42216e59a624b8a45e5177dbb8",
        random: b"78b55f1d91440c6b",
        message: "<xml><ToUserName><![CDATA[gh_10f6c3c3ac5a]]></ToUserName>\n<FromUserName><![CDATA[oyORnuP8q7ou2gfYjqLzSIWZf0rs]]></FromUserName>\n<CreateTime>1410349438</CreateTime>\n<MsgType><![CDATA[text]]></MsgType>\n<Content><![CDATA[abcdteT]]></Content>\n<MsgId>6057404712141979648</MsgId>\n</xml>",
        app_id: "wx2c2769f8efd9abc2",
        padding: 2,
    },
    Vector {
        name: "T3",
        token: "spamtest",
        key: K1,
        timestamp: "1409735669",
        nonce: "1320562132",
        encrypt: "hyzAe4OzmOMbd6TvGdIOO6uBmdJoD0Fk53REIHvxYtJlE2B655HuD0m8KUePWB3+LrPXo87wzQ1QLvbeUgmBM4x6F8PGHQHFVAFmOD2LdJF9FrXpbUAh0B5GIItb52sn896wVsMSHGuPE328HnRGBcrS7C41IzDWyWNlZkyyXwon8T332jisa+h6tEDYsVticbSnyU8dKOIbgU6ux5VTjg3yt+WGzjlpKn6NPhRjpA912xMezR4kw6KWwMrCVKSVCZciVGCgavjIQ6X8tCOp3yZbGpy0VxpAe+77TszTfRd5RJSVO/HTnifJpXgCSUdUue1v6h0EIBYYI1BD1DlD+C0CR8e6OewpusjZ4uBl9FyJvnhvQl+q5rv1ixrcpCumEPo5MJSgM9ehVsNPfUM669WuMyVWQLCzpu9GhglF2PE=",
        msg_signature: "5d197aaffba7e9b25a30732f161a50dee96bd5fa",
        short_signature: "16120ec1b8dbb870f510d87ce6bc2463eae6ca1a",
        random: b"89465c840c5f116f",
        message: "<xml><ToUserName><![CDATA[gh_10f6c3c3ac5a]]></ToUserName>\n<FromUserName><![CDATA[oyORnuP8q7ou2gfYjqLzSIWZf0rs]]></FromUserName>\n<CreateTime>1409735668</CreateTime>\n<MsgType><![CDATA[text]]></MsgType>\n<Content><![CDATA[abcdteT]]></Content>\n<MsgId>6054768590064713728</MsgId>\n</xml>",
        app_id: "wx2c2769f8efd9abc2",
        padding: 2,
    },
    Vector {
        name: "T4",
        token: "pamtest",
        key: K1,
        timestamp: "1458300676",
        nonce: "260774613",
        encrypt: "rTNFcsut4LfGuAFKEUVVpwcaCOTJzOd9twZdIW910jb3k+iicx2uvhttIZ3Qg9Qgty3BEF2xbOrz6boTfb30dMomcgrkTqdFPwnhqbk+kIQ7rZiwny9D7NUrTgA5kpX3KsZvrXzUZyP2x9YOlxbgm572lmxKvM7HAQQhIQ/p6HBmoY30bGXFK0BtIu1pW9TjhOYrLQoU18nWYjWqDA1ynkmOytpv7QRI1P1+0NoxL0q2zO1DgeSvnE8CZGo/o5Ap/WHK5W2RAsinpzN4/LjPnmB6U01I5XCoJoC0GK/yMZycd2Oh8Nq6+wBkC1U85oy0ktOY4nLvsQMLrourmMGdZHuTbqpeJ8Ao/5PRYJ+WBvRUwPfGKBL2+2IKZF49vAJqkcGWSHGE76ZN2erXeuNazf/o9o3lIE3q739o4c8t9QGPe31GT2Go/rOz1BsrASwvauNulCh+++yz+CQzBIuikA==",
        msg_signature: "4f3ad57b6989f09f4eb392acce4f9e93942ed890",
        short_signature: "62ec41eb19c7dce895f002d79b70ddbb5acf314e",
        random: b"d43123b161a4ba84",
        message: "<xml><URL><![CDATA[http://wechat.laravel.so/server]]></URL><ToUserName><![CDATA[asdasdasd]]></ToUserName><FromUserName><![CDATA[asdasdasdsadasd]]></FromUserName><CreateTime>1234567898</CreateTime><MsgType><![CDATA[text]]></MsgType><Content><![CDATA[hello]]></Content><MsgId>12345</MsgId></xml>",
        app_id: "wxb11529c136998cb6",
        padding: 21,
    },
    Vector {
        name: "B",
        token: "QDG6eK",
        key: "jWmYm7qr5nMoAUwZRjGtBxmz3KA1tkAj3ykkR6q2B2C",
        timestamp: "1409659589",
        nonce: "263014780",
        encrypt: "P9nAzCzyDtyTWESHep1vC5X9xho/qYX3Zpb4yKa9SKld1DsH3Iyt3tP3zNdtp+4RPcs8TgAE7OaBO+FZXvnaqQ==",
        msg_signature: "5c45ff5e21c57e6ad56bac8758b79b1d9ac89fd3",
        short_signature: "93d1cec91cee4a4a8baada4c807ed13137622215",
        random: b"c41b64491c2468d0",
        message: "1616140317555161061",
        app_id: "wx5823bf96d3bd56c7",
        padding: 7,
    },
    Vector {
        name: "T1",
        token: "pamtest",
        key: K1,
        timestamp: "1409304348",
        nonce: "xxxxxx",
        encrypt: "jn1L23DB+6ELqJ+6bruv21Y6MD7KeIfP82D6gU39rmkgczbWwt5+3bnyg5K55bgVtVzd832WzZGMhkP72vVOfg==",
        msg_signature: "82c962d39941aa48552f90ef55aa323dc620cc10",
        short_signature: "76480565cbe296026c53aaacd1ad523a1ddba24f",
        random: b"aaaabbbbccccdddd",
        message: "我是中文abcd123",
        app_id: "wxb11529c136998cb6",
        padding: 7,
    },
    Vector {
        name: "C1",
        token: "component_token",
        key: K1,
        timestamp: "1413192605",
        nonce: "1320562132",
        encrypt: "Q3stYC6hdFzMh9T8HCvyDF6UN8Kpp6Tb1q/cjMXXc+keiREf1qaQBXfeBPDV2vYwaV772serzv2gPHq+Zl9cjIGdtzMRXfIzmQpSvPe6cPjTP066ZR5yinHMt5oddT5ZQ4sp62oZgh2GHTP83W0STKR5Vf4W2fQwu0wnwRksfUSmne2xPUWUqKkDbIHyvGWC9dLdOKCtjV5XpD8+zPMn5uGvk7TK/0BuJOM2QNlZ6ClbNz7/V1RZmchBKAWVZZL2M3YgtFvJEOfLTpByANoVvIbZxhkwu8velxSk91swU/1tDKuyppBlmz+16kBUbplsfW5BNOGgvJnk4hy0VBeFD0tBEekvZwc6/cY7zdndOD/NpgwwnAnIRQVJCRb4zSsG",
        msg_signature: "6b8a6f5aa4a142f2e2f0bb075e9fea7f8c3956f7",
        short_signature: "df088a218294399100006a09988bf72b9340d793",
        random: b"0123456789abcdef",
        message: "<xml><AppId><![CDATA[wxd0bfc95064b5bfc1]]></AppId><CreateTime>1413192605</CreateTime><InfoType><![CDATA[component_verify_ticket]]></InfoType><ComponentVerifyTicket><![CDATA[ticket@@@some_verify_ticket]]></ComponentVerifyTicket></xml>",
        app_id: "wxd0bfc95064b5bfc1",
        padding: 17,
    },
    Vector {
        name: "C2",
        token: "component_token",
        key: K1,
        timestamp: "1413192760",
        nonce: "260774613",
        encrypt: "Q3stYC6hdFzMh9T8HCvyDCinFLjxMHM9wYGiOxfD4FIaRJvR2p4pdwPx1pw9YJXrgN921D2GZzXW/meZo45sJW9bTGDZYaHRYPUusWSkNB2Fi8Bv6n/wh/vvHShcV6s9DExzsswAWx0To6ynzV1UajXLMFI5NPzvqCfI/por4n4hSy7sLrE6ABA1zzW5Q2xy27uBfYftw8QtsLJN+ejEw7dglmnbA7XzsEjXQvr3Y7OE2fRHZqzn/TIUnenl7RDuhakxSVNOf2qu6M3JuVTNgkgdN78T5uR4cRr4fiz+q/4=",
        msg_signature: "2eef345e8747fec362b32be07e568f4b31e51345",
        short_signature: "6bde2fec432c6e8742992e13c0d406a34eb0c964",
        random: b"0123456789abcdef",
        message: "<xml><AppId>wxd0bfc95064b5bfc1</AppId><CreateTime>1413192760</CreateTime><InfoType>unauthorized</InfoType><AuthorizerAppid>wxf8b4f85f3a794e77</AuthorizerAppid></xml>",
        app_id: "wxd0bfc95064b5bfc1",
        padding: 21,
    },
    Vector {
        name: "C3",
        token: "component_token",
        key: K1,
        timestamp: "1",
        nonce: "2",
        encrypt: "Q3stYC6hdFzMh9T8HCvyDIKMpJ2YB/WJNYEsiBRSdP7uuAg59ygU0GcjEbNixcLfuHJQGfnGB/sQWDCwRYJJMDGHdyNXwaSNbiwQT1k8/tsc9RvDhhj2qiY4hQdgvouEJA2YGqpeqVIj1jUt4YEdavt8RSyy9P5mWU+PoQMrsr0=",
        msg_signature: "911b8390f178f9cd4cd10029fd68b6bd7c3e5a40",
        short_signature: "68fb46bd7ac7ff1af1f0a03429ba807502480166",
        random: b"0123456789abcdef",
        message: "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        app_id: "wxd0bfc95064b5bfc1",
        padding: 32,
    },
    Vector {
        name: "C4",
        token: "component_token",
        key: K1,
        timestamp: "1",
        nonce: "2",
        encrypt: "Q3stYC6hdFzMh9T8HCvyDFsxX9TFzCEKkgM4HhGzpVMZCbGU2N1rPd9cVun2hvJD9CjkHpnbTJ/Xh7BODkpT2Z5qXXjiVUzD4L3BsDFtPL+3xuv35+gKW03PVJNzbmRC",
        msg_signature: "5074a2719c41c42ff77c0f74af5a43d71c1b9d5d",
        short_signature: "68fb46bd7ac7ff1af1f0a03429ba807502480166",
        random: b"0123456789abcdef",
        message: "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        app_id: "wxd0bfc95064b5bfc1",
        padding: 1,
    },
    Vector {
        name: "C5",
        token: "component_token",
        key: K1,
        timestamp: "1",
        nonce: "2",
        encrypt: "Q3stYC6hdFzMh9T8HCvyDKJ9PPx1UyQtBg+yy3B5U4sE+IOv25vS0ipx5+vmVivVjVfULPVs9WBBXNLmgJRmrjKWu/b3zt49/mHwKfDeT7j+7T46/yp3OVHNCTz8re+j",
        msg_signature: "acf4062d7eab7cf42372c7e4d8a50c2aa542ac12",
        short_signature: "68fb46bd7ac7ff1af1f0a03429ba807502480166",
        random: b"0123456789abcdef",
        message: "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        app_id: "wxd0bfc95064b5bfc1",
        padding: 17,
    },
];

/// Returns the vector with this name.
pub(super) fn vector(name: &str) -> &'static Vector {
    VECTORS.iter().find(|vector| vector.name == name).unwrap()
}

impl Vector {
    pub(super) fn cipher(&self) -> PushCipher {
        PushCipher::from_encoding_key(self.key).unwrap()
    }

    fn decrypt(&self, app_id: &str) -> Result<Zeroizing<Vec<u8>>, CipherError> {
        let ciphertext = decode_ciphertext(self.encrypt)?;
        self.cipher().decrypt(&ciphertext, app_id)
    }
}

#[test]
fn every_vector_opens_and_is_made_again() {
    for vector in VECTORS {
        let Vector { name, .. } = vector;
        let message = vector.decrypt(vector.app_id).expect(name);
        assert_eq!(&*message, vector.message.as_bytes(), "{name}");
        let (random, text) = (*vector.random, vector.message.as_bytes());
        let encrypt = vector.cipher().encrypt(random, text, vector.app_id);
        assert_eq!(encrypt, vector.encrypt, "{name}");
        let token = PushToken::new(vector.token);
        let signature = token.sign(vector.timestamp, vector.nonce, vector.encrypt);
        assert_eq!(signature, vector.msg_signature, "{name}");
    }
}

#[test]
fn vectors_have_all_kinds_of_padding() {
    for vector in VECTORS {
        let unpadded = 20 + vector.message.len() + vector.app_id.len();
        assert_eq!(32 - unpadded % 32, vector.padding, "{}", vector.name);
    }
    for padding in [1, 17, 32] {
        assert!(VECTORS.iter().any(|vector| vector.padding == padding));
    }
}

#[test]
fn a_message_for_another_app_id_is_foreign() {
    for vector in VECTORS {
        for other in ["wx0000000000000000", "", &vector.app_id[1..]] {
            let error = vector.decrypt(other).unwrap_err();
            assert_eq!(error, CipherError::Foreign, "{}", vector.name);
        }
    }
}

#[test]
fn a_wrong_key_opens_nothing() {
    let wrong =
        PushCipher::from_encoding_key("zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz").unwrap();
    for vector in VECTORS {
        let ciphertext = decode_ciphertext(vector.encrypt).unwrap();
        let error = wrong.decrypt(&ciphertext, vector.app_id).unwrap_err();
        assert_eq!(error, CipherError::Undecryptable, "{}", vector.name);
    }
}

#[test]
fn a_cut_ciphertext_does_not_open() {
    let vector = vector("C1");
    let ciphertext = decode_ciphertext(vector.encrypt).unwrap();
    for length in 0..ciphertext.len() {
        let cut = &ciphertext[..length];
        assert!(
            vector.cipher().decrypt(cut, vector.app_id).is_err(),
            "{length}"
        );
    }
    // The last block of base64.
    let cut = &vector.encrypt[..vector.encrypt.len() - 4];
    let cut = decode_ciphertext(cut).unwrap();
    assert!(vector.cipher().decrypt(&cut, vector.app_id).is_err());
}

#[test]
fn a_ciphertext_is_strict_base64() {
    let text = vector("T1").encrypt;
    let unpadded = text.trim_end_matches('=');
    let (start, end) = text.split_at(8);
    for wrong in [
        unpadded.to_owned(),
        format!("{start}\n{end}"),
        format!("{start} {end}"),
        text.replace('+', "-").replace('/', "_"),
        format!("{text}="),
    ] {
        let error = decode_ciphertext(&wrong).map(|_| ()).unwrap_err();
        assert_eq!(error, CipherError::Undecryptable, "{wrong}");
    }
}
