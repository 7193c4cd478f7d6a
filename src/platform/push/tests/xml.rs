//! Tests of the reader of XML.

use proptest::prelude::*;

use super::super::fields::PushFields;
use super::super::xml::{XmlError, parse};

fn error(xml: &str) -> XmlError {
    parse(xml)
        .map(|fields| format!("{fields:?}"))
        .expect_err(xml)
}

/// Returns the text of the field `a` in `<xml>…</xml>`.
fn text(content: &str) -> String {
    let fields = parse(&format!("<xml><a>{content}</a></xml>")).expect(content);
    fields.text("a").unwrap().to_owned()
}

fn names(fields: &PushFields) -> Vec<&str> {
    fields.iter().map(|field| field.name()).collect()
}

#[test]
fn texts_and_cdata_are_equal() {
    let plain = "<xml><AppId>wx1</AppId><CreateTime>1</CreateTime></xml>";
    let cdata = "<xml>\n<AppId><![CDATA[wx1]]></AppId>\r\n\t<CreateTime> <![CDATA[1]]>\n</CreateTime >\n</xml>\n";
    for xml in [plain, cdata] {
        let fields = parse(xml).unwrap();
        assert_eq!(names(&fields), ["AppId", "CreateTime"]);
        assert_eq!(fields.text("AppId"), Some("wx1"));
        assert_eq!(fields.text("CreateTime"), Some("1"));
        assert_eq!(fields.text("appid"), None);
    }
}

#[test]
fn white_space_of_the_layout_is_no_text() {
    assert_eq!(text("  wx1 \n"), "wx1");
    assert_eq!(text(" <![CDATA[suite_ticket]]>\n"), "suite_ticket");
    assert_eq!(text("<![CDATA[  a user's text ]]>"), "  a user's text ");
    assert_eq!(text(" a  b "), "a  b");
    assert_eq!(text(" a <![CDATA[ b ]]> c "), "a  b  c");
    assert_eq!(text(" \n "), "");
    assert_eq!(text(""), "");
    assert_eq!(text("<![CDATA[]]>"), "");
}

#[test]
fn references_to_characters_and_the_five_entities_are_resolved() {
    assert_eq!(text("a &lt;b&gt; &amp;&quot;&apos; c"), "a <b> &\"' c");
    assert_eq!(text("&#x4f60;&#22909;"), "你好");
    assert_eq!(text(" &#32;a&#32; "), " a ");
    // A CDATA section has no references.
    assert_eq!(text("<![CDATA[&lt;&#65;&xxe;]]>"), "&lt;&#65;&xxe;");
    for wrong in [
        "&#0;",
        "&#xd800;",
        "&#99999999999;",
        "&#;",
        "&#x;",
        "&",
        "&lt",
        "a & b",
    ] {
        error(&format!("<xml><a>{wrong}</a></xml>"));
    }
}

#[test]
fn cdata_sections_end_at_their_first_end() {
    assert_eq!(text("<![CDATA[<a>]]>"), "<a>");
    assert_eq!(text("<![CDATA[]]]]><![CDATA[>]]>"), "]]>");
    assert_eq!(text("<![CDATA[a]]><![CDATA[b]]>c<![CDATA[d]]>"), "abcd");
    assert_eq!(text("<![CDATA[<![CDATA[]]>"), "<![CDATA[");
    assert_eq!(error("<xml><a><![CDATA[x</a></xml>"), XmlError::Malformed);
    assert_eq!(error("<xml><a><![CDATA[x]]</a></xml>"), XmlError::Malformed);
    assert_eq!(error("<![CDATA[x]]><xml></xml>"), XmlError::Malformed);
    error("<xml><a><![cdata[x]]></a></xml>");
}

#[test]
fn nested_elements_are_fields_of_a_field() {
    let xml = "<xml><InfoType>notify_third_fasteregister</InfoType>\
        <info>\n<name><![CDATA[tencent]]></name><code>123</code></info>\
        <list><item><n>1</n></item><item><n>2</n></item></list><empty/></xml>";
    let fields = parse(xml).unwrap();
    let info = fields.field("info").unwrap();
    assert_eq!(
        (info.text(), info.fields().text("name")),
        ("", Some("tencent"))
    );
    let list = fields.field("list").unwrap().fields();
    let numbers: Vec<_> = list
        .iter()
        .map(|item| item.fields().text("n").unwrap())
        .collect();
    assert_eq!(numbers, ["1", "2"]);
    assert_eq!(fields.text("empty"), Some(""));
    // A nested field is no field of the push.
    assert_eq!(fields.text("name"), None);
    let shown = format!("{fields:?}");
    assert!(
        shown.contains("name") && !shown.contains("tencent"),
        "{shown}"
    );
}

#[test]
fn a_repeated_field_is_noticed() {
    let fields = parse("<xml><a>1</a><b>2</b><a>3</a><c> </c></xml>").unwrap();
    assert!(fields.only("a").is_err());
    assert_eq!(fields.only("b").unwrap(), Some("2"));
    assert_eq!(fields.only("c").unwrap(), None);
    assert_eq!(fields.only("d").unwrap(), None);
    assert_eq!(fields.text("a"), Some("1"));
}

#[test]
fn document_types_and_entities_are_refused() {
    for xml in [
        "<!DOCTYPE xml><xml></xml>",
        "<!doctype xml><xml></xml>",
        "<xml><!DOCTYPE xml></xml>",
        "<xml></xml><!DOCTYPE xml>",
        r#"<!DOCTYPE x [<!ENTITY xxe SYSTEM "file:///etc/passwd">]><xml><a>&xxe;</a></xml>"#,
        r#"<?xml version="1.0"?><!DOCTYPE x SYSTEM "http://127.0.0.1/x.dtd"><xml></xml>"#,
        "<xml><a>&xxe;</a></xml>",
        "<xml><a>&nbsp;</a></xml>",
        "<xml>&LT;</xml>",
    ] {
        let error = error(xml);
        assert!(
            matches!(error, XmlError::Forbidden | XmlError::Malformed),
            "{xml}"
        );
    }
}

#[test]
fn a_billion_laughs_are_refused_at_once() {
    let mut xml = "<!DOCTYPE lolz [<!ENTITY lol0 \"lol\">".to_owned();
    for level in 1..10 {
        let before = format!("&lol{};", level - 1).repeat(10);
        xml.push_str(&format!("<!ENTITY lol{level} \"{before}\">"));
    }
    xml.push_str("]><xml><a>&lol9;</a></xml>");
    assert_eq!(error(&xml), XmlError::Forbidden);
}

#[test]
fn processing_instructions_and_foreign_encodings_are_refused() {
    for xml in [
        "<?php echo 1 ?><xml></xml>",
        "<xml><?pi?></xml>",
        r#"<xml></xml><?xml version="1.0"?>"#,
        r#"<?xml version="1.0" encoding="GBK"?><xml></xml>"#,
        r#"<?xml version="1.0" encoding="utf-16"?><xml></xml>"#,
    ] {
        assert_eq!(error(xml), XmlError::Forbidden, "{xml}");
    }
    for xml in [
        r#"<?xml version="1.0"?><xml><a>1</a></xml>"#,
        r#"<?xml version="1.0" encoding="UTF-8"?><xml><a>1</a></xml>"#,
        "<!-- a --><xml><a>1<!-- b --></a></xml><!-- c -->",
        "\u{feff}<xml><a>1</a></xml>",
        "<xml version=\"1\"><a b='c'>1</a></xml>",
    ] {
        assert_eq!(parse(xml).expect(xml).text("a"), Some("1"), "{xml}");
    }
}

#[test]
fn unclosed_and_other_input_is_refused() {
    for xml in [
        "",
        " ",
        "success",
        "{}",
        "<xml>",
        "<xml><a>1</a>",
        "<xml><a>1</a><xml>",
        "<xml><a>1</xml>",
        "<xml><a>1</xml></a>",
        "<xml><a>1</A></xml>",
        "<xml></xml></xml>",
        "<xml></xml><xml></xml>",
        "<xml></xml>x",
        "x<xml></xml>",
        "<a></a>",
        "<XML></XML>",
        "</xml>",
        "<xml><></></xml>",
        "<xml>< a></ a></xml>",
        "<xml><1></1></xml>",
        "<xml><a<b></a<b></xml>",
        "<xml><a",
        "<xml><!-- </xml>",
        "<xml></xml",
        "&lt;xml&gt;&lt;/xml&gt;",
    ] {
        assert_eq!(error(xml), XmlError::Malformed, "{xml}");
    }
}

#[test]
fn depth_and_number_of_elements_are_bounded() {
    let nested = |depth: usize| {
        let (open, close) = ("<a>".repeat(depth - 1), "</a>".repeat(depth - 1));
        format!("<xml>{open}{close}</xml>")
    };
    assert!(parse(&nested(16)).is_ok());
    assert_eq!(error(&nested(17)), XmlError::TooComplex);
    assert_eq!(error(&nested(9_000)), XmlError::TooComplex);
    let many = |number: usize| format!("<xml>{}</xml>", "<a/>".repeat(number - 1));
    assert!(parse(&many(1_024)).is_ok());
    assert_eq!(error(&many(1_025)), XmlError::TooComplex);
}

proptest! {
    #[test]
    fn arbitrary_texts_never_panic(xml in ".{0,200}") {
        let _ = parse(&xml);
    }

    #[test]
    fn arbitrary_markup_never_panics(
        parts in proptest::collection::vec(
            prop_oneof![
                Just("<xml>"), Just("</xml>"), Just("<a>"), Just("</a>"), Just("<a/>"),
                Just("<![CDATA["), Just("]]>"), Just("<!--"), Just("-->"), Just("&amp;"),
                Just("&#65;"), Just("&#"), Just(";"), Just("<!DOCTYPE x ["), Just("]>"),
                Just("<?xml"), Just("?>"), Just(" encoding='x'"), Just("text"), Just(" "),
                Just("<"), Just(">"), Just("'"), Just("\""), Just("\u{feff}"), Just("\r\n"),
            ],
            0..40,
        ),
    ) {
        let _ = parse(&parts.concat());
    }

    #[test]
    fn every_text_reads_back(
        value in any::<String>().prop_map(|text| text.replace('\r', "")),
    ) {
        let cdata = value.replace("]]>", "]]]]><![CDATA[>");
        prop_assert_eq!(text(&format!("\n <![CDATA[{cdata}]]>\t")), &*value);
        let escaped = quick_xml::escape::escape(&*value);
        prop_assert_eq!(text(&escaped), value.trim_ascii());
    }
}
