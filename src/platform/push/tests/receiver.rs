//! Tests of the receiver: which pushes it takes, and why it refuses the others.

use http::Uri;
use proptest::prelude::*;

use super::super::cipher::{CipherError, decode_ciphertext};
use super::super::receiver::PushContent;
use super::super::refusal::PushRefusal;
use super::super::signature::{PushToken, QueryError};
use super::super::xml::XmlError;
use super::fixtures::{
    COMPONENT, NOW, Push, TOKEN, describe, envelope, message_envelope, receiver, receiver_with,
    text_message,
};
use super::vectors::{K1, KEY_OF_ZEROS, VECTORS, vector};

/// Opens a push, and describes its content.
fn open(push: &Push) -> Result<String, PushRefusal> {
    open_at(&push.uri(), &push.body)
}

fn open_at(uri: &Uri, body: &str) -> Result<String, PushRefusal> {
    let opened = receiver().0.open(uri, body.as_bytes())?;
    Ok(match opened.content {
        PushContent::Event(event) => describe(&event),
        PushContent::Application(push) => format!("{push:?}"),
    })
}

/// Returns the refusal of a genuine push with this message.
fn refusal(message: &str) -> PushRefusal {
    open(&Push::new(message)).expect_err(message)
}

#[test]
fn tickets_and_authorizations_are_events() {
    let ticket = open(&Push::of(vector("C1"))).unwrap();
    assert_eq!(ticket, "ticket ticket@@@some_verify_ticket 1413192605000ms");
    let unauthorized = open(&Push::of(vector("C2"))).unwrap();
    assert_eq!(
        unauthorized,
        "unauthorized wxf8b4f85f3a794e77 1413192760000ms"
    );
    for info_type in ["authorized", "updateauthorized"] {
        let message = format!(
            "<xml><AppId>{COMPONENT}</AppId><CreateTime>1413192760</CreateTime>\
             <InfoType><![CDATA[{info_type}]]></InfoType>\
             <AuthorizerAppid><![CDATA[wx1]]></AuthorizerAppid>\
             <AuthorizationCode>queryauthcode@@@c</AuthorizationCode>\
             <AuthorizationCodeExpiredTime><![CDATA[1413196360]]></AuthorizationCodeExpiredTime>\
             <PreAuthCode>preauthcode@@@p</PreAuthCode></xml>"
        );
        let expected = "authorized wx1 queryauthcode@@@c Some(1413196360000ms) \
                        Some(\"preauthcode@@@p\") 1413192760000ms";
        assert_eq!(open(&Push::new(&message)).unwrap(), expected);
    }
    let short = "<xml><InfoType>authorized</InfoType><AuthorizerAppid>wx1</AuthorizerAppid>\
        <AuthorizationCode>c</AuthorizationCode></xml>";
    let expected = format!("authorized wx1 c None None {NOW:?}");
    assert_eq!(open(&Push::new(short)).unwrap(), expected);
}

#[test]
fn published_pushes_of_messages_open() {
    for name in ["E1", "D", "T3", "T4"] {
        let vector = vector(name);
        let (receiver, _) = receiver_with(vector.app_id, &[vector.token], &[vector.key]);
        let push = Push::of(vector);
        let body = message_envelope(vector.encrypt);
        let opened = receiver.open(&push.uri(), body.as_bytes()).unwrap();
        let PushContent::Application(push) = opened.content else {
            panic!("{name} is a message");
        };
        assert_eq!(push.xml(), vector.message);
        assert_eq!(push.component().as_str(), vector.app_id);
        assert!(
            push.msg_type().is_some() && push.info_type().is_none(),
            "{name}"
        );
        assert!(
            push.created().is_some() && push.account().is_none(),
            "{name}"
        );
    }
}

#[test]
fn vectors_that_are_no_xml_are_refused_after_their_signature() {
    for name in ["B", "T1", "C3", "C4", "C5"] {
        let vector = vector(name);
        let (receiver, _) = receiver_with(vector.app_id, &[vector.token], &[vector.key]);
        let body = message_envelope(vector.encrypt);
        let refusal = receiver
            .open(&Push::of(vector).uri(), body.as_bytes())
            .err()
            .unwrap();
        assert_eq!(refusal, PushRefusal::Message(XmlError::Malformed), "{name}");
        assert!(refusal.is_signed());
    }
}

#[test]
fn unknown_events_are_for_the_application() {
    let message = format!(
        "<xml><AppId>{COMPONENT}</AppId><CreateTime>1413192760</CreateTime>\
         <InfoType>notify_third_fasteregister</InfoType><appid>wx2</appid>\
         <auth_code>secret-code</auth_code></xml>"
    );
    let push = open(&Push::new(&message)).unwrap();
    assert!(
        push.contains("notify_third_fasteregister") && push.contains("\"wx2\""),
        "{push}"
    );
    assert!(!push.contains("secret-code"), "{push}");
}

/// `signature` covers neither the body nor the encrypted message.
#[test]
fn the_signature_of_the_url_alone_is_not_enough() {
    let vector = vector("C1");
    let path = format!(
        "/push?signature={}&timestamp={}&nonce={}&encrypt_type=aes",
        vector.short_signature, vector.timestamp, vector.nonce
    );
    let unsigned = PushRefusal::Query(QueryError::Unsigned);
    assert_eq!(
        open_at(&path.parse().unwrap(), &envelope(vector.encrypt)),
        Err(unsigned)
    );
    let path = format!("{path}&msg_signature={}", vector.short_signature);
    let refusal = open_at(&path.parse().unwrap(), &envelope(vector.encrypt));
    assert_eq!(refusal, Err(PushRefusal::Signature));
}

#[test]
fn forged_signatures_are_refused() {
    for vector in VECTORS {
        let (receiver, _) = receiver_with(vector.app_id, &[vector.token], &[vector.key]);
        let body = message_envelope(vector.encrypt);
        let right = Push::of(vector).path;
        let refused = |path: &str| {
            let refusal = receiver.open(&path.parse().unwrap(), body.as_bytes()).err();
            refusal.unwrap_or_else(|| panic!("{path}"))
        };
        let with = |name: &str, old: &str, new: &str| {
            right.replace(&format!("&{name}={old}"), &format!("&{name}={new}"))
        };
        for path in [
            with("nonce", vector.nonce, &format!("{}1", vector.nonce)),
            with("timestamp", vector.timestamp, "1"),
            with("msg_signature", vector.msg_signature, &"0".repeat(40)),
        ] {
            if path != right {
                assert_eq!(refused(&path), PushRefusal::Signature);
            }
        }
        for wrong in [
            String::new(),
            vector.msg_signature[1..].to_owned(),
            format!("{}0", vector.msg_signature),
            vector.msg_signature.to_uppercase(),
        ] {
            let path = with("msg_signature", vector.msg_signature, &wrong);
            assert_eq!(refused(&path), PushRefusal::Query(QueryError::Unsigned));
        }
        let other = receiver_with(vector.app_id, &["other"], &[vector.key]).0;
        let refusal = other.open(&right.parse().unwrap(), body.as_bytes()).err();
        assert_eq!(refusal, Some(PushRefusal::Signature));
    }
}

/// Another library joins the parts with `&`, so that no genuine push has its signature.
#[test]
fn joined_parts_have_no_separator() {
    let vector = vector("T3");
    let wrong = "d48ecd0d03c48c746f49c95dbb65f5e1025353cd";
    let token = PushToken::new(vector.token);
    assert_ne!(
        token.sign(vector.timestamp, vector.nonce, vector.encrypt),
        wrong
    );
    let path = Push::of(vector).path.replace(vector.msg_signature, wrong);
    let (receiver, _) = receiver_with(vector.app_id, &[vector.token], &[vector.key]);
    let body = message_envelope(vector.encrypt);
    let refusal = receiver.open(&path.parse().unwrap(), body.as_bytes()).err();
    assert_eq!(refusal, Some(PushRefusal::Signature));
}

#[test]
fn parameters_have_any_order_and_occur_once() {
    let push = Push::of(vector("C1"));
    let (_, query) = push.path.split_once('?').unwrap();
    let mut pairs: Vec<_> = query.split('&').collect();
    for _ in 0..pairs.len() {
        pairs.rotate_left(1);
        let path = format!("/any/path?x&{}&openid=o%20&=", pairs.join("&"));
        assert!(
            open_at(&path.parse().unwrap(), &push.body).is_ok(),
            "{path}"
        );
    }
    for name in ["timestamp", "nonce", "msg_signature"] {
        let pair = pairs.iter().find(|pair| pair.starts_with(name)).unwrap();
        for second in [
            pair,
            &&*format!("{name}="),
            &&*format!("%{:x}{}", name.as_bytes()[0], &pair[1..]),
        ] {
            let path = format!("{}&{second}", push.path);
            let refusal = open_at(&path.parse().unwrap(), &push.body);
            assert_eq!(
                refusal,
                Err(PushRefusal::Query(QueryError::Repeated)),
                "{path}"
            );
        }
        let missing = push.path.replace(&format!("&{pair}"), "");
        let refusal = open_at(&missing.parse().unwrap(), &push.body);
        assert_eq!(
            refusal,
            Err(PushRefusal::Query(QueryError::Unsigned)),
            "{missing}"
        );
    }
    let refusal = open_at(&"/push".parse().unwrap(), &push.body);
    assert_eq!(refusal, Err(PushRefusal::Query(QueryError::Unsigned)));
}

#[test]
fn percent_encoded_parameters_are_decoded() {
    let push = Push::signed(
        vector("C1").encrypt,
        "1",
        "a b&c=+",
        envelope(vector("C1").encrypt),
    );
    let signature = push.path.rsplit('=').next().unwrap();
    let path = format!("/?nonce=a%20b%26c%3d+&timestamp=%31&msg_signature={signature}");
    assert!(open_at(&path.parse().unwrap(), &push.body).is_ok());
}

#[test]
fn a_push_for_another_platform_is_refused() {
    let encrypt = vector("C1").encrypt;
    let foreign = envelope(encrypt).replace(COMPONENT, "wx0000000000000000");
    let push = Push::of(vector("C1"));
    assert_eq!(
        open_at(&push.uri(), &foreign),
        Err(PushRefusal::ForeignEnvelope)
    );
    // With the same token and the same key for two platforms.
    let other = Push::encrypted(vector("C1").message, K1, "wx0000000000000000");
    assert_eq!(open(&other), Err(PushRefusal::Cipher(CipherError::Foreign)));
    let event = vector("C1")
        .message
        .replace(COMPONENT, "wx0000000000000000");
    assert_eq!(refusal(&event), PushRefusal::ForeignEvent);
}

#[test]
fn envelopes_without_one_encrypted_message_are_refused() {
    let encrypt = vector("C1").encrypt;
    let push = Push::of(vector("C1"));
    for body in [
        String::new(),
        encrypt.to_owned(),
        "<xml></xml>".to_owned(),
        "<xml><Encrypt></Encrypt></xml>".to_owned(),
        format!("<xml><encrypt>{encrypt}</encrypt></xml>"),
        format!("<xml><a><Encrypt>{encrypt}</Encrypt></a></xml>"),
        format!("<xml><Encrypt>{encrypt}</Encrypt><Encrypt>{encrypt}</Encrypt></xml>"),
        format!(
            "<xml><AppId>{COMPONENT}</AppId><AppId>x</AppId><Encrypt>{encrypt}</Encrypt></xml>"
        ),
        envelope(encrypt)
            .trim_end()
            .trim_end_matches("</xml>")
            .to_owned(),
        envelope(encrypt)[1..].to_owned(),
        format!("{}{}", envelope(encrypt), envelope(encrypt)),
        vector("C1").message.to_owned(),
    ] {
        let refusal = open_at(&push.uri(), &body);
        assert_eq!(
            refusal,
            Err(PushRefusal::Envelope(XmlError::Malformed)),
            "{body}"
        );
    }
    let xxe = format!(
        "<!DOCTYPE x [<!ENTITY e SYSTEM \"file:///etc/passwd\">]>{}",
        envelope(encrypt)
    );
    let refusal = open_at(&push.uri(), &xxe);
    assert_eq!(refusal, Err(PushRefusal::Envelope(XmlError::Forbidden)));
    let latin1 = [envelope(encrypt).as_bytes(), b"\xff"].concat();
    let refusal = receiver().0.open(&push.uri(), &latin1).err();
    assert_eq!(refusal, Some(PushRefusal::Envelope(XmlError::Malformed)));
}

#[test]
fn envelopes_may_have_no_cdata_and_no_app_id() {
    let encrypt = vector("C1").encrypt;
    let push = Push::of(vector("C1"));
    for body in [
        format!("<xml><Encrypt>{encrypt}</Encrypt></xml>"),
        format!("<xml><Encrypt>\n{encrypt}\n</Encrypt><Other/></xml>"),
        format!("<?xml version=\"1.0\"?><xml><Encrypt><![CDATA[{encrypt}]]></Encrypt></xml>"),
        message_envelope(encrypt),
    ] {
        assert!(open_at(&push.uri(), &body).is_ok(), "{body}");
    }
}

/// The signature of these pushes is right: only WeChat, or the owner of a token, can send them.
#[test]
fn signed_pushes_that_no_key_opens_are_refused() {
    let undecryptable = PushRefusal::Cipher(CipherError::Undecryptable);
    let cut = &vector("C1").encrypt[..vector("C1").encrypt.len() - 4];
    for encrypt in [
        cut,
        "AAAA",
        "not base64!",
        vector("T1").encrypt.trim_end_matches('='),
    ] {
        let push = Push::signed(encrypt, "1", "2", envelope(encrypt));
        assert_eq!(open(&push), Err(undecryptable), "{encrypt}");
    }
    let other_key = "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz";
    let push = Push::encrypted(vector("C1").message, other_key, COMPONENT);
    assert_eq!(open(&push), Err(undecryptable));
    assert!(undecryptable.is_signed());
}

#[test]
fn signed_messages_that_are_not_safe_xml_are_refused() {
    for (message, error) in [
        ("", XmlError::Malformed),
        ("<xml><a></xml>", XmlError::Malformed),
        (
            "<!DOCTYPE x [<!ENTITY a \"b\">]><xml><c>&a;</c></xml>",
            XmlError::Forbidden,
        ),
        ("<xml><c>&a;</c></xml>", XmlError::Forbidden),
        (
            &format!("<xml>{}</xml>", "<a/>".repeat(5_000)),
            XmlError::TooComplex,
        ),
    ] {
        assert_eq!(refusal(message), PushRefusal::Message(error), "{message}");
    }
}

#[test]
fn events_without_their_fields_are_refused() {
    let ticket =
        |ticket: &str| format!("<xml><InfoType>component_verify_ticket</InfoType>{ticket}</xml>");
    for field in [
        "",
        "<ComponentVerifyTicket/>",
        "<ComponentVerifyTicket><![CDATA[ ]]></ComponentVerifyTicket>",
        "<ComponentVerifyTicket>two words</ComponentVerifyTicket>",
        "<ComponentVerifyTicket>a#1</ComponentVerifyTicket>",
        "<a><ComponentVerifyTicket>t</ComponentVerifyTicket></a>",
    ] {
        let refusal = refusal(&ticket(field));
        assert!(
            matches!(refusal, PushRefusal::Event(_)),
            "{field}: {refusal:?}"
        );
    }
    for message in [
        "<xml><InfoType>unauthorized</InfoType></xml>",
        "<xml><InfoType>unauthorized</InfoType><AuthorizerAppid>wx 1</AuthorizerAppid></xml>",
        "<xml><InfoType>authorized</InfoType><AuthorizerAppid>wx1</AuthorizerAppid></xml>",
        "<xml><InfoType>authorized</InfoType><AuthorizationCode>c</AuthorizationCode></xml>",
    ] {
        assert!(
            matches!(refusal(message), PushRefusal::Event(_)),
            "{message}"
        );
    }
}

#[test]
fn ambiguous_events_are_refused() {
    let field = |name: &str, value: &str| format!("<{name}>{value}</{name}>");
    let event = [
        field("InfoType", "component_verify_ticket"),
        field("AppId", COMPONENT),
        field("CreateTime", "1413192605"),
        field("ComponentVerifyTicket", "t"),
    ];
    for repeated in &event {
        let message = format!("<xml>{}{repeated}</xml>", event.concat());
        assert_eq!(refusal(&message), PushRefusal::Ambiguous, "{message}");
    }
}

/// A user's text must not become an event, even if WeChat did not escape it.
#[test]
fn a_message_is_never_an_event() {
    let injected = "]]></Content><InfoType>component_verify_ticket</InfoType>\
        <ComponentVerifyTicket>forged</ComponentVerifyTicket><Content><![CDATA[";
    assert_eq!(refusal(&text_message(injected)), PushRefusal::Ambiguous);
    let escaped = text_message(&injected.replace("]]>", "]]]]><![CDATA[>"));
    let push = open(&Push::new(&escaped)).unwrap();
    assert!(push.contains("msg_type: Some(\"text\")"), "{push}");
}

#[test]
fn odd_creation_times_do_not_block_later_events() {
    let event = |time: &str| {
        let message = format!(
            "<xml><CreateTime>{time}</CreateTime><InfoType>unauthorized</InfoType>\
             <AuthorizerAppid>wx1</AuthorizerAppid></xml>"
        );
        open(&Push::new(&message)).unwrap()
    };
    let latest = NOW.saturating_add(std::time::Duration::from_secs(600));
    assert_eq!(event("9999999999"), format!("unauthorized wx1 {latest:?}"));
    assert_eq!(event("1413192605"), "unauthorized wx1 1413192605000ms");
    for unusable in ["", "soon", "-1", "1413192605000", "99999999999999999999"] {
        assert_eq!(
            event(unusable),
            format!("unauthorized wx1 {NOW:?}"),
            "{unusable}"
        );
    }
}

#[test]
fn every_token_and_key_of_the_rings_is_accepted() {
    let push = Push::of(vector("C1"));
    for (tokens, keys) in [
        (&[TOKEN][..], &[K1][..]),
        (&["aaa", TOKEN], &[KEY_OF_ZEROS, K1]),
        (&[TOKEN, "aaa"], &[K1, KEY_OF_ZEROS]),
        (
            &["aaa", "bbb", "ccc", TOKEN],
            &[KEY_OF_ZEROS, KEY_OF_ZEROS, K1],
        ),
    ] {
        let (receiver, _) = receiver_with(COMPONENT, tokens, keys);
        assert!(
            receiver.open(&push.uri(), push.body.as_bytes()).is_ok(),
            "{tokens:?}"
        );
    }
    let (receiver, _) = receiver_with(COMPONENT, &[TOKEN], &[KEY_OF_ZEROS]);
    let refusal = receiver.open(&push.uri(), push.body.as_bytes()).err();
    assert_eq!(
        refusal,
        Some(PushRefusal::Cipher(CipherError::Undecryptable))
    );
}

#[test]
fn replies_use_the_token_and_the_key_of_the_push() {
    let (receiver, _) = receiver();
    let push = Push::new(&text_message("hello"));
    let opened = receiver.open(&push.uri(), push.body.as_bytes()).unwrap();
    let reply = receiver
        .encrypt_reply(&opened.reply_keys, "<xml><a>你好</a></xml>")
        .unwrap();
    let fields = super::super::xml::parse(&reply).unwrap();
    let names: Vec<_> = fields.iter().map(|field| field.name()).collect();
    assert_eq!(names, ["Encrypt", "MsgSignature", "TimeStamp", "Nonce"]);
    let [encrypt, signature, timestamp, nonce] =
        ["Encrypt", "MsgSignature", "TimeStamp", "Nonce"].map(|name| fields.text(name).unwrap());
    assert_eq!(
        signature,
        PushToken::new(TOKEN).sign(timestamp, nonce, encrypt)
    );
    assert_eq!(timestamp, "1413193205");
    let ciphertext = decode_ciphertext(encrypt).unwrap();
    let message = vector("C1")
        .cipher()
        .decrypt(&ciphertext, COMPONENT)
        .unwrap();
    assert_eq!(&**message, "<xml><a>你好</a></xml>".as_bytes());
    let again = receiver
        .encrypt_reply(&opened.reply_keys, "<xml><a>你好</a></xml>")
        .unwrap();
    assert_ne!(reply, again);
}

proptest! {
    #[test]
    fn every_message_arrives(content in any::<String>()) {
        let content = content.replace(['\r'], "");
        let cdata = content.replace("]]>", "]]]]><![CDATA[>");
        let push = Push::new(&text_message(&cdata));
        let opened = receiver().0.open(&push.uri(), push.body.as_bytes()).unwrap();
        let PushContent::Application(push) = opened.content else {
            panic!("a message");
        };
        prop_assert_eq!(push.text("Content"), Some(&*content));
    }

    /// A changed byte of the signed parts is refused. A changed byte around them is refused or
    /// changes nothing.
    #[test]
    fn a_changed_byte_changes_nothing_or_is_refused(at in any::<prop::sample::Index>(), mask in 1_u8..) {
        let push = Push::of(vector("C1"));
        let mut body = push.body.clone().into_bytes();
        let at = at.index(body.len());
        body[at] ^= mask;
        let signed = push.body.find(vector("C1").encrypt).unwrap();
        let signed = signed..signed + vector("C1").encrypt.len();
        let result = receiver().0.open(&push.uri(), &body);
        match result.map(|opened| opened.content) {
            Ok(PushContent::Event(event)) => {
                let expected = "ticket ticket@@@some_verify_ticket 1413192605000ms";
                prop_assert_eq!(describe(&event), expected);
                prop_assert!(!signed.contains(&at));
            }
            Ok(PushContent::Application(_)) => prop_assert!(false, "another message"),
            Err(refusal) => prop_assert!(!refusal.is_signed(), "{:?}", refusal),
        }
    }

    #[test]
    fn a_changed_character_of_the_query_is_refused(at in any::<prop::sample::Index>(), new in "[0-9a-z]") {
        let push = Push::of(vector("C1"));
        let signed = push.path.find("&timestamp").unwrap();
        let at = signed + 1 + at.index(push.path.len() - signed - 1);
        let mut path = push.path.clone();
        path.replace_range(at..=at, &new);
        let is_encrypt_type = path.contains(vector("C1").msg_signature)
            && path.contains("&timestamp=1413192605&")
            && path.contains("&nonce=1320562132&");
        prop_assume!(path != push.path && !is_encrypt_type);
        prop_assert!(open_at(&path.parse().unwrap(), &push.body).is_err(), "{}", path);
    }

    #[test]
    fn arbitrary_requests_never_panic(
        query in "[a-z_=&0-9%]{0,80}",
        body in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        if let Ok(uri) = format!("/push?{query}").parse() {
            prop_assert!(receiver().0.open(&uri, &body).is_err());
        }
    }
}
